//! Kernel threads: switching stacks.

use core::arch::global_asm;

/// A suspended kernel thread: its stack pointer; callee-saved registers lie on its stack.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    sp: u64,
}

/// Words on the stack of a suspended thread: ra, s0 to s11, and one that keeps the stack aligned.
const WORDS: usize = 14;

global_asm!(
    r#"
    .text
    .balign 16
    // switch_context(a0 = from, a1 = to). `tp` is the CPU's, not the thread's.
    .global switch_context
switch_context:
    addi sp, sp, -112
    sd ra, 0(sp)
    sd s0, 8(sp)
    sd s1, 16(sp)
    sd s2, 24(sp)
    sd s3, 32(sp)
    sd s4, 40(sp)
    sd s5, 48(sp)
    sd s6, 56(sp)
    sd s7, 64(sp)
    sd s8, 72(sp)
    sd s9, 80(sp)
    sd s10, 88(sp)
    sd s11, 96(sp)
    sd sp, 0(a0)
    ld sp, 0(a1)
    ld ra, 0(sp)
    ld s0, 8(sp)
    ld s1, 16(sp)
    ld s2, 24(sp)
    ld s3, 32(sp)
    ld s4, 40(sp)
    ld s5, 48(sp)
    ld s6, 56(sp)
    ld s7, 64(sp)
    ld s8, 72(sp)
    ld s9, 80(sp)
    ld s10, 88(sp)
    ld s11, 96(sp)
    addi sp, sp, 112
    ret

    // The first switch to a new context returns here: s1 = entry, s2 = its argument.
    .global context_start
context_start:
    mv a0, s2
    li s0, 0
    li ra, 0
    jalr s1
    ebreak
    "#,
);

unsafe extern "C" {
    fn switch_context(from: *mut Context, to: *mut Context);
    fn context_start();
}

impl Context {
    /// For the code that runs now.
    pub const fn current() -> Self {
        Self { sp: 0 }
    }

    /// Will call `entry(arg)` on the stack that ends at `top`.
    ///
    /// # Safety
    /// The stack is mapped, unused, and stays.
    pub unsafe fn new(top: usize, entry: fn(usize) -> !, arg: usize) -> Self {
        let mut frame = [0u64; WORDS];
        [frame[0], frame[2], frame[3]] = [context_start as *const () as u64, entry as *const () as u64, arg as u64];
        let at = top - core::mem::size_of_val(&frame);
        // SAFETY: the top of the stack is ours.
        unsafe { (at as *mut [u64; WORDS]).write(frame) };
        Self { sp: at as u64 }
    }
}

/// Goes on in `to`.
///
/// # Safety
/// `from` is where the running code is to be saved, `to` is suspended; both stay valid.
#[inline]
pub unsafe fn switch(from: *mut Context, to: *mut Context) {
    // SAFETY: the caller's promise.
    unsafe { switch_context(from, to) };
}
