//! What a case is, and how it says that something is wrong.

use std::panic::Location;

use linux_abi::Errno;

/// Why a case did not pass.
#[derive(Debug)]
pub enum Fail {
    /// Linux would do otherwise.
    Wrong(String),
    /// What the case needs is not on this system; says what.
    Skip(String),
}

/// What became of a case.
pub type Outcome = Result<(), Fail>;

/// One case. It runs in a process of its own, in an empty directory.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    /// The system calls that it tests.
    pub calls: &'static [&'static str],
    pub run: fn() -> Outcome,
}

impl From<Errno> for Fail {
    #[track_caller]
    fn from(errno: Errno) -> Self {
        wrong(format!("unexpected {errno:?}"))
    }
}

impl From<std::io::Error> for Fail {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        wrong(format!("unexpected {error}"))
    }
}

/// A failure at the caller's line.
#[track_caller]
pub fn wrong(text: impl AsRef<str>) -> Fail {
    let at = Location::caller();
    let file = at.file().rsplit('/').next().unwrap_or_default();
    Fail::Wrong(format!("{file}:{}: {}", at.line(), text.as_ref()))
}

/// Declares the cases of a file: `fn name [calls] { body }`, where the body ends with `Ok(())`.
#[macro_export]
macro_rules! cases {
    ($($(#[$doc:meta])* fn $name:ident [$($call:ident),* $(,)?] $body:block)*) => {
        /// The cases of this file.
        pub const CASES: &[$crate::case::Case] = &[
            $($crate::case::Case { name: stringify!($name), calls: &[$(stringify!($call)),*], run: $name },)*
        ];
        $($(#[$doc])* fn $name() -> $crate::case::Outcome $body)*
    };
}

/// Fails unless the condition holds.
#[macro_export]
macro_rules! check {
    ($cond:expr $(,)?) => {
        if !$cond {
            return Err($crate::case::wrong(stringify!($cond)));
        }
    };
    ($cond:expr, $($arg:tt)+) => {
        if !$cond {
            return Err($crate::case::wrong(format!("{}: {}", stringify!($cond), format_args!($($arg)+))));
        }
    };
}

/// Fails unless both are equal.
#[macro_export]
macro_rules! same {
    ($left:expr, $right:expr $(,)?) => {
        // A match keeps temporaries alive.
        match (&$left, &$right) {
            (left, right) => {
                if *left != *right {
                    return Err($crate::case::wrong(format!("{} is {left:?}, not {right:?}", stringify!($left))));
                }
            }
        }
    };
}

/// Fails unless the call failed with this error.
#[macro_export]
macro_rules! refused {
    ($call:expr, $errno:ident) => {
        match $call {
            Err(linux_abi::Errno::$errno) => {}
            other => {
                let call = stringify!($call);
                return Err($crate::case::wrong(format!("{call} gave {other:?}, not {}", stringify!($errno))));
            }
        }
    };
}
