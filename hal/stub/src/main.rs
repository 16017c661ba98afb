//! What a board of a mixed machine runs first: it waits until another kernel has left an image for it, puts that in its place with its own stores and
//! starts it. Only its own: an emulator (like a processor whose instruction cache is not coherent) goes on with what it made of bytes that somebody else
//! has replaced.
//!
//! `plan::STAGE_OFFSET` says where the image is left, `hal/<isa>/src/entry.rs` how a kernel is started so: as by the loader, with 2 added to the address
//! of the device tree. Nothing is on a stack, and nothing is written but the image.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
core::arch::global_asm!(
    r#"
    .section .boot, "ax"
    .global stub
    // The header of an image for arm64 (Documentation/arch/arm64/booting.rst in Linux).
stub:
    b 1f
    nop
    .quad {stub_offset}
    .quad __stub_end - stub
    .quad 0b1010
    .quad 0, 0, 0
    .ascii "ARM\x64"
    .long 0
    // x0: the device tree
1:  msr daifset, #0xf
    adr x10, stub
    ldr x1, ={stub_offset}
    sub x10, x10, x1                    // the kernel's base
    ldr x11, ={stage_offset}
    add x11, x10, x11                   // what was left
    ldr x1, ={magic}
2:  ldar x2, [x11]
    cmp x1, x2
    b.eq 3f
    yield
    b 2b
3:  ldr x3, [x11, #8]
    add x4, x11, #0x1000
    mov x5, x10
    add x6, x10, x3
4:  ldp x7, x8, [x4], #16
    stp x7, x8, [x5], #16
    cmp x5, x6
    b.lo 4b
    str xzr, [x11]                      // the next life needs another one
    dsb sy
    ic iallu
    dsb sy
    isb
    orr x0, x0, #2
    add x10, x10, #{image_offset}
    br x10
    .ltorg
    "#,
    stub_offset = const STUB_OFFSET,
    stage_offset = const STAGE_OFFSET,
    magic = const STAGE_MAGIC,
    image_offset = const IMAGE_OFFSET,
);

#[cfg(all(target_os = "none", target_arch = "riscv64"))]
core::arch::global_asm!(
    r#"
    .section .boot, "ax"
    .global stub
    // a0: the hart, a1: the device tree
stub:
    csrci sstatus, 2
    csrw sie, zero
    lla s1, stub
    li t0, {stub_offset}
    sub s1, s1, t0                      // the kernel's base
    li s2, {stage_offset}
    add s2, s1, s2                      // what was left
    li t0, {magic}
2:  ld t1, 0(s2)
    beq t0, t1, 3f
    nop
    j 2b
3:  fence r, rw
    ld t2, 8(s2)
    li t3, 0x1000
    add t3, s2, t3
    mv t4, s1
    add t5, s1, t2
4:  ld t0, 0(t3)
    ld t1, 8(t3)
    sd t0, 0(t4)
    sd t1, 8(t4)
    addi t3, t3, 16
    addi t4, t4, 16
    bltu t4, t5, 4b
    sd zero, 0(s2)                      // the next life needs another one
    fence
    fence.i
    ori a1, a1, 2
    li t0, {image_offset}
    add t0, s1, t0
    jr t0
    "#,
    stub_offset = const STUB_OFFSET,
    stage_offset = const STAGE_OFFSET,
    magic = const STAGE_MAGIC,
    image_offset = const IMAGE_OFFSET,
);

#[cfg(all(target_os = "none", not(target_arch = "x86_64")))]
#[path = "../../../lib/plan/src/stage.rs"]
mod stage;
#[cfg(all(target_os = "none", not(target_arch = "x86_64")))]
use stage::{IMAGE_OFFSET, STAGE_MAGIC, STAGE_OFFSET, STUB_OFFSET};

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is what a board runs before its kernel: build it with --target and a bare-metal target");
    std::process::exit(2);
}
