//! What must be true when all programs have ended: nothing of them is left on any kernel that lives.

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
};

use hal::host::Machine;

use crate::{
    env::Env,
    machine::{Simulated, Whole},
};

/// What there is of one kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Count {
    frames: usize,
    cached: usize,
    tasks: usize,
    with_others: cluster::Counts,
}

impl Count {
    /// Whether there is more of anything than there was.
    fn exceeds(&self, then: &Self, trouble: bool) -> bool {
        // A program that ends early leaves its files.
        if self.cached > then.cached && !trouble {
            return true;
        }
        let all = |c: &Self| {
            let o = &c.with_others;
            let ours = [c.frames, c.tasks, o.names, o.lookups, o.tasks.0, o.tasks.1, o.unanswered];
            ours.into_iter().chain(o.files).collect::<Vec<_>>()
        };
        all(self).into_iter().zip(all(then)).any(|(now, then)| now > then)
    }
}

/// What there is on all kernels that live, by kernel and incarnation.
#[derive(Clone, Debug)]
pub struct Counts(Vec<(u16, u32, Count)>);

fn wholes(env: &Env) -> Vec<Whole> {
    let live = |index: &u16| env.machine().is_some_and(|m| m.runs((*index).into()));
    (0..env.kernels).filter(live).filter_map(|index| env.board().kernel(index)).collect()
}

/// Whether no CPU is in the middle of something.
pub fn nobody_holds_locks(env: &Env) -> bool {
    let user = (hal::boot::info().index, hal::cpu::slot());
    let Some(machine) = env.machine() else { return true };
    wholes(env).iter().all(|whole| {
        let index = whole.kernel.id().index;
        let others = (0..env.cpus(index)).filter(|slot| (index, *slot) != user);
        others.into_iter().all(|slot| machine.inspect(index.into(), slot, hal::sync::held) == 0)
    })
}

impl Counts {
    /// Counts. Nobody may be in the middle of something.
    pub fn take(env: &Env) -> Self {
        let user = (hal::boot::info().index, hal::cpu::slot());
        let Some(machine) = env.machine() else { return Self(Vec::new()) };
        let count = |whole: &Whole| {
            let id = whole.kernel.id();
            // A CPU that idles keeps the address space that it used last: it is asked to let go. The one that counts needs its own.
            let counting = (user.0 == id.index).then_some(user.1);
            for slot in (0..env.cpus(id.index)).filter(|slot| Some(*slot) != counting) {
                machine.inspect(id.index.into(), slot, hal::space::deactivate);
            }
            let count = machine.inspect(id.index.into(), 0, || {
                let info = whole.kernel.memory.info();
                Count {
                    frames: info.total - info.free - info.cached,
                    cached: info.cached,
                    tasks: whole.kernel.table.count(),
                    with_others: whole.cluster.counts(),
                }
            });
            (id.index, id.incarnation, count)
        };
        Self(wholes(env).iter().map(count).collect())
    }
}

/// Compares with what was there before the programs.
pub fn left(env: &Env, before: &Counts, after: &Counts) -> Result<(), String> {
    let mut said = String::new();
    for (index, incarnation, now) in &after.0 {
        let Some((_, _, then)) = before.0.iter().find(|(i, n, _)| (i, n) == (index, incarnation)) else { continue };
        // The death of another kernel takes things away.
        if now.exceeds(then, env.has_trouble()) {
            let _ = write!(said, "; kernel {index}: {then:?} before, {now:?} after");
        }
    }
    match env.machine() {
        Some(machine) if !said.is_empty() => Err(format!("something is left{said};{}", processes(&machine, env))),
        _ => Ok(()),
    }
}

/// No kernel complained of anything that nobody did to it.
pub fn logs(simulated: &Simulated, env: &Env) -> Result<(), String> {
    for index in 0..env.kernels {
        for line in simulated.machine.log(index.into()).lines() {
            let complains = line.contains(" ERROR ") || line.contains(" WARN ");
            let of_death = ["is stopped:", "is dead", "panicked:"].iter().any(|w| line.contains(w))
                || line.contains("died with kernel") && line.contains("EHOSTDOWN");
            if complains && !(of_death && env.has_trouble()) {
                return Err(format!("the log of kernel {index} says: {line}"));
            }
        }
    }
    Ok(())
}

/// The processes that there are, with their states.
pub fn processes(machine: &Machine, env: &Env) -> String {
    let mut said = String::new();
    for whole in wholes(env) {
        let index = whole.kernel.id().index;
        // A run that was cut off may have been so in the middle of something.
        let listed = catch_unwind(AssertUnwindSafe(|| {
            machine.inspect(index.into(), 0, || {
                for process in whole.kernel.table.processes() {
                    let (pid, parent, state) = (process.pid(), process.ppid(), char::from(process.state()));
                    let _ = write!(said, " {pid} of {parent} on {index} ({state})");
                }
            });
        }));
        if listed.is_err() {
            let _ = write!(said, " kernel {index} is busy");
        }
    }
    said
}
