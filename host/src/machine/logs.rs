//! The kernels' logs as they grow: panics, warnings, lost messages.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing to worry about.
    Plain,
    /// The kernel begins a life: its first line.
    Birth,
    /// Something is not as it should be: a warning, an error, a lost message.
    Warning,
    /// The kernel died.
    Panic,
}

impl Severity {
    /// Of a line as `hal::console` writes it: `[   12.345678] k1.2 WARN  target: text`.
    pub fn of(line: &str) -> Self {
        let text = line.split_once("] ").map_or(line, |(_, rest)| rest);
        let text = text.split_once(' ').map_or(text, |(_, rest)| rest);
        if text.starts_with("PANIC ") || line.starts_with("PANIC") || line.contains("panicked at") {
            Self::Panic
        } else if text.starts_with("WARN ")
            || text.starts_with("ERROR ")
            || has_word(text, "lost")
            // A fault in the way that a kernel ends.
            || text.ends_with(" while it died")
        {
            Self::Warning
        } else if text.starts_with("cob::image: ") && text.contains(", entered at ") {
            Self::Birth
        } else {
            Self::Plain
        }
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|part| part == word)
}

/// One kernel's log.
struct Log {
    path: PathBuf,
    file: Option<File>,
    /// What came without its end of line.
    rest: Vec<u8>,
}

/// The logs of a run.
pub struct Logs {
    logs: Vec<Log>,
}

impl Logs {
    /// Of so many kernels, in the run's folder.
    pub fn new(folder: &Path, kernels: usize) -> Self {
        let log = |index| Log { path: folder.join(format!("k{index}.log")), file: None, rest: Vec::new() };
        Self { logs: (0..kernels).map(log).collect() }
    }

    /// The lines that are new since the last call, with the kernel that wrote them.
    pub fn read(&mut self) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        for (index, log) in self.logs.iter_mut().enumerate() {
            if log.file.is_none() {
                log.file = File::open(&log.path).ok();
            }
            let Some(file) = &mut log.file else { continue };
            // A log that cannot be read now is read later.
            let _ = file.read_to_end(&mut log.rest);
            while let Some(end) = log.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = log.rest.drain(..=end).collect();
                lines.push((index, String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::Severity;

    #[test]
    fn lines_are_understood() {
        assert_eq!(Severity::of("[    0.000123] k0.0 boot: hello"), Severity::Plain);
        assert_eq!(Severity::of("[    0.000123] k0.0 WARN  link: slow"), Severity::Warning);
        assert_eq!(Severity::of("[    0.000123] k0.0 ERROR link: bad"), Severity::Warning);
        assert_eq!(Severity::of("[    0.000123] k0.0 link: 3 messages lost"), Severity::Warning);
        assert_eq!(Severity::of("[    0.000123] k0.0 link: no flossing"), Severity::Plain);
        assert_eq!(Severity::of("kernel 1: page fault at 0x8 at 0x10 while it died"), Severity::Warning);
        assert_eq!(Severity::of("[    0.000123] k1.0 PANIC assertion"), Severity::Panic);
        let birth =
            "[    0.462499] k3.0 cob::image: octo: kernel 3 at 0x12200000, 1 CPUs, 96 MiB, entered at 405561 us";
        assert_eq!(Severity::of(birth), Severity::Birth);
        assert_eq!(Severity::of("PANIC before the clock"), Severity::Panic);
    }
}
