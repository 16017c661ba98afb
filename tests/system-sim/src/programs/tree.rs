//! Processes that fork processes on other kernels; some do not wait, and their children go to process 1.

use super::{Job, any_kernel, reap, spawn};
use crate::calls::{Cpu, Excused, errno, nr};

fn grow(cpu: &mut Cpu<'_>, depth: u64) -> Result<(), Excused> {
    let mut children = Vec::new();
    let n = if depth == 0 { 0 } else { cpu.rng.between(1, 2) };
    for _ in 0..n {
        let to = any_kernel(cpu);
        children.push(spawn(cpu, "branch", to, move |cpu| grow(cpu, depth - 1))?);
    }
    if cpu.rng.one_in(5) {
        // Orphans.
        return Ok(());
    }
    let mut result = Ok(());
    if cpu.rng.one_in(2) {
        children.reverse();
    }
    for child in children {
        result = result.and(reap(cpu, child, 0));
    }
    result?;
    let none = cpu.wait(-1, 1);
    cpu.expect(none == Err(errno::ECHILD), || format!("no child is left, but wait4 says {none:?}"))
}

pub fn play(cpu: &mut Cpu<'_>, job: Job) -> Result<(), Excused> {
    for _ in 0..job.rounds.div_ceil(3) {
        let parent = cpu.call(nr::GETPID, &[]);
        cpu.must(parent)?;
        let to = any_kernel(cpu);
        let child = spawn(cpu, "root", to, |cpu| grow(cpu, 2))?;
        reap(cpu, child, 0)?;
    }
    Ok(())
}
