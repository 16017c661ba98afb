//! A stream of counted bytes through a pipe between two processes: every byte once, in order, then the end.

use super::{Job, any_kernel, reap, spawn};
use crate::calls::{Cpu, Excused};

/// What the byte at a place is.
pub fn byte(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 13)) as u8
}

pub fn bytes(from: u64, len: u64) -> Vec<u8> {
    (from..from + len).map(byte).collect()
}

fn write_stream(cpu: &mut Cpu<'_>, fd: i64, total: u64) -> Result<(), Excused> {
    let mut at = 0;
    while at < total {
        let big = cpu.rng.one_in(4);
        let piece = cpu.rng.between(1, if big { 30_000 } else { 600 }).min(total - at);
        let wrote = cpu.write_all(fd, &bytes(at, piece));
        cpu.must(wrote.map(|()| 0))?;
        at += piece;
    }
    Ok(())
}

fn read_stream(cpu: &mut Cpu<'_>, fd: i64, total: u64) -> Result<(), Excused> {
    let mut at = 0;
    loop {
        let most = cpu.rng.between(1, 20_000) as usize;
        let got = match cpu.read(fd, most) {
            Ok(got) => got,
            Err(error) => return cpu.must(Err(error)).map(drop),
        };
        if got.is_empty() {
            return cpu.expect(at == total, || format!("the stream ends at {at} of {total}"));
        }
        let right = got == bytes(at, got.len() as u64);
        cpu.expect(right, || format!("wrong bytes after {at}"))?;
        at += got.len() as u64;
    }
}

pub fn play(cpu: &mut Cpu<'_>, job: Job) -> Result<(), Excused> {
    for _ in 0..job.rounds {
        let total = cpu.rng.between(1, 100_000);
        let (there, here) = cpu.pipe(0).or_else(|e| cpu.must(Err(e)).map(|n| (n, n)))?;
        let to = any_kernel(cpu);
        let child_reads = cpu.rng.one_in(2);
        let (theirs, ours) = if child_reads { (there, here) } else { (here, there) };
        let child = spawn(cpu, "other", to, move |cpu| {
            let closed = cpu.close(ours);
            cpu.must(closed)?;
            if child_reads { read_stream(cpu, theirs, total) } else { write_stream(cpu, theirs, total) }
        })?;
        let closed = cpu.close(theirs);
        cpu.must(closed)?;
        let mine = if child_reads { write_stream(cpu, ours, total) } else { read_stream(cpu, ours, total) };
        let closed = cpu.close(ours);
        let reaped = reap(cpu, child, 0);
        mine?;
        cpu.must(closed)?;
        reaped?;
    }
    Ok(())
}
