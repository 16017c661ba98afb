//! Connected pairs of local sockets, `socketpair(2)`, `unix(7)`: bytes or packets, both ways.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{
    Errno, Error, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::done,
};
use hal::sync::{SpinLock, rank};

use crate::{
    Caller, LocalFile, OpenFile, Vfs, Waiters,
    anon::AnonInode,
    local::{FileOps, Wrote},
    types::{FileKind, OpenFlags, Status},
};

/// Bytes that wait in one direction at most (`/proc/sys/net/core/wmem_default`).
const CAPACITY: usize = 212_992;

const BROKEN: Error = Error::new(Errno::EPIPE, "nobody receives");

/// What goes through a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Bytes (`SOCK_STREAM`).
    Bytes,
    /// Packets that keep their borders (`SOCK_SEQPACKET`, `SOCK_DGRAM`).
    Packets,
}

/// One direction.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    /// Lengths of the packets in `bytes`, with [`Flow::Packets`].
    packets: VecDeque<usize>,
    /// The sender is gone or has said that nothing more comes.
    ended: bool,
    /// The receiver is gone or wants nothing more.
    deaf: bool,
}

impl Way {
    fn put(&mut self, sink: &mut dyn Sink, most: usize) -> usize {
        let mut moved = 0;
        while moved < most {
            let (front, _) = self.bytes.as_slices();
            let want = front.len().min(most - moved);
            let n = sink.put(front.get(..want).unwrap_or_default());
            self.bytes.drain(..n);
            moved += n;
            if n < want || want == 0 {
                break;
            }
        }
        moved
    }
}

/// A pair. End `i` receives from way `i` and sends to the other.
struct Pair {
    flow: Flow,
    ways: [SpinLock<Way>; 2],
    waiters: [Waiters; 2],
}

/// One end.
pub struct End {
    pair: Arc<Pair>,
    side: usize,
}

impl End {
    const fn other(&self) -> usize {
        1 - self.side
    }

    /// shutdown(2): no more is received, no more is sent.
    pub fn shut_down(&self, receive: bool, send: bool) {
        if receive {
            self.pair.ways[self.side].lock().deaf = true;
        }
        if send {
            self.pair.ways[self.other()].lock().ended = true;
        }
        for waiters in &self.pair.waiters {
            waiters.wake(Ready::all());
        }
    }
}

impl FileOps for End {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        let room = sink.room();
        if room == 0 {
            return done(0);
        }
        let moved = {
            let mut way = self.pair.ways[self.side].lock();
            let n = match self.pair.flow {
                Flow::Bytes if way.bytes.is_empty() => None,
                Flow::Bytes => Some(way.put(sink, room)),
                Flow::Packets => way.packets.front().copied().map(|len| {
                    let want = len.min(room);
                    // A packet is received whole, or what fits of it and the rest is lost.
                    if !sink.can_put(want) {
                        return 0;
                    }
                    let n = way.put(sink, want);
                    way.bytes.drain(..len - n);
                    way.packets.pop_front();
                    n
                }),
            };
            match n {
                Some(n) => n,
                None if way.ended || way.deaf => return done(0),
                None => return Ok(Try::WouldBlock),
            }
        };
        if moved > 0 {
            self.pair.waiters[self.other()].wake(Ready::OUT);
        }
        done(moved)
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, source: &mut dyn Source) -> TryResult<Wrote> {
        let want = source.left();
        let bytes = {
            let mut way = self.pair.ways[self.other()].lock();
            if way.ended || way.deaf {
                return Err(BROKEN);
            }
            let room = CAPACITY.saturating_sub(way.bytes.len());
            if self.pair.flow == Flow::Packets {
                if want > CAPACITY {
                    return Err(Error::new(Errno::EMSGSIZE, "packet too long"));
                }
                if room < want {
                    return Ok(Try::WouldBlock);
                }
                if !source.can_take(want) {
                    return done(Wrote { bytes: 0, end: 0 });
                }
            } else if room == 0 && want > 0 {
                return Ok(Try::WouldBlock);
            }
            let mut moved = 0;
            let most = want.min(room);
            while moved < most {
                let mut buf = [0; 1024];
                let part = buf.len().min(most - moved);
                let n = source.take(buf.get_mut(..part).unwrap_or_default());
                way.bytes.extend(buf.iter().take(n));
                moved += n;
                if n < part {
                    break;
                }
            }
            if self.pair.flow == Flow::Packets {
                way.packets.push_back(moved);
            }
            moved
        };
        self.pair.waiters[self.other()].wake(Ready::IN);
        done(Wrote { bytes, end: 0 })
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        let mut ready = Ready::empty();
        let ended = {
            let way = self.pair.ways[self.side].lock();
            let waits = !way.bytes.is_empty() || !way.packets.is_empty();
            ready.set(Ready::IN, waits || way.ended || way.deaf);
            ready.set(Ready::RDHUP, way.ended);
            way.ended
        };
        let way = self.pair.ways[self.other()].lock();
        ready.set(Ready::OUT, way.bytes.len() < CAPACITY || way.deaf);
        ready.set(Ready::HUP, ended && (way.deaf || way.ended));
        ready
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.pair.waiters[self.side].subscribe(mask, waker)
    }

    fn release(&self, _: &LocalFile) {
        let unread = {
            let mut way = self.pair.ways[self.side].lock();
            way.deaf = true;
            way.packets.clear();
            core::mem::take(&mut way.bytes)
        };
        drop(unread);
        self.pair.ways[self.other()].lock().ended = true;
        self.pair.waiters[self.other()].wake(Ready::all());
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// socketpair(2).
pub fn pair(vfs: &Vfs, caller: &Caller, flow: Flow, status: Status) -> Result<[Arc<dyn OpenFile>; 2]> {
    let pair = Arc::new(Pair {
        flow,
        ways: [const { Way { bytes: VecDeque::new(), packets: VecDeque::new(), ended: false, deaf: false } }; 2]
            .map(|way| SpinLock::new(rank::SOCKET, way)),
        waiters: [Waiters::new(), Waiters::new()],
    });
    let env = vfs.env();
    let mut ends: Vec<Arc<dyn OpenFile>> = Vec::with_capacity(2);
    for side in 0..2 {
        let ino = vfs.new_ino();
        let inode = AnonInode::of(&**env, ino, caller, FileKind::Socket, 0o777, None);
        let place = vfs.anonymous(inode, alloc::format!("socket:[{ino}]").as_bytes());
        let end = Arc::new(End { pair: pair.clone(), side });
        ends.push(LocalFile::new(env.new_id(), end, place, OpenFlags::READ | OpenFlags::WRITE, status));
    }
    ends.try_into().map_err(|_| Errno::ENOMEM.into())
}
