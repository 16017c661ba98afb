//! What a kernel shows of itself to everybody that its carriers reach, members or not: who it is, whether it lives, of what it dies.

use alloc::string::String;

use wire::KernelId;

/// What a kernel says that it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It is starting.
    Starting,
    /// It runs.
    Running,
    /// It panicked, and says of what.
    Dying,
    /// It said goodbye and its CPUs stand still or are about to.
    Stopped,
    /// It stands still because a peer told it to.
    Parked,
}

impl State {
    /// The number that stands for it between kernels.
    pub const fn number(self) -> u64 {
        match self {
            Self::Starting => 1,
            Self::Running => 2,
            Self::Dying => 3,
            Self::Stopped => 4,
            Self::Parked => 5,
        }
    }

    /// What a number stands for.
    pub const fn from_number(n: u64) -> Option<Self> {
        Some(match n {
            1 => Self::Starting,
            2 => Self::Running,
            3 => Self::Dying,
            4 => Self::Stopped,
            5 => Self::Parked,
            _ => return None,
        })
    }

    /// Whether it ends, in order or not.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Dying | Self::Stopped)
    }
}

/// The signs of one kernel, as another one sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signs {
    /// Who it is.
    pub owner: KernelId,
    /// What it does; `None` if it says something that no kernel of this version says.
    pub state: Option<State>,
    /// How often it has beaten.
    pub beats: u64,
    /// When it became a member, in ns of the machine's clock; 0 if it did not yet.
    pub since: u64,
    /// When it began to die, by its own word.
    pub ended: Option<u64>,
    /// A debugger holds it: the clock of suspicion stands still.
    pub held: bool,
}

/// One sign that a kernel gives of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sign<'a> {
    /// What it does now.
    State(State),
    /// It is alive: given now and then, at most once a second when idle.
    Beat,
    /// It is a member since then, on the machine's clock.
    Since(u64),
    /// It dies, or falls silent, since then, so that others can tell how long it took them to notice. Nothing is decided by it.
    Ended(u64),
    /// It dies of this.
    Dying(&'a str),
}

/// What a peer wrote, for a log: it ends at the first zero, and what is not printable is replaced.
pub fn printable(bytes: &[u8]) -> String {
    let text = bytes.split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}
