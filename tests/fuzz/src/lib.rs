//! Everything that reads what others wrote, given nonsense: messages of peers, programs, archives, plans, device trees. Nothing may panic, whatever comes; what
//! is understood is used as far as it goes without a kernel.
//!
//! `cargo test -p cob-fuzz` changes the inputs of `corpus/` without looking; `guided/` is the same for cargo-fuzz, which looks where the code goes. Inputs that
//! it finds are kept in `corpus/TARGET/`.
#![forbid(unsafe_code)]

mod targets;

pub use targets::TARGETS;

/// A target: its name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Gives an input to a target.
///
/// # Panics
/// If there is no such target, and when the target does: that is what is looked for.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    (target.unwrap_or_else(|| panic!("there is no target {name}")).1)(input);
}
