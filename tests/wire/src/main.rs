//! Encodes and decodes every message on the ISA that this is compiled for, and compares with the published bytes. Ends with a panic where they differ.

#[path = "../../../abi/wire/tests/checks/mod.rs"]
mod checks;

/// The published bytes, by family.
const PUBLISHED: [(&str, &str); 10] = [
    ("devices", include_str!("../../../abi/wire/golden/devices.txt")),
    ("files", include_str!("../../../abi/wire/golden/files.txt")),
    ("generic", include_str!("../../../abi/wire/golden/generic.txt")),
    ("groups", include_str!("../../../abi/wire/golden/groups.txt")),
    ("membership", include_str!("../../../abi/wire/golden/membership.txt")),
    ("memory", include_str!("../../../abi/wire/golden/memory.txt")),
    ("names", include_str!("../../../abi/wire/golden/names.txt")),
    ("resources", include_str!("../../../abi/wire/golden/resources.txt")),
    ("tasks", include_str!("../../../abi/wire/golden/tasks.txt")),
    ("test", include_str!("../../../abi/wire/golden/test.txt")),
];

fn main() {
    let published = |family: &str| PUBLISHED.iter().find(|(name, _)| *name == family).map_or("", |(_, text)| text);
    checks::the_bytes_are_the_published_ones(|family, _| Some(published(family).to_owned()));
    checks::the_header_is_one_line_of_known_bytes();
    checks::numbers_are_unique_and_in_their_family();
    checks::every_sample_decodes_and_no_cut_panics();
    println!("{}: {} families", std::env::consts::ARCH, PUBLISHED.len());
}
