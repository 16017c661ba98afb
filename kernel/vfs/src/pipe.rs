//! Pipes and FIFOs, `pipe(7)`: a queue of page-sized buffers.
//!
//! Writes of up to `PIPE_BUF` bytes go in whole or not at all. The task layer sends SIGPIPE where a write says `EPIPE`.

use alloc::{boxed::Box, collections::VecDeque, sync::Arc, vec::Vec};

use base::{
    Errno, Error, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::{Op, done},
};
use hal::sync::{SpinLock, rank};

use crate::{
    Caller, Ioctl, IoctlReply, LocalFile, OpenFile, Place, Vfs, Waiters,
    anon::{AnonInode, Reopen},
    local::{FileOps, Wrote},
    types::{FileKind, OpenFlags, Status},
};

/// Bytes that a pipe holds at first.
pub const DEFAULT_CAPACITY: usize = 65536;
/// The most that `F_SETPIPE_SZ` gives (`/proc/sys/fs/pipe-max-size`).
pub const MAX_CAPACITY: usize = 1 << 20;
/// Writes up to this size are atomic.
pub const ATOMIC: usize = 4096;
const PAGE: usize = 4096;

const BROKEN: Error = Error::new(Errno::EPIPE, "nobody reads");

/// Part of a page with data.
struct Chunk {
    bytes: Box<[u8; PAGE]>,
    from: usize,
    to: usize,
}

struct State {
    chunks: VecDeque<Chunk>,
    /// An empty page kept for the next write.
    spare: Option<Box<[u8; PAGE]>>,
    held: usize,
    capacity: usize,
    readers: u32,
    writers: u32,
    /// Count opens, so that the other side of a FIFO notices one that came and went.
    reader_opens: u64,
    writer_opens: u64,
}

impl State {
    fn room(&self) -> usize {
        // Space is counted in whole pages, except what is left in the last one.
        let tail = self.chunks.back().map_or(0, |c| PAGE - c.to);
        (self.capacity / PAGE).saturating_sub(self.chunks.len()) * PAGE + tail
    }

    fn page(&mut self) -> Result<Box<[u8; PAGE]>> {
        match self.spare.take() {
            Some(page) => Ok(page),
            None => {
                let mut page = Vec::new();
                page.try_reserve_exact(PAGE).map_err(|_| Error::new(Errno::ENOMEM, "no page for a pipe"))?;
                page.resize(PAGE, 0);
                page.into_boxed_slice().try_into().map_err(|_| Error::new(Errno::ENOMEM, "no page for a pipe"))
            }
        }
    }

    /// Takes up to `limit` bytes of `source`; how many.
    fn fill(&mut self, source: &mut dyn Source, limit: usize) -> Result<usize> {
        let mut moved = 0;
        while moved < limit {
            if self.chunks.back().is_none_or(|c| c.to == PAGE) {
                if self.chunks.len() >= self.capacity / PAGE {
                    break;
                }
                let bytes = match self.page() {
                    Ok(page) => page,
                    Err(_) if moved > 0 => break,
                    Err(e) => return Err(e),
                };
                self.chunks.push_back(Chunk { bytes, from: 0, to: 0 });
            }
            let Some(chunk) = self.chunks.back_mut() else { break };
            let end = PAGE.min(chunk.to + (limit - moved));
            let Some(free) = chunk.bytes.get_mut(chunk.to..end) else { break };
            let want = free.len();
            let n = source.take(free);
            chunk.to += n;
            moved += n;
            if n < want {
                break;
            }
        }
        if self.chunks.back().is_some_and(|c| c.from == c.to) {
            self.spare = self.chunks.pop_back().map(|c| c.bytes);
        }
        self.held += moved;
        Ok(moved)
    }

    /// What [`State::drain`] would take, left where it is.
    fn look(&self, sink: &mut dyn Sink) -> usize {
        let mut moved = 0;
        for chunk in &self.chunks {
            let bytes = chunk.bytes.get(chunk.from..chunk.to).unwrap_or_default();
            let n = sink.put(bytes);
            moved += n;
            if n < bytes.len() {
                break;
            }
        }
        moved
    }

    fn drain(&mut self, sink: &mut dyn Sink) -> usize {
        let mut moved = 0;
        while let Some(chunk) = self.chunks.front_mut() {
            let Some(bytes) = chunk.bytes.get(chunk.from..chunk.to) else { break };
            let want = bytes.len();
            let n = sink.put(bytes);
            chunk.from += n;
            moved += n;
            if n < want {
                break;
            }
            self.spare = self.chunks.pop_front().map(|c| c.bytes);
        }
        self.held -= moved.min(self.held);
        moved
    }
}

/// A pipe.
pub struct Pipe {
    state: SpinLock<State>,
    waiters: Waiters,
}

impl Pipe {
    /// Empty, with nobody at either end.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: SpinLock::new(
                rank::PIPE,
                State {
                    chunks: VecDeque::new(),
                    spare: None,
                    held: 0,
                    capacity: DEFAULT_CAPACITY,
                    readers: 0,
                    writers: 0,
                    reader_opens: 0,
                    writer_opens: 0,
                },
            ),
            waiters: Waiters::new(),
        })
    }

    /// Reads what is there; 0 at the end.
    ///
    /// # Errors
    /// None of its own.
    pub fn read(&self, sink: &mut dyn Sink) -> TryResult<usize> {
        if sink.room() == 0 {
            return done(0);
        }
        let (n, room) = {
            let mut state = self.state.lock();
            if state.held == 0 {
                return if state.writers == 0 { done(0) } else { Ok(Try::WouldBlock) };
            }
            let n = state.drain(sink);
            (n, state.room() >= PAGE || state.held == 0)
        };
        if n > 0 && room {
            self.waiters.wake(Ready::OUT);
        }
        done(n)
    }

    /// As [`Pipe::read`], but what was read stays: tee(2).
    ///
    /// # Errors
    /// None of its own.
    pub fn peek(&self, sink: &mut dyn Sink) -> TryResult<usize> {
        let state = self.state.lock();
        if state.held == 0 && state.writers > 0 && sink.room() > 0 {
            return Ok(Try::WouldBlock);
        }
        done(state.look(sink))
    }

    /// Writes what fits; up to [`ATOMIC`] bytes whole or not at all.
    ///
    /// # Errors
    /// `EPIPE`.
    pub fn write(&self, source: &mut dyn Source) -> TryResult<usize> {
        let want = source.left();
        if want == 0 {
            return done(0);
        }
        let n = {
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Err(BROKEN);
            }
            let room = state.room();
            if room == 0 || (want <= ATOMIC && room < want) {
                return Ok(Try::WouldBlock);
            }
            // An atomic write does not begin before all of it can be had.
            if want <= ATOMIC && !source.can_take(want) {
                return done(0);
            }
            state.fill(source, want.min(room))?
        };
        if n > 0 {
            self.waiters.wake(Ready::IN);
        }
        done(n)
    }

    fn ready(&self, flags: OpenFlags) -> Ready {
        let state = self.state.lock();
        let mut ready = Ready::empty();
        if flags.contains(OpenFlags::READ) {
            ready.set(Ready::IN, state.held > 0);
            ready.set(Ready::HUP, state.writers == 0 && state.writer_opens > 0);
        }
        if flags.contains(OpenFlags::WRITE) {
            ready.set(Ready::OUT, state.room() >= PAGE || state.held == 0);
            ready.set(Ready::ERR, state.readers == 0);
        }
        ready
    }

    fn opened(&self, flags: OpenFlags) {
        {
            let mut state = self.state.lock();
            if flags.contains(OpenFlags::READ) {
                state.readers += 1;
                state.reader_opens += 1;
            }
            if flags.contains(OpenFlags::WRITE) {
                state.writers += 1;
                state.writer_opens += 1;
            }
        }
        self.waiters.wake(Ready::all());
    }

    fn closed(&self, flags: OpenFlags) {
        let old = {
            let mut state = self.state.lock();
            if flags.contains(OpenFlags::READ) {
                state.readers -= state.readers.min(1);
            }
            if flags.contains(OpenFlags::WRITE) {
                state.writers -= state.writers.min(1);
            }
            // What nobody can read any more: a FIFO starts empty the next time.
            if state.readers == 0 && state.writers == 0 {
                state.held = 0;
                core::mem::take(&mut state.chunks)
            } else {
                VecDeque::new()
            }
        };
        drop(old);
        self.waiters.wake(Ready::IN | Ready::OUT | Ready::HUP | Ready::ERR);
    }

    /// `F_GETPIPE_SZ`.
    pub fn capacity(&self) -> usize {
        self.state.lock().capacity
    }

    /// `F_SETPIPE_SZ`; the capacity it has then.
    ///
    /// # Errors
    /// `EINVAL`, `EPERM` beyond [`MAX_CAPACITY`], `EBUSY` if it holds more.
    pub fn set_capacity(&self, caller: &Caller, bytes: usize) -> Result<usize> {
        if bytes == 0 || bytes > 1 << 31 {
            return Err(Errno::EINVAL.into());
        }
        let bytes = bytes.max(PAGE).next_power_of_two();
        if bytes > MAX_CAPACITY && !caller.can(24) {
            return Err(Errno::EPERM.into());
        }
        let mut state = self.state.lock();
        if state.chunks.len() * PAGE > bytes {
            return Err(Errno::EBUSY.into());
        }
        state.capacity = bytes;
        drop(state);
        self.waiters.wake(Ready::OUT);
        Ok(bytes)
    }

    /// pipe2(2): the end to read and the end to write.
    pub fn pair(vfs: &Vfs, caller: &Caller, status: Status) -> (Arc<dyn OpenFile>, Arc<dyn OpenFile>) {
        let pipe = Self::new();
        let env = vfs.env();
        let ino = vfs.new_ino();
        let reopen: Box<dyn Reopen> = Box::new(PipeNode { pipe: pipe.clone(), env: env.clone() });
        let inode = AnonInode::of(&**env, ino, caller, FileKind::Fifo, 0o600, Some(reopen));
        let place = vfs.anonymous(inode, alloc::format!("pipe:[{ino}]").as_bytes());
        let end = |flags: OpenFlags| -> Arc<dyn OpenFile> {
            pipe.opened(flags);
            LocalFile::new(env.new_id(), Arc::new(PipeEnd(pipe.clone())), place.clone(), flags, status)
        };
        (end(OpenFlags::READ), end(OpenFlags::WRITE))
    }

    /// Opens a FIFO, `fifo(7)`: waits for the other side unless told not to.
    ///
    /// # Errors
    /// `ENXIO` for a writer that must not wait and meets no reader.
    pub fn open_fifo(
        self: &Arc<Self>,
        id: base::ObjectId,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        let (both, nonblock) = (flags.contains(OpenFlags::READ | OpenFlags::WRITE), status.contains(Status::NONBLOCK));
        let seen = {
            let state = self.state.lock();
            if nonblock && !both && flags.contains(OpenFlags::WRITE) && state.readers == 0 {
                return Err(Error::new(Errno::ENXIO, "nobody reads the FIFO"));
            }
            let there = if flags.contains(OpenFlags::READ) { state.writers } else { state.readers };
            let opens = if flags.contains(OpenFlags::READ) { state.writer_opens } else { state.reader_opens };
            (there == 0 && !nonblock && !both).then_some(opens)
        };
        self.opened(flags);
        let file: Arc<dyn OpenFile> = LocalFile::new(id, Arc::new(PipeEnd(self.clone())), place, flags, status);
        match seen {
            None => done(file),
            Some(opens) => Ok(Try::Started(Box::new(Rendezvous {
                pipe: self.clone(),
                file: Some(file),
                read: flags.contains(OpenFlags::READ),
                opens,
                subscription: None,
            }))),
        }
    }
}

/// The open of a FIFO that waits for the other side.
struct Rendezvous {
    pipe: Arc<Pipe>,
    file: Option<Arc<dyn OpenFile>>,
    read: bool,
    opens: u64,
    subscription: Option<Subscription>,
}

impl Op<Arc<dyn OpenFile>> for Rendezvous {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.subscription = Some(self.pipe.waiters.subscribe(Ready::all(), waker));
    }

    fn take(&mut self) -> Option<TryResult<Arc<dyn OpenFile>>> {
        let opens = {
            let state = self.pipe.state.lock();
            if self.read { state.writer_opens } else { state.reader_opens }
        };
        if opens == self.opens {
            return None;
        }
        self.subscription = None;
        self.file.take().map(done)
    }
}

struct PipeNode {
    pipe: Arc<Pipe>,
    env: Arc<dyn crate::Env>,
}

impl Reopen for PipeNode {
    fn reopen(&self, _: &Caller, flags: OpenFlags, status: Status, place: Place) -> TryResult<Arc<dyn OpenFile>> {
        // A pipe has had both of its sides, so that nobody waits for the other one: not even if it is gone.
        self.pipe.opened(flags);
        done(LocalFile::new(self.env.new_id(), Arc::new(PipeEnd(self.pipe.clone())), place, flags, status))
    }
}

/// One end of a pipe.
pub struct PipeEnd(Arc<Pipe>);

impl PipeEnd {
    /// The pipe.
    pub const fn pipe(&self) -> &Arc<Pipe> {
        &self.0
    }
}

impl FileOps for PipeEnd {
    fn is_seekable(&self) -> bool {
        false
    }
    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        self.0.read(sink)
    }
    fn peek(&self, sink: &mut dyn Sink) -> TryResult<usize> {
        self.0.peek(sink)
    }
    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, source: &mut dyn Source) -> TryResult<Wrote> {
        Ok(self.0.write(source)?.map(|bytes| Wrote { bytes, end: 0 }))
    }
    fn poll(&self, file: &LocalFile) -> Ready {
        self.0.ready(file.flags())
    }
    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.0.waiters.subscribe(mask, waker)
    }
    fn ioctl(&self, _: &LocalFile, _: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        match request {
            Ioctl::BytesReadable => done(IoctlReply::Number(self.0.state.lock().held as u64)),
            _ => Err(Errno::ENOTTY.into()),
        }
    }
    fn release(&self, file: &LocalFile) {
        self.0.closed(file.flags());
    }
    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use base::{Errno, Ready, Try, io::VecSink};

    use super::{ATOMIC, DEFAULT_CAPACITY, Pipe};
    use crate::OpenFlags;

    fn put(pipe: &Pipe, bytes: &[u8]) -> Option<usize> {
        match pipe.write(&mut &*bytes).expect("write") {
            Try::Done(n) => Some(n),
            _ => None,
        }
    }

    fn get(pipe: &Pipe, n: usize) -> Option<Vec<u8>> {
        let mut sink = VecSink::new(n);
        match pipe.read(&mut sink).expect("read") {
            Try::Done(_) => Some(sink.bytes),
            _ => None,
        }
    }

    fn open() -> std::sync::Arc<Pipe> {
        let pipe = Pipe::new();
        pipe.opened(OpenFlags::READ);
        pipe.opened(OpenFlags::WRITE);
        pipe
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let pipe = open();
        assert_eq!(get(&pipe, 10), None, "empty with a writer: wait");
        assert_eq!(put(&pipe, b"hello "), Some(6));
        assert_eq!(put(&pipe, b"world"), Some(5));
        let mut copy = VecSink::new(7);
        assert!(matches!(pipe.peek(&mut copy), Ok(Try::Done(7))));
        assert_eq!(copy.bytes, b"hello w");
        assert_eq!(get(&pipe, 8), Some(b"hello wo".to_vec()));
        pipe.closed(OpenFlags::WRITE);
        assert_eq!(get(&pipe, 8), Some(b"rld".to_vec()));
        assert_eq!(get(&pipe, 8), Some(vec![]));
        assert!(pipe.ready(OpenFlags::READ).contains(Ready::HUP));
        pipe.closed(OpenFlags::READ);
        assert_eq!(pipe.write(&mut &b"x"[..]).unwrap_err(), Errno::EPIPE);
    }

    #[test]
    fn small_writes_are_atomic_and_big_ones_fill() {
        let pipe = open();
        let big = vec![7; DEFAULT_CAPACITY + 1000];
        assert_eq!(put(&pipe, &big), Some(DEFAULT_CAPACITY));
        assert!(!pipe.ready(OpenFlags::WRITE).contains(Ready::OUT));
        assert_eq!(get(&pipe, 100).map(|b| b.len()), Some(100));
        assert_eq!(put(&pipe, &[1; 50]), None, "a page must be free for an atomic write");
        assert_eq!(get(&pipe, ATOMIC).map(|b| b.len()), Some(ATOMIC));
        assert_eq!(put(&pipe, &[1; 50]), Some(50));
    }

    proptest::proptest! {
        #[test]
        fn a_pipe_is_a_queue(ops in proptest::collection::vec((proptest::bool::ANY, 1_usize..9000), 1..60)) {
            let pipe = open();
            let mut model = std::collections::VecDeque::new();
            let mut next = 0_u8;
            for (write, n) in ops {
                if write {
                    let bytes: Vec<u8> = (0..n).map(|i| next.wrapping_add(i as u8)).collect();
                    if let Some(done) = put(&pipe, &bytes) {
                        proptest::prop_assert!(n > ATOMIC || done == n);
                        model.extend(&bytes[..done]);
                        next = next.wrapping_add(done as u8);
                    }
                } else if let Some(bytes) = get(&pipe, n) {
                    let want: Vec<u8> = model.drain(..n.min(model.len())).collect();
                    proptest::prop_assert_eq!(bytes, want);
                } else {
                    proptest::prop_assert!(model.is_empty());
                }
            }
        }
    }
}
