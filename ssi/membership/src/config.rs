//! The times of failure detection.

/// Times in nanoseconds, of the plan.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// How often a member beats and looks at its neighbour's beat.
    pub beat: u64,
    /// Between two probes of a suspect.
    pub probe_gap: u64,
    /// A suspect is dead after so many unanswered probes...
    pub probes: u32,
    /// ...and so much silence, counted in the observer's own running time.
    pub silence: u64,
    /// After what time a message that was not answered is sent again (only transports that lose need it).
    pub again: u64,
}

impl Config {
    /// Dead after 3 probes and 2 s; one wake-up per second when idle.
    pub const fn new() -> Self {
        Self { beat: 1_000_000_000, probe_gap: 250_000_000, probes: 3, silence: 2_000_000_000, again: 200_000_000 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
