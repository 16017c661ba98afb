//! Signal frames as Linux lays them out on x86-64 (arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h).
//!
//! From low to high addresses: return address (the restorer), `ucontext`, `siginfo`, and 64-byte aligned the vector state, which
//! `ucontext` points to. Offsets below are from the begin of the frame.

use hal_api::{SignalFrame, UserAddr};

use crate::fpu::{AREA, HEADER, Vector};
use crate::percpu::{USER_CS, USER_SS};
use crate::user::{IF, RFLAGS_USER, User};

const FLAGS: usize = 8;
const STACK: usize = 24;
const CONTEXT: usize = 48;
const FPSTATE: usize = CONTEXT + 184;
const MASK: usize = 304;
const INFO: usize = 312;
const FRAME: usize = 440;
/// In the 48 bytes that FXSAVE leaves to software (`struct _fpx_sw_bytes`).
const SOFTWARE: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// `uc_flags`: there is XSAVE state; `ss` in the context means something; restore it as it is.
const UC_FLAGS: u64 = 1 | 2 | 4;
/// What a program may keep below its stack pointer (System V ABI).
const RED_ZONE: u64 = 128;

/// Most bytes from the begin of a frame to the end of its vector state.
pub const FRAME_MAX: usize = FRAME + 8 + 64 + AREA + 4;

/// RF, DF and TF, which a handler starts without.
const CLEARED: u64 = 1 << 16 | 1 << 10 | 1 << 8;

fn put(buf: &mut [u8], at: usize, value: u64) {
    if let Some(b) = buf.get_mut(at..at + 8) {
        b.copy_from_slice(&value.to_le_bytes());
    }
}

fn put32(buf: &mut [u8], at: usize, value: u32) {
    if let Some(b) = buf.get_mut(at..at + 4) {
        b.copy_from_slice(&value.to_le_bytes());
    }
}

fn get(buf: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(buf.get(at..at + 8)?.try_into().ok()?))
}

/// Writes the frame into `buf` and makes the registers enter the handler.
pub fn push(user: &mut User, f: &SignalFrame<'_>, buf: &mut [u8]) -> Option<(UserAddr, usize)> {
    user.vector.save();
    user.settle();
    let (state, components) = Vector::format();
    let tail = if components != 0 { 4 } else { 0 };
    let top = match f.stack_top {
        Some(top) => top.0,
        None => user.regs.rsp.checked_sub(RED_ZONE)?,
    };
    let fpstate = top.checked_sub((state + tail) as u64)? & !63;
    // After the handler's `call` would have pushed its return address: 8 modulo 16.
    let at = (fpstate.checked_sub(FRAME as u64)? & !15).checked_sub(8)?;
    let len = (fpstate - at) as usize + state + tail;
    let buf = buf.get_mut(..len)?;
    buf.fill(0);
    put(buf, 0, f.restorer.0);
    put(buf, FLAGS, if components != 0 { UC_FLAGS } else { UC_FLAGS & !1 });
    put(buf, STACK, f.altstack.0);
    put32(buf, STACK + 8, f.altstack.2);
    put(buf, STACK + 16, f.altstack.1);
    let r = &user.regs;
    let selectors = u64::from(USER_CS) | u64::from(USER_SS) << 48;
    let (trap, code, address) = f.fault.map_or((0, 0, 0), |x| (x.trap, x.code, x.addr.0));
    let words = [
        r.r8,
        r.r9,
        r.r10,
        r.r11,
        r.r12,
        r.r13,
        r.r14,
        r.r15,
        r.rdi,
        r.rsi,
        r.rbp,
        r.rbx,
        r.rdx,
        r.rax,
        r.rcx,
        r.rsp,
        r.rip,
        r.rflags,
        selectors,
        u64::from(code),
        u64::from(trap),
        f.old_mask,
        address,
        fpstate,
    ];
    for (i, w) in words.iter().enumerate() {
        put(buf, CONTEXT + i * 8, *w);
    }
    debug_assert_eq!(CONTEXT + 23 * 8, FPSTATE);
    put(buf, MASK, f.old_mask);
    buf.get_mut(INFO..INFO + 128)?.copy_from_slice(f.siginfo);
    let v = (fpstate - at) as usize;
    buf.get_mut(v..v + state)?.copy_from_slice(&user.vector.area()[..state]);
    if components != 0 {
        put32(buf, v + SOFTWARE, MAGIC1);
        put32(buf, v + SOFTWARE + 4, (state + tail) as u32);
        put(buf, v + SOFTWARE + 8, components);
        put32(buf, v + SOFTWARE + 16, state as u32);
        put32(buf, v + state, MAGIC2);
    }
    let r = &mut user.regs;
    r.rdi = u64::from(f.signo);
    r.rsi = at + INFO as u64;
    r.rdx = at + FLAGS as u64;
    r.rax = 0;
    r.rip = f.handler.0;
    r.rsp = at;
    r.rflags &= !CLEARED;
    Some((UserAddr(at), len))
}

/// The restorer has popped the return address: the frame begins 8 bytes below.
pub fn frame_at(user: &User) -> (UserAddr, usize) {
    (UserAddr(user.regs.rsp.wrapping_sub(8)), FRAME_MAX)
}

/// Takes the registers back; the signal mask.
pub fn pop(user: &mut User, frame: &[u8]) -> Option<u64> {
    let at = frame_at(user).0.0;
    let fpstate = get(frame, FPSTATE)?;
    if fpstate == 0 {
        if !user.vector.set_area(None) {
            return None;
        }
    } else {
        let v = usize::try_from(fpstate.checked_sub(at)?).ok()?;
        let (state, components) = Vector::format();
        let image = frame.get(v..v.checked_add(512)?)?;
        let extended = components != 0
            && get(image, SOFTWARE)? as u32 == MAGIC1
            && get(image, SOFTWARE + 16)? as u32 as usize == state
            && frame.get(v + state..v + state + 4)? == MAGIC2.to_le_bytes();
        let image = if extended { frame.get(v..v + state)? } else { image };
        if !user.vector.set_area(Some(image)) {
            return None;
        }
    }
    let mask = get(frame, MASK)?;
    let mut w = [0; 18];
    for (i, w) in w.iter_mut().enumerate() {
        *w = get(frame, CONTEXT + i * 8)?;
    }
    let r = &mut user.regs;
    [
        r.r8,
        r.r9,
        r.r10,
        r.r11,
        r.r12,
        r.r13,
        r.r14,
        r.r15,
        r.rdi,
        r.rsi,
        r.rbp,
        r.rbx,
        r.rdx,
        r.rax,
        r.rcx,
        r.rsp,
        r.rip,
        _,
    ] = w;
    r.rflags = (r.rflags & !RFLAGS_USER) | (w[17] & RFLAGS_USER) | IF;
    r.cs = u64::from(USER_CS);
    r.ss = u64::from(USER_SS);
    // All registers come from the frame, rcx and r11 too: not by `sysret`.
    r.vector = 0;
    const { assert!(HEADER < AREA) };
    Some(mask)
}
