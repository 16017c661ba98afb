//! poll(2) over pipes of other kernels, with and without a time-out: what is ready is said, nothing else, and not before its time.

use super::{Job, any_kernel, reap, spawn};
use crate::calls::{Cpu, Excused, POLLIN, errno};

const MS: u64 = 1_000_000;

pub fn play(cpu: &mut Cpu<'_>, job: Job) -> Result<(), Excused> {
    let lanes = cpu.rng.between(1, 3) as usize;
    let mut ends = Vec::new();
    let mut children = Vec::new();
    let each = job.rounds;
    for lane in 0..lanes {
        let (from, to) = cpu.pipe(0).or_else(|e| cpu.must(Err(e)).map(|n| (n, n)))?;
        let place = any_kernel(cpu);
        let others: Vec<i64> = ends.clone();
        let child = spawn(cpu, "writer", place, move |cpu| {
            for fd in others.iter().copied().chain([from]) {
                let closed = cpu.close(fd);
                cpu.must(closed)?;
            }
            for _ in 0..each {
                if cpu.rng.one_in(2) {
                    let ns = cpu.rng.between(1, 20) * MS;
                    let slept = cpu.sleep(ns);
                    cpu.must(slept)?;
                }
                let wrote = cpu.write(to, &[lane as u8]);
                cpu.must(wrote)?;
            }
            Ok(())
        })?;
        children.push(child);
        let closed = cpu.close(to);
        cpu.must(closed)?;
        ends.push(from);
    }
    let mut got = vec![0; lanes];
    let mut open: Vec<usize> = (0..lanes).collect();
    while !open.is_empty() {
        let fds: Vec<(i64, u16)> = open.iter().map(|&lane| (ends[lane], POLLIN)).collect();
        let patience = cpu.rng.between(1, 15);
        let before = cpu.now();
        let wait = if cpu.rng.one_in(2) { patience as i64 } else { -1 };
        let ready = match cpu.poll(&fds, wait) {
            Ok(ready) => ready,
            Err(errno::EINTR) => continue,
            Err(error) => return cpu.must(Err(error)).map(drop),
        };
        if ready.iter().all(|events| *events == 0) {
            let passed = cpu.now() - before;
            assert!(wait > 0, "poll without a time-out ended with nothing");
            assert!(passed >= patience * MS, "poll with {patience} ms ended after {passed} ns");
            continue;
        }
        for (i, events) in ready.iter().enumerate().rev() {
            let lane = open[i];
            if *events == 0 {
                continue;
            }
            match cpu.read(ends[lane], 3) {
                Ok(bytes) if bytes.is_empty() => {
                    open.remove(i);
                }
                Ok(bytes) => {
                    let right = bytes.iter().all(|b| usize::from(*b) == lane);
                    cpu.expect(right, || format!("{bytes:?} in lane {lane}"))?;
                    got[lane] += bytes.len() as u64;
                }
                Err(error) => {
                    cpu.must(Err(error))?;
                }
            }
        }
    }
    let mut result = Ok(());
    for child in children {
        result = result.and(reap(cpu, child, 0));
    }
    result?;
    cpu.expect(got.iter().all(|n| *n == each), || format!("{got:?} of {each} bytes each"))?;
    for fd in ends {
        let closed = cpu.close(fd);
        cpu.must(closed)?;
    }
    Ok(())
}
