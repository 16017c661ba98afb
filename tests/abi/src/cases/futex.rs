//! Futexes.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::sys;
use crate::sys::{Do, child, good, ms, on, word};
use crate::{cases, check, refused, same};

const PRIVATE: i32 = libc::FUTEX_PRIVATE_FLAG;

/// Waits while the word is `value`, for ever or a time.
fn wait(futex: &AtomicU32, value: u32, flags: i32, timeout: Option<i64>) -> sys::Sys {
    let time = ms(timeout.unwrap_or(0));
    let time = timeout.map_or(std::ptr::null(), |_| &raw const time);
    sys!(SYS_futex, futex.as_ptr(), libc::FUTEX_WAIT | flags, value, time, 0usize, 0usize)
}

fn wake(futex: &AtomicU32, count: i32, flags: i32) -> sys::Sys {
    sys!(SYS_futex, futex.as_ptr(), libc::FUTEX_WAKE | flags, count, 0usize, 0usize, 0usize)
}

/// Wakes again and again until this many were woken: waiters may not wait yet.
fn wake_all(futex: &AtomicU32, want: i64) -> sys::Sys {
    let mut woken = 0;
    while woken < want {
        woken += wake(futex, 1, 0)?;
        std::thread::yield_now();
    }
    Ok(woken)
}

cases! {
    fn futex_value_differs [futex] {
        let futex = AtomicU32::new(1);
        refused!(wait(&futex, 0, 0, None), EAGAIN);
        refused!(wait(&futex, 2, PRIVATE, None), EAGAIN);
        same!(wake(&futex, 1, 0)?, 0);
        Ok(())
    }

    fn futex_times_out [futex] {
        let futex = AtomicU32::new(1);
        let start = sys::clock(libc::CLOCK_MONOTONIC)?;
        refused!(wait(&futex, 1, PRIVATE, Some(30)), ETIMEDOUT);
        check!(sys::clock(libc::CLOCK_MONOTONIC)? - start >= 30_000_000);
        refused!(wait(&futex, 1, 0, Some(0)), ETIMEDOUT);
        Ok(())
    }

    fn futex_absolute_time_out [futex] {
        let futex = AtomicU32::new(1);
        let until = |clock: i32, flag: i32| {
            let at = sys::clock(clock)? + 20_000_000;
            let time = libc::timespec { tv_sec: at / 1_000_000_000, tv_nsec: at % 1_000_000_000 };
            let call = sys!(SYS_futex, futex.as_ptr(), libc::FUTEX_WAIT_BITSET | flag, 1, &raw const time, 0usize, u32::MAX);
            check!(sys::clock(clock)? >= at);
            refused!(call, ETIMEDOUT);
            Ok(())
        };
        until(libc::CLOCK_MONOTONIC, 0)?;
        until(libc::CLOCK_REALTIME, libc::FUTEX_CLOCK_REALTIME)
    }

    fn futex_checks [futex] {
        let words = [0u32; 2];
        let futex = AtomicU32::new(1);
        let odd = words.as_ptr() as usize + 2;
        refused!(sys!(SYS_futex, odd, libc::FUTEX_WAIT, 0, 0usize, 0usize, 0usize), EINVAL);
        refused!(sys!(SYS_futex, 16usize, libc::FUTEX_WAIT, 0, 0usize, 0usize, 0usize), EFAULT);
        refused!(sys!(SYS_futex, futex.as_ptr(), 77, 0, 0usize, 0usize, 0usize), ENOSYS);
        let bad = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
        refused!(sys!(SYS_futex, futex.as_ptr(), libc::FUTEX_WAIT, 1, &raw const bad, 0usize, 0usize), EINVAL);
        refused!(sys!(SYS_futex, futex.as_ptr(), libc::FUTEX_WAIT_BITSET, 1, 0usize, 0usize, 0u32), EINVAL);
        Ok(())
    }

    fn futex_between_threads [futex] {
        let futex = AtomicU32::new(0);
        let woken = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| wait(&futex, 0, 0, None))).collect();
            let woken = wake_all(&futex, 3);
            let waits = threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(9))).collect::<Vec<_>>();
            (woken, waits)
        });
        same!(woken, (Ok(3), vec![Ok(0); 3]));
        Ok(())
    }

    fn futex_between_processes [futex, mmap] {
        let futex = word(sys::shared(4096)?);
        let pid = child(|| {
            same!(wait(futex, 0, 0, None)?, 0);
            Ok(())
        })?;
        wake_all(futex, 1)?;
        good(pid)
    }

    fn futex_in_a_shared_file [futex, mmap] {
        let fd = sys::file("f", &[0; 4096])?;
        let map = || sys::mmap(0, 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0);
        let here = word(map()? + 100);
        let pid = child(|| {
            // Another address, the same word.
            let there = word(map()? + 100);
            same!(wait(there, 0, 0, None)?, 0);
            Ok(())
        })?;
        wake_all(here, 1)?;
        good(pid)
    }

    fn futex_private_is_not_shared [futex] {
        let futex = word(sys::anon(4096)?);
        let pid = child(|| {
            refused!(wait(futex, 0, 0, Some(20)), ETIMEDOUT);
            Ok(())
        })?;
        for _ in 0..100 {
            same!(wake(futex, 10, 0)?, 0);
            std::thread::yield_now();
        }
        good(pid)
    }

    fn futex_bitset_chooses [futex] {
        let futex = AtomicU32::new(0);
        std::thread::scope(|scope| -> crate::case::Outcome {
            let wait_for = |bits: u32| {
                let futex = &futex;
                scope.spawn(move || sys!(SYS_futex, futex.as_ptr(), libc::FUTEX_WAIT_BITSET, 0, 0usize, 0usize, bits))
            };
            let wake_bits = |bits: u32| loop {
                match sys!(SYS_futex, futex.as_ptr(), libc::FUTEX_WAKE_BITSET, 10, 0usize, 0usize, bits) {
                    Ok(0) => std::thread::yield_now(),
                    other => return other,
                }
            };
            let (one, two) = (wait_for(1), wait_for(2));
            same!(wake_bits(2)?, 1);
            same!(two.join().unwrap_or(Ok(9))?, 0);
            same!(wake_bits(5)?, 1);
            same!(one.join().unwrap_or(Ok(9))?, 0);
            Ok(())
        })
    }

    fn futex_requeue_moves_waiters [futex] {
        let (from, to) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| -> crate::case::Outcome {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| wait(&from, 0, 0, None))).collect();
            refused!(sys!(SYS_futex, from.as_ptr(), libc::FUTEX_CMP_REQUEUE, 0, 10usize, to.as_ptr(), 5u32), EAGAIN);
            let mut moved = 0;
            while moved < 4 {
                moved += sys!(SYS_futex, from.as_ptr(), libc::FUTEX_CMP_REQUEUE, 0, 10usize, to.as_ptr(), 0u32)?;
                std::thread::yield_now();
            }
            same!(wake(&from, 10, 0)?, 0);
            same!(wake(&to, 10, 0)?, 4);
            check!(threads.into_iter().all(|thread| thread.join().is_ok_and(|result| result == Ok(0))));
            Ok(())
        })
    }

    fn futex_wake_op [futex] {
        let (one, two) = (AtomicU32::new(0), AtomicU32::new(5));
        // two = 7; wake waiters of two if it was 5: FUTEX_OP_SET 7, FUTEX_OP_CMP_EQ 5.
        let op = 7u32 << 12 | 5;
        same!(sys!(SYS_futex, one.as_ptr(), libc::FUTEX_WAKE_OP, 1, 1usize, two.as_ptr(), op)?, 0);
        same!(two.load(SeqCst), 7);
        Ok(())
    }

    fn futex_wait_is_interrupted [futex] {
        on(libc::SIGALRM, Do::Count, 0)?;
        sys::pester(5)?;
        let futex = AtomicU32::new(0);
        refused!(wait(&futex, 0, 0, None), EINTR);
        Ok(())
    }

    fn futex_timed_wait_is_not_restarted [futex] {
        // Only a wait without a time is restarted after a handler (signal(7)).
        on(libc::SIGALRM, Do::Count, libc::SA_RESTART)?;
        sys::pester(5)?;
        let futex = AtomicU32::new(0);
        refused!(wait(&futex, 0, 0, Some(60_000)), EINTR);
        Ok(())
    }

    fn robust_list_marks_the_dead_owner [set_robust_list, get_robust_list, futex] {
        let map = sys::shared(4096)?;
        let futex = word(map + 64);
        let pid = child(|| {
            // A list with one lock: the entry at map + 32, its word 32 bytes on.
            let head = map as *mut u64;
            let entry = map + 32;
            // SAFETY: both lie in our mapping.
            unsafe {
                head.write(entry as u64);
                head.add(1).write(32);
                head.add(2).write(0);
                (entry as *mut u64).write(head as u64);
            }
            sys!(SYS_set_robust_list, head, 24usize)?;
            futex.store(sys!(SYS_gettid)? as u32 | libc::FUTEX_WAITERS, SeqCst);
            Ok(())
        })?;
        good(pid)?;
        same!(futex.load(SeqCst), libc::FUTEX_OWNER_DIED | libc::FUTEX_WAITERS);
        refused!(sys!(SYS_set_robust_list, map, 23usize), EINVAL);
        Ok(())
    }

    fn robust_list_wakes_a_waiter [set_robust_list, futex] {
        let map = sys::shared(4096)?;
        let futex = word(map + 64);
        let (locked, tell) = sys::pipe()?;
        let owner = child(|| {
            let head = map as *mut u64;
            // SAFETY: both lie in our mapping.
            unsafe {
                head.write(map as u64 + 32);
                head.add(1).write(32);
                head.add(2).write(0);
                ((map + 32) as *mut u64).write(head as u64);
            }
            sys!(SYS_set_robust_list, head, 24usize)?;
            futex.store(sys!(SYS_gettid)? as u32 | libc::FUTEX_WAITERS, SeqCst);
            sys::write(tell, b"x")?;
            sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize)?;
            Ok(())
        })?;
        sys::get(locked, 1)?;
        let waiter = child(|| {
            let value = futex.load(SeqCst);
            // If the owner has died already, nobody will wake us.
            if value & libc::FUTEX_OWNER_DIED == 0 {
                match wait(futex, value, 0, None) {
                    Ok(_) | Err(linux_abi::Errno::EAGAIN) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            check!(futex.load(SeqCst) & libc::FUTEX_OWNER_DIED != 0);
            Ok(())
        })?;
        sys::kill(owner, libc::SIGKILL)?;
        sys::wait(owner, 0)?;
        good(waiter)
    }
}
