//! Archives in the "new ASCII" format of cpio, as Linux' initramfs has them (`Documentation/driver-api/early-userspace/buffer-format.rst`): records of
//! header, name and content, each padded to 4 bytes, and a trailer.
//!
//! Nothing is copied, and of a file's content only where it lies is looked at: a kernel goes through its archive several times while it boots. (The
//! crates that read this format sum up all bytes for a checksum that the format does not have.)
#![no_std]
#![forbid(unsafe_code)]

/// Bytes of a header: the magic and 13 numbers of 8 hexadecimal digits.
const HEADER: usize = 110;
const MAGIC: &[u8] = b"070701";
/// The name of the record behind the last.
const TRAILER: &[u8] = b"TRAILER!!!";

/// A record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The path, without the NUL.
    pub name: &'a [u8],
    /// Inode number in the archive: equal for names of one file.
    pub ino: u32,
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// How many names the file has.
    pub nlink: u32,
    /// Last change, in seconds since 1970.
    pub mtime: u32,
    /// The device that a device node stands for: major and minor.
    pub rdev: (u32, u32),
    /// The content, or the target of a symbolic link.
    pub file: &'a [u8],
}

/// The records of an archive, in their order. Ends at the trailer, at the end, or at what is no record.
#[derive(Clone, Debug)]
pub struct Entries<'a>(&'a [u8]);

/// The records of an archive.
pub const fn entries(archive: &[u8]) -> Entries<'_> {
    Entries(archive)
}

/// The content of the last record with this path: a later record replaces an earlier one.
pub fn find<'a>(archive: &'a [u8], path: &str) -> Option<&'a [u8]> {
    entries(archive).filter(|entry| trimmed(entry.name) == path.as_bytes()).last().map(|entry| entry.file)
}

/// A path without leading `./` and `/`, and without slashes at its end.
pub fn trimmed(mut path: &[u8]) -> &[u8] {
    loop {
        path = match path {
            [b'.', b'/', rest @ ..] | [b'/', rest @ ..] | [rest @ .., b'/'] => rest,
            _ => return path,
        };
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    // `from_str_radix` would take a sign.
    digits.iter().try_fold(0u32, |n, digit| Some(n << 4 | char::from(*digit).to_digit(16)?))
}

/// The first `len` bytes, and what follows them and the padding to 4 bytes that `before` bytes in front make necessary. The padding may be missing at the
/// end.
fn piece(bytes: &[u8], before: usize, len: usize) -> Option<(&[u8], &[u8])> {
    let (piece, rest) = bytes.split_at_checked(len)?;
    let pad = before.checked_add(len)?.wrapping_neg() & 3;
    Some((piece, rest.get(pad..).unwrap_or_default()))
}

fn record(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let mut fields = [0; 13];
    for (field, digits) in fields.iter_mut().zip(header.strip_prefix(MAGIC)?.chunks_exact(8)) {
        *field = number(digits)?;
    }
    let [ino, mode, uid, gid, nlink, mtime, size, _, _, major, minor, name_size, _] = fields;
    let (name, rest) = piece(rest, HEADER, usize::try_from(name_size).ok()?)?;
    let name = name.strip_suffix(&[0])?;
    let (file, rest) = piece(rest, 0, usize::try_from(size).ok()?)?;
    Some((Entry { name, ino, mode, uid, gid, nlink, mtime, rdev: (major, minor), file }, rest))
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (entry, rest) = record(self.0).filter(|(entry, _)| entry.name != TRAILER).unzip();
        self.0 = rest.unwrap_or_default();
        entry
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::{any, prop_assert_eq, proptest};
    use std::{format, string::String, vec, vec::Vec};

    use super::{Entry, entries, find, trimmed};

    fn add(to: &mut Vec<u8>, name: &str, mode: u32, file: &[u8]) {
        to.extend_from_slice(b"070701");
        for n in [7, mode, 1, 2, 1, 3, file.len() as u32, 0, 0, 4, 5, name.len() as u32 + 1, 0] {
            to.extend_from_slice(format!("{n:08X}").as_bytes());
        }
        for part in [[name.as_bytes(), &[0]].concat(), file.into()] {
            to.extend_from_slice(&part);
            to.resize(to.len().next_multiple_of(4), 0);
        }
    }

    #[test]
    fn records_are_read_up_to_the_trailer() {
        let mut bytes = Vec::new();
        add(&mut bytes, "etc", 0o40755, b"");
        add(&mut bytes, "./etc/name", 0o100644, b"first");
        add(&mut bytes, "etc/name", 0o100600, b"second");
        add(&mut bytes, "TRAILER!!!", 0, b"");
        add(&mut bytes, "behind", 0o100644, b"x");
        let read: Vec<_> = entries(&bytes).collect();
        assert_eq!(read.len(), 3);
        let name = Entry {
            name: b"./etc/name",
            ino: 7,
            mode: 0o100644,
            uid: 1,
            gid: 2,
            nlink: 1,
            mtime: 3,
            rdev: (4, 5),
            file: b"first",
        };
        assert_eq!(read[1], name);
        assert_eq!(find(&bytes, "etc/name"), Some(&b"second"[..]));
        assert_eq!(find(&bytes, "behind"), None);
    }

    #[test]
    fn paths_are_trimmed() {
        for path in ["a/b", "./a/b", "/a/b/", ".//a/b//"] {
            assert_eq!(trimmed(path.as_bytes()), b"a/b");
        }
        assert_eq!(trimmed(b"./"), b"");
        assert_eq!(trimmed(b"."), b".");
    }

    proptest! {
        #[test]
        fn what_was_put_comes_out(files in proptest::collection::vec(("[a-z/]{1,9}", proptest::collection::vec(any::<u8>(), 0..20)), 0..8)) {
            let mut bytes = Vec::new();
            for (name, file) in &files {
                add(&mut bytes, name, 0o100644, file);
            }
            let read: Vec<(String, Vec<u8>)> =
                entries(&bytes).map(|e| (String::from_utf8(e.name.into()).unwrap(), e.file.into())).collect();
            prop_assert_eq!(read, files);
        }

        #[test]
        fn anything_is_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), digits in "[0-9a-f]{104}") {
            let _ = entries(&bytes).count();
            let mut headed = vec![];
            headed.extend_from_slice(b"070701");
            headed.extend_from_slice(digits.as_bytes());
            headed.append(&mut bytes);
            let _ = entries(&headed).count();
        }
    }
}
