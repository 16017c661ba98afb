//! Futexes with priority inheritance.

use std::sync::atomic::Ordering::SeqCst;

use crate::case::Outcome;
use crate::sys;
use crate::sys::{Do, child, good, word};
use crate::{cases, check, refused, same};

const LOCK: i32 = libc::FUTEX_LOCK_PI;
const UNLOCK: i32 = libc::FUTEX_UNLOCK_PI;
const TRYLOCK: i32 = libc::FUTEX_TRYLOCK_PI;
const WAITERS: u32 = 0x8000_0000;
const DIED: u32 = 0x4000_0000;

fn futex(at: usize, operation: i32, timeout: usize) -> sys::Sys {
    sys!(SYS_futex, at, operation, 0, timeout, 0usize, 0)
}

fn me() -> u32 {
    sys!(SYS_gettid).unwrap_or(0) as u32
}

/// What the other program does: takes the word in the file that is its standard input, and gives it when somebody waits.
pub fn alone() -> Outcome {
    let at = sys::mmap(0, 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, 0, 0)?;
    futex(at, LOCK, 0)?;
    println!("locked");
    contended(at);
    futex(at, UNLOCK, 0)?;
    Ok(())
}

/// Waits until somebody waits for the word.
fn contended(at: usize) {
    sys::until(|| word(at).load(SeqCst) & WAITERS != 0);
}

fn realtime(priority: i32) -> sys::Sys {
    sys!(SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const priority)
}

cases! {
    fn pi_lock_and_unlock [futex] {
        let at = sys::anon(4096)?;
        futex(at, LOCK | libc::FUTEX_PRIVATE_FLAG, 0)?;
        same!(word(at).load(SeqCst), me());
        refused!(futex(at, LOCK | libc::FUTEX_PRIVATE_FLAG, 0), EDEADLK);
        refused!(futex(at, TRYLOCK | libc::FUTEX_PRIVATE_FLAG, 0), EDEADLK);
        futex(at, UNLOCK | libc::FUTEX_PRIVATE_FLAG, 0)?;
        same!(word(at).load(SeqCst), 0);
        refused!(futex(at, UNLOCK | libc::FUTEX_PRIVATE_FLAG, 0), EPERM);
        word(at).store(0x3fff_0000, SeqCst);
        refused!(futex(at, LOCK | libc::FUTEX_PRIVATE_FLAG, 0), ESRCH);
        refused!(futex(at + 1, LOCK, 0), EINVAL);
        Ok(())
    }

    fn pi_waits_and_is_handed_over [futex] {
        let at = sys::shared(4096)?;
        futex(at, LOCK, 0)?;
        let pid = child(|| {
            refused!(futex(at, TRYLOCK, 0), EAGAIN);
            futex(at, LOCK, 0)?;
            same!(word(at).load(SeqCst) & !WAITERS, me());
            futex(at, UNLOCK, 0)?;
            Ok(())
        })?;
        contended(at);
        futex(at, UNLOCK, 0)?;
        // It is the child's before the child knows.
        check!(word(at).load(SeqCst) & 0x3fff_ffff != me());
        good(pid)?;
        same!(word(at).load(SeqCst), 0);
        Ok(())
    }

    fn pi_wait_ends_in_time [futex, clock_gettime] {
        let at = sys::shared(4096)?;
        futex(at, LOCK, 0)?;
        good(child(|| {
            let now = sys::clock(libc::CLOCK_REALTIME)? + 10_000_000;
            let until = libc::timespec { tv_sec: now / 1_000_000_000, tv_nsec: now % 1_000_000_000 };
            refused!(futex(at, LOCK, (&raw const until) as usize), ETIMEDOUT);
            check!(sys::clock(libc::CLOCK_REALTIME)? >= now);
            Ok(())
        })?)?;
        futex(at, UNLOCK, 0)?;
        same!(word(at).load(SeqCst), 0);
        Ok(())
    }

    fn pi_wait_goes_on_after_a_signal [futex] {
        let at = sys::shared(4096)?;
        futex(at, LOCK, 0)?;
        let pid = child(|| {
            sys::on(libc::SIGALRM, Do::Count, 0)?;
            sys::pester(5)?;
            futex(at, LOCK, 0)?;
            check!(sys::came(libc::SIGALRM) > 1);
            futex(at, UNLOCK, 0)?;
            word(at + 64).store(1, SeqCst);
            Ok(())
        })?;
        contended(at);
        let time = sys::ms(40);
        sys!(SYS_nanosleep, &raw const time, 0usize)?;
        same!(word(at + 64).load(SeqCst), 0);
        futex(at, UNLOCK, 0)?;
        good(pid)
    }

    fn pi_owner_dies [futex, set_robust_list] {
        let at = sys::shared(4096)?;
        let owner = child(|| {
            futex(at, LOCK, 0)?;
            contended(at);
            // A list with one entry: the word is behind its link.
            let list = Box::leak(Box::new([0u64; 3]));
            let entry = at + 128;
            list[0] = entry as u64 | 1;
            list[1] = (at as i64 - entry as i64) as u64;
            // SAFETY: the page is mapped, and nobody else uses this part of it.
            unsafe { *(entry as *mut u64) = list.as_ptr() as u64 };
            sys!(SYS_set_robust_list, list.as_ptr(), 24usize)?;
            sys::exit(0)
        })?;
        sys::until(|| word(at).load(SeqCst) != 0);
        futex(at, LOCK, 0)?;
        good(owner)?;
        same!(word(at).load(SeqCst) & !WAITERS, me() | DIED);
        futex(at, UNLOCK, 0)?;
        same!(word(at).load(SeqCst), 0);
        Ok(())
    }

    fn pi_most_urgent_is_first [futex, sched_setscheduler] {
        let at = sys::shared(4096)?;
        if let Err(linux_abi::Errno::EPERM) = realtime(1) {
            return Err(crate::case::Fail::Skip("no real-time priorities".into()));
        }
        futex(at, LOCK, 0)?;
        let order = at + 64;
        let waiter = |priority: i32, waits: usize| -> sys::Sys<i32> {
            let pid = child(|| -> Outcome {
                realtime(priority)?;
                word(waits).store(1, SeqCst);
                futex(at, LOCK, 0)?;
                word(order).fetch_update(SeqCst, SeqCst, |o| Some(o * 100 + priority as u32)).ok();
                futex(at, UNLOCK, 0)?;
                Ok(())
            })?;
            // It sleeps, once it said that it will. Looking for that must not keep the only CPU from those of a lower priority than this one is lent.
            let sleeps = || sys::proc_stat(pid).is_ok_and(|f| f.first().is_some_and(|s| s == "S"));
            while word(waits).load(SeqCst) == 0 || !sleeps() {
                let time = sys::ms(1);
                sys!(SYS_nanosleep, &raw const time, 0usize)?;
            }
            Ok(pid)
        };
        let pids = [waiter(5, at + 128)?, waiter(9, at + 192)?, waiter(7, at + 256)?];
        futex(at, UNLOCK, 0)?;
        for pid in pids {
            good(pid)?;
        }
        same!(word(order).load(SeqCst), 90_705);
        Ok(())
    }

    fn pi_of_another_program [futex, execve] {
        let fd = sys::file("word", &[0; 4096])?;
        let (reader, writer) = sys::pipe()?;
        let pid = child(|| {
            sys!(SYS_dup3, fd, 0, 0)?;
            sys!(SYS_dup3, writer, 1, 0)?;
            sys::exec_me(&["pi"])?;
            Ok(())
        })?;
        sys::close(writer)?;
        let at = sys::mmap(0, 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0)?;
        same!(sys::get(reader, 8)?, b"locked\n");
        futex(at, LOCK, 0)?;
        good(pid)?;
        futex(at, UNLOCK, 0)?;
        same!(word(at).load(SeqCst), 0);
        Ok(())
    }

    fn pi_two_wait_for_each_other [futex] {
        let at = sys::shared(4096)?;
        let (a, b) = (at, at + 64);
        futex(a, LOCK, 0)?;
        let pid = child(|| {
            futex(b, LOCK, 0)?;
            futex(a, LOCK, 0)?;
            futex(a, UNLOCK, 0)?;
            futex(b, UNLOCK, 0)?;
            Ok(())
        })?;
        contended(a);
        // The word says that somebody waits a moment before he does: until then he is the one who would close the circle.
        while !sys::proc_stat(pid).is_ok_and(|fields| fields.first().is_some_and(|state| state == "S")) {
            let time = sys::ms(1);
            sys!(SYS_nanosleep, &raw const time, 0usize)?;
        }
        refused!(futex(b, LOCK, 0), EDEADLK);
        futex(a, UNLOCK, 0)?;
        good(pid)
    }
}
