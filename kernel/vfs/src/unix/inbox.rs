//! Messages that wait at a socket.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

use base::{
    Errno, Error, Result, Try, TryResult,
    io::{Sink, Source},
    wait::done,
};

use super::Name;
use crate::{Caller, OpenFile};

/// Bytes that wait at most (`/proc/sys/net/core/wmem_default`).
const CAPACITY: usize = 212_992;
/// The largest piece of a stream that is kept as one.
const PIECE: usize = 32768;

/// Who sent something: SCM_CREDENTIALS, SO_PEERCRED.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Credentials {
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What goes with a message.
#[derive(Clone, Default)]
pub struct Attached {
    /// Open files (SCM_RIGHTS).
    pub files: Vec<Arc<dyn OpenFile>>,
    /// The sender.
    pub from: Credentials,
}

impl Attached {
    /// Nothing but who sent it.
    pub fn of(caller: &Caller) -> Self {
        Self { files: Vec::new(), from: Credentials { pid: caller.pid, uid: caller.uid, gid: caller.gid } }
    }
}

/// What was received.
#[derive(Default)]
pub struct Received {
    /// Bytes that were put into the sink, or are in `data`.
    pub bytes: usize,
    /// The bytes, if they were not put into the sink: the caller does (the answer of a peer).
    pub data: Vec<u8>,
    /// How long the packet was.
    pub length: usize,
    /// It came as a packet of which not all fitted.
    pub truncated: bool,
    /// What went with it.
    pub attached: Attached,
    /// The sender's name, for datagrams.
    pub name: Option<Name>,
}

struct Message {
    bytes: Vec<u8>,
    /// How much of it was received (streams).
    done: usize,
    attached: Attached,
    name: Option<Name>,
}

/// See the module.
pub(super) struct Inbox {
    stream: bool,
    messages: VecDeque<Message>,
    held: usize,
}

impl Inbox {
    pub const fn new(stream: bool) -> Self {
        Self { stream, messages: VecDeque::new(), held: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub const fn has_room(&self) -> bool {
        self.held < CAPACITY
    }

    /// What FIONREAD says: all bytes of a stream, the first packet otherwise.
    pub fn first_bytes(&self) -> usize {
        if self.stream { self.held } else { self.messages.front().map_or(0, |m| m.bytes.len()) }
    }

    pub fn put(&mut self, source: &mut dyn Source, attached: &mut Attached, name: Option<Name>) -> TryResult<usize> {
        let want = source.left();
        let room = CAPACITY.saturating_sub(self.held);
        if self.stream {
            if want == 0 {
                return done(0);
            }
            if room == 0 {
                return Ok(Try::WouldBlock);
            }
            return done(self.put_bytes(source, attached, want.min(room))?);
        }
        if want > CAPACITY {
            return Err(Error::new(Errno::EMSGSIZE, "packet too long"));
        }
        // Empty packets cost something too.
        if room < want || self.messages.len() >= 4096 {
            return Ok(Try::WouldBlock);
        }
        if !source.can_take(want) {
            return done(0);
        }
        let mut bytes = alloc::vec![0; want];
        let n = source.take(&mut bytes);
        bytes.truncate(n);
        self.held += n;
        self.messages.push_back(Message { bytes, done: 0, attached: core::mem::take(attached), name });
        done(n)
    }

    fn put_bytes(&mut self, source: &mut dyn Source, attached: &mut Attached, most: usize) -> Result<usize> {
        let mut moved = 0;
        while moved < most {
            let part = (most - moved).min(PIECE);
            let mut bytes = alloc::vec![0; part];
            let n = source.take(&mut bytes);
            bytes.truncate(n);
            if n > 0 {
                let files = core::mem::take(&mut attached.files);
                let from = attached.from;
                match self.messages.back_mut() {
                    // Small writes of one sender are kept together.
                    Some(last) if files.is_empty() && last.attached.from == from && last.bytes.len() + n <= PIECE => {
                        last.bytes.extend_from_slice(&bytes);
                    }
                    _ => {
                        let attached = Attached { files, from };
                        self.messages.push_back(Message { bytes, done: 0, attached, name: None });
                    }
                }
            }
            self.held += n;
            moved += n;
            if n < part {
                break;
            }
        }
        Ok(moved)
    }

    pub fn take(&mut self, sink: &mut dyn Sink, peek: bool) -> Option<Received> {
        if self.messages.is_empty() {
            return None;
        }
        Some(if self.stream { self.take_bytes(sink, peek) } else { self.take_packet(sink, peek) })
    }

    fn take_packet(&mut self, sink: &mut dyn Sink, peek: bool) -> Received {
        let Some(message) = self.messages.front_mut() else { return Received::default() };
        let length = message.bytes.len();
        let fits = length.min(sink.room());
        if !sink.can_put(fits) {
            return Received::default();
        }
        let bytes = sink.put(message.bytes.get(..fits).unwrap_or_default());
        let mut received =
            Received { bytes, length, truncated: fits < length, name: message.name.clone(), ..Received::default() };
        if peek {
            received.attached = message.attached.clone();
        } else if let Some(message) = self.messages.pop_front() {
            self.held -= length;
            received.attached = message.attached;
        }
        received
    }

    /// As much as fits, up to where other descriptors begin.
    fn take_bytes(&mut self, sink: &mut dyn Sink, peek: bool) -> Received {
        let mut received = Received::default();
        let mut at = 0;
        let mut first = true;
        while let Some(message) = self.messages.get_mut(at) {
            if !first && (!message.attached.files.is_empty() || message.attached.from != received.attached.from) {
                break;
            }
            if sink.room() == 0 {
                break;
            }
            let rest = message.bytes.get(message.done..).unwrap_or_default();
            let want = rest.len();
            let n = sink.put(rest);
            received.bytes += n;
            if n > 0 || want == 0 {
                if first {
                    received.attached.from = message.attached.from;
                    let files = &mut message.attached.files;
                    received.attached.files = if peek { files.clone() } else { core::mem::take(files) };
                }
                first = false;
            }
            if peek {
                at += 1;
            } else {
                message.done += n;
                self.held -= n;
                if n == want {
                    self.messages.pop_front();
                }
            }
            if n < want {
                break;
            }
        }
        received.length = received.bytes;
        received
    }
}
