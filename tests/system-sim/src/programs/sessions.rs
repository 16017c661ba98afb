//! A session on a pseudo terminal, with jobs on other kernels: Ctrl-C goes to the foreground group and to nobody else.

use super::{EXCUSED, Job, any_kernel, linger, reap, spawn, status};
use crate::calls::{Cpu, Excused, O_NOCTTY, O_RDWR, POLLIN, SIGINT, SIGKILL, errno, nr};

const TIOCSCTTY: u64 = 0x540e;
const TIOCGPTN: u64 = 0x8004_5430;
const TIOCSPTLCK: u64 = 0x4004_5431;
const TIOCSPGRP: u64 = 0x5410;
const SIGTTOU: u64 = 22;
const SIGHUP: u64 = 1;

/// Descriptors of the leader.
#[derive(Clone, Copy)]
struct Ends {
    /// What jobs say.
    from_jobs: i64,
    /// Where they say it.
    say: i64,
    /// To whoever types.
    tell: i64,
    /// Ends when whoever types is gone.
    life: i64,
}

/// A job of the shell: says that it is there, and waits for a signal.
fn job(cpu: &mut Cpu<'_>, ends: Ends) -> Result<(), Excused> {
    let said = cpu.write(ends.say, b"j");
    cpu.must(said)?;
    for fd in [ends.say, ends.from_jobs] {
        let closed = cpu.close(fd);
        cpu.must(closed)?;
    }
    linger(cpu, ends.life)
}

/// Waits until a job says that it is there. One that died with its kernel says nothing.
fn hear(cpu: &mut Cpu<'_>, from: i64) -> Result<(), Excused> {
    let mut patience = 100;
    loop {
        match cpu.poll(&[(from, POLLIN)], 50) {
            Ok(ready) if ready[0] != 0 => break,
            Ok(_) if cpu.env.has_trouble() && patience == 0 => return Err(Excused),
            Ok(_) if cpu.env.has_trouble() => patience -= 1,
            Ok(_) | Err(errno::EINTR) => {}
            Err(error) => return cpu.must(Err(error)).map(drop),
        }
    }
    let got = cpu.read(from, 1);
    cpu.must(got.map(|got| got.len() as i64)).map(drop)
}

/// The leader of a session on the terminal.
fn leader(cpu: &mut Cpu<'_>, path: &str, ends: Ends, rounds: u64) -> Result<(), Excused> {
    let session = cpu.call(nr::SETSID, &[]);
    cpu.must(session)?;
    let tty = cpu.open(path, O_RDWR | O_NOCTTY, 0);
    let tty = cpu.must(tty)?;
    let taken = cpu.ioctl_value(tty, TIOCSCTTY, 0);
    cpu.must(taken)?;
    let ignored = cpu.signal(SIGTTOU, 1);
    cpu.must(ignored)?;
    for _ in 0..rounds {
        let (front, back) = (any_kernel(cpu), any_kernel(cpu));
        let mut jobs = Vec::new();
        for to in [front, back] {
            // The group is made by both, as shells do, before the job goes elsewhere.
            let child = cpu.fork("job", move |cpu| {
                let (grouped, closed) = (cpu.call(nr::SETPGID, &[0, 0]), cpu.close(ends.tell));
                if let Err(excused) = cpu.must(grouped).and(cpu.must(closed)) {
                    return status(Err(excused));
                }
                if cpu.kernel() == to {
                    return status(job(cpu, ends));
                }
                let error = cpu.go(to, move |cpu| status(job(cpu, ends)));
                status(cpu.must(Err(error)).map(drop))
            });
            let child = cpu.must(child)?;
            let grouped = cpu.call(nr::SETPGID, &[child as u64, child as u64]);
            // EACCES: it executed already, and so has done it itself.
            if grouped != Err(13) {
                cpu.must(grouped)?;
            }
            jobs.push(child);
        }
        for _ in 0..2 {
            hear(cpu, ends.from_jobs)?;
        }
        let given = cpu.ioctl(tty, TIOCSPGRP, jobs[0] as u32);
        cpu.must(given.map(i64::from))?;
        // Tell whoever has the other side to type Ctrl-C.
        let said = cpu.write(ends.tell, b"^");
        cpu.must(said)?;
        reap(cpu, jobs[0], SIGINT as i32)?;
        let alive = cpu.wait(jobs[1], 1);
        cpu.expect(alive.is_ok_and(|(pid, _)| pid == 0), || format!("the job in the background: {alive:?}"))?;
        let sent = cpu.kill(-jobs[1], SIGKILL);
        cpu.must(sent)?;
        reap(cpu, jobs[1], SIGKILL as i32)?;
    }
    Ok(())
}

pub fn play(cpu: &mut Cpu<'_>, job: Job) -> Result<(), Excused> {
    let master = cpu.open("/dev/ptmx", O_RDWR | O_NOCTTY, 0);
    let master = cpu.must(master)?;
    let unlocked = cpu.ioctl(master, TIOCSPTLCK, 0);
    cpu.must(unlocked.map(i64::from))?;
    let number = cpu.ioctl(master, TIOCGPTN, 0);
    let number = cpu.must(number.map(i64::from))?;
    let path = format!("/dev/pts/{number}");
    // One pipe from the jobs to the leader, one from the leader to us.
    let (from_jobs, say) = cpu.pipe(0).or_else(|e| cpu.must(Err(e)).map(|n| (n, n)))?;
    let rounds = job.rounds.div_ceil(2);
    let home = any_kernel(cpu);
    let (from_leader, tell) = cpu.pipe(0).or_else(|e| cpu.must(Err(e)).map(|n| (n, n)))?;
    let (life, ours) = cpu.pipe(0).or_else(|e| cpu.must(Err(e)).map(|n| (n, n)))?;
    let ends = Ends { from_jobs, say, tell, life };
    let child = spawn(cpu, "leader", home, move |cpu| {
        for fd in [master, from_leader, ours] {
            let closed = cpu.close(fd);
            cpu.must(closed)?;
        }
        leader(cpu, &path, ends, rounds)
    })?;
    for fd in [from_jobs, say, tell, life] {
        let closed = cpu.close(fd);
        cpu.must(closed)?;
    }
    // Types what the leader asks for until it ends.
    loop {
        match cpu.read(from_leader, 1) {
            Ok(got) if got.is_empty() => break,
            Ok(_) => {
                let typed = cpu.write(master, b"\x03");
                cpu.must(typed)?;
            }
            Err(error) => {
                cpu.must(Err(error))?;
            }
        }
    }
    let got = cpu.wait(child, 0);
    // The leader's end hangs up the terminal, which concerns it no more.
    let fine = matches!(got, Ok((_, 0)));
    let excused =
        cpu.env.has_trouble() && matches!(got, Ok((_, s)) if s == EXCUSED << 8 || s == 9 || s == SIGHUP as i32);
    assert!(fine || excused, "[{}] the leader ended with {got:?}", cpu.name);
    let closed = cpu.close(master);
    cpu.must(closed)?;
    for fd in [from_leader, ours] {
        let closed = cpu.close(fd);
        cpu.must(closed)?;
    }
    Ok(())
}
