//! Kernel threads: switching stacks.

use core::arch::global_asm;

/// A suspended kernel thread: its stack pointer; callee-saved registers lie on its stack.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    rsp: u64,
}

global_asm!(
    r#"
    .text
    .balign 16
    # switch_context(rdi = from, rsi = to)
    .global switch_context
switch_context:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov (%rsi), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    # The first switch to a new context returns here: rbx = entry, r12 = its argument.
    .global context_start
context_start:
    mov %r12, %rdi
    xor %ebp, %ebp
    call *%rbx
    ud2
    "#,
    options(att_syntax),
);

unsafe extern "C" {
    fn switch_context(from: *mut Context, to: *mut Context);
    fn context_start();
}

impl Context {
    /// For the code that runs now.
    pub const fn current() -> Self {
        Self { rsp: 0 }
    }

    /// Will call `entry(arg)` on the stack that ends at `top`.
    ///
    /// # Safety
    /// The stack is mapped, unused, and stays.
    pub unsafe fn new(top: usize, entry: fn(usize) -> !, arg: usize) -> Self {
        // r15 r14 r13 r12 rbp rbx, return address, and two words so that `call` sees an aligned stack
        let frame = [0, 0, 0, arg as u64, 0, entry as *const () as u64, context_start as *const () as u64, 0, 0];
        let at = top - core::mem::size_of_val(&frame);
        // SAFETY: the top of the stack is ours.
        unsafe { (at as *mut [u64; 9]).write(frame) };
        Self { rsp: at as u64 }
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
