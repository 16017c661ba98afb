//! The macro that turns the rows into [`super::Call`] and its tables.

/// The number of a row's column: `-` is none.
macro_rules! number {
    (-) => {
        None
    };
    ($nr:literal) => {
        Some($nr)
    };
}

/// The level of a row.
macro_rules! level {
    (none) => {
        $crate::call::Level::None
    };
    (partial) => {
        $crate::call::Level::Partial
    };
    (full) => {
        $crate::call::Level::Full
    };
}

/// Declares [`super::Call`] and [`super::ROWS`] from the rows.
macro_rules! calls {
    ($($variant:ident $name:literal ($x:tt, $a:tt, $r:tt) $level:ident $(($note:literal))? $([$($test:literal),* $(,)?])?;)*) => {
        /// A Linux system call, by name: its number depends on the ISA.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Call {
            $(#[doc = concat!("`", $name, "(2)`")] $variant,)*
        }

        /// All rows, in the order of the variants of [`Call`].
        pub const ROWS: &[$crate::call::Row] = &[
            $($crate::call::Row {
                call: Call::$variant,
                name: $name,
                numbers: [
                    $crate::call::declare::number!($x),
                    $crate::call::declare::number!($a),
                    $crate::call::declare::number!($r),
                ],
                level: $crate::call::declare::level!($level),
                note: concat!("" $(, $note)?),
                tests: &[$($($test),*)?],
            },)*
        ];
    };
}

pub(crate) use {calls, level, number};
