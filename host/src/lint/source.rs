//! The doors: where `unsafe`, ISA-specific code and global state may stand in Rust files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Finding;
use crate::root::Root;

/// Folders that may have `unsafe`.
const UNSAFE: [&str; 4] = ["hal", "user", "tests", "bench"];
/// Folders that may know the ISA they are compiled for.
const ARCH: [&str; 1] = ["hal"];
/// Folders whose crates keep all state in values (C2).
const STATELESS: [&str; 7] = ["abi", "lib", "link", "kernel", "drivers", "ssi", "linux"];
/// Types that make a static mutable.
const MUTABLE: [&str; 8] = ["Atomic", "Cell", "Lock", "Mutex", "Once", "Lazy", "Queue", "UnsafeCell"];

/// Checks all Rust files.
pub fn check(root: &Root, files: &[PathBuf]) -> Result<Vec<Finding>> {
    let unsafe_doors = doors(root, "tests/lint/unsafe-doors.txt")?;
    let arch_doors = doors(root, "tests/lint/arch-doors.txt")?;
    let mut findings = Vec::new();
    for door in unsafe_doors.iter().chain(&arch_doors).filter(|door| !root.join(door).is_file()) {
        findings.push(Finding { file: door.clone(), line: 0, what: "a door to nowhere: strike it off".into() });
    }
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let text = fs::read_to_string(root.join(file))?;
        for (number, _) in text.lines().enumerate().filter(|(_, line)| jumps_short(file, line)) {
            let what = "a `j` of riscv64 reaches 1 MiB, a kernel grows beyond: say `tail`, or `call`";
            findings.push(Finding { file: file.clone(), line: number + 1, what: what.into() });
        }
        let code = code_of(&text);
        let (may_unsafe, may_arch) = (under(file, &UNSAFE), under(file, &ARCH));
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_root = file.parent().is_some_and(|dir| dir.ends_with("src")) && ["lib.rs", "main.rs"].contains(&name);
        if is_root && !may_unsafe && !unsafe_doors.contains(file) && !code.contains("#![forbid(unsafe_code)]") {
            findings.push(Finding { file: file.clone(), line: 1, what: "add #![forbid(unsafe_code)]".into() });
        }
        for (number, line) in code.lines().enumerate() {
            let mut find = |what: &str| {
                findings.push(Finding { file: file.clone(), line: number + 1, what: what.into() });
            };
            if !may_unsafe && !unsafe_doors.contains(file) && words(line).any(|word| word == "unsafe") {
                find("unsafe outside hal: offer it there, or list the file in tests/lint/unsafe-doors.txt");
            }
            let arch = ["target_arch", "asm", "global_asm", "naked_asm"];
            if !may_arch && !arch_doors.contains(file) && words(line).any(|word| arch.contains(&word)) {
                find("ISA-specific code outside hal: offer it there");
            }
            if under(file, &STATELESS) && !is_test(file) && is_global_state(line) {
                find("global state: hang it off a value (C2)");
            }
        }
    }
    Ok(findings)
}

/// Whether a line of assembly jumps to a function (an operand) by an instruction that may not reach it. Only the largest image shows it, at link time.
fn jumps_short(file: &Path, line: &str) -> bool {
    let line = line.trim().trim_start_matches('"');
    file.starts_with("hal/riscv64") && (line.starts_with("j {") || line.starts_with("jal {"))
}

fn under(file: &Path, folders: &[&str]) -> bool {
    folders.iter().any(|folder| file.starts_with(folder))
}

/// Integration tests and benchmarks of a crate are programs of the host.
fn is_test(file: &Path) -> bool {
    file.iter().any(|part| part == "tests" || part == "benches")
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn is_global_state(line: &str) -> bool {
    let line = line.trim_start();
    let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
    if line.starts_with("thread_local!") {
        return true;
    }
    let Some(rest) = line.strip_prefix("static ") else { return false };
    rest.starts_with("mut ") || words(rest).any(|word| MUTABLE.iter().any(|kind| word.contains(kind)))
}

/// The paths in a list; lines with `#` are remarks.
fn doors(root: &Root, list: &str) -> Result<BTreeSet<PathBuf>> {
    let text = fs::read_to_string(root.join(list))?;
    Ok(text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(PathBuf::from).collect())
}

/// The text without what stands in comments and literals, line by line.
fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if let Some(length) = raw_string(rest, &out) {
            length
        } else if first == '"' {
            string(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        };
        let (gone, tail) = rest.split_at(skip);
        out.extend(gone.chars().filter(|c| *c == '\n'));
        out.push(' ');
        rest = tail;
    }
    out
}

/// The length of a block comment, which may contain others.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a raw string that begins here, if one does.
fn raw_string(text: &str, before: &str) -> Option<usize> {
    let inner = text.strip_prefix('r')?;
    // The end of a longer word is no prefix, but the `b` of a byte string is.
    let before = before.strip_suffix('b').unwrap_or(before);
    if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let hashes = inner.len() - inner.trim_start_matches('#').len();
    inner.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let open = 1 + hashes + 1;
    Some(text.get(open..)?.find(&end).map_or(text.len(), |at| open + at + end.len()))
}

/// The length of a string literal.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal, or of the tick of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text.get(3..).and_then(|rest| rest.find('\'')).map_or(1, |at| at + 4),
        Some((_, _)) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{code_of, is_global_state, jumps_short};

    #[test]
    fn jumps_that_may_not_reach() {
        let of = |file: &str, line: &str| jumps_short(Path::new(file), line);
        assert!(of("hal/riscv64/src/trap.rs", "    j {overflow}") && of("hal/riscv64/src/trap.rs", "\"jal {to}\","));
        assert!(!of("hal/riscv64/src/trap.rs", "    j 1b") && !of("hal/riscv64/src/trap.rs", "    tail {overflow}"));
        assert!(!of("hal/x86_64/src/trap.rs", "    j {overflow}"));
    }

    #[test]
    fn only_code_counts() {
        let text = "a /* unsafe /* x */ */ b\n\"unsafe \\\" x\" c // unsafe\nr#\"unsafe\"# 'u' '\\'' d<'unsafe_life> bread\"x\"";
        let code = code_of(text);
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "c", "d<", "unsafe_life>", "bread"]);
        assert_eq!(code.lines().count(), 3);
    }

    #[test]
    fn global_state_is_seen() {
        assert!(is_global_state("static COUNT: AtomicU32 = AtomicU32::new(0);"));
        assert!(is_global_state("    pub static mut X: u32 = 0;"));
        assert!(is_global_state("thread_local! {"));
        assert!(!is_global_state("static TABLE: [u32; 3] = [1, 2, 3];"));
        assert!(!is_global_state("fn f(x: &'static Mutex<u32>)"));
    }
}
