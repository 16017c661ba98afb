//! Points and spans of time. The same on all 64-bit ISAs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct timespec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timespec {
    pub sec: i64,
    /// 0 to 999,999,999 in a valid one.
    pub nsec: i64,
}

impl Timespec {
    /// From nanoseconds.
    pub const fn from_nanos(ns: u64) -> Self {
        Self { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as i64 }
    }

    /// In nanoseconds, at most `u64::MAX`; none if negative or out of form, which system calls answer with `EINVAL`.
    pub const fn to_nanos(self) -> Option<u64> {
        if self.sec < 0 || self.nsec < 0 || self.nsec >= 1_000_000_000 {
            return None;
        }
        Some((self.sec as u64).saturating_mul(1_000_000_000).saturating_add(self.nsec as u64))
    }
}

/// `struct timeval`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timeval {
    pub sec: i64,
    /// 0 to 999,999 in a valid one.
    pub usec: i64,
}

impl Timeval {
    /// From nanoseconds, rounded down.
    pub const fn from_nanos(ns: u64) -> Self {
        Self { sec: (ns / 1_000_000_000) as i64, usec: (ns % 1_000_000_000 / 1000) as i64 }
    }

    /// In nanoseconds, at most `u64::MAX`; none if negative or out of form.
    pub const fn to_nanos(self) -> Option<u64> {
        if self.usec < 0 || self.usec >= 1_000_000 {
            return None;
        }
        Timespec { sec: self.sec, nsec: self.usec * 1000 }.to_nanos()
    }
}

/// `struct itimerspec`: of POSIX timers and timerfd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerspec {
    pub interval: Timespec,
    pub value: Timespec,
}

/// `struct itimerval`: of `setitimer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerval {
    pub interval: Timeval,
    pub value: Timeval,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds() {
        for ns in [0, 1, 999_999_999, 1_000_000_000, 12_345_678_901] {
            assert_eq!(Timespec::from_nanos(ns).to_nanos(), Some(ns));
            assert_eq!(Timeval::from_nanos(ns).to_nanos(), Some(ns / 1000 * 1000));
        }
        for bad in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(Timespec { sec: bad.0, nsec: bad.1 }.to_nanos(), None);
        }
        assert_eq!(Timespec { sec: i64::MAX, nsec: 0 }.to_nanos(), Some(u64::MAX));
        assert_eq!(Timeval { sec: 0, usec: 1_000_000 }.to_nanos(), None);
    }
}
