//! The coverage page tells the truth: what has a handler is shown by cases, and what has none is not said to be there.

use linux::entry::is_served;
use linux_abi::call::{Level, ROWS};

#[test]
fn every_call_that_is_served_has_a_case() {
    let silent: Vec<&str> =
        ROWS.iter().filter(|row| is_served(row.call) && row.tests.is_empty()).map(|row| row.name).collect();
    assert!(silent.is_empty(), "served, but no case of tests/abi shows it: {silent:?}");
}

#[test]
fn no_call_is_shown_that_is_not_served() {
    let claimed: Vec<&str> =
        ROWS.iter().filter(|row| !is_served(row.call) && row.level != Level::None).map(|row| row.name).collect();
    assert!(claimed.is_empty(), "not served, but the page says otherwise: {claimed:?}");
}
