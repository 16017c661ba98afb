//! The first instructions.
//!
//! A kernel starts in one of two ways, and both end in [`start`](crate::boot) at the fixed virtual address of the image:
//! * `pvh_entry`: the loader (QEMU's `-kernel`, Xen's PVH ABI) enters in 32-bit protected mode without paging, `ebx` = start
//!   info. The code finds its own physical address, so it only assumes that the image is 2 MiB-aligned and below 4 GiB.
//! * `peer_entry`: another kernel has built page tables, and its trampoline enters in long mode, `rdi` = physical address of
//!   this kernel's memory. That may be anywhere.
//!
//! The tables made here live until [`crate::paging`] has made better ones: image at its place, the 2 MiB in front of it (porch
//! and boot block) at `BOOT_WINDOW`, and for PVH the low 4 GiB at their physical addresses, where the loader's data lies.

use core::arch::global_asm;

/// Where the first 2 MiB of this kernel's memory (porch, boot block) are visible during boot.
pub const BOOT_WINDOW: u64 = 0xffff_ffff_bfe0_0000;
/// Where the image is linked.
pub const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// From the begin of a kernel's memory to its image.
pub const IMAGE_OFFSET: u64 = 0x20_0000;
/// The boot stack, in bytes. The page under it is unmapped by `paging`.
pub const BOOT_STACK: usize = 0x10000;

global_asm!(
    r#"
    .section .boot, "ax"
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    mov $0x7000, %esp                   # free low memory: the firmware is done with it
    call 1f
1:  pop %ebp
    sub $(1b - pvh_entry), %ebp         # ebp = physical address of the image (this is its first byte)
    lea __boot_tables_offset(%ebp), %edi

    # low 4 GiB: pages 2..5 of the tables are page directories, one after the other
    lea 0x2000(%edi), %edx
    mov $0x83, %eax                     # present, writable, 2 MiB
    xor %ecx, %ecx
2:  mov %eax, (%edx, %ecx, 8)
    movl $0, 4(%edx, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jb 2b
    lea 0x2003(%edi), %eax              # page 1: their directory
    xor %ecx, %ecx
3:  mov %eax, 0x1000(%edi, %ecx, 8)
    add $0x1000, %eax
    inc %ecx
    cmp $4, %ecx
    jb 3b
    lea 0x1003(%edi), %eax
    mov %eax, (%edi)
    # image: page 6 is the directory of the top 512 GiB, page 7 that of IMAGE .. IMAGE + 1 GiB
    lea 0x6003(%edi), %eax
    mov %eax, 511 * 8(%edi)
    lea 0x7003(%edi), %eax
    mov %eax, 0x6000 + 510 * 8(%edi)
    lea 0x83(%ebp), %eax
    xor %ecx, %ecx
4:  mov %eax, 0x7000(%edi, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $16, %ecx
    jb 4b
    lea 0x83 - 0x200000(%ebp), %eax
    mov %eax, 0x7000 + 511 * 8(%edi)

    mov %cr4, %eax
    or $0x20, %eax                      # PAE
    mov %eax, %cr4
    mov %edi, %cr3
    mov $0xc0000080, %ecx               # EFER: long mode, no-execute
    rdmsr
    or $0x900, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80010001, %eax                # paging, write protect, protected mode
    mov %eax, %cr0
    lea boot_gdt - pvh_entry(%ebp), %eax
    sub $8, %esp
    movw $15, (%esp)
    mov %eax, 2(%esp)
    lgdt (%esp)
    lea 5f - pvh_entry(%ebp), %eax
    push $8
    push %eax
    lret

    .code64
5:  movabs $6f, %rax
    jmp *%rax
6:  lea boot_stack_top(%rip), %rsp
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %ebx, %edi                      # start info
    mov %ebp, %esi                      # where the image is
    xor %ebp, %ebp
    call {pvh_start}
    ud2

    .global peer_entry
peer_entry:
    cli
    cld
    lea boot_stack_top(%rip), %rsp
    xor %ebp, %ebp
    call {peer_start}
    ud2

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 64-bit code

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_tables
boot_tables:
    .skip 0x8000
    .global boot_stack_guard
boot_stack_guard:
    .skip 0x1000
    .skip {stack}
boot_stack_top:

    .section .note.xen, "a", @note
    .p2align 2
    .long 4, 8, 18                      # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad __pvh_entry_physical
    .text
    "#,
    pvh_start = sym crate::boot::pvh_start,
    peer_start = sym crate::boot::peer_start,
    stack = const BOOT_STACK,
    options(att_syntax),
);
