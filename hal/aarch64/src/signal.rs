//! Signal frames as Linux lays them out on arm64 (arch/arm64/kernel/signal.c, uapi/asm/sigcontext.h).
//!
//! From low to high addresses: `siginfo`, `ucontext` with the registers, 4 KiB for records of other state (vector registers, the syndrome of a
//! fault), and on top of it a frame record that leads back to the interrupted code. Offsets below are from the begin of the frame.

use hal_api::{SignalFrame, UserAddr};

use crate::fpu::{AREA, State};
use crate::user::{PSTATE_USER, User};

const INFO: usize = 0;
const UCONTEXT: usize = 128;
const STACK: usize = UCONTEXT + 16;
const MASK: usize = UCONTEXT + 40;
const CONTEXT: usize = UCONTEXT + 176;
const X: usize = CONTEXT + 8;
const SP: usize = X + 31 * 8;
const PC: usize = SP + 8;
const PSTATE: usize = PC + 8;
const RECORDS: usize = CONTEXT + 288;
const RECORDS_SIZE: usize = 4096;
const FRAME: usize = RECORDS + RECORDS_SIZE;
/// The frame record: frame pointer and return address.
const LINK: usize = 16;

/// Records: magic and size, then what it is.
const FPSIMD: (u32, usize) = (0x4650_8001, 16 + AREA);
const ESR: (u32, usize) = (0x4553_5201, 16);

/// Bytes of a frame.
pub const FRAME_MAX: usize = FRAME + LINK;

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

fn get32(buf: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(buf.get(at..at + 4)?.try_into().ok()?))
}

/// Writes the frame into `buf` and makes the registers enter the handler.
pub fn push(user: &mut User, f: &SignalFrame<'_>, buf: &mut [u8]) -> Option<(UserAddr, usize)> {
    user.vector.save();
    let top = f.stack_top.map_or(user.regs.sp, |top| top.0) & !15;
    let at = top.checked_sub(FRAME_MAX as u64)?;
    let buf = buf.get_mut(..FRAME_MAX)?;
    buf.fill(0);
    buf.get_mut(INFO..INFO + 128)?.copy_from_slice(f.siginfo);
    put(buf, STACK, f.altstack.0);
    put32(buf, STACK + 8, f.altstack.2);
    put(buf, STACK + 16, f.altstack.1);
    put(buf, MASK, f.old_mask);
    put(buf, CONTEXT, f.fault.map_or(0, |fault| fault.addr.0));
    for (i, x) in user.regs.x.iter().enumerate() {
        put(buf, X + i * 8, *x);
    }
    put(buf, SP, user.regs.sp);
    put(buf, PC, user.regs.pc);
    put(buf, PSTATE, user.regs.pstate);
    let state = user.vector.state();
    let mut record = RECORDS;
    put32(buf, record, FPSIMD.0);
    put32(buf, record + 4, FPSIMD.1 as u32);
    put32(buf, record + 8, state.status);
    put32(buf, record + 12, state.control);
    buf.get_mut(record + 16..record + 16 + AREA)?.copy_from_slice(&state.registers);
    record += FPSIMD.1;
    if let Some(fault) = f.fault {
        put32(buf, record, ESR.0);
        put32(buf, record + 4, ESR.1 as u32);
        put(buf, record + 8, u64::from(fault.code));
    }
    // The last record is all zeros.
    let r = &mut user.regs;
    put(buf, FRAME, r.x[29]);
    put(buf, FRAME + 8, r.x[30]);
    r.x[0] = u64::from(f.signo);
    r.x[1] = at + INFO as u64;
    r.x[2] = at + UCONTEXT as u64;
    r.x[29] = at + FRAME as u64;
    r.x[30] = f.restorer.0;
    r.sp = at;
    r.pc = f.handler.0;
    r.pstate &= PSTATE_USER;
    Some((UserAddr(at), FRAME_MAX))
}

/// The handler has returned to the restorer with the stack pointer that it got.
pub fn frame_at(user: &User) -> (UserAddr, usize) {
    (UserAddr(user.regs.sp), FRAME_MAX)
}

/// Takes the registers back; the signal mask.
pub fn pop(user: &mut User, frame: &[u8]) -> Option<u64> {
    if user.regs.sp & 15 != 0 {
        return None;
    }
    let mut state = None;
    let mut at = RECORDS;
    loop {
        let (magic, size) = (get32(frame, at)?, get32(frame, at + 4)? as usize);
        match (magic, size) {
            (0, 0) => break,
            (magic, size) if (magic, size) == FPSIMD && state.is_none() => {
                let registers = frame.get(at + 16..at + 16 + AREA)?.try_into().ok()?;
                state = Some(State { registers, status: get32(frame, at + 8)?, control: get32(frame, at + 12)? });
            }
            (magic, size) if (magic, size) == ESR => {}
            _ => return None,
        }
        at += size;
        if at + 8 > RECORDS + RECORDS_SIZE {
            return None;
        }
    }
    let pstate = get(frame, PSTATE)?;
    // Another exception level, 32-bit code or masked interrupts: never a program's.
    if pstate & 0x3df != 0 {
        return None;
    }
    let mask = get(frame, MASK)?;
    let mut x = [0; 31];
    for (i, x) in x.iter_mut().enumerate() {
        *x = get(frame, X + i * 8)?;
    }
    let (sp, pc) = (get(frame, SP)?, get(frame, PC)?);
    // There are always vector registers: a frame without them is not ours.
    user.vector.set_state(state?);
    let r = &mut user.regs;
    (r.x, r.sp, r.pc, r.pstate) = (x, sp, pc, pstate & PSTATE_USER);
    Some(mask)
}
