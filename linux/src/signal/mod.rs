//! Signals.

mod send;

use alloc::sync::Arc;

use base::{Errno, Error, Result};
use linux_abi::structs::{SigAction, SigAltStack};
use task::{
    Cx, Interrupted, SigInfo, SigSet, Signal, Timeout,
    cx::Restart,
    signal::{Action, action},
    task::AltStack,
};

pub use send::{kill, rt_sigqueueinfo, rt_tgsigqueueinfo, tgkill, tkill};
pub(crate) use send::{optional, sender};

use crate::time::timespec;

/// Bytes of a kernel `sigset_t`.
const SET_SIZE: u64 = 8;

fn check_size(size: u64) -> Result<()> {
    if size == SET_SIZE { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

/// Reads a set of signals from the program.
pub fn read_set(cx: &Cx, at: u64, size: u64) -> Result<SigSet> {
    check_size(size)?;
    cx.user(|u| u.read_struct::<u64>(at)).map(SigSet)
}

/// The signal with this number.
fn signal(nr: u64) -> Result<Signal> {
    Signal::new(u64::from(nr as u32)).ok_or(Error::new(Errno::EINVAL, "no such signal"))
}

/// rt_sigaction(2).
pub fn rt_sigaction(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [nr, new_at, old_at, size, ..] = args;
    check_size(size)?;
    let signal = signal(nr)?;
    let isa = cx.task().isa;
    let new = if new_at == 0 {
        None
    } else {
        let mut bytes = [0; 32];
        let len = SigAction::size(isa);
        cx.user(|u| u.read(new_at, bytes.get_mut(..len).unwrap_or(&mut [])))?;
        let raw = SigAction::decode(isa, &bytes).ok_or(Error::from(Errno::EINVAL))?;
        if SigSet::UNSTOPPABLE.has(signal) {
            return Err(Errno::EINVAL.into());
        }
        let restorer = if raw.flags & action::flags::SA_RESTORER != 0 { raw.restorer } else { 0 };
        Some(Action { handler: raw.handler, flags: raw.flags, restorer, mask: SigSet(raw.mask) })
    };
    let (old, drops) = cx.process().actions(|actions| {
        let old = *actions.get(signal);
        if let Some(new) = new {
            actions.set(signal, new);
        }
        (old, new.is_some() && actions.ignored().has(signal))
    });
    if drops {
        cx.process().discard_signals(SigSet::EMPTY.with(signal));
    }
    if old_at != 0 {
        let raw = SigAction { handler: old.handler, flags: old.flags, restorer: old.restorer, mask: old.mask.0 };
        let bytes = raw.encode(isa);
        cx.user(|u| u.write(old_at, &bytes))?;
    }
    Ok(0)
}

/// rt_sigprocmask(2).
pub fn rt_sigprocmask(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const BLOCK: u64 = 0;
    const UNBLOCK: u64 = 1;
    const SETMASK: u64 = 2;
    let [how, new_at, old_at, size, ..] = args;
    check_size(size)?;
    let old = cx.task().mask();
    if new_at != 0 {
        let set = read_set(cx, new_at, size)?;
        let mask = match how {
            BLOCK => old.or(set),
            UNBLOCK => old.minus(set),
            SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        cx.task().set_mask(mask);
    }
    if old_at != 0 {
        cx.user(|u| u.write(old_at, &old.0.to_le_bytes()))?;
    }
    Ok(0)
}

/// rt_sigreturn(2).
pub fn rt_sigreturn(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    cx.signal_return();
    Ok(cx.regs().result() as u64)
}

/// rt_sigpending(2).
pub fn rt_sigpending(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    if args[1] > SET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let set = cx.task().pending().and(cx.task().mask());
    let bytes = set.0.to_le_bytes();
    cx.user(|u| u.write(args[0], bytes.get(..args[1] as usize).unwrap_or(&bytes)))?;
    Ok(0)
}

/// rt_sigsuspend(2).
pub fn rt_sigsuspend(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let set = read_set(cx, args[0], args[1])?;
    cx.task().set_mask_for_call(set);
    let e = cx.wait_for_handler();
    Err(e)
}

/// pause(2).
pub fn pause(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    Err(cx.wait_for_handler())
}

/// rt_sigtimedwait(2).
pub fn rt_sigtimedwait(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [set_at, info_at, timeout_at, size, ..] = args;
    let set = read_set(cx, set_at, size)?.minus(SigSet::UNSTOPPABLE);
    let timeout = match timeout_at {
        0 => Timeout::Never,
        at => Timeout::after(timespec(cx, at)?),
    };
    let task = Arc::clone(cx.task());
    task.wait_for_signals(set);
    let waited = cx.wait_until(|| task.take_signal(set), timeout, Interrupted::Never);
    task.wait_for_signals(SigSet::EMPTY);
    let info = match waited {
        Ok(info) => info,
        Err(e) if e == Errno::ETIMEDOUT => return Err(Errno::EAGAIN.into()),
        Err(e) => {
            cx.set_restart(Restart::No);
            return Err(e);
        }
    };
    write_info(cx, info_at, &info)?;
    Ok(info.signal.number().into())
}

fn write_info(cx: &Cx, at: u64, info: &SigInfo) -> Result<()> {
    if at == 0 { Ok(()) } else { cx.user(|u| u.write(at, &info.to_bytes())) }
}

/// sigaltstack(2).
pub fn sigaltstack(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [new_at, old_at, ..] = args;
    let sp = cx.regs().sp().0;
    let old = cx.task().altstack();
    let on = old.holds(sp) && old.flags & AltStack::AUTODISARM == 0;
    if new_at != 0 {
        let new: SigAltStack = cx.user(|u| u.read_struct(new_at))?;
        if on {
            return Err(Error::new(Errno::EPERM, "the alternate stack is in use"));
        }
        let flags = new.flags as u32;
        let stack = match flags & !AltStack::AUTODISARM {
            AltStack::DISABLE => AltStack::NONE,
            0 | AltStack::ONSTACK => {
                if new.size < hal::usermode::SIGNAL_FRAME_MAX.min(2048) as u64 {
                    return Err(Error::new(Errno::ENOMEM, "the alternate stack is too small"));
                }
                AltStack { base: new.sp, size: new.size, flags: flags & AltStack::AUTODISARM }
            }
            _ => return Err(Errno::EINVAL.into()),
        };
        cx.task().set_altstack(stack);
    }
    if old_at != 0 {
        let flags = match (old.size, on) {
            (0, _) => AltStack::DISABLE,
            (_, true) => AltStack::ONSTACK | old.flags,
            (_, false) => old.flags,
        };
        let raw = SigAltStack { sp: old.base, flags: flags as i32, pad: 0, size: old.size };
        cx.user(|u| u.write_struct(old_at, &raw))?;
    }
    Ok(0)
}

/// restart_syscall(2): goes on with what a signal without a handler interrupted.
pub fn restart_syscall(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    let Some(block) = cx.resume() else { return Err(Errno::EINTR.into()) };
    let result = crate::entry::again(cx, block.nr, block.args);
    cx.resumed();
    result
}
