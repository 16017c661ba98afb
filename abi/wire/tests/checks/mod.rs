//! What must hold for every message, on every ISA: run on the host by `cargo test`, and by a program in the guest on every kernel (`tests/wire`).
//! They panic where it does not.
use std::{collections::BTreeSet, fmt::Write as _};

use wire::{FAMILIES, FLAG_REPLY, FLAG_REQUEST, Family, Header, KernelId, Kind, Message as _, ObjectId};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").expect("a string takes it");
        text
    })
}

/// One line per version: `number name version lane kind payload hash bytes`; the bytes only of the newest version.
fn render(family: &Family) -> String {
    let mut text = String::new();
    for spec in family.specs {
        for (i, hash) in spec.hashes.iter().enumerate() {
            let mut body = vec![0; spec.fixed];
            let n = (spec.sample)(&mut body);
            assert_eq!(n, spec.fixed);
            let newest = i + 1 == spec.hashes.len();
            let bytes = if newest { hex(&body) } else { "-".into() };
            writeln!(
                text,
                "{:#06x} {} v{} {} {:?} {} {hash:08x} {}",
                spec.number,
                spec.name,
                i + 1,
                spec.lane.name(),
                spec.kind,
                spec.payload,
                if bytes.is_empty() { "." } else { &bytes }
            )
            .expect("a string takes it");
        }
    }
    text
}

/// The bytes are the published ones: `published` gives the text of a family, or takes the new one and gives `None`.
pub fn the_bytes_are_the_published_ones(published: impl Fn(&str, &str) -> Option<String>) {
    for family in FAMILIES.iter().filter(|f| !f.specs.is_empty()) {
        let now = render(family);
        if let Some(published) = published(family.name, &now) {
            assert_eq!(now, published, "{}: see the module docs of wire for how to change a message", family.name);
        }
    }
}

/// See its name.
pub fn the_header_is_one_line_of_known_bytes() {
    let header = Header {
        kind: 0x0102,
        version: 3,
        flags: FLAG_REQUEST,
        length: 0x1122_3344,
        fixed: 0x5566,
        sender: KernelId::new(0x0708, 0x0a0b_0c0d),
        epoch: 0x0102_0304,
        request: 0x1112_1314_1516_1718,
        object: ObjectId { birth: KernelId::new(0x2122, 0x2324_2526), serial: 0x3132_3334_3536_3738 },
        clock: 0x4142_4344_4546_4748,
        trace: 0x5152_5354,
    };
    let bytes = zerocopy::IntoBytes::as_bytes(&header.to_raw()).to_vec();
    let published = [
        "0000000000000000", // the transport's word
        "0201",
        "03",
        "02",
        "44332211", // type, version, flags, length
        "0d0c0b0a",
        "04030201",         // incarnation, epoch
        "1817161514131211", // request
        "3837363534333231",
        "26252423",
        "2221",
        "0000",             // object: serial, incarnation, birth
        "4847464544434241", // clock
        "54535251",
        "6655",
        "0807", // trace, fixed, sender
    ];
    assert_eq!(hex(&bytes), published.concat());
    let short = Header { length: 5, fixed: 2, ..header };
    let mut message = zerocopy::IntoBytes::as_bytes(&short.to_raw()).to_vec();
    message.extend_from_slice(&[1, 2, 3, 4, 5, 0, 0, 0]);
    let (back, body) = Header::parse(&message).expect("it is a message");
    assert_eq!(back, short);
    assert_eq!(body, [1, 2, 3, 4, 5]);
}

/// See its name.
pub fn numbers_are_unique_and_in_their_family() {
    let mut seen = BTreeSet::new();
    for family in FAMILIES {
        for spec in family.specs {
            assert!((family.first..=family.last).contains(&spec.number), "{} is outside {}", spec.name, family.name);
            assert!(seen.insert(spec.number), "{:#x} is used twice", spec.number);
            assert!(spec.fixed + spec.payload <= wire::MAX_BODY, "{} is too long", spec.name);
            assert!(wire::spec_of(spec.number).is_some_and(|s| s.name == spec.name));
        }
    }
    let table = wire::table::entries().count() * wire::table::ENTRY_SIZE;
    assert!(table <= wire::membership::HelloReply::SPEC.payload, "the table of Hello is too small");
}

/// See its name.
pub fn every_sample_decodes_and_no_cut_panics() {
    for spec in FAMILIES.iter().flat_map(|f| f.specs) {
        let mut body = vec![0; spec.fixed];
        (spec.sample)(&mut body);
        let flags = match spec.kind {
            Kind::Event => 0,
            Kind::Request => FLAG_REQUEST,
            Kind::Reply => FLAG_REPLY,
        };
        let header = Header {
            kind: spec.number,
            version: spec.max,
            flags,
            length: spec.fixed as u32,
            fixed: spec.fixed as u16,
            request: 1,
            ..Header::default()
        };
        assert_eq!((spec.check)(&header, &body), Ok(()), "{}", spec.name);
        // A longer fixed part of a later version is cut.
        let mut longer = body.clone();
        longer.extend_from_slice(&[7; 9]);
        let later = Header { version: spec.max + 1, length: header.length + 9, fixed: header.fixed + 9, ..header };
        assert_eq!((spec.check)(&later, &longer), Ok(()), "{}", spec.name);
        for cut in 0..spec.fixed {
            let cut_header = Header { length: cut as u32, fixed: cut as u16, ..header };
            if spec.max == 1 {
                assert!((spec.check)(&cut_header, &body[..cut]).is_err(), "{} cut at {cut}", spec.name);
            }
            // The header may also lie about the length.
            let _ = (spec.check)(&header, &body[..cut]);
        }
        let wrong = Header { flags: flags ^ FLAG_REPLY, ..header };
        assert!((spec.check)(&wrong, &body).is_err());
        let ancient = Header { version: 0, ..header };
        assert!((spec.check)(&ancient, &body).is_err());
    }
}
