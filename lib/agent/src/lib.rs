//! The agent protocol: how the host command runs programs in a booted system (contract C7 of `ARCHITECTURE.md`).
//!
//! A frame is a type byte, a little-endian `u32` length, that many bytes, at most [`MAX_PAYLOAD`], and the byte [`END`]. The guest says
//! [`ToHost::Ready`] whenever an agent begins: at boot, and when the kernel that had it died and another one took its place. So either side may see the end of
//! something that was cut. Each therefore begins with a [`sync`]: zeros, more than any frames can have in a row, which end whatever was cut and are no
//! frame themselves. The guest sends one before `Ready`, the host one when it hears `Ready`, and both ignore what comes before. Then the host sends one [`ToGuest::Exec`] at a time, with the command's standard input
//! as [`ToGuest::Stdin`] frames, and waits for [`ToHost::Exit`]. Streams are flow-controlled by the channel itself: who cannot
//! take more does not read. So a `Kill` behind input that the command does not read waits for the command.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod decoder;

use alloc::vec::Vec;

pub use decoder::{Decoder, Message};

/// The version that [`ToHost::Ready`] announces.
pub const VERSION: u32 = 2;
/// The most payload bytes in a frame.
pub const MAX_PAYLOAD: usize = 32 * 1024;
/// The bytes before the payload.
pub const HEADER: usize = 5;
/// The byte after the payload: zeros that complete a frame that was cut are none.
pub const END: u8 = 0xff;
/// How many zeros are a [`sync`]. Of a length and its payload at most `MAX_PAYLOAD + 4` are zeros in a row: types and [`END`] are none.
pub const SYNC: usize = MAX_PAYLOAD + 16;

/// Appends what tells the other side that everything before is over.
pub fn sync(out: &mut Vec<u8>) {
    out.resize(out.len() + SYNC, 0);
}

/// Why a stream of frames cannot be read on. The channel is of no use after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No frame of this direction has this type.
    UnknownType(u8),
    /// A frame longer than [`MAX_PAYLOAD`].
    TooLong(u32),
    /// The payload is not what frames of this type carry.
    BadPayload(u8),
    /// A frame of this type does not end where it says.
    NoEnd(u8),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnknownType(kind) => write!(f, "unknown frame type {kind:#x}"),
            Self::TooLong(length) => write!(f, "frame of {length} bytes, at most {MAX_PAYLOAD} are allowed"),
            Self::NoEnd(kind) => write!(f, "a frame of type {kind:#x} does not end where it says"),
            Self::BadPayload(kind) => write!(f, "malformed payload in a frame of type {kind:#x}"),
        }
    }
}

impl core::error::Error for Error {}

/// What the host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToGuest<'a> {
    /// Run this line with `sh -c` in a session of its own.
    Exec(&'a [u8]),
    /// Bytes for the command's standard input.
    Stdin(&'a [u8]),
    /// No more input.
    StdinEof,
    /// Switch the machine off.
    Poweroff,
    /// Send this signal to the command's process group.
    Kill(u8),
}

/// What the guest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToHost<'a> {
    /// The agent listens.
    Ready {
        /// Its protocol version.
        version: u32,
        /// The kernel that it runs on, by index.
        kernel: u16,
    },
    /// Bytes that the command wrote to its standard output.
    Stdout(&'a [u8]),
    /// Bytes that the command wrote to its standard error.
    Stderr(&'a [u8]),
    /// The command ended; its wait status as `wait(2)` gives it. All output was sent before.
    Exit(i32),
    /// The command could not be run, or the host broke the protocol.
    Error(&'a [u8]),
}

/// Appends one frame.
///
/// Payloads over [`MAX_PAYLOAD`] are split for streams by the caller; here they would be a bug, so the excess is cut off.
fn frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    debug_assert!(payload.len() <= MAX_PAYLOAD, "payload of {} bytes", payload.len());
    let payload = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
    out.push(kind);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
    out.push(END);
}

impl<'a> Message<'a> for ToGuest<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Exec(line) => frame(out, 1, line),
            Self::Stdin(bytes) => frame(out, 2, bytes),
            Self::StdinEof => frame(out, 3, &[]),
            Self::Poweroff => frame(out, 4, &[]),
            Self::Kill(signal) => frame(out, 5, &[*signal]),
        }
    }

    fn parse(kind: u8, payload: &'a [u8]) -> Result<Self, Error> {
        match (kind, payload) {
            (1, line) => Ok(Self::Exec(line)),
            (2, bytes) => Ok(Self::Stdin(bytes)),
            (3, []) => Ok(Self::StdinEof),
            (4, []) => Ok(Self::Poweroff),
            (5, [signal]) => Ok(Self::Kill(*signal)),
            (3..=5, _) => Err(Error::BadPayload(kind)),
            _ => Err(Error::UnknownType(kind)),
        }
    }
}

impl<'a> Message<'a> for ToHost<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ready { version, kernel } => {
                let ([a, b, c, d], [e, f]) = (version.to_le_bytes(), kernel.to_le_bytes());
                frame(out, 0x81, &[a, b, c, d, e, f]);
            }
            Self::Stdout(bytes) => frame(out, 0x82, bytes),
            Self::Stderr(bytes) => frame(out, 0x83, bytes),
            Self::Exit(status) => frame(out, 0x84, &status.to_le_bytes()),
            Self::Error(text) => frame(out, 0x85, text),
        }
    }

    fn parse(kind: u8, payload: &'a [u8]) -> Result<Self, Error> {
        let word = || payload.try_into().map_err(|_| Error::BadPayload(kind));
        match kind {
            0x81 => match *payload {
                // What later versions add is theirs.
                [a, b, c, d, e, f, ..] => {
                    Ok(Self::Ready { version: u32::from_le_bytes([a, b, c, d]), kernel: u16::from_le_bytes([e, f]) })
                }
                _ => Err(Error::BadPayload(kind)),
            },
            0x82 => Ok(Self::Stdout(payload)),
            0x83 => Ok(Self::Stderr(payload)),
            0x84 => Ok(Self::Exit(i32::from_le_bytes(word()?))),
            0x85 => Ok(Self::Error(payload)),
            _ => Err(Error::UnknownType(kind)),
        }
    }
}
