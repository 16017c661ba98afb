//! The vDSO: a shared object of one page with the clock calls that need no kernel, under the names and version that C libraries
//! look for (`vdso(7)`, "x86-64 functions"). It reads the page in front of it, which `hal::vdso` writes:
//!
//! ```text
//!  0 u32: odd while it is being changed
//!  8 u64: nanoseconds per tick of the time stamp counter, times 2^32
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
    .short 3, 62                        # shared object, x86-64
    .long 1
    .quad 0, 64, 0                      # entry, program headers, sections
    .long 0
    .short 64, 56, 2, 64, 0, 0
    .long 1, 5                          # PT_LOAD, readable and executable
    .quad 0, 0, 0, vdso_end - vdso_image, vdso_end - vdso_image, 0x1000
    .long 2, 4                          # PT_DYNAMIC
    .quad vdso_dynamic - vdso_image, vdso_dynamic - vdso_image, vdso_dynamic - vdso_image
    .quad vdso_dynamic_end - vdso_dynamic, vdso_dynamic_end - vdso_dynamic, 8

    .balign 8
vdso_dynamic:
    .quad 14, vdso_soname - vdso_strings        # DT_SONAME
    .quad 4, vdso_hash - vdso_image             # DT_HASH
    .quad 5, vdso_strings - vdso_image          # DT_STRTAB
    .quad 6, vdso_symbols - vdso_image          # DT_SYMTAB
    .quad 10, vdso_strings_end - vdso_strings   # DT_STRSZ
    .quad 11, 24                                # DT_SYMENT
    .quad 0x6ffffff0, vdso_versym - vdso_image  # DT_VERSYM
    .quad 0x6ffffffc, vdso_verdef - vdso_image  # DT_VERDEF
    .quad 0x6ffffffd, 2                         # DT_VERDEFNUM
    .quad 0, 0
vdso_dynamic_end:

vdso_symbols:
    .quad 0, 0, 0
    .macro vdso_symbol name, from, to
    .long \name - vdso_strings
    .byte 0x12, 0                       # global function
    .short 1
    .quad \from - vdso_image, \to - \from
    .endm
    vdso_symbol vdso_n_clock_gettime, vdso_clock_gettime, vdso_gettimeofday
    vdso_symbol vdso_n_gettimeofday, vdso_gettimeofday, vdso_time
    vdso_symbol vdso_n_time, vdso_time, vdso_clock_getres
    vdso_symbol vdso_n_clock_getres, vdso_clock_getres, vdso_read
    .purgem vdso_symbol

vdso_hash:
    .long 1, 5                          # one bucket: no hash decides, names do
    .long 1
    .long 0, 2, 3, 4, 0
vdso_versym:
    .short 0, 2, 2, 2, 2
    .balign 8
vdso_verdef:
    .short 1, 1, 1, 1                   # the object itself
    .long 0x0deebfa1, 20, 28
    .long vdso_soname - vdso_strings, 0
    .short 1, 0, 2, 1
    .long 0x03ae75f6, 20, 0             # elf_hash("LINUX_2.6")
    .long vdso_version - vdso_strings, 0
vdso_strings:
    .byte 0
vdso_soname: .asciz "linux-vdso.so.1"
vdso_version: .asciz "LINUX_2.6"
vdso_n_clock_gettime: .asciz "__vdso_clock_gettime"
vdso_n_gettimeofday: .asciz "__vdso_gettimeofday"
vdso_n_time: .asciz "__vdso_time"
vdso_n_clock_getres: .asciz "__vdso_clock_getres"
vdso_strings_end:

    .balign 16
vdso_clock_gettime:                     # (rdi = clock, rsi = timespec)
    mov $0x21, %eax                     # bits: REALTIME, REALTIME_COARSE
    mov $0xd2, %edx                     # MONOTONIC, MONOTONIC_RAW, MONOTONIC_COARSE, BOOTTIME
    cmp $7, %edi
    ja 3f
    bt %edi, %eax
    setc %r8b
    jc 2f
    bt %edi, %edx
    jnc 3f
2:  call vdso_read
    mov %rax, (%rsi)
    mov %rdx, 8(%rsi)
    xor %eax, %eax
    ret
3:  mov $228, %eax
    syscall
    ret

    .balign 16
vdso_gettimeofday:                      # (rdi = timeval, rsi = timezone)
    test %rsi, %rsi
    jz 2f
    movq $0, (%rsi)
2:  test %rdi, %rdi
    jz 3f
    mov $1, %r8b
    call vdso_read
    mov %rax, (%rdi)
    mov %rdx, %rax
    xor %edx, %edx
    mov $1000, %ecx
    div %rcx
    mov %rax, 8(%rdi)
3:  xor %eax, %eax
    ret

    .balign 16
vdso_time:                              # (rdi = time_t)
    mov $1, %r8b
    call vdso_read
    test %rdi, %rdi
    jz 2f
    mov %rax, (%rdi)
2:  ret

    .balign 16
vdso_clock_getres:                      # (rdi = clock, rsi = timespec)
    mov $229, %eax
    syscall
    ret

    # r8b: with the wall clock's offset. Returns seconds in rax, nanoseconds in rdx; keeps rsi, rdi.
    .balign 16
vdso_read:
    lea vdso_image - 0x1000(%rip), %r9
2:  mov (%r9), %r10d
    test $1, %r10b
    jnz 2b
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mulq 8(%r9)
    shrd $32, %rdx, %rax
    add 16(%r9), %rax
    test %r8b, %r8b
    jz 3f
    add 24(%r9), %rax
3:  cmp %r10d, (%r9)
    jne 2b
    xor %edx, %edx
    mov $1000000000, %ecx
    div %rcx
    ret
vdso_end:
    .balign 4096
vdso_image_end:
    .text
    "#,
    options(att_syntax),
);

unsafe extern "C" {
    static vdso_image: u8;
    static vdso_image_end: u8;
}

/// The image, whole pages.
pub fn image() -> &'static [u8] {
    let (from, to) = (&raw const vdso_image, &raw const vdso_image_end);
    // SAFETY: constant bytes of the kernel's image between two labels.
    unsafe { core::slice::from_raw_parts(from, to as usize - from as usize) }
}
