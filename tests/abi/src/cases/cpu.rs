//! The state of a CPU that belongs to a task: vector and floating-point registers, thread pointers.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::sys;
use crate::sys::{Do, child, good, on};
use crate::{cases, check, same};

/// A sum that lives in floating-point registers for long: exact, so that any lost register changes it.
#[inline(never)]
fn grind(seed: f64, rounds: u32) -> f64 {
    let mut state = [seed, seed * 2.0, seed * 3.0, seed * 4.0, seed * 5.0, seed * 6.0, seed * 7.0, seed * 8.0];
    for round in 0..rounds {
        for value in &mut state {
            *value = (*value + f64::from(round % 7)) * 0.5 + seed;
        }
        if round % 64 == 0 {
            std::thread::yield_now();
        }
    }
    state.iter().sum()
}

cases! {
    fn floats_survive_other_processes [sched_yield, clone] {
        let want: Vec<u64> = (1..=4).map(|n| grind(f64::from(n), 20_000).to_bits()).collect();
        let kids = (1..=4)
            .map(|n| {
                let want = want[n as usize - 1];
                child(move || {
                    same!(grind(f64::from(n), 20_000).to_bits(), want);
                    Ok(())
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        kids.into_iter().try_for_each(good)
    }

    fn floats_survive_threads [clone, futex] {
        let want = grind(3.0, 20_000).to_bits();
        let wrong = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    if grind(3.0, 20_000).to_bits() != want {
                        wrong.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        same!(wrong.load(SeqCst), 0);
        Ok(())
    }

    fn floats_survive_signals [rt_sigaction, rt_sigreturn] {
        extern "C" fn disturb(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
            std::hint::black_box(grind(std::hint::black_box(9.25), 40));
            sys::count(signal, info, context);
        }
        let want = grind(5.0, 100_000).to_bits();
        on(libc::SIGALRM, Do::Call(disturb), libc::SA_RESTART)?;
        sys::pester(1)?;
        while sys::came(libc::SIGALRM) < 5 {
            same!(grind(5.0, 100_000).to_bits(), want);
        }
        Ok(())
    }

    fn floats_are_copied_by_fork [clone] {
        let before = std::hint::black_box(1.5f64);
        let kid = child(|| {
            check!(std::hint::black_box(before) * 2.0 == 3.0);
            Ok(())
        })?;
        good(kid)
    }

    fn vectors_survive [sched_yield, clone] {
        // Long integer vectors, which the compiler keeps in the widest registers it may use.
        fn mix(seed: u32) -> u32 {
            let mut lanes: [u32; 32] = std::array::from_fn(|n| seed ^ n as u32);
            for round in 0..30_000u32 {
                lanes.iter_mut().for_each(|lane| *lane = lane.rotate_left(5) ^ round.wrapping_add(*lane));
                if round % 256 == 0 {
                    std::thread::yield_now();
                }
            }
            lanes.iter().fold(0, |all, lane| all.rotate_left(1) ^ lane)
        }
        let want = [1, 2, 3].map(mix);
        let kids = [0, 1, 2].map(|n| {
            child(move || {
                same!(mix(n as u32 + 1), want[n]);
                Ok(())
            })
        });
        for kid in kids {
            good(kid?)?;
        }
        Ok(())
    }

    fn thread_locals_are_apart [clone, arch_prctl] {
        thread_local! {
            static MINE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
        }
        let good = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=8)
                .map(|id| {
                    scope.spawn(move || {
                        MINE.set(id);
                        (0..500).all(|_| {
                            std::thread::yield_now();
                            MINE.get() == id
                        })
                    })
                })
                .collect();
            threads.into_iter().all(|thread| thread.join().unwrap_or(false))
        });
        check!(good && MINE.get() == 0);
        Ok(())
    }
}
