//! Futexes in memory that parent and child share: nobody sleeps through a wake-up, and time-outs are kept.

use super::{Job, reap};
use crate::calls::{Cpu, Excused, errno};

const MS: u64 = 1_000_000;

/// Waits until the word is `wanted`.
fn until(cpu: &mut Cpu<'_>, at: u64, wanted: u32) -> Result<(), Excused> {
    loop {
        let value = cpu.word(at);
        if value == wanted {
            return Ok(());
        }
        match cpu.futex_wait(at, value, 600_000 * MS) {
            Ok(_) | Err(errno::EAGAIN | errno::EINTR) => {}
            Err(errno::ETIMEDOUT) => panic!("[{}] a wake-up was lost, or nobody ever wakes", cpu.name),
            Err(error) => return cpu.must(Err(error)).map(drop),
        }
    }
}

pub fn play(cpu: &mut Cpu<'_>, job: Job) -> Result<(), Excused> {
    let page = cpu.shared_page();
    let page = cpu.must(page)? as u64;
    let rounds = 2 * job.rounds as u32;
    let child = cpu.fork("other", move |cpu| {
        for n in 0..rounds {
            if until(cpu, page, 2 * n + 1).is_err() {
                return 1;
            }
            cpu.set_word(page, 2 * n + 2);
            if cpu.futex_wake(page, 1).is_err() {
                return 2;
            }
        }
        0
    });
    let child = cpu.must(child)?;
    for n in 0..rounds {
        cpu.set_word(page, 2 * n + 1);
        let woke = cpu.futex_wake(page, 1);
        cpu.must(woke)?;
        until(cpu, page, 2 * n + 2)?;
    }
    reap(cpu, child, 0)?;
    let (before, ns) = (cpu.now(), cpu.rng.between(1, 9) * MS);
    let timed = cpu.futex_wait(page + 64, 0, ns);
    let passed = cpu.now() - before;
    assert_eq!(timed, Err(errno::ETIMEDOUT), "[{}] nobody wakes that word", cpu.name);
    assert!(passed >= ns, "[{}] a wait for {ns} ns took {passed}", cpu.name);
    Ok(())
}
