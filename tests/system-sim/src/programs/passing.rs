//! Descriptors that travel in messages (`SCM_RIGHTS`) to processes on other kernels, and are the same files there.

use super::{Job, any_kernel, pipes, reap, spawn, status};
use crate::calls::{Cpu, Excused};

pub fn play(cpu: &mut Cpu<'_>, job: Job) -> Result<(), Excused> {
    for _ in 0..job.rounds {
        let (ours, theirs) = cpu.socket_pair().or_else(|e| cpu.must(Err(e)).map(|n| (n, n)))?;
        let (from, to) = cpu.pipe(0).or_else(|e| cpu.must(Err(e)).map(|n| (n, n)))?;
        let len = cpu.rng.between(1, 5000);
        let place = any_kernel(cpu);
        let here = cpu.kernel();
        let child = spawn(cpu, "receiver", here, move |cpu| {
            for fd in [ours, from, to] {
                let closed = cpu.close(fd);
                cpu.must(closed)?;
            }
            let (said, fd) = match cpu.receive_fd(theirs, 100) {
                Ok(got) => got,
                Err(error) => return cpu.must(Err(error)).map(drop),
            };
            cpu.expect(said == b"take it", || format!("the message says {said:?}"))?;
            let Some(fd) = fd else {
                return cpu.expect(false, || "no descriptor came".into());
            };
            let closed = cpu.close(theirs);
            cpu.must(closed)?;
            // What was received goes along to another kernel.
            let use_it = move |cpu: &mut Cpu<'_>| {
                let wrote = cpu.write_all(fd, &pipes::bytes(0, len));
                cpu.must(wrote.map(|()| 0))?;
                let closed = cpu.close(fd);
                cpu.must(closed).map(drop)
            };
            if cpu.kernel() == place {
                return use_it(cpu);
            }
            let error = cpu.go(place, move |cpu| status(use_it(cpu)));
            cpu.must(Err(error)).map(drop)
        })?;
        let closed = cpu.close(theirs);
        cpu.must(closed)?;
        let sent = cpu.send_fd(ours, b"take it", to);
        let closed = cpu.close(to);
        cpu.must(closed)?;
        let read = cpu.read_all(from, 10_000);
        let reaped = reap(cpu, child, 0);
        cpu.must(sent)?;
        reaped?;
        match read {
            Ok(got) => {
                let right = got == pipes::bytes(0, len);
                cpu.expect(right, || format!("{} bytes came of {len}", got.len()))?;
            }
            Err(error) => return cpu.must(Err(error)).map(drop),
        }
        for fd in [ours, from] {
            let closed = cpu.close(fd);
            cpu.must(closed)?;
        }
    }
    Ok(())
}
