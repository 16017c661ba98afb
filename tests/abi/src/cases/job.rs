//! Groups, sessions and job control on a pseudo-terminal.

use crate::case::Outcome;
use crate::sys;
use crate::sys::{Do, Status, child, get, good, kill, on, pid, pipe, wait, write};
use crate::{cases, check, refused, same};

/// A new pseudo-terminal: the master and the path of the slave.
pub fn pty() -> sys::Sys<(i32, String)> {
    let master = sys::open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC, 0)?;
    let (mut number, mut unlock) = (0i32, 0i32);
    sys::ioctl(master, libc::TIOCSPTLCK as u64, &mut unlock)?;
    sys::ioctl(master, libc::TIOCGPTN as u64, &mut number)?;
    Ok((master, format!("/dev/pts/{number}")))
}

/// A child that leads a session with a new terminal: it is told the slave's descriptor. Gives the master and the child.
fn session(run: impl FnOnce(i32) -> Outcome) -> sys::Sys<(i32, i32)> {
    let (master, path) = pty()?;
    let leader = child(|| {
        sys::close(master)?;
        sys!(SYS_setsid)?;
        let slave = sys::open(&path, libc::O_RDWR, 0)?;
        run(slave)
    })?;
    Ok((master, leader))
}

fn foreground(tty: i32) -> sys::Sys<i32> {
    let mut group = 0i32;
    sys::ioctl(tty, libc::TIOCGPGRP as u64, &mut group)?;
    Ok(group)
}

fn set_foreground(tty: i32, mut group: i32) -> sys::Sys {
    sys::ioctl(tty, libc::TIOCSPGRP as u64, &mut group)
}

/// A member of a job: in a group of its own before it runs, whoever is scheduled first.
fn job(run: impl FnOnce() -> Outcome) -> sys::Sys<i32> {
    let pid = child(|| {
        sys!(SYS_setpgid, 0, 0)?;
        run()
    })?;
    let _ = sys!(SYS_setpgid, pid, pid);
    Ok(pid)
}

/// Reads from the master until the text has come.
fn expect(master: i32, text: &str) -> Outcome {
    let mut seen = Vec::new();
    while !seen.windows(text.len()).any(|window| window == text.as_bytes()) {
        let part = get(master, 1000)?;
        check!(!part.is_empty(), "{text:?} did not come");
        seen.extend(part);
    }
    Ok(())
}

cases! {
    fn setpgid_rules [setpgid, getpgid, execve] {
        let (ready, tell) = pipe()?;
        let kid = child(|| {
            sys::write(tell, b"x")?;
            sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize)?;
            Ok(())
        })?;
        get(ready, 1)?;
        same!(sys!(SYS_getpgid, kid)? as i32, pid());
        sys!(SYS_setpgid, kid, kid)?;
        same!(sys!(SYS_getpgid, kid)? as i32, kid);
        sys!(SYS_setpgid, kid, pid())?;
        refused!(sys!(SYS_setpgid, kid, 1), EPERM);
        refused!(sys!(SYS_setpgid, 1, 0), ESRCH);
        refused!(sys!(SYS_setpgid, kid, -1), EINVAL);
        // A session leader cannot move.
        refused!(sys!(SYS_setpgid, 0, 0), EPERM);
        kill(kid, libc::SIGKILL)?;
        wait(kid, 0)?;
        Ok(())
    }

    fn setpgid_after_exec [setpgid, execve] {
        let (reader, writer) = pipe()?;
        let kid = child(|| {
            sys!(SYS_dup3, writer, 1, 0)?;
            sys::exec("/bin/sh", &["sh", "-c", "echo ran; read x"], &[])?;
            Ok(())
        })?;
        let text = get(reader, 10)?;
        if text.is_empty() {
            return Err(crate::case::Fail::Skip("no /bin/sh".into()));
        }
        refused!(sys!(SYS_setpgid, kid, kid), EACCES);
        kill(kid, libc::SIGKILL)?;
        wait(kid, 0)?;
        Ok(())
    }

    fn setsid_makes_a_session [setsid, getsid, getpgid] {
        refused!(sys!(SYS_setsid), EPERM);
        good(child(|| {
            let parent = sys!(SYS_getppid)? as i32;
            same!(sys!(SYS_getsid, 0)?, sys!(SYS_getsid, parent)?);
            same!(sys!(SYS_setsid)? as i32, pid());
            same!((sys!(SYS_getsid, 0)? as i32, sys!(SYS_getpgid, 0)? as i32), (pid(), pid()));
            refused!(sys!(SYS_setsid), EPERM);
            refused!(sys::open("/dev/tty", libc::O_RDWR, 0), ENXIO);
            Ok(())
        })?)
    }

    fn controlling_terminal_by_open [openat, ioctl] {
        let (_master, leader) = session(|slave| {
            let tty = sys::open("/dev/tty", libc::O_RDWR, 0)?;
            same!(foreground(tty)?, pid());
            let mut sid = 0i32;
            sys::ioctl(slave, libc::TIOCGSID as u64, &mut sid)?;
            same!(sid, pid());
            check!(sys::proc_stat(pid())?.get(4).is_some_and(|tty| tty != "0"));
            Ok(())
        })?;
        good(leader)
    }

    fn controlling_terminal_by_ioctl [ioctl] {
        let (_master, path) = pty()?;
        good(child(|| {
            sys!(SYS_setsid)?;
            let slave = sys::open(&path, libc::O_RDWR | libc::O_NOCTTY, 0)?;
            refused!(sys::open("/dev/tty", libc::O_RDWR, 0), ENXIO);
            refused!(foreground(slave), ENOTTY);
            sys!(SYS_ioctl, slave, libc::TIOCSCTTY as u64, 0usize)?;
            same!(foreground(slave)?, pid());
            // Only a leader can, and a terminal has one session.
            good(child(|| {
                refused!(sys!(SYS_ioctl, slave, libc::TIOCNOTTY as u64, 0usize).and(sys::open("/dev/tty", libc::O_RDWR, 0).map(i64::from)), ENXIO);
                sys!(SYS_setsid)?;
                refused!(sys!(SYS_ioctl, slave, libc::TIOCSCTTY as u64, 0usize), EPERM);
                Ok(())
            })?)
        })?)
    }

    fn ctrl_c_reaches_the_foreground_group [ioctl, write] {
        let (master, leader) = session(|slave| {
            on(libc::SIGINT, Do::Count, 0)?;
            on(libc::SIGTTOU, Do::Ignore, 0)?;
            let (ready, tell) = pipe()?;
            let front = job(|| {
                on(libc::SIGINT, Do::Default, 0)?;
                sys::write(tell, b"x")?;
                loop {
                    sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize)?;
                }
            })?;
            get(ready, 1)?;
            set_foreground(slave, front)?;
            write(slave, b"ready\n")?;
            same!(wait(front, 0)?, Status::Killed(libc::SIGINT));
            same!(sys::came(libc::SIGINT), 0);
            Ok(())
        })?;
        expect(master, "ready")?;
        write(master, b"\x03")?;
        good(leader)
    }

    fn ctrl_z_and_continue [ioctl, wait4] {
        let (master, leader) = session(|slave| {
            on(libc::SIGTTOU, Do::Ignore, 0)?;
            let front = job(|| {
                on(libc::SIGTTOU, Do::Default, 0)?;
                sys::until(|| foreground(slave) == Ok(pid()));
                write(slave, b"ready\n")?;
                same!(get(slave, 10)?, b"go\n");
                Ok(())
            })?;
            set_foreground(slave, front)?;
            same!(wait(front, libc::WUNTRACED)?, Status::Stopped(libc::SIGTSTP));
            set_foreground(slave, pid())?;
            write(slave, b"stopped\n")?;
            same!(get(slave, 10)?, b"fg\n");
            set_foreground(slave, front)?;
            kill(-front, libc::SIGCONT)?;
            write(slave, b"again\n")?;
            good(front)
        })?;
        expect(master, "ready")?;
        write(master, b"\x1a")?;
        expect(master, "stopped")?;
        write(master, b"fg\n")?;
        expect(master, "again")?;
        write(master, b"go\n")?;
        good(leader)
    }

    fn background_read_stops [read, ioctl] {
        let (master, leader) = session(|slave| {
            let back = job(|| {
                same!(get(slave, 10)?, b"mine\n");
                Ok(())
            })?;
            same!(wait(back, libc::WUNTRACED)?, Status::Stopped(libc::SIGTTIN));
            on(libc::SIGTTOU, Do::Ignore, 0)?;
            set_foreground(slave, back)?;
            kill(back, libc::SIGCONT)?;
            write(slave, b"now\n")?;
            good(back)
        })?;
        expect(master, "now")?;
        write(master, b"mine\n")?;
        good(leader)
    }

    fn background_read_ignored_is_an_error [read] {
        let (_master, leader) = session(|slave| {
            good(job(|| {
                on(libc::SIGTTIN, Do::Ignore, 0)?;
                refused!(get(slave, 10), EIO);
                Ok(())
            })?)
        })?;
        good(leader)
    }

    fn background_write_stops_with_tostop [write, ioctl] {
        let (master, leader) = session(|slave| {
            good(job(|| Ok(write(slave, b"allowed\n").map(drop)?))?)?;
            // SAFETY: all zeroes is a valid struct of numbers.
            let mut termios: libc::termios = unsafe { std::mem::zeroed() };
            sys!(SYS_ioctl, slave, libc::TCGETS as u64, &raw mut termios)?;
            termios.c_lflag |= libc::TOSTOP;
            sys!(SYS_ioctl, slave, libc::TCSETS as u64, &raw const termios)?;
            let back = job(|| Ok(write(slave, b"stopped\n").map(drop)?))?;
            same!(wait(back, libc::WUNTRACED)?, Status::Stopped(libc::SIGTTOU));
            kill(back, libc::SIGKILL)?;
            wait(back, 0)?;
            good(job(|| {
                on(libc::SIGTTOU, Do::Ignore, 0)?;
                write(slave, b"ignored\n")?;
                Ok(())
            })?)
        })?;
        expect(master, "ignored")?;
        good(leader)
    }

    fn background_setting_stops [ioctl] {
        let (_master, leader) = session(|slave| {
            let back = job(|| {
                set_foreground(slave, pid())?;
                Ok(())
            })?;
            same!(wait(back, libc::WUNTRACED)?, Status::Stopped(libc::SIGTTOU));
            same!(foreground(slave)?, pid());
            kill(back, libc::SIGKILL)?;
            wait(back, 0)?;
            // Blocked counts as allowed.
            good(job(|| {
                sys::mask(libc::SIG_BLOCK, &[libc::SIGTTOU])?;
                set_foreground(slave, pid())?;
                same!(foreground(slave)?, pid());
                Ok(())
            })?)
        })?;
        good(leader)
    }

    fn foreground_must_be_of_the_session [ioctl] {
        let outside = pid();
        let (_master, leader) = session(|slave| {
            refused!(set_foreground(slave, outside), EPERM);
            refused!(set_foreground(slave, -1), EINVAL);
            let (reader, _writer) = pipe()?;
            refused!(foreground(reader), ENOTTY);
            Ok(())
        })?;
        good(leader)
    }

    fn orphaned_group_read_fails [read] {
        let (reader, writer) = pipe()?;
        let (_master, leader) = session(|slave| {
            let leader = pid();
            // The job's parent ends, so nobody could continue it: its group is orphaned.
            let middle = child(|| {
                let parent = pid();
                child(|| {
                    sys!(SYS_setpgid, 0, 0)?;
                    sys::until(|| sys!(SYS_getppid) != Ok(parent.into()));
                    refused!(get(slave, 10), EIO);
                    write(writer, b"EIO")?;
                    Ok(())
                })?;
                Ok(())
            })?;
            check!(leader == pid());
            good(middle)?;
            same!(get(reader, 3)?, b"EIO");
            Ok(())
        })?;
        good(leader)
    }

    fn newly_orphaned_stopped_group_gets_hup_and_cont [setpgid, exit_group] {
        let (reader, writer) = pipe()?;
        let middle = child(|| {
            let stopped = job(|| {
                on(libc::SIGHUP, Do::Count, 0)?;
                kill(pid(), libc::SIGSTOP)?;
                sys::until(|| sys::came(libc::SIGHUP) == 1);
                write(writer, b"HUP")?;
                Ok(())
            })?;
            same!(wait(stopped, libc::WUNTRACED)?, Status::Stopped(libc::SIGSTOP));
            Ok(())
        })?;
        good(middle)?;
        same!(get(reader, 3)?, b"HUP");
        Ok(())
    }

    fn stop_signals_of_the_terminal_do_nothing_to_orphans [kill] {
        // A session leader's group is orphaned when its parent is of another session.
        let (reader, writer) = pipe()?;
        let leader = child(|| {
            sys!(SYS_setsid)?;
            kill(pid(), libc::SIGTSTP)?;
            kill(pid(), libc::SIGTTIN)?;
            write(writer, b"still here")?;
            Ok(())
        })?;
        same!(get(reader, 20)?, b"still here");
        good(leader)
    }

    fn leader_exit_hangs_up [exit_group] {
        let (reader, writer) = pipe()?;
        let (master, leader) = session(|_slave| {
            let (ready, tell) = pipe()?;
            child(|| {
                on(libc::SIGHUP, Do::Count, 0)?;
                write(tell, b"x")?;
                sys::until(|| sys::came(libc::SIGHUP) == 1);
                refused!(sys::open("/dev/tty", libc::O_RDWR, 0), ENXIO);
                write(writer, b"hung up")?;
                Ok(())
            })?;
            get(ready, 1)?;
            Ok(())
        })?;
        good(leader)?;
        sys::close(writer)?;
        same!(get(reader, 20)?, b"hung up");
        sys::close(master)?;
        Ok(())
    }

    fn master_close_hangs_up [close, ioctl] {
        let (ready, tell) = pipe()?;
        let (master, leader) = session(|slave| {
            on(libc::SIGHUP, Do::Count, 0)?;
            write(tell, b"x")?;
            sys::until(|| sys::came(libc::SIGHUP) >= 1);
            same!(get(slave, 1)?, b"");
            refused!(write(slave, b"x"), EIO);
            Ok(())
        })?;
        get(ready, 1)?;
        sys::close(master)?;
        good(leader)
    }
}
