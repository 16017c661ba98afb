//! The bytes of every message are law once published: `golden/FAMILY.txt` holds them.
use std::{fs, path::Path};

mod checks;

#[test]
fn the_bytes_are_the_published_ones() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    checks::the_bytes_are_the_published_ones(|family, now| {
        let path = dir.join(format!("{family}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, now).expect("golden file is writable");
            return None;
        }
        Some(fs::read_to_string(&path).unwrap_or_default())
    });
}

#[test]
fn the_header_is_one_line_of_known_bytes() {
    checks::the_header_is_one_line_of_known_bytes();
}

#[test]
fn numbers_are_unique_and_in_their_family() {
    checks::numbers_are_unique_and_in_their_family();
}

#[test]
fn every_sample_decodes_and_no_cut_panics() {
    checks::every_sample_decodes_and_no_cut_panics();
}
