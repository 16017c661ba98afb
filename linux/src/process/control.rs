//! prctl(2) and its like.

use core::sync::atomic::Ordering::Relaxed;

use base::{Errno, Error, Result};
use hal::addr::user_top;
use linux_abi::Isa;
use task::{Cx, creds::cap};

mod pr {
    pub const SET_PDEATHSIG: u64 = 1;
    pub const GET_PDEATHSIG: u64 = 2;
    pub const GET_DUMPABLE: u64 = 3;
    pub const SET_DUMPABLE: u64 = 4;
    pub const GET_KEEPCAPS: u64 = 7;
    pub const SET_KEEPCAPS: u64 = 8;
    pub const SET_NAME: u64 = 15;
    pub const GET_NAME: u64 = 16;
    pub const GET_SECCOMP: u64 = 21;
    pub const CAPBSET_READ: u64 = 23;
    pub const CAPBSET_DROP: u64 = 24;
    pub const GET_SECUREBITS: u64 = 27;
    pub const SET_SECUREBITS: u64 = 28;
    pub const SET_TIMERSLACK: u64 = 29;
    pub const GET_TIMERSLACK: u64 = 30;
    pub const SET_CHILD_SUBREAPER: u64 = 36;
    pub const GET_CHILD_SUBREAPER: u64 = 37;
    pub const SET_NO_NEW_PRIVS: u64 = 38;
    pub const GET_NO_NEW_PRIVS: u64 = 39;
    pub const GET_TID_ADDRESS: u64 = 40;
    pub const CAP_AMBIENT: u64 = 47;
}

const BAD: Error = Error::new(Errno::EINVAL, "prctl");

/// prctl(2).
pub fn prctl(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [option, a, b, c, d, _] = args;
    let process = cx.process();
    let write_int = |at: u64, value: u32| cx.user(|u| u.write(at, &value.to_le_bytes())).map(|()| 0);
    match option {
        pr::SET_PDEATHSIG => {
            if a > 64 {
                return Err(BAD);
            }
            process.parent_death_signal.store(a as u8, Relaxed);
            Ok(0)
        }
        pr::GET_PDEATHSIG => write_int(a, process.parent_death_signal.load(Relaxed).into()),
        pr::GET_DUMPABLE => Ok(process.dumpable.load(Relaxed).into()),
        pr::SET_DUMPABLE if a <= 1 => {
            process.dumpable.store(a as u8, Relaxed);
            Ok(0)
        }
        pr::GET_KEEPCAPS => Ok(process.creds().keep_caps.into()),
        pr::SET_KEEPCAPS if a <= 1 => process.change_creds(|c| {
            c.keep_caps = a == 1;
            Ok(0)
        }),
        pr::SET_NAME => {
            let mut name = [0; 16];
            let got = cx.user(|u| u.string(a, 16))?;
            match got {
                Some(short) => cx.task().set_name(&short),
                None => {
                    cx.user(|u| u.read(a, &mut name))?;
                    cx.task().set_name(&name);
                }
            }
            Ok(0)
        }
        pr::GET_NAME => cx.user(|u| u.write(a, &cx.task().name())).map(|()| 0),
        pr::GET_SECCOMP => Ok(0),
        pr::CAPBSET_READ if a <= u64::from(cap::LAST) => Ok(process.creds().bounding >> a & 1),
        pr::CAPBSET_DROP if a <= u64::from(cap::LAST) => process.change_creds(|creds| {
            if !creds.can(cap::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            creds.bounding &= !(1 << a);
            Ok(0)
        }),
        pr::GET_SECUREBITS => Ok(process.creds().secure_bits.into()),
        pr::SET_SECUREBITS => process.change_creds(|creds| {
            if !creds.can(cap::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            // None of the bits is obeyed, so none may be set.
            if a != u64::from(creds.secure_bits) { Err(BAD) } else { Ok(0) }
        }),
        pr::SET_TIMERSLACK => {
            cx.task().timer_slack.store(if a == 0 { 50_000 } else { a }, Relaxed);
            Ok(0)
        }
        pr::GET_TIMERSLACK => Ok(cx.task().timer_slack.load(Relaxed)),
        pr::SET_CHILD_SUBREAPER => {
            process.subreaper.store(a != 0, Relaxed);
            Ok(0)
        }
        pr::GET_CHILD_SUBREAPER => write_int(a, process.subreaper.load(Relaxed).into()),
        pr::SET_NO_NEW_PRIVS if a == 1 && b == 0 && c == 0 && d == 0 => process.change_creds(|creds| {
            creds.no_new_privs = true;
            Ok(0)
        }),
        pr::GET_NO_NEW_PRIVS if a == 0 && b == 0 && c == 0 && d == 0 => Ok(process.creds().no_new_privs.into()),
        pr::GET_TID_ADDRESS => cx.user(|u| u.write(a, &cx.task().clear_tid.load(Relaxed).to_le_bytes())).map(|()| 0),
        pr::CAP_AMBIENT => ambient(cx, a, b),
        _ => Err(BAD),
    }
}

fn ambient(cx: &Cx, what: u64, which: u64) -> Result<u64> {
    const IS_SET: u64 = 1;
    const RAISE: u64 = 2;
    const LOWER: u64 = 3;
    const CLEAR_ALL: u64 = 4;
    if what != CLEAR_ALL && which > u64::from(cap::LAST) {
        return Err(BAD);
    }
    cx.process().change_creds(|c| {
        match what {
            IS_SET => return Ok(c.ambient >> which & 1),
            RAISE => {
                if c.permitted & c.inheritable & 1 << which == 0 {
                    return Err(Errno::EPERM.into());
                }
                c.ambient |= 1 << which;
            }
            LOWER => c.ambient &= !(1 << which),
            CLEAR_ALL => c.ambient = 0,
            _ => return Err(BAD),
        }
        Ok(0)
    })
}

/// arch_prctl(2); x86-64 only.
pub fn arch_prctl(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const SET_GS: u64 = 0x1001;
    const SET_FS: u64 = 0x1002;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    if cx.task().isa != Isa::X86_64 {
        return Err(Errno::ENOSYS.into());
    }
    let [code, value, ..] = args;
    match code {
        SET_FS | SET_GS if value >= user_top() => Err(Errno::EPERM.into()),
        SET_FS => {
            cx.regs().set_tls(value);
            Ok(0)
        }
        SET_GS => {
            if cx.regs().set_tls2(value) {
                Ok(0)
            } else {
                Err(Errno::EINVAL.into())
            }
        }
        GET_FS | GET_GS => {
            let base = if code == GET_FS { cx.regs().tls() } else { cx.regs().tls2() };
            cx.user(|u| u.write(value, &base.to_le_bytes())).map(|()| 0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// personality(2): the domain of Linux. Of its flags only `ADDR_NO_RANDOMIZE` is known; others would have no effect and are refused.
pub fn personality(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const ASK: u32 = 0xffff_ffff;
    let new = args[0] as u32;
    let personality = &cx.process().personality;
    if new == ASK {
        return Ok(personality.load(Relaxed).into());
    }
    const ADDR_NO_RANDOMIZE: u32 = 0x4_0000;
    if new & !ADDR_NO_RANDOMIZE != 0 {
        return Err(Error::new(Errno::EINVAL, "only Linux programs run here"));
    }
    Ok(personality.swap(new, Relaxed).into())
}
