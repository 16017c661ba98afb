//! `#!` lines.

/// What a script's first line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shebang<'a> {
    /// The interpreter's path.
    pub path: &'a [u8],
    /// Everything after it, as one argument.
    pub argument: Option<&'a [u8]>,
}

/// How much of a file is looked at for its first line (Linux' `BINPRM_BUF_SIZE`).
pub const LINE_MAX: usize = 256;

/// Reads the first line of a script from the first bytes of a file (at most [`LINE_MAX`] count). `None`: it is not a script, or one that
/// Linux refuses with `ENOEXEC` (no interpreter, or its path does not end within the bytes looked at).
pub fn parse(bytes: &[u8]) -> Option<Shebang<'_>> {
    let cut = bytes.get(..LINE_MAX).unwrap_or(bytes);
    let line = cut.strip_prefix(b"#!")?;
    let (line, complete) = match line.iter().position(|byte| *byte == b'\n' || *byte == 0) {
        Some(end) => (line.get(..end)?, true),
        None => (line, bytes.len() < LINE_MAX),
    };
    let line = trim(line);
    let end = line.iter().position(|byte| is_space(*byte)).unwrap_or(line.len());
    let (path, rest) = line.split_at(end);
    if path.is_empty() || (!complete && rest.is_empty()) {
        return None;
    }
    let argument = trim(rest);
    Some(Shebang { path, argument: (!argument.is_empty()).then_some(argument) })
}

const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_space(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_space(*last)
    {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::{Shebang, parse};

    #[test]
    fn reads_the_line_as_linux_does() {
        let of = |text: &'static [u8]| parse(text).map(|s| (s.path, s.argument));
        assert_eq!(of(b"#!/bin/sh\n"), Some((&b"/bin/sh"[..], None)));
        assert_eq!(of(b"#! /bin/sh -e -x \nrest"), Some((&b"/bin/sh"[..], Some(&b"-e -x"[..]))));
        assert_eq!(of(b"#!/bin/sh"), Some((&b"/bin/sh"[..], None)));
        assert_eq!(of(b"#!\t /a\tb\n"), Some((&b"/a"[..], Some(&b"b"[..]))));
        assert_eq!(of(b"#!\n"), None);
        assert_eq!(of(b"#!   \n/bin/sh"), None);
        assert_eq!(of(b"/bin/sh\n"), None);
        assert_eq!(of(b"#"), None);
    }

    #[test]
    fn a_path_must_end_in_the_first_bytes() {
        let mut long: Vec<u8> = vec![b'a'; 400];
        long[..3].copy_from_slice(b"#!/");
        assert_eq!(parse(&long), None);
        long[250] = b' ';
        assert_eq!(parse(&long), Some(Shebang { path: &long[2..250], argument: Some(&long[251..256]) }));
    }
}
