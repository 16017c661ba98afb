//! clone, clone3, vfork and threads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::sys;
use crate::sys::{Status, good, wait};
use crate::{cases, check, refused, same};

/// `struct clone_args`, version 2.
type CloneArgs = [u64; 11];

/// `clone3` as a fork with these flags: the child runs the closure and ends with its number.
fn clone3(args: &CloneArgs, size: usize, run: impl FnOnce() -> i32) -> sys::Sys<i32> {
    match sys!(SYS_clone3, args.as_ptr(), size)? {
        0 => sys::exit(run()),
        pid => Ok(pid as i32),
    }
}

cases! {
    fn clone3_as_fork [clone3, wait4] {
        let mut args: CloneArgs = [0; 11];
        args[4] = libc::SIGCHLD as u64;
        same!(wait(clone3(&args, 88, || 5)?, 0)?, Status::Exited(5));
        same!(wait(clone3(&args, 64, || 6)?, 0)?, Status::Exited(6));
        Ok(())
    }

    fn clone3_checks_its_arguments [clone3] {
        let mut args: CloneArgs = [0; 11];
        refused!(clone3(&args, 63, || 0), EINVAL);
        args[0] = 0xff;
        refused!(clone3(&args, 88, || 0), EINVAL);
        args[0] = libc::CLONE_THREAD as u64;
        refused!(clone3(&args, 88, || 0), EINVAL);
        args[0] = libc::CLONE_SIGHAND as u64;
        refused!(clone3(&args, 88, || 0), EINVAL);
        let long = [0u64; 12];
        let mut with_tail = long;
        with_tail[11] = 1;
        refused!(sys!(SYS_clone3, with_tail.as_ptr(), 96usize), E2BIG);
        refused!(sys!(SYS_clone3, long.as_ptr(), 5000usize), E2BIG);
        Ok(())
    }

    fn clone3_sets_tids [clone3] {
        let map = sys::shared(4096)?;
        let mut args: CloneArgs = [0; 11];
        args[0] = (libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID) as u64;
        args[2] = map as u64;
        args[3] = map as u64 + 4;
        args[4] = libc::SIGCHLD as u64;
        let pid = clone3(&args, 88, || i32::from(sys::word(map).load(SeqCst) as i32 != sys::pid()))?;
        good(pid)?;
        same!(sys::word(map + 4).load(SeqCst) as i32, pid);
        Ok(())
    }

    fn clone3_pidfd [clone3, pidfd_send_signal, waitid] {
        let mut fd = -1i32;
        let mut args: CloneArgs = [0; 11];
        args[0] = libc::CLONE_PIDFD as u64;
        args[1] = &raw mut fd as u64;
        args[4] = libc::SIGCHLD as u64;
        let pid = clone3(&args, 88, || loop {
            let _ = sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize);
        })?;
        same!(sys::ready(fd, libc::POLLIN, 0)?, 0);
        sys!(SYS_pidfd_send_signal, fd, libc::SIGKILL, 0usize, 0)?;
        same!(sys::ready(fd, libc::POLLIN, -1)?, libc::POLLIN);
        let mut info = [0i32; 32];
        sys!(SYS_waitid, libc::P_PIDFD, fd, info.as_mut_ptr(), libc::WEXITED, 0usize)?;
        same!((info[4], info[6]), (pid, libc::SIGKILL));
        Ok(())
    }

    fn pidfd_open_of_a_child [pidfd_open, pidfd_send_signal] {
        let pid = sys::child(|| Ok(()))?;
        let fd = sys!(SYS_pidfd_open, pid, 0)? as i32;
        same!(sys::ready(fd, libc::POLLIN, -1)?, libc::POLLIN);
        good(pid)?;
        refused!(sys!(SYS_pidfd_send_signal, fd, 0, 0usize, 0), ESRCH);
        refused!(sys!(SYS_pidfd_open, pid, 0), ESRCH);
        refused!(sys!(SYS_pidfd_open, 0, 0), EINVAL);
        Ok(())
    }

    fn clone_exit_signal [clone3, rt_sigaction] {
        sys::on(libc::SIGUSR2, sys::Do::Count, 0)?;
        let mut args: CloneArgs = [0; 11];
        args[4] = libc::SIGUSR2 as u64;
        let pid = clone3(&args, 88, || 1)?;
        sys::until(|| sys::came(libc::SIGUSR2) == 1);
        refused!(sys::wait(pid, 0), ECHILD);
        same!(wait(pid, libc::__WALL)?, Status::Exited(1));
        Ok(())
    }

    fn clone_shares_files [clone3] {
        let mut args: CloneArgs = [0; 11];
        args[0] = libc::CLONE_FILES as u64;
        args[4] = libc::SIGCHLD as u64;
        let before = sys::file("f", b"x")?;
        let pid = clone3(&args, 88, || {
            let closed = sys::close(before).is_ok();
            let opened = sys::file("g", b"shared");
            if closed && opened == Ok(before) { 0 } else { 1 }
        })?;
        good(pid)?;
        same!(sys::get(before, 10)?, b"shared");
        Ok(())
    }

    fn clone_shares_directory [clone3, chdir] {
        std::fs::create_dir("d")?;
        let mut args: CloneArgs = [0; 11];
        args[0] = libc::CLONE_FS as u64;
        args[4] = libc::SIGCHLD as u64;
        good(clone3(&args, 88, || i32::from(std::env::set_current_dir("d").is_err()))?)?;
        check!(std::env::current_dir()?.ends_with("d"));
        Ok(())
    }

    fn clone_as_sibling [clone3] {
        let parent = sys::pid();
        let middle = sys::child(|| {
            let mut args: CloneArgs = [0; 11];
            args[0] = libc::CLONE_PARENT as u64;
            clone3(&args, 88, || i32::from(sys!(SYS_getppid) != Ok(parent.into())))?;
            refused!(sys::wait(-1, 0), ECHILD);
            Ok(())
        })?;
        good(middle)?;
        same!(sys::wait_with(-1, 0)?.map(|(_, status)| status), Some(Status::Exited(0)));
        Ok(())
    }

    fn vfork_waits_for_exec_or_exit [clone3, execve] {
        // CLONE_VM is left out, so that the child can be written in Rust: what is tested is that the parent waits.
        let map = sys::shared(4096)?;
        let mut args: CloneArgs = [0; 11];
        args[0] = libc::CLONE_VFORK as u64;
        args[4] = libc::SIGCHLD as u64;
        let pid = clone3(&args, 88, || {
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            sys::word(map).store(1, SeqCst);
            0
        })?;
        same!(sys::word(map).load(SeqCst), 1);
        good(pid)?;
        let pid = clone3(&args, 88, || {
            sys::word(map).store(2, SeqCst);
            let _ = sys::exec_me(&["exit", "0"]);
            1
        })?;
        same!(sys::word(map).load(SeqCst), 2);
        good(pid)
    }

    fn posix_spawn_of_the_library [clone, execve, wait4] {
        // The C library's way: CLONE_VM | CLONE_VFORK on a stack of its own.
        let status = std::process::Command::new(sys::me()).args(["child", "exit", "31"]).status()?;
        same!(status.code(), Some(31));
        let missing = std::process::Command::new("/no/such/program").status();
        same!(missing.map_err(|e| e.kind()).err(), Some(std::io::ErrorKind::NotFound));
        Ok(())
    }

    fn threads_share_memory_and_pid [clone, gettid, futex] {
        let sum = AtomicU64::new(0);
        let me = sys::pid();
        std::thread::scope(|scope| {
            for n in 0..64u64 {
                let sum = &sum;
                scope.spawn(move || {
                    let tid = sys!(SYS_gettid).unwrap_or(0) as i32;
                    if sys::pid() == me && tid != me {
                        sum.fetch_add(n, SeqCst);
                    }
                });
            }
        });
        same!(sum.load(SeqCst), 2016);
        same!(sys!(SYS_gettid)? as i32, me);
        Ok(())
    }

    fn threads_come_and_go [clone, futex, munmap] {
        let count = AtomicU32::new(0);
        for _ in 0..50 {
            std::thread::scope(|scope| {
                for _ in 0..10 {
                    scope.spawn(|| count.fetch_add(1, SeqCst));
                }
            });
        }
        same!(count.load(SeqCst), 500);
        Ok(())
    }

    fn mutex_under_contention [futex, clone] {
        let value = std::sync::Mutex::new(0u64);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Ok(mut value) = value.lock() {
                            *value += 1;
                        }
                    }
                });
            }
        });
        same!(value.into_inner().unwrap_or(0), 16_000);
        Ok(())
    }

    fn condvar_ping_pong [futex] {
        let turn = (std::sync::Mutex::new(0u32), std::sync::Condvar::new());
        std::thread::scope(|scope| {
            for parity in 0..2 {
                let (lock, changed) = &turn;
                scope.spawn(move || {
                    for _ in 0..500 {
                        let Ok(guard) = lock.lock() else { return };
                        let Ok(mut guard) = changed.wait_while(guard, |n| *n % 2 != parity) else { return };
                        *guard += 1;
                        changed.notify_all();
                    }
                });
            }
        });
        same!(*turn.0.lock().map_err(|_| crate::case::wrong("poisoned"))?, 1000);
        Ok(())
    }

    fn exit_group_ends_all_threads [exit_group] {
        let pid = sys::child(|| {
            for _ in 0..4 {
                std::thread::spawn(|| loop {
                    std::thread::yield_now();
                });
            }
            sys::exit(12)
        })?;
        same!(wait(pid, 0)?, Status::Exited(12));
        Ok(())
    }

    fn a_signal_ends_all_threads [kill, futex] {
        let (reader, writer) = sys::pipe()?;
        let pid = sys::child(|| {
            let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| loop { std::thread::park() })).collect();
            sys::write(writer, b"x")?;
            threads.into_iter().for_each(|thread| drop(thread.join()));
            Ok(())
        })?;
        sys::get(reader, 1)?;
        sys::kill(pid, libc::SIGTERM)?;
        same!(wait(pid, 0)?, Status::Killed(libc::SIGTERM));
        Ok(())
    }

    fn thread_exit_clears_tid_and_wakes [clone, set_tid_address, futex] {
        let (tx, rx) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || tx.send(sys!(SYS_gettid)).is_ok());
        check!(thread.join().unwrap_or(false));
        let tid = rx.recv().map_err(|_| crate::case::wrong("no tid"))??;
        sys::until(|| sys!(SYS_tgkill, sys::pid(), tid, 0).is_err());
        refused!(sys!(SYS_tgkill, sys::pid(), tid, 0), ESRCH);
        Ok(())
    }

    fn main_thread_can_end_first [exit, wait4] {
        let pid = sys::child(|| {
            let main = sys::pid();
            std::thread::spawn(move || {
                sys::until(|| sys::proc_stat(main).is_ok_and(|stat| stat.first().is_some_and(|state| state == "Z")));
                sys::exit(8)
            });
            sys!(SYS_exit, 3)?;
            Ok(())
        })?;
        same!(wait(pid, 0)?, Status::Exited(8));
        Ok(())
    }
}
