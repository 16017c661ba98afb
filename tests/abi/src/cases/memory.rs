//! mmap and its family, page faults, brk.

use std::sync::atomic::Ordering::SeqCst;

use crate::sys;
use crate::sys::{Do, LAST, SPARE, Status, anon, child, file, good, mmap, on, peek, poke, shared, wait, word};
use crate::{cases, check, refused, same};

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE;
const SHARED: i32 = libc::MAP_SHARED;
const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Reads a byte for the fault's sake.
fn touch(addr: usize) {
    std::hint::black_box(peek(addr));
}

fn munmap(addr: usize, length: usize) -> sys::Sys {
    sys!(SYS_munmap, addr, length)
}

fn mprotect(addr: usize, length: usize, prot: i32) -> sys::Sys {
    sys!(SYS_mprotect, addr, length, prot)
}

fn madvise(addr: usize, length: usize, advice: i32) -> sys::Sys {
    sys!(SYS_madvise, addr, length, advice)
}

/// Which signal a child gets that does this, with which code and address.
fn fault(run: impl FnOnce()) -> Result<(i32, i32, usize), crate::case::Fail> {
    extern "C" fn note(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel passes a siginfo for a fault.
        let (code, addr) = unsafe { ((*info).si_code, (*info).si_addr() as u64) };
        let mut report = [0u8; 16];
        report[..4].copy_from_slice(&signal.to_le_bytes());
        report[4..8].copy_from_slice(&code.to_le_bytes());
        report[8..].copy_from_slice(&addr.to_le_bytes());
        let _ = sys::write(SPARE[0].load(SeqCst) as i32, &report);
        sys::exit(99)
    }
    // Not through shared memory: that could come to lie where the fault should be.
    let (reader, writer) = sys::pipe()?;
    let pid = child(|| {
        SPARE[0].store(writer as u32, SeqCst);
        on(libc::SIGSEGV, Do::Call(note), 0)?;
        on(libc::SIGBUS, Do::Call(note), 0)?;
        run();
        Ok(())
    })?;
    same!(wait(pid, 0)?, Status::Exited(99));
    let report = sys::get(reader, 16)?;
    sys::close(reader)?;
    sys::close(writer)?;
    let number = |at: usize| report.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_le_bytes(*b));
    let addr = report.last_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    Ok((number(0), number(4), addr as usize))
}

cases! {
    fn mmap_anonymous_is_zero [mmap, munmap] {
        let map = anon(10 * PAGE)?;
        check!((0..10).all(|n| peek(map + n * PAGE) == 0));
        poke(map + 5 * PAGE, 7);
        munmap(map, 10 * PAGE)?;
        let again = anon(10 * PAGE)?;
        same!(peek(again + 5 * PAGE), 0);
        Ok(())
    }

    fn mmap_checks [mmap, munmap] {
        refused!(mmap(0, 0, RW, ANON, -1, 0), EINVAL);
        refused!(mmap(0, PAGE, RW, libc::MAP_ANONYMOUS, -1, 0), EINVAL);
        refused!(mmap(0, PAGE, RW, PRIVATE, 999, 0), EBADF);
        let fd = file("f", &[1; 100])?;
        refused!(mmap(0, PAGE, RW, PRIVATE, fd, 1), EINVAL);
        refused!(mmap(1, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0), EINVAL);
        refused!(mmap(0, usize::MAX / 2, RW, ANON, -1, 0), ENOMEM);
        refused!(munmap(1, PAGE), EINVAL);
        refused!(munmap(PAGE, 0), EINVAL);
        refused!(mmap(0, PAGE, RW, PRIVATE, sys::pipe()?.0, 0), ENODEV);
        let read_only = sys::open("f", libc::O_RDONLY, 0)?;
        refused!(mmap(0, PAGE, RW, SHARED, read_only, 0), EACCES);
        mmap(0, PAGE, RW, PRIVATE, read_only, 0)?;
        let write_only = sys::open("f", libc::O_WRONLY, 0)?;
        refused!(mmap(0, PAGE, libc::PROT_READ, PRIVATE, write_only, 0), EACCES);
        Ok(())
    }

    fn mmap_file_private [mmap] {
        let fd = file("f", b"content")?;
        let map = mmap(0, PAGE, RW, PRIVATE, fd, 0)?;
        same!((peek(map), peek(map + 6), peek(map + 7), peek(map + PAGE - 1)), (b'c', b't', 0, 0));
        poke(map, b'X');
        same!(std::fs::read("f")?, b"content");
        sys::close(fd)?;
        same!((peek(map), peek(map + 1)), (b'X', b'o'));
        Ok(())
    }

    fn mmap_file_shared [mmap, msync] {
        let fd = file("f", &[b'a'; 5000])?;
        let map = mmap(0, 2 * PAGE, RW, SHARED, fd, 0)?;
        poke(map + 4500, b'Z');
        sys!(SYS_msync, map, 2 * PAGE, libc::MS_SYNC)?;
        same!(std::fs::read("f")?.get(4500), Some(&b'Z'));
        sys!(SYS_pwrite64, fd, b"Q".as_ptr(), 1usize, 10i64)?;
        same!(peek(map + 10), b'Q');
        let second = mmap(0, PAGE, libc::PROT_READ, SHARED, fd, PAGE as i64)?;
        same!(peek(second + 404), b'Z');
        Ok(())
    }

    fn mmap_shared_between_processes [mmap, clone] {
        let map = shared(2 * PAGE)?;
        good(child(|| {
            poke(map + PAGE, 42);
            Ok(())
        })?)?;
        same!(peek(map + PAGE), 42);
        Ok(())
    }

    fn mmap_private_is_copied_on_fork [clone, mmap] {
        let map = anon(100 * PAGE)?;
        (0..100).for_each(|n| poke(map + n * PAGE, n as u8));
        let pid = child(|| {
            check!((0..100).all(|n| peek(map + n * PAGE) == n as u8));
            (0..100).for_each(|n| poke(map + n * PAGE, 255));
            good(child(|| {
                check!((0..100).all(|n| peek(map + n * PAGE) == 255));
                Ok(())
            })?)
        })?;
        (0..50).for_each(|n| poke(map + n * PAGE, 200));
        good(pid)?;
        check!((0..100).all(|n| peek(map + n * PAGE) == if n < 50 { 200 } else { n as u8 }));
        Ok(())
    }

    fn mmap_fixed_replaces [mmap] {
        let map = anon(4 * PAGE)?;
        (0..4).for_each(|n| poke(map + n * PAGE, 9));
        same!(mmap(map + PAGE, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0)?, map + PAGE);
        same!([0, 1, 2, 3].map(|n| peek(map + n * PAGE)), [9, 0, 9, 9]);
        refused!(mmap(map, PAGE, RW, ANON | libc::MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
        munmap(map, PAGE)?;
        same!(mmap(map, PAGE, RW, ANON | libc::MAP_FIXED_NOREPLACE, -1, 0)?, map);
        Ok(())
    }

    fn mmap_hint_is_taken [mmap] {
        let map = anon(64 * PAGE)?;
        munmap(map, 64 * PAGE)?;
        same!(mmap(map + 8 * PAGE, PAGE, RW, ANON, -1, 0)?, map + 8 * PAGE);
        let other = mmap(map + 8 * PAGE, PAGE, RW, ANON, -1, 0)?;
        check!(other != map + 8 * PAGE && other % PAGE == 0);
        Ok(())
    }

    fn munmap_in_the_middle [munmap] {
        let map = anon(3 * PAGE)?;
        (0..3).for_each(|n| poke(map + n * PAGE, 5));
        munmap(map + PAGE, PAGE)?;
        same!((peek(map), peek(map + 2 * PAGE)), (5, 5));
        same!(fault(|| poke(map + PAGE, 1))?, (libc::SIGSEGV, 1, map + PAGE));
        munmap(map, 3 * PAGE)?;
        Ok(())
    }

    fn fault_codes [mmap, mprotect, rt_sigaction] {
        // SEGV_MAPERR is 1, SEGV_ACCERR is 2.
        same!(fault(|| touch(0x10))?, (libc::SIGSEGV, 1, 0x10));
        let map = mmap(0, PAGE, libc::PROT_READ, ANON, -1, 0)?;
        same!(fault(|| poke(map + 123, 1))?, (libc::SIGSEGV, 2, map + 123));
        let none = mmap(0, PAGE, libc::PROT_NONE, ANON, -1, 0)?;
        same!(fault(|| touch(none + 5))?, (libc::SIGSEGV, 2, none + 5));
        Ok(())
    }

    fn fault_beyond_the_end_of_a_file [mmap] {
        let fd = file("f", b"short")?;
        let map = mmap(0, 2 * PAGE, RW, SHARED, fd, 0)?;
        // BUS_ADRERR is 2.
        same!(fault(|| touch(map + PAGE))?, (libc::SIGBUS, 2, map + PAGE));
        sys!(SYS_ftruncate, fd, 2 * PAGE as i64)?;
        same!(peek(map + PAGE), 0);
        poke(map + PAGE, 3);
        sys!(SYS_ftruncate, fd, 100i64)?;
        same!(fault(|| touch(map + PAGE))?.0, libc::SIGBUS);
        Ok(())
    }

    fn fault_execute_is_refused [mmap] {
        let map = anon(PAGE)?;
        let (signal, code, addr) = fault(|| {
            // SAFETY: the jump is meant to fault, in a child that ends with it.
            let code: extern "C" fn() = unsafe { std::mem::transmute(map) };
            code();
        })?;
        same!((signal, code, addr), (libc::SIGSEGV, 2, map));
        Ok(())
    }

    fn mprotect_changes [mprotect] {
        let map = anon(3 * PAGE)?;
        (0..3).for_each(|n| poke(map + n * PAGE, 1));
        mprotect(map + PAGE, PAGE, libc::PROT_READ)?;
        same!(fault(|| poke(map + PAGE, 2))?, (libc::SIGSEGV, 2, map + PAGE));
        poke(map, 2);
        poke(map + 2 * PAGE, 2);
        mprotect(map, 3 * PAGE, RW)?;
        poke(map + PAGE, 2);
        same!(peek(map + PAGE), 2);
        mprotect(map, PAGE, libc::PROT_NONE)?;
        mprotect(map, PAGE, RW)?;
        same!(peek(map), 2);
        refused!(mprotect(map + 1, PAGE, RW), EINVAL);
        munmap(map + PAGE, PAGE)?;
        refused!(mprotect(map, 3 * PAGE, RW), ENOMEM);
        Ok(())
    }

    fn mprotect_after_fork_keeps_the_copy_apart [mprotect, clone] {
        let map = anon(PAGE)?;
        poke(map, 1);
        mprotect(map, PAGE, libc::PROT_READ)?;
        let pid = child(|| {
            mprotect(map, PAGE, RW)?;
            poke(map, 2);
            Ok(())
        })?;
        good(pid)?;
        same!(peek(map), 1);
        Ok(())
    }

    fn read_fault_into_a_call_is_efault [mprotect, read, write] {
        let map = anon(2 * PAGE)?;
        mprotect(map + PAGE, PAGE, libc::PROT_NONE)?;
        let fd = file("f", &[7; 100])?;
        refused!(sys!(SYS_read, fd, map + PAGE, 10usize), EFAULT);
        refused!(sys!(SYS_write, fd, map + PAGE, 10usize), EFAULT);
        let (reader, writer) = sys::pipe()?;
        sys::write(writer, &[1; 50])?;
        // What fits before the hole may be taken, or nothing: but no signal.
        check!(sys!(SYS_read, reader, map + PAGE - 10, 50usize).is_ok_and(|n| n <= 10) || sys!(SYS_getpid)? > 0);
        Ok(())
    }

    fn mremap_grows_and_moves [mremap] {
        let map = anon(2 * PAGE)?;
        poke(map, 1);
        poke(map + PAGE, 2);
        let wall = mmap(map + 2 * PAGE, PAGE, RW, ANON, -1, 0)?;
        let grown = sys!(SYS_mremap, map, 2 * PAGE, 64 * PAGE, libc::MREMAP_MAYMOVE)? as usize;
        same!((peek(grown), peek(grown + PAGE), peek(grown + 63 * PAGE)), (1, 2, 0));
        let small = sys!(SYS_mremap, grown, 64 * PAGE, PAGE, 0)? as usize;
        same!((small, peek(small)), (grown, 1));
        same!(fault(|| touch(grown + PAGE))?.0, libc::SIGSEGV);
        munmap(wall, PAGE)?;
        Ok(())
    }

    fn mremap_to_a_place [mremap] {
        let (map, place) = (anon(PAGE)?, anon(4 * PAGE)?);
        poke(map, 77);
        poke(place + PAGE, 1);
        let moved = sys!(SYS_mremap, map, PAGE, PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, place + PAGE)? as usize;
        same!((moved, peek(moved)), (place + PAGE, 77));
        same!(fault(|| touch(map))?.0, libc::SIGSEGV);
        refused!(sys!(SYS_mremap, place, PAGE, 0usize, 0), EINVAL);
        refused!(sys!(SYS_mremap, map, PAGE, PAGE, libc::MREMAP_MAYMOVE), EFAULT);
        Ok(())
    }

    fn mremap_of_a_file [mremap, mmap] {
        let fd = file("f", &(0..3 * PAGE).map(|n| (n / PAGE) as u8 + 1).collect::<Vec<_>>())?;
        let map = mmap(0, PAGE, libc::PROT_READ, SHARED, fd, 0)?;
        let grown = sys!(SYS_mremap, map, PAGE, 3 * PAGE, libc::MREMAP_MAYMOVE)? as usize;
        same!([0, 1, 2].map(|n| peek(grown + n * PAGE)), [1, 2, 3]);
        Ok(())
    }

    fn madvise_dontneed [madvise] {
        let map = anon(2 * PAGE)?;
        poke(map, 5);
        poke(map + PAGE, 6);
        madvise(map, PAGE, libc::MADV_DONTNEED)?;
        same!((peek(map), peek(map + PAGE)), (0, 6));
        let fd = file("f", b"file")?;
        let private = mmap(0, PAGE, RW, PRIVATE, fd, 0)?;
        poke(private, b'X');
        madvise(private, PAGE, libc::MADV_DONTNEED)?;
        same!(peek(private), b'f');
        refused!(madvise(map + 1, PAGE, libc::MADV_DONTNEED), EINVAL);
        refused!(madvise(map, PAGE, 12345), EINVAL);
        for advice in [libc::MADV_NORMAL, libc::MADV_WILLNEED, libc::MADV_SEQUENTIAL, libc::MADV_RANDOM] {
            madvise(map, PAGE, advice)?;
        }
        Ok(())
    }

    fn madvise_at_fork [madvise, clone] {
        let map = anon(2 * PAGE)?;
        poke(map, 1);
        poke(map + PAGE, 1);
        madvise(map, PAGE, libc::MADV_WIPEONFORK)?;
        madvise(map + PAGE, PAGE, libc::MADV_DONTFORK)?;
        good(child(|| {
            same!(peek(map), 0);
            same!(fault(|| touch(map + PAGE))?, (libc::SIGSEGV, 1, map + PAGE));
            Ok(())
        })?)?;
        same!((peek(map), peek(map + PAGE)), (1, 1));
        Ok(())
    }

    fn brk_grows_and_shrinks [brk] {
        let brk = |to: i64| sys!(SYS_brk, to);
        let start = brk(0)?;
        let page = |n: i64| (start + n * PAGE as i64 + PAGE as i64 - 1) & -(PAGE as i64);
        same!(brk(page(10))?, page(10));
        poke(page(9) as usize, 1);
        same!(brk(page(1))?, page(1));
        same!(brk(page(10))?, page(10));
        same!(peek(page(9) as usize), 0);
        // What cannot be is answered with the old end.
        same!(brk(1)?, page(10));
        same!(brk(i64::MAX)?, page(10));
        same!(brk(start)?, start);
        Ok(())
    }

    fn stack_grows [prlimit64] {
        #[inline(never)]
        fn deep(n: usize) -> usize {
            let room = std::hint::black_box([n as u8; 4096]);
            if n == 0 { room.len() } else { deep(n - 1) + room[n % 4096] as usize }
        }
        // Some megabytes of the usual 8, whatever the compiler makes of a frame.
        check!(deep(600) > 0);
        Ok(())
    }

    fn stack_limit_ends_it [prlimit64] {
        #[inline(never)]
        fn deeper(n: usize) -> usize {
            let room = std::hint::black_box([n as u8; 4096]);
            if n == usize::MAX { 0 } else { deeper(n + 1) + room[n % 4096] as usize }
        }
        let pid = child(|| {
            on(libc::SIGSEGV, Do::Default, 0)?;
            check!(deeper(0) == 0);
            Ok(())
        })?;
        same!(wait(pid, 0)?, Status::Killed(libc::SIGSEGV));
        Ok(())
    }

    fn address_space_limit [prlimit64, mmap] {
        let pid = child(|| {
            let limit = [1u64 << 30, 1 << 30];
            sys!(SYS_prlimit64, 0, libc::RLIMIT_AS, limit.as_ptr(), 0usize)?;
            refused!(anon(2 << 30), ENOMEM);
            anon(1 << 20)?;
            Ok(())
        })?;
        good(pid)
    }

    fn handler_repairs_and_the_access_goes_on [mprotect, rt_sigreturn] {
        extern "C" fn repair(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
            // SAFETY: the kernel passes a siginfo for a fault.
            let page = unsafe { (*info).si_addr() as usize } & !(PAGE - 1);
            let _ = mprotect(page, PAGE, RW);
            sys::count(signal, info, context);
        }
        on(libc::SIGSEGV, Do::Call(repair), 0)?;
        let map = mmap(0, 20 * PAGE, libc::PROT_NONE, ANON, -1, 0)?;
        (0..20).for_each(|n| poke(map + n * PAGE + n, n as u8));
        same!((sys::came(libc::SIGSEGV), peek(map + 19 * PAGE + 19)), (20, 19));
        check!(LAST[0].load(SeqCst) == 2);
        Ok(())
    }

    fn memory_written_by_many_threads [mmap, madvise] {
        let map = anon(256 * PAGE)?;
        std::thread::scope(|scope| {
            for id in 0..4usize {
                scope.spawn(move || {
                    for page in 0..256 {
                        word(map + page * PAGE + id * 4).fetch_add(page as u32, SeqCst);
                    }
                });
            }
        });
        check!((0..256).all(|page| (0..4).all(|id| word(map + page * PAGE + id * 4).load(SeqCst) == page as u32)));
        Ok(())
    }

    fn unmap_is_seen_by_all_threads [munmap, mprotect] {
        let map = anon(PAGE)?;
        poke(map, 1);
        let (signal, code, addr) = fault(|| {
            let reader = std::thread::spawn(move || loop {
                std::hint::black_box(peek(map));
            });
            for _ in 0..100 {
                std::thread::yield_now();
            }
            let _ = mprotect(map, PAGE, libc::PROT_NONE);
            let _ = reader.join();
        })?;
        same!((signal, code, addr), (libc::SIGSEGV, 2, map));
        Ok(())
    }

    fn mincore_and_populate [mmap, mincore] {
        let map = mmap(0, 4 * PAGE, RW, ANON | libc::MAP_POPULATE, -1, 0)?;
        let mut resident = [0u8; 4];
        sys!(SYS_mincore, map, 4 * PAGE, resident.as_mut_ptr())?;
        same!(resident.map(|byte| byte & 1), [1; 4]);
        munmap(map + PAGE, PAGE)?;
        refused!(sys!(SYS_mincore, map, 4 * PAGE, resident.as_mut_ptr()), ENOMEM);
        Ok(())
    }

    fn mlock_calls [mlock, munlock] {
        let map = anon(2 * PAGE)?;
        sys!(SYS_mlock, map, 2 * PAGE)?;
        sys!(SYS_munlock, map, 2 * PAGE)?;
        munmap(map, PAGE)?;
        refused!(sys!(SYS_mlock, map, PAGE), ENOMEM);
        Ok(())
    }

    fn device_zero_and_dev_shm_map [mmap] {
        let zero = sys::open("/dev/zero", libc::O_RDWR, 0)?;
        let map = mmap(0, PAGE, RW, PRIVATE, zero, 0)?;
        poke(map, 1);
        same!((peek(map), peek(map + 1)), (1, 0));
        let both = mmap(0, PAGE, RW, SHARED, zero, 0)?;
        good(child(|| {
            poke(both, 8);
            Ok(())
        })?)?;
        same!(peek(both), 8);
        Ok(())
    }

    fn process_vm_io [process_vm_readv, process_vm_writev] {
        let map = anon(PAGE)?;
        poke(map, 3);
        let (ready, tell) = sys::pipe()?;
        let (go, start) = sys::pipe()?;
        let pid = child(|| {
            poke(map, 4);
            sys::write(tell, b"x")?;
            sys::get(go, 1)?;
            same!(peek(map + 1), 9);
            Ok(())
        })?;
        sys::get(ready, 1)?;
        let byte = anon(PAGE)?;
        let here = libc::iovec { iov_base: byte as *mut _, iov_len: 1 };
        let there = libc::iovec { iov_base: map as *mut _, iov_len: 1 };
        same!(sys!(SYS_process_vm_readv, pid, &raw const here, 1u64, &raw const there, 1u64, 0u64)?, 1);
        same!(peek(byte), 4);
        poke(byte, 9);
        let next = libc::iovec { iov_base: (map + 1) as *mut _, iov_len: 1 };
        same!(sys!(SYS_process_vm_writev, pid, &raw const here, 1u64, &raw const next, 1u64, 0u64)?, 1);
        sys::write(start, b"x")?;
        good(pid)
    }
}
