//! Silence: whom this kernel watches, whom it suspects, when suspicion becomes a verdict.

use alloc::{collections::BTreeMap, vec::Vec};

use base::KernelId;

use crate::config::Config;

/// A kernel that may be dead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Suspect {
    /// How long it was silent while this kernel ran.
    silent: u64,
    probes: u32,
    next_probe: u64,
}

/// What the detector wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// Probe it.
    Probe(KernelId),
    /// It is dead by the rules.
    Dead(KernelId),
}

/// Watches the ring neighbour by its beat, and suspects by probes. Time in which this kernel did not run (a descheduled virtual
/// CPU, a debugger) is not counted: a step counts at most a little more than was planned between two steps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Detector {
    config: Config,
    last_tick: u64,
    held: bool,
    /// The neighbour's last beat, and how long it has not changed.
    neighbour: Option<(KernelId, u64, u64)>,
    suspects: BTreeMap<KernelId, Suspect>,
}

impl Detector {
    /// Nobody is watched or suspected.
    pub const fn new(config: Config) -> Self {
        Self { config, last_tick: 0, held: false, neighbour: None, suspects: BTreeMap::new() }
    }

    /// Silence means nothing while a debugger holds somebody.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
        if held {
            self.suspects.clear();
            self.neighbour = None;
        }
    }

    /// Watches this kernel (the next in the ring) from now on.
    pub fn watch(&mut self, neighbour: Option<KernelId>) {
        if self.neighbour.map(|(k, ..)| k) != neighbour {
            self.neighbour = neighbour.map(|k| (k, 0, 0));
        }
    }

    /// Whom it watches.
    pub fn watched(&self) -> Option<KernelId> {
        self.neighbour.map(|(k, ..)| k)
    }

    /// Whether a kernel is suspected.
    pub fn suspects(&self, kernel: KernelId) -> bool {
        self.suspects.contains_key(&kernel)
    }

    /// A sign of life. `true` if the kernel was suspected.
    pub fn alive(&mut self, kernel: KernelId) -> bool {
        self.suspects.remove(&kernel).is_some()
    }

    /// The beat of the watched kernel.
    pub fn beat(&mut self, kernel: KernelId, count: u64) -> bool {
        if let Some((watched, last, silent)) = &mut self.neighbour
            && *watched == kernel
            && *last != count
        {
            (*last, *silent) = (count, 0);
            return self.alive(kernel);
        }
        false
    }

    /// Begins to probe a kernel.
    pub fn suspect(&mut self, kernel: KernelId, now: u64) {
        self.suspect_from(kernel, now);
    }

    /// Begins to probe a kernel if there is no sign of life of it soon.
    pub fn expect(&mut self, kernel: KernelId, now: u64) {
        self.suspect_from(kernel, now + self.config.probe_gap);
    }

    fn suspect_from(&mut self, kernel: KernelId, next_probe: u64) {
        if self.held {
            return;
        }
        let silent = match self.neighbour {
            Some((watched, _, silent)) if watched == kernel => silent,
            _ => 0,
        };
        self.suspects.entry(kernel).or_insert(Suspect { silent, probes: 0, next_probe });
    }

    /// Forgets a kernel: it is dead or no member.
    pub fn forget(&mut self, kernel: KernelId) {
        self.suspects.remove(&kernel);
        if self.watched() == Some(kernel) {
            self.neighbour = None;
        }
    }

    /// Forgets the incarnations before this one.
    pub fn forget_before(&mut self, member: KernelId) {
        self.suspects.retain(|k, _| k.index != member.index || k.incarnation >= member.incarnation);
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64) -> Vec<Finding> {
        let passed = now.saturating_sub(core::mem::replace(&mut self.last_tick, now));
        if self.held {
            return Vec::new();
        }
        let Config { beat, probe_gap, probes, silence, .. } = self.config;
        let mut findings = Vec::new();
        for (&kernel, suspect) in &mut self.suspects {
            suspect.silent += passed.min(probe_gap + probe_gap / 2);
            if suspect.next_probe > now {
                continue;
            }
            if suspect.probes >= probes && suspect.silent >= silence {
                findings.push(Finding::Dead(kernel));
            }
            // Also after the verdict: where it is only a vote, the next answer takes it back.
            suspect.probes += 1;
            findings.push(Finding::Probe(kernel));
            suspect.next_probe = now + probe_gap;
        }
        let mut quiet = None;
        if let Some((kernel, _, silent)) = &mut self.neighbour {
            *silent += passed.min(beat + beat / 8);
            // A beat that comes just after we looked is up to two periods old when we look again.
            if *silent >= beat + beat / 2 {
                quiet = Some(*kernel);
            }
        }
        if let Some(kernel) = quiet {
            self.suspect(kernel, now);
            if let Some(suspect) = self.suspects.get_mut(&kernel).filter(|s| s.probes == 0) {
                suspect.probes = 1;
                suspect.next_probe = now + probe_gap;
                findings.push(Finding::Probe(kernel));
            }
        }
        findings
    }

    /// When to tick again at the latest. Counted from the last tick, not from now: messages that keep coming must not put it off.
    pub fn next(&self) -> u64 {
        let probe = self.suspects.values().map(|s| s.next_probe).min();
        probe.unwrap_or(u64::MAX).min(self.last_tick + self.config.beat)
    }
}
