//! Signal numbers and sets of them. Numbers are the same on x86-64, aarch64 and riscv64 (`asm-generic/signal.h`).

/// A signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident = $nr:literal),* $(,)?) => {
        impl Signal {
            $(#[doc = concat!("SIG", stringify!($name), ", number ", stringify!($nr))] pub const $name: Self = Self($nr);)*

            /// The name without `SIG`, for logs; real-time signals have none.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($nr => stringify!($name),)*
                    _ => "RT",
                }
            }
        }
    };
}

signals! {
    HUP = 1, INT = 2, QUIT = 3, ILL = 4, TRAP = 5, ABRT = 6, BUS = 7, FPE = 8, KILL = 9, USR1 = 10, SEGV = 11, USR2 = 12,
    PIPE = 13, ALRM = 14, TERM = 15, STKFLT = 16, CHLD = 17, CONT = 18, STOP = 19, TSTP = 20, TTIN = 21, TTOU = 22, URG = 23,
    XCPU = 24, XFSZ = 25, VTALRM = 26, PROF = 27, WINCH = 28, IO = 29, PWR = 30, SYS = 31,
}

/// The first real-time signal number as the kernel counts (libc keeps the first two for itself).
pub const RT_MIN: u8 = 32;
/// The largest signal number.
pub const MAX: u8 = 64;

/// What a signal does when the program did not say otherwise; signal(7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Default {
    /// The process ends.
    Terminate,
    /// The process ends and its wait status has the core flag (where RLIMIT_CORE allows it).
    Core,
    /// Nothing happens.
    Ignore,
    /// The process stops.
    Stop,
    /// The process goes on if it was stopped.
    Continue,
}

impl Signal {
    /// The signal with this number.
    pub const fn new(nr: u64) -> Option<Self> {
        if nr >= 1 && nr <= MAX as u64 { Some(Self(nr as u8)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its place in tables, from 0.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// Whether more than one of it can be pending, in order.
    pub const fn is_realtime(self) -> bool {
        self.0 >= RT_MIN
    }

    /// Its default action.
    pub const fn default(self) -> Default {
        match self {
            Self::CHLD | Self::URG | Self::WINCH => Default::Ignore,
            Self::CONT => Default::Continue,
            Self::STOP | Self::TSTP | Self::TTIN | Self::TTOU => Default::Stop,
            Self::QUIT
            | Self::ILL
            | Self::TRAP
            | Self::ABRT
            | Self::BUS
            | Self::FPE
            | Self::SEGV
            | Self::XCPU
            | Self::XFSZ
            | Self::SYS => Default::Core,
            _ => Default::Terminate,
        }
    }
}

impl core::fmt::Debug for Signal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.is_realtime() { write!(f, "SIGRT{}", self.0) } else { write!(f, "SIG{}", self.name()) }
    }
}

/// A set of signals; bit `n - 1` is signal `n`, as in the user's `sigset_t`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// The four that stop by default; a SIGCONT takes them out of the queues and they take out SIGCONT.
    pub const STOPS: Self = Self::EMPTY.with(Signal::STOP).with(Signal::TSTP).with(Signal::TTIN).with(Signal::TTOU);
    /// Those that can be neither caught, blocked nor ignored.
    pub const UNSTOPPABLE: Self = Self::EMPTY.with(Signal::KILL).with(Signal::STOP);
    /// Those that a fault of the running instruction raises: delivered before others.
    pub const SYNCHRONOUS: Self = Self::EMPTY
        .with(Signal::SEGV)
        .with(Signal::BUS)
        .with(Signal::ILL)
        .with(Signal::TRAP)
        .with(Signal::FPE)
        .with(Signal::SYS);

    /// The set and `signal`.
    #[must_use]
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | 1 << signal.index())
    }

    /// The set without `signal`.
    #[must_use]
    pub const fn without(self, signal: Signal) -> Self {
        Self(self.0 & !(1 << signal.index()))
    }

    /// Whether `signal` is in it.
    pub const fn has(self, signal: Signal) -> bool {
        self.0 & 1 << signal.index() != 0
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in it and not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The one to deliver next: those of faults first, then by number.
    pub const fn first(self) -> Option<Signal> {
        let sync = self.0 & Self::SYNCHRONOUS.0;
        let from = if sync != 0 { sync } else { self.0 };
        if from == 0 { None } else { Some(Signal(from.trailing_zeros() as u8 + 1)) }
    }

    /// All in it, by number.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let nr = left.trailing_zeros() as u8 + 1;
            left &= left - 1;
            Some(Signal(nr))
        })
    }
}

impl core::fmt::Debug for SigSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{SigSet, Signal};

    #[test]
    fn faults_come_first_then_by_number() {
        let set = SigSet::EMPTY.with(Signal::HUP).with(Signal::SEGV).with(Signal::TERM);
        assert_eq!(set.first(), Some(Signal::SEGV));
        assert_eq!(set.without(Signal::SEGV).first(), Some(Signal::HUP));
        assert_eq!(SigSet::EMPTY.first(), None);
        assert_eq!(SigSet(1 << 63).first().map(Signal::number), Some(64));
        assert_eq!(set.iter().count(), 3);
    }

    #[test]
    fn numbers_outside_are_refused() {
        assert!(Signal::new(0).is_none() && Signal::new(65).is_none());
        assert_eq!(Signal::new(9), Some(Signal::KILL));
    }
}
