//! The table of calls against an independent source, and the page against the table.

use std::collections::BTreeMap;

use linux_abi::call::{Level, ROWS, page};
use linux_abi::{Call, Isa};

/// The calls that the crate `syscalls` knows for an ISA, without the rows where it is wrong.
fn known(isa: Isa) -> BTreeMap<u16, &'static str> {
    let name = |nr: u16| -> Option<&'static str> {
        match isa {
            Isa::X86_64 => syscalls::x86_64::Sysno::new(nr.into()).map(|s| s.name()),
            Isa::Aarch64 => syscalls::aarch64::Sysno::new(nr.into()).map(|s| s.name()),
            Isa::Riscv64 => syscalls::riscv64::Sysno::new(nr.into()).map(|s| s.name()),
        }
    };
    // Not `Sysno::iter`: it leaves out the last call.
    let mut calls: BTreeMap<u16, &str> = (0..1024).filter_map(|nr| Some((nr, name(nr)?))).collect();
    if isa == Isa::Aarch64 {
        // `asm-generic/unistd.h` gives the *_time64 calls to 32-bit ISAs only, and names call 79 newfstatat on 64-bit ones.
        calls.retain(|nr, _| !(403..=423).contains(nr));
        calls.insert(79, "newfstatat");
    }
    calls
}

#[test]
fn numbers_agree_and_are_complete() {
    for isa in Isa::ALL {
        let known = known(isa);
        let ours: BTreeMap<u16, &str> = ROWS.iter().filter_map(|r| Some((r.call.number(isa)?, r.name))).collect();
        assert_eq!(ours, known, "{isa:?}");
    }
}

#[test]
fn look_up_is_the_inverse_of_number() {
    for isa in Isa::ALL {
        for nr in 0..2000 {
            match Call::from_number(isa, nr) {
                Some(call) => assert_eq!(call.number(isa).map(usize::from), Some(nr)),
                None => assert!(ROWS.iter().all(|r| r.call.number(isa).map(usize::from) != Some(nr))),
            }
        }
        assert_eq!(Call::from_number(isa, usize::MAX), None);
    }
    assert_eq!(Call::from_number(Isa::X86_64, 59), Some(Call::Execve));
    assert_eq!(Call::from_number(Isa::Riscv64, 221), Some(Call::Execve));
}

#[test]
fn rows_stand_at_their_variant() {
    for row in ROWS {
        assert_eq!(row.call.row().name, row.name);
        assert!(row.numbers.iter().any(Option::is_some), "{}", row.name);
    }
}

#[test]
fn levels_carry_their_proof() {
    for row in ROWS {
        match row.level {
            Level::None => {
                assert!(row.tests.is_empty() && row.note.is_empty(), "{}: level none needs no note", row.name)
            }
            Level::Partial => assert!(!row.note.is_empty(), "{}: a partial call says what is missing", row.name),
            Level::Full => assert!(row.note.is_empty(), "{}: a full call misses nothing", row.name),
        }
    }
}

#[test]
fn page_is_in_sync() {
    let mut text = String::new();
    page::write(&mut text).expect("a string takes everything");
    assert!(
        text == include_str!("../../../docs/syscalls.md"),
        "docs/syscalls.md is old: cargo run -q -p linux-abi --example syscalls > docs/syscalls.md"
    );
}
