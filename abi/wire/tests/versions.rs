//! Two versions of one message, kept here, talk; a changed layout under the same version is named.
use wire::{
    FLAG_REQUEST, Header, Malformed, Message,
    table::{Entry, Verdict, compare_with},
};

mod old {
    wire::messages! {
        /// As it was published first.
        0x7f10 Thing (Request, event, payload 8) {
            v1 { a: u32, b: u64 }
        }
    }
}

mod new {
    wire::messages! {
        /// One field more.
        0x7f10 Thing (Request, event, payload 8) {
            v1 { a: u32, b: u64 }
            v2 { c: u16 = 7, d: u16 = 9 }
        }
    }
}

mod changed {
    wire::messages! {
        /// Somebody changed a published version.
        0x7f10 Thing (Request, event, payload 8) {
            v1 { a: u64, b: u32 }
        }
    }
}

fn send<M: Message>(message: &M, payload: &[u8]) -> (Header, Vec<u8>) {
    let mut body = vec![0; M::SPEC.fixed];
    let fixed = message.encode(&mut body);
    body.extend_from_slice(payload);
    let header = Header {
        kind: M::SPEC.number,
        version: M::SPEC.max,
        length: body.len() as u32,
        fixed: fixed as u16,
        ..Header::default()
    };
    (header, body)
}

#[test]
fn an_old_kernel_reads_a_new_message() {
    let (header, body) = send(&new::Thing { a: 1, b: 2, c: 3, d: 4 }, b"payload!");
    let (thing, payload) = old::Thing::read(&header, &body).expect("reads");
    assert_eq!(thing, old::Thing { a: 1, b: 2 });
    assert_eq!(payload, b"payload!");
}

#[test]
fn a_new_kernel_reads_an_old_message() {
    let (header, body) = send(&old::Thing { a: 1, b: 2 }, b"pay");
    let (thing, payload) = new::Thing::read(&header, &body).expect("reads");
    assert_eq!(thing, new::Thing { a: 1, b: 2, c: 7, d: 9 });
    assert_eq!(payload, b"pay");
}

#[test]
fn what_is_wrong_is_said() {
    let (header, body) = send(&new::Thing { a: 1, b: 2, c: 3, d: 4 }, b"");
    let cut = Header { fixed: 13, length: 13, ..header };
    assert_eq!(new::Thing::read(&cut, &body[..13]), Err(Malformed::Short));
    assert_eq!(new::Thing::read(&header, &[body.as_slice(), &[0; 9]].concat()), Err(Malformed::TooLong));
    assert_eq!(new::Thing::read(&Header { kind: 1, ..header }, &body), Err(Malformed::OtherType));
    assert_eq!(new::Thing::read(&Header { flags: FLAG_REQUEST, ..header }, &body), Err(Malformed::Flags));
}

#[test]
fn tables_are_compared_by_version_and_layout() {
    let (old, new, changed) = (old::Thing::SPEC, new::Thing::SPEC, changed::Thing::SPEC);
    assert_eq!(compare_with(&old, Entry::of(&old)), Verdict::Speak);
    assert_eq!(compare_with(&old, Entry::of(&new)), Verdict::Speak);
    assert_eq!(compare_with(&new, Entry::of(&old)), Verdict::Speak);
    let refused = Verdict::OtherLayout { name: "Thing", version: 1 };
    assert_eq!(compare_with(&old, Entry::of(&changed)), refused);
    assert_eq!(compare_with(&new, Entry::of(&changed)), refused);
    let later = Entry { min: 3, max: 4, ..Entry::of(&new) };
    assert_eq!(compare_with(&new, later), Verdict::Without);
    assert_eq!(compare_with(&new, Entry { min: 0, max: 0, ..later }), Verdict::Without);
    assert_eq!(Entry::from_bytes(later.to_bytes()), later);
}
