//! Bytes on their way to a descriptor that takes as many as it likes.

use std::io::{ErrorKind, Read, Write};

/// What became of an attempt to read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Some bytes went through.
    Moved(usize),
    /// Not now.
    Blocked,
    /// Never again: end of file, or nobody reads.
    Ended,
}

/// Reads what is there.
pub fn read(from: &mut impl Read, into: &mut [u8]) -> Flow {
    loop {
        return match from.read(into) {
            Ok(0) => Flow::Ended,
            Ok(n) => Flow::Moved(n),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock => Flow::Blocked,
            Err(_) => Flow::Ended,
        };
    }
}

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    written: usize,
}

impl Buffer {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    /// The end, to append at.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        if self.len() == 0 {
            self.clear();
        }
        &mut self.bytes
    }

    /// Writes once.
    pub fn write_to(&mut self, to: &mut impl Write) -> Flow {
        loop {
            let Some(rest @ [_, ..]) = self.bytes.get(self.written..) else {
                return Flow::Blocked;
            };
            return match to.write(rest) {
                Ok(n) => {
                    self.written += n;
                    Flow::Moved(n)
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => Flow::Blocked,
                Err(_) => Flow::Ended,
            };
        }
    }
}
