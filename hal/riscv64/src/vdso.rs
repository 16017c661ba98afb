//! The vDSO: a shared object of one page with the clock calls that need no kernel, under the names and version that C libraries
//! look for (`vdso(7)`, "RISC-V functions"). It reads the page in front of it, which `hal::vdso` writes:
//!
//! ```text
//!  0 u32: odd while it is being changed
//!  8 u64: nanoseconds per tick of the counter, times 2^32
//! 16 u64: what the kernel's clock is ahead of that
//! 24 u64: nanoseconds from the begin of 1970 to 0 of the kernel's clock
//! ```
//!
//! Laid out by hand, because it is a file in the image of the kernel: ELF-64 header, two program headers, dynamic section, symbols with
//! a hash table of one bucket, versions (System V gABI ch. 5; the symbol versioning of the LSB).

use core::arch::global_asm;

global_asm!(
    r#"
    .option push
    .option arch, +m                    // not known here although every target has it
    .option norvc
    .section .rodata
    .balign 4096
    .global vdso_image, vdso_image_end
vdso_image:
    .byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
    .short 3, 243                        // shared object, RISC-V
    .long 1
    .quad 0, 64, 0                      // entry, program headers, sections
    .long 5                             // compressed instructions, floats of double precision in registers
    .short 64, 56, 2, 64, 0, 0
    .long 1, 5                          // PT_LOAD, readable and executable
    .quad 0, 0, 0, vdso_end - vdso_image, vdso_end - vdso_image, 0x1000
    .long 2, 4                          // PT_DYNAMIC
    .quad vdso_dynamic - vdso_image, vdso_dynamic - vdso_image, vdso_dynamic - vdso_image
    .quad vdso_dynamic_end - vdso_dynamic, vdso_dynamic_end - vdso_dynamic, 8

    .balign 8
vdso_dynamic:
    .quad 14, vdso_soname - vdso_strings        // DT_SONAME
    .quad 4, vdso_hash - vdso_image             // DT_HASH
    .quad 5, vdso_strings - vdso_image          // DT_STRTAB
    .quad 6, vdso_symbols - vdso_image          // DT_SYMTAB
    .quad 10, vdso_strings_end - vdso_strings   // DT_STRSZ
    .quad 11, 24                                // DT_SYMENT
    .quad 0x6ffffff0, vdso_versym - vdso_image  // DT_VERSYM
    .quad 0x6ffffffc, vdso_verdef - vdso_image  // DT_VERDEF
    .quad 0x6ffffffd, 2                         // DT_VERDEFNUM
    .quad 0, 0
vdso_dynamic_end:

vdso_symbols:
    .quad 0, 0, 0
    .macro vdso_symbol name, from, to
    .long \name - vdso_strings
    .byte 0x12, 0                       // global function
    .short 1
    .quad \from - vdso_image, \to - \from
    .endm
    vdso_symbol vdso_n_clock_gettime, vdso_clock_gettime, vdso_gettimeofday
    vdso_symbol vdso_n_gettimeofday, vdso_gettimeofday, vdso_clock_getres
    vdso_symbol vdso_n_clock_getres, vdso_clock_getres, vdso_rt_sigreturn
    vdso_symbol vdso_n_rt_sigreturn, vdso_rt_sigreturn, vdso_read
    .purgem vdso_symbol

vdso_hash:
    .long 1, 5                          // one bucket: no hash decides, names do
    .long 1
    .long 0, 2, 3, 4, 0
vdso_versym:
    .short 0, 2, 2, 2, 2
    .balign 8
vdso_verdef:
    .short 1, 1, 1, 1                   // the object itself
    .long 0x0deebfa1, 20, 28
    .long vdso_soname - vdso_strings, 0
    .short 1, 0, 2, 1
    .long 0xae77f75, 20, 0             // elf_hash("LINUX_4.15")
    .long vdso_version - vdso_strings, 0
vdso_strings:
    .byte 0
vdso_soname: .asciz "linux-vdso.so.1"
vdso_version: .asciz "LINUX_4.15"
vdso_n_clock_gettime: .asciz "__vdso_clock_gettime"
vdso_n_gettimeofday: .asciz "__vdso_gettimeofday"
vdso_n_clock_getres: .asciz "__vdso_clock_getres"
vdso_n_rt_sigreturn: .asciz "__vdso_rt_sigreturn"
vdso_strings_end:

    .balign 16
vdso_clock_gettime:                     // (a0 = clock, a1 = timespec)
    li t0, 7
    bltu t0, a0, 3f
    li t1, 1
    sll t1, t1, a0
    andi t2, t1, 0xf3                   // REALTIME, MONOTONIC, MONOTONIC_RAW, the coarse ones, BOOTTIME
    beqz t2, 3f
    andi a4, t1, 0x21                   // REALTIME, REALTIME_COARSE
    mv a5, ra
    call vdso_read
    sd a2, 0(a1)
    sd a3, 8(a1)
    li a0, 0
    jr a5
3:  li a7, 113
    ecall
    ret

    .balign 16
vdso_gettimeofday:                      // (a0 = timeval, a1 = timezone)
    beqz a1, 2f
    sd zero, 0(a1)
2:  beqz a0, 3f
    li a4, 1
    mv a5, ra
    call vdso_read
    li t0, 1000
    divu a3, a3, t0
    sd a2, 0(a0)
    sd a3, 8(a0)
    mv ra, a5
3:  li a0, 0
    ret

    .balign 16
vdso_clock_getres:                      // (a0 = clock, a1 = timespec)
    li a7, 114
    ecall
    ret

    nop                                 // unwinders look for what follows one before the return address
    .balign 16
vdso_rt_sigreturn:
    li a7, 139
    ecall

    // a4: with the wall clock's offset. Returns seconds in a2, nanoseconds in a3; keeps a0, a1, a5.
    .balign 16
vdso_read:
    lla t0, vdso_image - 0x1000
2:  lw t1, 0(t0)
    fence r, r
    andi t2, t1, 1
    bnez t2, 2b
    rdtime a2
    ld t3, 8(t0)
    mul t4, a2, t3
    mulhu t5, a2, t3
    srli t4, t4, 32
    slli t5, t5, 32
    or a2, t4, t5
    ld t3, 16(t0)
    add a2, a2, t3
    beqz a4, 3f
    ld t3, 24(t0)
    add a2, a2, t3
3:  fence r, r
    lw t2, 0(t0)
    bne t1, t2, 2b
    li t3, 1000000000
    remu a3, a2, t3
    divu a2, a2, t3
    ret
vdso_end:
    .balign 4096
vdso_image_end:
    .text
    .option pop
    "#,
);

unsafe extern "C" {
    static vdso_image: u8;
    static vdso_image_end: u8;
    static vdso_rt_sigreturn: u8;
}

/// The image, whole pages.
pub fn image() -> &'static [u8] {
    let (from, to) = (&raw const vdso_image, &raw const vdso_image_end);
    // SAFETY: constant bytes of the kernel's image between two labels.
    unsafe { core::slice::from_raw_parts(from, to as usize - from as usize) }
}

/// From the begin of the image to the code that ends a signal handler.
pub fn sigreturn() -> u64 {
    (&raw const vdso_rt_sigreturn) as u64 - (&raw const vdso_image) as u64
}
