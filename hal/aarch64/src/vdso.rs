//! The vDSO: a shared object of one page with the clock calls that need no kernel, under the names and version that C libraries
//! look for (`vdso(7)`, "aarch64 functions"). It reads the page in front of it, which `hal::vdso` writes:
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
    .section .rodata
    .balign 4096
    .global vdso_image, vdso_image_end
vdso_image:
    .byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
    .short 3, 183                        // shared object, aarch64
    .long 1
    .quad 0, 64, 0                      // entry, program headers, sections
    .long 0
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
    .long 0x075fcb89, 20, 0             // elf_hash("LINUX_2.6.39")
    .long vdso_version - vdso_strings, 0
vdso_strings:
    .byte 0
vdso_soname: .asciz "linux-vdso.so.1"
vdso_version: .asciz "LINUX_2.6.39"
vdso_n_clock_gettime: .asciz "__kernel_clock_gettime"
vdso_n_gettimeofday: .asciz "__kernel_gettimeofday"
vdso_n_clock_getres: .asciz "__kernel_clock_getres"
vdso_n_rt_sigreturn: .asciz "__kernel_rt_sigreturn"
vdso_strings_end:

    .balign 16
vdso_clock_gettime:                     // (x0 = clock, x1 = timespec)
    cmp x0, #7
    b.hi 3f
    mov w2, #1
    lsl w2, w2, w0
    mov w3, #0xf3                       // REALTIME, MONOTONIC, MONOTONIC_RAW, the coarse ones, BOOTTIME
    tst w2, w3
    b.eq 3f
    mov w12, #0x21                      // REALTIME, REALTIME_COARSE
    and w12, w12, w2
    mov x13, x30
    bl vdso_read
    stp x2, x3, [x1]
    mov x0, xzr
    ret x13
3:  mov x8, #113
    svc #0
    ret

    .balign 16
vdso_gettimeofday:                      // (x0 = timeval, x1 = timezone)
    cbz x1, 2f
    str xzr, [x1]
2:  cbz x0, 3f
    mov w12, #1
    mov x13, x30
    bl vdso_read
    mov x4, #1000
    udiv x3, x3, x4
    stp x2, x3, [x0]
    mov x30, x13
3:  mov x0, xzr
    ret

    .balign 16
vdso_clock_getres:                      // (x0 = clock, x1 = timespec)
    mov x8, #114
    svc #0
    ret

    nop                                 // unwinders look for what follows one before the return address
    .balign 16
vdso_rt_sigreturn:
    mov x8, #139
    svc #0

    // w12: with the wall clock's offset. Returns seconds in x2, nanoseconds in x3; keeps x0, x1.
    .balign 16
vdso_read:
    adr x9, vdso_image - 0x1000
2:  ldar w10, [x9]
    tbnz w10, #0, 2b
    isb
    mrs x2, cntvct_el0
    ldr x3, [x9, #8]
    mul x4, x2, x3
    umulh x5, x2, x3
    extr x2, x5, x4, #32
    ldr x3, [x9, #16]
    add x2, x2, x3
    cbz w12, 3f
    ldr x3, [x9, #24]
    add x2, x2, x3
3:  dmb ishld
    ldr w11, [x9]
    cmp w10, w11
    b.ne 2b
    movz x4, #0xca00
    movk x4, #0x3b9a, lsl #16
    mov x5, x2
    udiv x2, x5, x4
    msub x3, x2, x4, x5
    ret
vdso_end:
    .balign 4096
vdso_image_end:
    .text
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
