//! Prints the coverage page, `docs/syscalls.md`. After a row has changed:
//! `cargo run -q -p linux-abi --example syscalls > docs/syscalls.md`.

use core::fmt::{self, Write};

use super::{Level, ROWS};

const HEAD: &str = "\
# System calls

Every call of Linux 6.17, its number on each ISA, and how far Cob implements it. `none` means that no case shows it: a program may get `ENOSYS`.
The tests are cases of `tests/abi`, which pass on Linux too. Printed from `abi/linux/src/call/rows.rs`; do not edit.

| call | x86-64 | aarch64 | riscv64 | level | what is missing | tests |
|---|---|---|---|---|---|---|
";

/// Writes the page.
pub fn write(out: &mut impl Write) -> fmt::Result {
    out.write_str(HEAD)?;
    for row in ROWS {
        write!(out, "| {} |", row.name)?;
        for nr in row.numbers {
            match nr {
                Some(nr) => write!(out, " {nr} |")?,
                None => write!(out, " |")?,
            }
        }
        write!(out, " {} | {} |", row.level.name(), row.note)?;
        for (i, test) in row.tests.iter().enumerate() {
            write!(out, "{}{test}", if i == 0 { " " } else { ", " })?;
        }
        out.write_str(" |\n")?;
    }
    Ok(())
}

/// How many calls have this level.
pub fn count(level: Level) -> usize {
    ROWS.iter().filter(|row| row.level == level).count()
}
