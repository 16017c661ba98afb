//! The agent protocol: how the host command runs programs in a booted system (contract C7 of `ARCHITECTURE.md`).
//!
//! A frame is a type byte, a little-endian `u32` length and that many bytes, at most [`MAX_PAYLOAD`]. The guest says
//! [`ToHost::Ready`] once per connection; then the host sends one [`ToGuest::Exec`] at a time, with the command's standard input
//! as [`ToGuest::Stdin`] frames, and waits for [`ToHost::Exit`]. Streams are flow-controlled by the channel itself: who cannot
//! take more does not read. So a `Kill` behind input that the command does not read waits for the command.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod decoder;

use alloc::vec::Vec;

pub use decoder::{Decoder, Message};

/// The version that [`ToHost::Ready`] announces.
pub const VERSION: u32 = 1;
/// The most payload bytes in a frame.
pub const MAX_PAYLOAD: usize = 32 * 1024;
/// The bytes before the payload.
pub const HEADER: usize = 5;

/// Why a stream of frames cannot be read on. The channel is of no use after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No frame of this direction has this type.
    UnknownType(u8),
    /// A frame longer than [`MAX_PAYLOAD`].
    TooLong(u32),
    /// The payload is not what frames of this type carry.
    BadPayload(u8),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::UnknownType(kind) => write!(f, "unknown frame type {kind:#x}"),
            Self::TooLong(length) => write!(f, "frame of {length} bytes, at most {MAX_PAYLOAD} are allowed"),
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
    /// The agent listens; its protocol version.
    Ready(u32),
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
            Self::Ready(version) => frame(out, 0x81, &version.to_le_bytes()),
            Self::Stdout(bytes) => frame(out, 0x82, bytes),
            Self::Stderr(bytes) => frame(out, 0x83, bytes),
            Self::Exit(status) => frame(out, 0x84, &status.to_le_bytes()),
            Self::Error(text) => frame(out, 0x85, text),
        }
    }

    fn parse(kind: u8, payload: &'a [u8]) -> Result<Self, Error> {
        let word = || payload.try_into().map_err(|_| Error::BadPayload(kind));
        match kind {
            0x81 => Ok(Self::Ready(u32::from_le_bytes(word()?))),
            0x82 => Ok(Self::Stdout(payload)),
            0x83 => Ok(Self::Stderr(payload)),
            0x84 => Ok(Self::Exit(i32::from_le_bytes(word()?))),
            0x85 => Ok(Self::Error(payload)),
            _ => Err(Error::UnknownType(kind)),
        }
    }
}
