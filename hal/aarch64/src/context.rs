//! Kernel threads: switching stacks.

use core::arch::global_asm;

/// A suspended kernel thread: its stack pointer; callee-saved registers lie on its stack.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    sp: u64,
}

global_asm!(
    r#"
    .text
    .balign 16
    // switch_context(x0 = from, x1 = to)
    .global switch_context
switch_context:
    stp x29, x30, [sp, #-96]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    mov x9, sp
    str x9, [x0]
    ldr x9, [x1]
    mov sp, x9
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp x29, x30, [sp], #96
    ret

    // The first switch to a new context returns here: x19 = entry, x20 = its argument.
    .global context_start
context_start:
    mov x0, x20
    mov x29, xzr
    mov x30, xzr
    blr x19
    brk #1
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
        let mut frame = [0u64; 12];
        [frame[1], frame[2], frame[3]] = [context_start as *const () as u64, entry as *const () as u64, arg as u64];
        let at = top - core::mem::size_of_val(&frame);
        // SAFETY: the top of the stack is ours.
        unsafe { (at as *mut [u64; 12]).write(frame) };
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
