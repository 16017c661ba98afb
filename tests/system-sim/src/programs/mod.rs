//! The programs: scripts that know what Linux would give them.

mod chain;
mod files;
mod kill;
mod passing;
mod pipes;
mod ready;
mod sessions;
mod tree;
mod words;

use crate::calls::{Cpu, Excused, errno};

/// What a program is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which of the seed's.
    pub index: usize,
    /// Which program, in [`ALL`].
    pub program: usize,
    /// Where it begins.
    pub place: u16,
    /// How long it goes on.
    pub rounds: u64,
    /// Its numbers.
    pub seed: u64,
}

/// A program.
type Play = fn(&mut Cpu<'_>, Job) -> Result<(), Excused>;

/// The programs, by name.
pub const ALL: [(&str, Play); 9] = [
    ("pipes", pipes::play),
    ("chain", chain::play),
    ("kill", kill::play),
    ("tree", tree::play),
    ("files", files::play),
    ("passing", passing::play),
    ("ready", ready::play),
    ("words", words::play),
    ("sessions", sessions::play),
];

/// The exit status of a script that a dead kernel excuses.
pub const EXCUSED: i32 = 77;

/// The exit status of a child that is there to be waited for.
pub const LEAF: i32 = 5;

/// The exit status of a script's part.
pub fn status(result: Result<(), Excused>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(Excused) => EXCUSED,
    }
}

/// Waits for a child of a script and says whether it ended as it should: with `wanted` as its wait status.
pub fn reap(cpu: &mut Cpu<'_>, pid: i64, wanted: i32) -> Result<(), Excused> {
    let got = cpu.wait(pid, 0);
    let (waited, status) = match got {
        Ok(got) => got,
        Err(error) => return cpu.must(Err(error)).map(drop),
    };
    assert_eq!(waited, pid, "wait4 gives the child that it was asked for");
    let excused = cpu.env.has_trouble() && (status == 9 || status == EXCUSED << 8);
    if excused && status != wanted {
        return Err(Excused);
    }
    assert_eq!(status, wanted, "[{}] the wait status of {pid} on kernel {}", cpu.name, cpu.kernel());
    Ok(())
}

/// Runs `part` in a child on some kernel; its pid.
pub fn spawn(
    cpu: &mut Cpu<'_>,
    name: &str,
    to: u16,
    part: impl Fn(&mut Cpu<'_>) -> Result<(), Excused> + Clone + Send + Sync + 'static,
) -> Result<i64, Excused> {
    let child = cpu.fork(name, move |cpu| {
        if cpu.kernel() == to {
            return status(part(cpu));
        }
        let part = part.clone();
        let error = cpu.go(to, move |cpu| status(part(cpu)));
        status(cpu.must(Err(error)).map(drop))
    });
    cpu.must(child)
}

/// A kernel.
pub fn any_kernel(cpu: &mut Cpu<'_>) -> u16 {
    let kernels = u64::from(cpu.env.kernels);
    cpu.rng.below(kernels) as u16
}

/// Waits to be killed, or until whoever holds the other end of a pipe is gone (then it is an orphan, and nobody would kill it).
pub fn linger(cpu: &mut Cpu<'_>, life: i64) -> Result<(), Excused> {
    loop {
        match cpu.read(life, 1) {
            Ok(_) => return cpu.expect(false, || "nobody killed it".into()),
            Err(errno::EINTR) => {}
            Err(error) => return cpu.must(Err(error)).map(drop),
        }
    }
}
