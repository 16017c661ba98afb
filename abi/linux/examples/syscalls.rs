//! Prints `docs/syscalls.md` to standard output and the totals to standard error.

use linux_abi::call::{Level, page};

fn main() {
    let mut text = String::new();
    if page::write(&mut text).is_ok() {
        print!("{text}");
    }
    for level in [Level::Full, Level::Partial, Level::None] {
        eprintln!("{} {}", level.name(), page::count(level));
    }
}
