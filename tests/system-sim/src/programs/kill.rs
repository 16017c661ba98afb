//! Signals to processes on other kernels: every one arrives, does what it should, and the status is told.

use super::{Job, any_kernel, linger, reap, spawn};
use crate::calls::{Cpu, Excused, SIGKILL, SIGTERM, SIGUSR1, WORDS, errno, nr};

/// Waits for a byte from somebody.
fn wait_for_byte(cpu: &mut Cpu<'_>, fd: i64) -> Result<(), Excused> {
    match cpu.read_all(fd, 1) {
        Ok(got) => cpu.expect(got.len() == 1, || "the other one is gone".into()),
        Err(error) => cpu.must(Err(error)).map(drop),
    }
}

pub fn play(cpu: &mut Cpu<'_>, job: Job) -> Result<(), Excused> {
    for _ in 0..job.rounds {
        let to = any_kernel(cpu);
        let deadly = cpu.rng.one_in(2);
        let times = if deadly { 0 } else { cpu.rng.between(1, 3) };
        let (from_child, to_us) = cpu.pipe(0).or_else(|e| cpu.must(Err(e)).map(|n| (n, n)))?;
        let (life, ours) = cpu.pipe(0).or_else(|e| cpu.must(Err(e)).map(|n| (n, n)))?;
        let parent = cpu.call(nr::GETPID, &[]);
        let parent = cpu.must(parent)?;
        let child = spawn(cpu, "target", to, move |cpu| {
            for fd in [from_child, ours] {
                let closed = cpu.close(fd);
                cpu.must(closed)?;
            }
            if !deadly {
                let set = cpu.count_signal(SIGUSR1, WORDS);
                cpu.must(set)?;
            }
            let blocked = cpu.mask(0, &[SIGUSR1]);
            cpu.must(blocked)?;
            let said = cpu.write(to_us, b"r");
            cpu.must(said)?;
            for n in 1..=times as u32 {
                // Blocked until we wait for it, so that none is lost; told one by one, because equal ones are one.
                let let_through = cpu.mask(1, &[SIGUSR1]);
                cpu.must(let_through)?;
                while cpu.word(WORDS) < n {
                    let _ = cpu.sleep(3_000_000);
                    // Who was to send it died with its kernel.
                    if cpu.env.has_trouble() && cpu.call(nr::GETPPID, &[]) != Ok(parent) {
                        return Err(Excused);
                    }
                }
                let said = cpu.write(to_us, b"s");
                cpu.must(said)?;
            }
            linger(cpu, life)
        })?;
        for fd in [to_us, life] {
            let closed = cpu.close(fd);
            cpu.must(closed)?;
        }
        wait_for_byte(cpu, from_child)?;
        for _ in 0..times {
            let sent = cpu.kill(child, SIGUSR1);
            cpu.must(sent)?;
            wait_for_byte(cpu, from_child)?;
        }
        let last = if cpu.rng.one_in(2) { SIGKILL } else { SIGTERM };
        let sent = cpu.kill(child, last);
        cpu.must(sent)?;
        // It is a zombie or dies: signals are taken and do nothing.
        let again = cpu.kill(child, 0);
        cpu.must(again)?;
        reap(cpu, child, last as i32)?;
        let gone = cpu.kill(child, 0);
        cpu.expect(gone == Err(errno::ESRCH), || format!("a reaped process answers {gone:?}"))?;
        for fd in [from_child, ours] {
            let closed = cpu.close(fd);
            cpu.must(closed)?;
        }
    }
    Ok(())
}
