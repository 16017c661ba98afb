//! The first bytes of a program's stack: argc, argv, envp, the auxiliary vector and the strings. Pure; the same on all 64-bit ISAs.
//!
//! Source: System V ABI, "Process Initialization"; `getauxval(3)`.

use alloc::vec::Vec;

use base::{Errno, Error, Result};

/// The longest single string (`MAX_ARG_STRLEN`), with its NUL.
pub const STRING_MAX: usize = 128 << 10;
/// Most bytes of all strings and pointers together.
pub const TOTAL_MAX: usize = 2 << 20;

const fn too_big() -> Error {
    Error::new(Errno::E2BIG, "arguments and environment are too long")
}

/// A list of strings as `execve` takes it: argv or envp.
#[derive(Clone, Default, Debug)]
pub struct Strings {
    /// The strings one after the other, each with its NUL.
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    /// No strings.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), count: 0 }
    }

    /// Adds one (without its NUL).
    ///
    /// # Errors
    /// `E2BIG` if it is too long or all together are; `ENOMEM`.
    pub fn push(&mut self, string: &[u8]) -> Result<()> {
        if string.len() >= STRING_MAX || self.cost() + string.len() + 9 > TOTAL_MAX {
            return Err(too_big());
        }
        self.bytes
            .try_reserve(string.len() + 1)
            .map_err(|_| Error::new(Errno::ENOMEM, "no memory for the arguments"))?;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        self.count += 1;
        Ok(())
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Each without its NUL.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|byte| *byte == 0).take(self.count)
    }

    /// The first one, the name a program is called by.
    pub fn first(&self) -> Option<&[u8]> {
        self.iter().next()
    }

    /// All of them as bytes, each with its NUL (`/proc/PID/cmdline`).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn cost(&self) -> usize {
        self.bytes.len() + 8 * self.count
    }

    /// The list for the interpreter of a script: interpreter, its argument, the script's path, then the old list without its first.
    ///
    /// # Errors
    /// `E2BIG`, `ENOMEM`.
    pub fn for_script(&self, interpreter: &[u8], argument: Option<&[u8]>, path: &[u8]) -> Result<Self> {
        let mut new = Self::new();
        new.push(interpreter)?;
        if let Some(argument) = argument {
            new.push(argument)?;
        }
        new.push(path)?;
        for string in self.iter().skip(1) {
            new.push(string)?;
        }
        Ok(new)
    }
}

/// Types of auxiliary entries, `AT_*`.
pub mod at {
    #![allow(missing_docs)]
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// The finished image.
#[derive(Debug)]
pub struct Start {
    /// The stack pointer at entry; where `bytes` goes.
    pub sp: u64,
    /// What lies from `sp` to the top.
    pub bytes: Vec<u8>,
    /// Where the argument strings are.
    pub args: core::ops::Range<u64>,
    /// Where the environment strings are.
    pub env: core::ops::Range<u64>,
    /// The auxiliary vector as the program sees it (`/proc/PID/auxv`), with its end mark.
    pub auxv: Vec<[u64; 2]>,
}

/// Lays out the stack below `top` (a multiple of 16). `aux` are the entries without RANDOM, EXECFN, PLATFORM and NULL, which are added.
///
/// # Errors
/// `E2BIG`, `ENOMEM`.
pub fn build(
    top: u64,
    argv: &Strings,
    envp: &Strings,
    path: &[u8],
    platform: &str,
    random: [u8; 16],
    aux: &[[u64; 2]],
) -> Result<Start> {
    if argv.cost() + envp.cost() > TOTAL_MAX {
        return Err(too_big());
    }
    // From the top: eight zeros, path, environment, arguments, platform, random bytes; then the vectors.
    let path_at = top - 8 - (path.len() as u64 + 1);
    let env_at = path_at - envp.bytes.len() as u64;
    let args_at = env_at - argv.bytes.len() as u64;
    let platform_at = args_at - (platform.len() as u64 + 1);
    let random_at = (platform_at - 16) & !15;
    let words = 1 + argv.count + 1 + envp.count + 1 + 2 * (aux.len() + 4);
    let sp = (random_at - 8 * words as u64) & !15;

    let mut auxv = Vec::from(aux);
    auxv.extend([[at::RANDOM, random_at], [at::EXECFN, path_at], [at::PLATFORM, platform_at], [at::NULL, 0]]);

    let len = (top - sp) as usize;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Error::new(Errno::ENOMEM, "no memory for the arguments"))?;
    let mut word = |value: u64| bytes.extend_from_slice(&value.to_le_bytes());
    word(argv.count as u64);
    for (strings, from) in [(argv, args_at), (envp, env_at)] {
        let mut at = from;
        for string in strings.iter() {
            word(at);
            at += string.len() as u64 + 1;
        }
        word(0);
    }
    for [kind, value] in &auxv {
        word(*kind);
        word(*value);
    }
    bytes.resize((random_at - sp) as usize, 0);
    bytes.extend_from_slice(&random);
    bytes.resize((platform_at - sp) as usize, 0);
    bytes.extend_from_slice(platform.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&argv.bytes);
    bytes.extend_from_slice(&envp.bytes);
    bytes.extend_from_slice(path);
    bytes.resize(len, 0);
    Ok(Start { sp, bytes, args: args_at..env_at, env: env_at..path_at, auxv })
}

#[cfg(test)]
mod tests {
    use super::{STRING_MAX, Strings, at, build};
    use base::Errno;

    fn strings(list: &[&str]) -> Strings {
        let mut all = Strings::new();
        for string in list {
            all.push(string.as_bytes()).unwrap();
        }
        all
    }

    #[test]
    fn a_program_finds_everything() {
        let top = 0x7fff_0000_0000;
        let argv = strings(&["ls", "", "-l"]);
        let envp = strings(&["A=1", "PATH=/bin"]);
        let start = build(top, &argv, &envp, b"/bin/ls", "x86_64", [7; 16], &[[at::PAGESZ, 4096]]).unwrap();
        assert_eq!(start.sp % 16, 0);
        assert_eq!(start.sp + start.bytes.len() as u64, top);
        let word = |i: usize| u64::from_le_bytes(start.bytes[8 * i..8 * i + 8].try_into().unwrap());
        let text = |at: u64| {
            let from = &start.bytes[(at - start.sp) as usize..];
            core::str::from_utf8(&from[..from.iter().position(|b| *b == 0).unwrap()]).unwrap()
        };
        assert_eq!(word(0), 3);
        assert_eq!([text(word(1)), text(word(2)), text(word(3))], ["ls", "", "-l"]);
        assert_eq!(word(4), 0);
        assert_eq!([text(word(5)), text(word(6))], ["A=1", "PATH=/bin"]);
        assert_eq!(word(7), 0);
        let aux = |kind: u64| (0..).map(|i| 8 + 2 * i).find(|i| word(*i) == kind).map(|i| word(i + 1)).unwrap();
        assert_eq!(aux(at::PAGESZ), 4096);
        assert_eq!(text(aux(at::EXECFN)), "/bin/ls");
        assert_eq!(text(aux(at::PLATFORM)), "x86_64");
        let random = (aux(at::RANDOM) - start.sp) as usize;
        assert_eq!(start.bytes[random..random + 16], [7; 16]);
        assert_eq!(start.args.end - start.args.start, 7);
        assert_eq!(start.env.end - start.env.start, 14);
    }

    #[test]
    fn limits() {
        let mut list = Strings::new();
        assert_eq!(list.push(&alloc::vec![b'a'; STRING_MAX]).unwrap_err(), Errno::E2BIG);
        while list.push(&alloc::vec![b'a'; STRING_MAX - 1]).is_ok() {}
        assert!(list.bytes().len() > 1 << 20);
        let err = build(1 << 40, &list, &list, b"x", "", [0; 16], &[]).unwrap_err();
        assert_eq!(err, Errno::E2BIG);
    }

    #[test]
    fn scripts_put_their_interpreter_first() {
        let new = strings(&["./x", "a"]).for_script(b"/bin/sh", Some(b"-e"), b"./x").unwrap();
        assert_eq!(new.bytes(), b"/bin/sh\0-e\0./x\0a\0");
    }
}
