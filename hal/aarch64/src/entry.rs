//! The first instructions.
//!
//! The image begins with the header that loaders of arm64 look for (Documentation/arch/arm64/booting.rst in Linux), whose first instruction leads
//! to [`entry`]. A kernel starts there in one of three ways, with the MMU off:
//! * by the loader, `x0` = physical address of the device tree, which is a multiple of 8;
//! * by another kernel of its board through PSCI `CPU_ON`, `x0` = physical address of this kernel's memory, plus 1;
//! * by the stub of its board (`hal/stub`), for a kernel of another board: as by the loader, plus 2, and there is a boot block.
//!
//! The code finds its own physical address, so it only assumes that the image is 2 MiB-aligned. The tables made here live until
//! [`crate::paging`] has made better ones: image at its place, the 2 MiB in front of it (porch and boot block) at `BOOT_WINDOW`; and in the lower
//! half the first 4 GiB of RAM and the image at their physical addresses.

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
pub const EARLY_RAM: (u64, u64) = (0x4000_0000, 4);

/// Memory attributes, by index: 0 normal memory, write-back; 1 device registers, nGnRE.
pub const MAIR: u64 = 0x04ff;
/// Both halves have 48 bits and 4 KiB pages, walks are cacheable and inner shareable, 48 bits of physical address. The top byte of a user address counts.
pub const TCR: u64 = 16
    | 16 << 16
    | 0b01 << 8
    | 0b01 << 10
    | 0b11 << 12
    | 0b01 << 24
    | 0b01 << 26
    | 0b11 << 28
    | 0b10 << 30
    | 0b101 << 32;
/// MMU and caches on, alignment of stack pointers checked, user cache maintenance, `wfi`, `wfe`, `dc zva` and CTR allowed; SPAN clear: PAN is set on each
/// entry. The rest is what Armv8.0 requires to be 1.
pub const SCTLR: u64 =
    0x3050_0800 | 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 26;
/// SCTLR with everything that can be off.
const SCTLR_OFF: u64 = 0x30d0_0800;

global_asm!(
    r#"
    .section .boot, "ax"
    .global image_start
image_start:
    b 1f
    nop
    .quad 0                             // from a 2 MiB border: the loader's own code begins there, so it takes the next
    .quad __image_end - image_start
    .quad 0b1010                        // little-endian, 4 KiB pages, anywhere
    .quad 0, 0, 0
    .ascii "ARM\x64"
    .long 0

    .macro first_state
    msr daifset, #0xf
    ldr x9, ={sctlr_off}
    msr sctlr_el1, x9
    isb
    .endm

    // x20: the argument, x21: where the image is
1:  first_state
    mov x20, x0
    adr x21, image_start
    // From a loader, memory behind the file holds anything.
    adrp x1, __bss_start
    add x1, x1, :lo12:__bss_start
    adrp x2, __image_end
    add x2, x2, :lo12:__image_end
2:  stp xzr, xzr, [x1], #16
    cmp x1, x2
    b.lo 2b

    adrp x22, boot_tables
    mov x9, #0x701                      // block, accessed, inner shareable, normal
    // page 0, 1: the lower half, 1 GiB blocks
    add x1, x22, #0x1000
    orr x2, x1, #3
    str x2, [x22]
    mov x3, #{early}
    mov x4, #{early_count}
3:  lsr x5, x3, #30
    orr x6, x3, x9
    str x6, [x1, x5, lsl #3]
    mov x7, #0x40000000
    add x3, x3, x7
    subs x4, x4, #1
    b.ne 3b
    lsr x5, x21, #30
    lsl x3, x5, #30
    orr x6, x3, x9
    str x6, [x1, x5, lsl #3]
    // page 2, 3, 4: the upper half, the image in 2 MiB blocks
    add x1, x22, #0x2000
    add x2, x22, #0x3000
    add x3, x22, #0x4000
    orr x4, x2, #3
    str x4, [x1, #511 * 8]
    orr x4, x3, #3
    str x4, [x2, #510 * 8]
    orr x4, x21, x9
    mov x5, #16
    mov x6, x3
4:  str x4, [x6], #8
    add x4, x4, #0x200000
    subs x5, x5, #1
    b.ne 4b
    sub x4, x21, #0x200000
    orr x4, x4, x9
    str x4, [x3, #511 * 8]
    dsb sy

    add x1, x22, #0x2000
    mov x0, x22
    bl mmu_on
    ldr x1, =boot_stack_top
    mov sp, x1
    ldr x1, ={start}
    mov x0, x20
    mov x2, x1
    mov x1, x21
    mov x29, xzr
    mov x30, xzr
    br x2

    // x0, x1: tables of both halves. Goes on at the caller, at its physical address. Uses x9.
mmu_on:
    ldr x9, ={mair}
    msr mair_el1, x9
    ldr x9, ={tcr}
    msr tcr_el1, x9
    msr ttbr0_el1, x0
    msr ttbr1_el1, x1
    ic iallu
    tlbi vmalle1
    dsb nsh
    isb
    ldr x9, ={sctlr}
    msr sctlr_el1, x9
    isb
    ret

    // An own CPU, by PSCI: x0 = physical address of what `smp` left for it: lower tables, upper tables, stack, argument.
    .global ap_entry
ap_entry:
    first_state
    mov x20, x0
    ldp x0, x1, [x20]
    ldp x21, x22, [x20, #16]
    bl mmu_on
    ldr x1, ={ap_start}
    mov sp, x21
    mov x0, x22
    mov x29, xzr
    mov x30, xzr
    br x1
    .ltorg

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_tables
boot_tables:
    .skip 0x5000
    .balign 0x10000
    .skip {stack} - 0x1000
    .global boot_stack_guard
boot_stack_guard:
    .skip 0x1000
    .skip {stack}
boot_stack_top:
    .text
    "#,
    sctlr_off = const SCTLR_OFF,
    sctlr = const SCTLR,
    mair = const MAIR,
    tcr = const TCR,
    early = const EARLY_RAM.0,
    early_count = const EARLY_RAM.1,
    start = sym crate::boot::start,
    ap_start = sym crate::smp::ap_start,
    stack = const BOOT_STACK,
);
