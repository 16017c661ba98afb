//! The messages between kernels, byte for byte: equal on every ISA, described in `docs/protocol.md`.
//!
//! A message is a [`Header`] (one cache line), a fixed part (fields at fixed offsets, little-endian) and a payload (bytes whose meaning
//! the type gives). Readers cut a longer fixed part, and missing fields take declared defaults, so that kernels built from neighbouring versions can talk.
//!
//! # Adding a message
//! 1. Find the family's file (`names.rs`, `tasks.rs`, `files.rs`, …) or add one: `pub mod x;` and a line in [`FAMILIES`].
//! 2. Declare it there with [`messages!`]: number within the family's range, name, lane, `event`/`request -> Reply`/`reply`, fields.
//! 3. `UPDATE_GOLDEN=1 cargo test -p wire` writes `golden/FAMILY.txt`; look at the difference and commit it. From then on the layout is law: the test
//!    fails if a published version changes.
//! 4. Register a handler for it in the service's glue (`link::Links::register`).
//!
//! Linux structs and ioctl numbers never cross a link: the kernel that runs the task decodes them first.
#![no_std]
#![forbid(unsafe_code)]

pub mod devices;
pub mod field;
pub mod files;
pub mod generic;
pub mod groups;
pub mod header;
pub mod id;
pub mod membership;
pub mod memory;
pub mod message;
pub mod names;
pub mod resources;
pub mod table;
pub mod tasks;
pub mod test;

pub use field::Field;
pub use header::{FLAG_REPLY, FLAG_REQUEST, HEADER_SIZE, Header, RawHeader};
pub use id::{KernelId, ObjectId};
pub use message::{Kind, LANES, Lane, Malformed, Message, Request, Spec};

/// The most kernels that one machine can have: a porch has a pending byte for each.
pub const MAX_KERNELS: usize = 64;
/// The most body bytes of any message. Larger data is granted, or sent in several bulk messages.
pub const MAX_BODY: usize = 4096 + 256;

/// A family of messages: what one service speaks.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The service's name.
    pub name: &'static str,
    /// The first type number of the family.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// Its messages.
    pub specs: &'static [Spec],
}

/// All families. Number ranges are never reused.
pub const FAMILIES: &[Family] = &[
    Family { name: "membership", first: 0x0100, last: 0x01ff, specs: membership::SPECS },
    Family { name: "generic", first: 0x0200, last: 0x02ff, specs: generic::SPECS },
    Family { name: "names", first: 0x0300, last: 0x03ff, specs: names::SPECS },
    Family { name: "tasks", first: 0x0400, last: 0x04ff, specs: tasks::SPECS },
    Family { name: "files", first: 0x0500, last: 0x05ff, specs: files::SPECS },
    Family { name: "memory", first: 0x0600, last: 0x06ff, specs: memory::SPECS },
    Family { name: "resources", first: 0x0700, last: 0x07ff, specs: resources::SPECS },
    Family { name: "net", first: 0x0800, last: 0x08ff, specs: &[] },
    Family { name: "sched", first: 0x0900, last: 0x09ff, specs: &[] },
    Family { name: "time", first: 0x0a00, last: 0x0aff, specs: &[] },
    Family { name: "devices", first: 0x0b00, last: 0x0bff, specs: devices::SPECS },
    Family { name: "groups", first: 0x0c00, last: 0x0cff, specs: groups::SPECS },
    Family { name: "test", first: 0x7f00, last: 0x7fff, specs: test::SPECS },
];

/// The family of a type number.
pub fn family_of(number: u16) -> Option<&'static Family> {
    FAMILIES.iter().find(|f| (f.first..=f.last).contains(&number))
}

/// What is known of a type number.
pub fn spec_of(number: u16) -> Option<&'static Spec> {
    family_of(number)?.specs.iter().find(|s| s.number == number)
}

/// The name of a type for logs: `"?"` if it is not known.
pub fn name_of(number: u16) -> &'static str {
    spec_of(number).map_or("?", |s| s.name)
}
