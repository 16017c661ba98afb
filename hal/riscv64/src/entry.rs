//! The first instructions.
//!
//! A kernel starts at the begin of its image in one of three ways, in supervisor mode with paging off (SBI specification, "Hart State Management"),
//! `a0` = the hart:
//! * by the firmware, `a1` = physical address of the device tree, which is a multiple of 8;
//! * by another kernel of its board through `hart_start`, `a1` = physical address of this kernel's memory, plus 1;
//! * by the stub of its board (`hal/stub`), for a kernel of another board: as by the firmware, plus 2, and there is a boot block.
//!
//! The code finds its own physical address, so it only assumes that the image is 2 MiB-aligned. The tables made here live until
//! [`crate::paging`] has made better ones. They have three levels (Sv39), which every hart has, and show the image at its place, the 2 MiB in
//! front of it (porch and boot block) at `BOOT_WINDOW`; and the first 4 GiB of RAM and the image at their physical addresses.

use core::arch::global_asm;

/// Where the first 2 MiB of this kernel's memory (porch, boot block) are visible during boot.
pub const BOOT_WINDOW: u64 = 0xffff_ffff_bfe0_0000;
/// Where the image is linked.
pub const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// From the begin of a kernel's memory to its image.
pub const IMAGE_OFFSET: u64 = 0x20_0000;
/// The boot stack, in bytes. The page under it is unmapped by `paging`.
pub const BOOT_STACK: usize = 0x8000;
/// Where RAM begins that the boot tables show at its physical address, and how many GiB of it.
pub const EARLY_RAM: (u64, u64) = (0x8000_0000, 4);
/// The hart that firmware is to start, by the plan. It lets its harts race and starts the kernel on the one that wins.
pub const FIRST_HART: u64 = 0;

/// In `satp`: three levels.
pub const SV39: u64 = 8 << 60;
/// In `satp`: four.
pub const SV48: u64 = 9 << 60;

global_asm!(
    r#"
    .section .boot, "ax"
    .global image_start
image_start:
    csrci sstatus, 2
    csrw sie, zero
    mv s0, a1                           // the argument
    lla s2, image_start                 // where the image is
    andi t0, s0, 1
    bnez t0, 1f
    li t0, {first}
    beq a0, t0, 1f
    // Not the hart that it should be: that one starts here instead.
    li a7, 0x48534d                     // SBI "HSM"
    li a6, 0                            // hart_start
    mv a0, t0
    mv a1, s2
    mv a2, s0
    ecall
    li a6, 1                            // hart_stop
    ecall
0:  wfi
    j 0b

    // From a loader, memory behind the file holds anything.
1:  lla t0, __bss_start
    lla t1, __image_end
2:  sd zero, 0(t0)
    sd zero, 8(t0)
    addi t0, t0, 16
    bltu t0, t1, 2b

    lla s3, boot_tables
    // page 0, the root: RAM, and the image, in pages of 1 GiB that may be read, written and executed
    li t0, {early}
    li t1, {early_count}
    li t2, 0x40000000
3:  srli t3, t0, 27
    add t3, t3, s3
    srli t4, t0, 2
    ori t4, t4, 0xcf
    sd t4, 0(t3)
    add t0, t0, t2
    addi t1, t1, -1
    bnez t1, 3b
    srli t0, s2, 30
    slli t3, t0, 3
    add t3, t3, s3
    slli t4, t0, 28
    ori t4, t4, 0xcf
    sd t4, 0(t3)
    // its last entry but one: page 1, the image in pages of 2 MiB
    li t5, 0x1000
    add s4, s3, t5
    srli t4, s4, 2
    ori t4, t4, 1
    li t3, 510 * 8
    add t3, t3, s3
    sd t4, 0(t3)
    srli t4, s2, 2
    ori t4, t4, 0xcf
    li t0, 16
    mv t1, s4
    li t2, 0x200000 >> 2
4:  sd t4, 0(t1)
    add t4, t4, t2
    addi t1, t1, 8
    addi t0, t0, -1
    bnez t0, 4b
    srli t4, s2, 2
    ori t4, t4, 0xcf
    sub t4, t4, t2
    li t3, 511 * 8
    add t3, t3, s4
    sd t4, 0(t3)

    srli t0, s3, 12
    li t1, {sv39}
    or t0, t0, t1
    ld t1, boot_to
    ld sp, boot_stack_at
    sfence.vma
    csrw satp, t0
    sfence.vma
    fence.i
    mv a0, s0
    mv a1, s2
    li s0, 0
    li ra, 0
    jr t1

    // An own CPU: a1 = physical address of what `smp` left for it: boot tables, tables (as `satp` has them), stack, argument.
    .global ap_entry
ap_entry:
    csrci sstatus, 2
    csrw sie, zero
    ld t0, 0(a1)
    ld t1, 8(a1)
    ld sp, 16(a1)
    ld a0, 24(a1)
    ld t2, ap_high_at
    sfence.vma
    csrw satp, t0
    sfence.vma
    fence.i
    jr t2
ap_high:
    csrw satp, t1
    sfence.vma
    li s0, 0
    li ra, 0
    lla t0, ap_to
    ld t0, 0(t0)
    jr t0

    .balign 8
boot_to: .quad {start}
boot_stack_at: .quad boot_stack_top
ap_high_at: .quad ap_high
ap_to: .quad {ap_start}

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_tables
boot_tables:
    .skip 0x2000
    .balign 0x10000
    .skip {stack} - 0x1000
    .global boot_stack_guard
boot_stack_guard:
    .skip 0x1000
    .skip {stack}
boot_stack_top:
    .text
    "#,
    first = const FIRST_HART,
    sv39 = const SV39,
    early = const EARLY_RAM.0,
    early_count = const EARLY_RAM.1,
    start = sym crate::boot::start,
    ap_start = sym crate::smp::ap_start,
    stack = const BOOT_STACK,
);
