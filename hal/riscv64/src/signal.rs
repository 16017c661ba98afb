//! Signal frames as Linux lays them out on riscv64 (arch/riscv/kernel/signal.c, uapi/asm/{ucontext,sigcontext,ptrace}.h).
//!
//! From low to high addresses: `siginfo`, `ucontext` with the registers and the floating-point state. Offsets below are from the begin of the frame.

use hal_api::{SignalFrame, UserAddr};

use crate::fpu::{REGISTERS, State};
use crate::user::{A0, RA, SP, User};

const INFO: usize = 0;
const UCONTEXT: usize = 128;
const STACK: usize = UCONTEXT + 16;
const MASK: usize = UCONTEXT + 40;
/// The program counter, then x1 to x31.
const CONTEXT: usize = UCONTEXT + 176;
const X: usize = CONTEXT + 8;
/// f0 to f31 and fcsr; room for registers of 128 bits, which nobody has.
const FLOATS: usize = CONTEXT + 256;
const FCSR: usize = FLOATS + 8 * REGISTERS;
const FLOATS_SIZE: usize = 528;
/// The last three words say, by being 0, that no other state follows.
const RESERVED: usize = FLOATS + FLOATS_SIZE - 12;

/// Bytes of a frame.
pub const FRAME_MAX: usize = FLOATS + FLOATS_SIZE;

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
    let top = f.stack_top.map_or(user.regs.x[SP], |top| top.0);
    let at = top.checked_sub(FRAME_MAX as u64)? & !15;
    let buf = buf.get_mut(..FRAME_MAX)?;
    buf.fill(0);
    buf.get_mut(INFO..INFO + 128)?.copy_from_slice(f.siginfo);
    put(buf, STACK, f.altstack.0);
    put32(buf, STACK + 8, f.altstack.2);
    put(buf, STACK + 16, f.altstack.1);
    put(buf, MASK, f.old_mask);
    put(buf, CONTEXT, user.regs.pc);
    for (i, x) in user.regs.x.iter().enumerate() {
        put(buf, X + i * 8, *x);
    }
    let state = user.vector.state();
    for (i, float) in state.registers.iter().enumerate() {
        put(buf, FLOATS + i * 8, *float);
    }
    put32(buf, FCSR, state.control);
    let r = &mut user.regs;
    r.x[A0] = u64::from(f.signo);
    r.x[A0 + 1] = at + INFO as u64;
    r.x[A0 + 2] = at + UCONTEXT as u64;
    r.x[RA] = f.restorer.0;
    r.x[SP] = at;
    r.pc = f.handler.0;
    Some((UserAddr(at), FRAME_MAX))
}

/// The handler has returned to the restorer with the stack pointer that it got.
pub fn frame_at(user: &User) -> (UserAddr, usize) {
    (UserAddr(user.regs.x[SP]), FRAME_MAX)
}

/// Takes the registers back; the signal mask.
pub fn pop(user: &mut User, frame: &[u8]) -> Option<u64> {
    // Other state (vector registers) is not kept, so a frame that has some is not ours.
    if get32(frame, RESERVED)? | get32(frame, RESERVED + 4)? | get32(frame, RESERVED + 8)? != 0 {
        return None;
    }
    let mask = get(frame, MASK)?;
    let pc = get(frame, CONTEXT)?;
    let mut x = [0; 31];
    for (i, x) in x.iter_mut().enumerate() {
        *x = get(frame, X + i * 8)?;
    }
    let mut state = State { registers: [0; REGISTERS], control: get32(frame, FCSR)? };
    for (i, float) in state.registers.iter_mut().enumerate() {
        *float = get(frame, FLOATS + i * 8)?;
    }
    user.vector.set_state(state);
    (user.regs.pc, user.regs.x) = (pc, x);
    Some(mask)
}
