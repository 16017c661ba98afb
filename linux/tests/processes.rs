//! Processes, signals, groups and waits of one kernel, with scripted programs under many schedules.

mod lab;

use lab::{Calls, DATA, Notes, nr, run};

fn note(notes: &Notes, line: impl Into<String>) {
    notes.lock().unwrap().push(line.into());
}

/// The same on one CPU and on two, under some seeds.
fn schedules(test: impl Fn(u64, usize)) {
    for seed in 1..=4 {
        test(seed, 1);
        test(seed, 2);
    }
}

#[test]
fn children_are_waited_for() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            assert_eq!(cpu.call(nr::GETPID, &[]), 1);
            assert_eq!(cpu.call(nr::NOSUCH, &[]), -38);
            assert_eq!(cpu.wait(-1, 0).0, -10);
            let child = cpu.fork_with(|cpu| {
                assert_eq!(cpu.call(nr::GETPPID, &[]), 1);
                42
            });
            assert!(child > 1);
            assert_eq!(cpu.wait(-1, 0), (child, 42 << 8));
            assert_eq!(cpu.wait(-1, 0).0, -10);
            // A pid is free only after the wait.
            let mut pids = Vec::new();
            for i in 0..10 {
                pids.push(cpu.fork_with(move |_| i));
            }
            for (i, pid) in pids.iter().enumerate().rev() {
                assert_eq!(cpu.wait(*pid, 0), (*pid, (i as i32) << 8));
            }
            0
        });
    });
}

#[test]
fn memory_is_copied_on_fork() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            cpu.store(DATA, &7_u32.to_le_bytes());
            let child = cpu.fork_with(|cpu| {
                assert_eq!(cpu.word(DATA), 7);
                cpu.store(DATA, &8_u32.to_le_bytes());
                cpu.word(DATA) as i32
            });
            assert_eq!(cpu.wait(child, 0).1, 8 << 8);
            assert_eq!(cpu.word(DATA), 7);
            0
        });
    });
}

#[test]
fn orphans_go_to_pid_1() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            let child = cpu.fork_with(|cpu| {
                cpu.fork_with(|cpu| {
                    while cpu.call(nr::GETPPID, &[]) != 1 {
                        cpu.sleep(1_000_000);
                    }
                    9
                });
                3
            });
            assert_eq!(cpu.wait(child, 0), (child, 3 << 8));
            let (orphan, status) = cpu.wait(-1, 0);
            assert!(orphan > 1 && orphan != child && status == 9 << 8);
            0
        });
    });
}

#[test]
fn handlers_run_and_calls_start_again() {
    schedules(|seed, cpus| {
        let notes = run(seed, cpus, |cpu, notes| {
            let n = notes.clone();
            cpu.handle(10, 0, move |cpu| {
                note(&n, format!("signal {}", cpu.signo()));
                0
            });
            assert_eq!(cpu.call(nr::KILL, &[1, 10]), 0);
            // Without SA_RESTART the wait is interrupted, with it it is not.
            let interrupter = |cpu: &mut hal::host::UserCpu| {
                cpu.sleep(5_000_000);
                cpu.call(nr::KILL, &[1, 10]);
                cpu.sleep(5_000_000);
                6
            };
            let child = cpu.fork_with(interrupter);
            assert_eq!(cpu.wait(child, 0).0, -4);
            assert_eq!(cpu.wait(child, 0), (child, 6 << 8));
            let n = notes.clone();
            cpu.handle(10, 0x1000_0000, move |_| {
                note(&n, "restarting");
                0
            });
            let child = cpu.fork_with(interrupter);
            assert_eq!(cpu.wait(child, 0), (child, 6 << 8));
            0
        });
        assert_eq!(notes, ["signal 10", "signal 10", "restarting"], "seed {seed}");
    });
}

#[test]
fn default_actions_end_a_process() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            for signal in [9, 15, 11, 14] {
                let child = cpu.fork_with(|cpu| {
                    loop {
                        cpu.call(nr::PAUSE, &[]);
                    }
                });
                assert_eq!(cpu.call(nr::KILL, &[child as u64, signal]), 0);
                assert_eq!(cpu.wait(child, 0), (child, signal as i32));
                assert_eq!(cpu.call(nr::KILL, &[child as u64, signal]), -3);
            }
            // A fault ends it too.
            let child = cpu.fork_with(|cpu| cpu.word(0x10) as i32);
            assert_eq!(cpu.wait(child, 0), (child, 11));
            // Nobody kills pid 1 by accident.
            assert_eq!(cpu.call(nr::KILL, &[1, 15]), 0);
            assert_eq!(cpu.call(nr::KILL, &[1, 9]), 0);
            0
        });
    });
}

#[test]
fn stop_and_continue_are_reported() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            let child = cpu.fork_with(|cpu| {
                cpu.sleep(20_000_000);
                5
            });
            assert_eq!(cpu.call(nr::KILL, &[child as u64, 19]), 0);
            assert_eq!(cpu.wait(child, 2), (child, 0x137f));
            assert_eq!(cpu.wait(child, 1 | 2 | 8).0, 0);
            cpu.sleep(30_000_000);
            assert_eq!(cpu.wait(child, 1).0, 0, "it is stopped and cannot exit");
            assert_eq!(cpu.call(nr::KILL, &[child as u64, 18]), 0);
            // It may have exited before anybody asks whether it went on.
            assert_eq!(cpu.wait(child, 0), (child, 5 << 8));
            // This one does not exit by itself.
            let child = cpu.fork_with(|cpu| cpu.call(nr::PAUSE, &[]) as i32);
            assert_eq!(cpu.call(nr::KILL, &[child as u64, 19]), 0);
            assert_eq!(cpu.wait(child, 2), (child, 0x137f));
            assert_eq!(cpu.call(nr::KILL, &[child as u64, 18]), 0);
            assert_eq!(cpu.wait(child, 8), (child, 0xffff));
            cpu.call(nr::KILL, &[child as u64, 9]);
            assert_eq!(cpu.wait(child, 0), (child, 9));
            // SIGKILL ends a stopped process.
            let child = cpu.fork_with(|cpu| cpu.call(nr::PAUSE, &[]) as i32);
            cpu.call(nr::KILL, &[child as u64, 19]);
            assert_eq!(cpu.wait(child, 2), (child, 0x137f));
            cpu.call(nr::KILL, &[child as u64, 9]);
            assert_eq!(cpu.wait(child, 0), (child, 9));
            0
        });
    });
}

#[test]
fn groups_and_sessions() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            assert_eq!(cpu.call(nr::SETSID, &[]), -1, "pid 1 leads a session already");
            let sleeper = |cpu: &mut hal::host::UserCpu| {
                loop {
                    cpu.call(nr::PAUSE, &[]);
                }
            };
            let a = cpu.fork_with(sleeper);
            let b = cpu.fork_with(sleeper);
            assert_eq!(cpu.call(nr::SETPGID, &[a as u64, 0]), 0);
            assert_eq!(cpu.call(nr::SETPGID, &[b as u64, a as u64]), 0);
            assert_eq!(cpu.call(nr::GETPGID, &[b as u64]), a);
            assert_eq!(cpu.wait(-a, 1).0, 0, "both are there");
            assert_eq!(cpu.call(nr::KILL, &[(-a) as u64, 15]), 0);
            let mut ended = [cpu.wait(-a, 0), cpu.wait(-a, 0)];
            ended.sort();
            assert_eq!(ended, [(a.min(b), 15), (a.max(b), 15)]);
            assert_eq!(cpu.call(nr::KILL, &[(-a) as u64, 0]), -3);
            let c = cpu.fork_with(|cpu| {
                let me = cpu.call(nr::GETPID, &[]);
                assert_eq!(cpu.call(nr::SETSID, &[]), me);
                assert_eq!(cpu.call(nr::GETSID, &[0]), me);
                assert_eq!(cpu.call(nr::GETPGID, &[0]), me);
                assert_eq!(cpu.call(nr::SETSID, &[]), -1);
                assert_eq!(cpu.call(nr::SETPGID, &[0, 0]), -1);
                cpu.call(nr::PAUSE, &[]);
                0
            });
            while cpu.call(nr::GETSID, &[c as u64]) != c {
                cpu.call(nr::SCHED_YIELD, &[]);
            }
            assert_eq!(cpu.call(nr::SETPGID, &[c as u64, 0]), -1, "a child in another session");
            assert_eq!(cpu.call(nr::KILL, &[(-c) as u64, 9]), 0);
            assert_eq!(cpu.wait(c, 0), (c, 9));
            0
        });
    });
}

#[test]
fn time_passes_while_sleeping() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            let from = cpu.now();
            assert_eq!(cpu.sleep(50_000_000), 0);
            let slept = cpu.now() - from;
            assert!((50_000_000..60_000_000).contains(&slept), "{slept}");
            // A stop in the middle of a sleep does not make it longer or end it (restart_syscall).
            let child = cpu.fork_with(|cpu| {
                let from = cpu.now();
                assert_eq!(cpu.sleep(50_000_000), 0);
                i32::from(cpu.now() - from > 60_000_000)
            });
            cpu.sleep(10_000_000);
            cpu.call(nr::KILL, &[child as u64, 19]);
            assert_eq!(cpu.wait(child, 2).1, 0x137f);
            cpu.call(nr::KILL, &[child as u64, 18]);
            assert_eq!(cpu.wait(child, 0), (child, 0));
            0
        });
    });
}

#[test]
fn alarm_interrupts_pause() {
    schedules(|seed, cpus| {
        let notes = run(seed, cpus, |cpu, notes| {
            let n = notes.clone();
            cpu.handle(14, 0, move |_| {
                note(&n, "ring");
                0
            });
            assert_eq!(cpu.call(nr::ALARM, &[2]), 0);
            assert_eq!(cpu.call(nr::ALARM, &[1]), 2);
            assert_eq!(cpu.call(nr::PAUSE, &[]), -4);
            0
        });
        assert_eq!(notes, ["ring"]);
    });
}

const THREAD: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x20_0000;

#[test]
fn threads_share_memory_and_futexes() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            cpu.store(DATA + 4, &99_u32.to_le_bytes());
            let body = std::sync::Arc::new(|cpu: &mut hal::host::UserCpu| {
                assert_eq!(cpu.call(nr::GETPID, &[]), 1);
                assert_ne!(cpu.call(nr::GETTID, &[]), 1);
                cpu.store(DATA, &1_u32.to_le_bytes());
                assert!(cpu.call(nr::FUTEX, &[DATA, 1 | 128, 1]) >= 0);
                cpu.call(nr::EXIT, &[0]) as i32
            });
            // CLONE_CHILD_CLEARTID on DATA + 4.
            let tid = cpu.fork(nr::CLONE, [THREAD, 0x1f_0000, 0, DATA + 4, 0, 0], body);
            assert!(tid > 1, "{tid}");
            while cpu.word(DATA) == 0 {
                let r = cpu.call(nr::FUTEX, &[DATA, 128, 0, 0]);
                assert!(r == 0 || r == -11, "{r}");
            }
            // The end of the thread clears its word and wakes us: pthread_join.
            while cpu.word(DATA + 4) != 0 {
                let r = cpu.call(nr::FUTEX, &[DATA + 4, 0, 99, 0]);
                assert!(r == 0 || r == -11, "{r}");
            }
            assert_eq!(cpu.call(nr::TGKILL, &[1, tid as u64, 0]), -3);
            0
        });
    });
}

#[test]
fn exit_group_ends_all_threads() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            let child = cpu.fork_with(|cpu| {
                for _ in 0..3 {
                    let body = std::sync::Arc::new(|cpu: &mut hal::host::UserCpu| {
                        loop {
                            cpu.call(nr::PAUSE, &[]);
                        }
                    });
                    assert!(cpu.fork(nr::CLONE, [THREAD, 0x1f_0000, 0, 0, 0, 0], body) > 0);
                }
                let body = std::sync::Arc::new(|cpu: &mut hal::host::UserCpu| {
                    cpu.sleep(1_000_000);
                    cpu.call(nr::EXIT_GROUP, &[17]) as i32
                });
                assert!(cpu.fork(nr::CLONE, [THREAD, 0x1f_0000, 0, 0, 0, 0], body) > 0);
                cpu.call(nr::PAUSE, &[]) as i32
            });
            assert_eq!(cpu.wait(child, 0), (child, 17 << 8));
            0
        });
    });
}

#[test]
fn vfork_waits_for_its_child() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            let child = std::sync::Arc::new(|cpu: &mut hal::host::UserCpu| {
                cpu.sleep(3_000_000);
                cpu.store(DATA, &5_u32.to_le_bytes());
                4
            });
            let pid = cpu.fork(nr::VFORK, [0; 6], child);
            assert_eq!(cpu.word(DATA), 5, "the child was done first, in our memory");
            assert_eq!(cpu.wait(pid, 0), (pid, 4 << 8));
            0
        });
    });
}

#[test]
fn masks_and_sigsuspend() {
    schedules(|seed, cpus| {
        let notes = run(seed, cpus, |cpu, notes| {
            let n = notes.clone();
            cpu.handle(12, 0, move |_| {
                note(&n, "usr2");
                0
            });
            cpu.store(DATA, &(1_u64 << 11).to_le_bytes());
            assert_eq!(cpu.call(nr::RT_SIGPROCMASK, &[0, DATA, 0, 8]), 0);
            assert_eq!(cpu.call(nr::KILL, &[1, 12]), 0);
            note(notes, "blocked");
            cpu.store(DATA + 8, &0_u64.to_le_bytes());
            assert_eq!(cpu.call(nr::RT_SIGSUSPEND, &[DATA + 8, 8]), -4);
            assert_eq!(cpu.call(nr::RT_SIGPROCMASK, &[0, 0, DATA + 16, 8]), 0);
            assert_eq!(cpu.word(DATA + 16), 1 << 11, "the mask came back");
            // sigtimedwait takes a blocked signal, with its sender.
            let child = cpu.fork_with(|cpu| cpu.call(nr::KILL, &[1, 12]) as i32);
            assert_eq!(cpu.call(nr::RT_SIGTIMEDWAIT, &[DATA, DATA + 0x100, 0, 8]), 12);
            assert_eq!(i64::from(cpu.word(DATA + 0x110)), child);
            cpu.wait(child, 0);
            note(notes, "end");
            0
        });
        assert_eq!(notes, ["blocked", "usr2", "end"]);
    });
}

#[test]
fn busy_programs_share_the_cpu() {
    for seed in 1..=3 {
        run(seed, 1, |cpu, _| {
            let spinner = |cpu: &mut hal::host::UserCpu| {
                loop {
                    cpu.compute();
                }
            };
            let a = cpu.fork_with(spinner);
            let b = cpu.fork_with(spinner);
            // Two busy children do not keep the parent from its time.
            for _ in 0..5 {
                let from = cpu.now();
                cpu.sleep(10_000_000);
                let took = cpu.now() - from;
                assert!(took < 40_000_000, "{took}");
            }
            for child in [a, b] {
                cpu.call(nr::KILL, &[child as u64, 9]);
                assert_eq!(cpu.wait(child, 0), (child, 9));
            }
            0
        });
    }
}

#[test]
fn stops_and_continues_in_a_row_are_counted() {
    schedules(|seed, cpus| {
        run(seed, cpus, |cpu, _| {
            let child = cpu.fork_with(|cpu| {
                let body = std::sync::Arc::new(|cpu: &mut hal::host::UserCpu| {
                    loop {
                        cpu.call(nr::PAUSE, &[]);
                    }
                });
                assert!(cpu.fork(nr::CLONE, [THREAD, 0x1f_0000, 0, 0, 0, 0], body) > 0);
                loop {
                    cpu.compute();
                }
            });
            for _ in 0..5 {
                cpu.call(nr::KILL, &[child as u64, 19]);
                assert_eq!(cpu.wait(child, 2), (child, 0x137f));
                // On and off again before its threads can notice.
                cpu.call(nr::KILL, &[child as u64, 18]);
                cpu.call(nr::KILL, &[child as u64, 19]);
                assert_eq!(cpu.wait(child, 2), (child, 0x137f));
                cpu.call(nr::KILL, &[child as u64, 18]);
            }
            cpu.call(nr::KILL, &[child as u64, 9]);
            assert_eq!(cpu.wait(child, 0), (child, 9));
            0
        });
    });
}

#[test]
fn cpu_time_is_counted_without_a_tick() {
    run(1, 1, |cpu, _| {
        let used = |cpu: &mut hal::host::UserCpu| {
            assert_eq!(cpu.call(nr::CLOCK_GETTIME, &[2, DATA + 0xb00]), 0);
            u64::from(cpu.word(DATA + 0xb00)) * 1_000_000_000 + u64::from(cpu.word(DATA + 0xb08))
        };
        let from = used(cpu);
        while used(cpu) - from < 1_000_000 {
            cpu.compute();
        }
        0
    });
}
