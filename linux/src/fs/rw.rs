//! Reading and writing: buffers of the program as sinks and sources.

use alloc::sync::Arc;

use base::{Errno, Error, Ready, Result, io::Sink};
use hal::usermode::Access;
use mm::UserRange;
use task::{Cx, Interrupted, SigInfo, Signal, Timeout};
use vfs::{OpenFile, ReadOut, SeekFrom, Status};

use super::{file, invalid, restart};

/// The longest list of buffers.
const IOV_MAX: usize = 1024;
/// `RWF_NOWAIT` and `RWF_APPEND`; `RWF_HIPRI`, `RWF_DSYNC` and `RWF_SYNC` ask for what is so anyway.
const RWF_NOWAIT: u64 = 8;
const RWF_APPEND: u64 = 16;
const RWF_KNOWN: u64 = 0x1f;

fn timeout(file: &Arc<dyn OpenFile>, moved: usize, now: bool) -> Timeout {
    if moved > 0 || now || file.status().contains(Status::NONBLOCK) { Timeout::Now } else { Timeout::Never }
}

/// Fills `range` from `file`, at its position or at `offset`.
pub(super) fn fill(
    cx: &Cx,
    file: &Arc<dyn OpenFile>,
    range: &mut UserRange,
    offset: Option<u64>,
    now: bool,
) -> Result<u64> {
    let caller = cx.caller();
    let mut moved = 0;
    loop {
        let attempt = || match offset {
            Some(offset) => file.read_at(&caller, offset.saturating_add(moved as u64), range),
            None => file.read(&caller, range),
        };
        let subscribe = |waker| Ok(file.subscribe(Ready::IN, waker));
        let out = cx.block_on(attempt, subscribe, timeout(file, moved, now), Interrupted::Restart);
        let n = match out {
            Ok(ReadOut::InPlace(n)) => n,
            Ok(ReadOut::Bytes(bytes)) => {
                deliver(cx, range, &bytes)?;
                return Ok((moved + bytes.len()) as u64);
            }
            Ok(ReadOut::Part(bytes)) => {
                deliver(cx, range, &bytes)?;
                moved += bytes.len();
                continue;
            }
            Err(_) if moved > 0 => break,
            Err(e) => return Err(restart(cx, e)),
        };
        moved += n;
        match cx.user(|u| range.resolve(u, Access::Write)) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) if moved > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(moved as u64)
}

/// Puts all of `bytes` into the program's buffers.
pub(super) fn deliver(cx: &Cx, range: &mut UserRange, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let n = range.put(bytes);
        bytes = bytes.get(n..).unwrap_or_default();
        if !cx.user(|u| range.resolve(u, Access::Write))? && n == 0 {
            break;
        }
    }
    Ok(())
}

/// Where a write goes.
#[derive(Clone, Copy)]
pub(super) enum To {
    /// The position of the file, which moves on.
    Position,
    /// Here.
    Offset(u64),
    /// The end of the file; its position may move there.
    End { moves: bool },
}

impl From<Option<u64>> for To {
    fn from(offset: Option<u64>) -> Self {
        offset.map_or(Self::Position, Self::Offset)
    }
}

/// Writes `range` to `file`. Streams that may wait take all of it.
pub(super) fn drain(cx: &Cx, file: &Arc<dyn OpenFile>, range: &mut UserRange, to: To, now: bool) -> Result<u64> {
    let caller = cx.caller();
    let wanted = range.remaining();
    let mut moved = 0;
    loop {
        // A file may take more than it can write in the end, and a peer's does when it would block.
        let mark = range.mark();
        let attempt = || {
            range.rewind(mark);
            match to {
                To::Position => file.write(&caller, range),
                To::Offset(offset) => file.write_at(&caller, offset.saturating_add(moved as u64), range),
                To::End { moves } => file.append(&caller, moves, range),
            }
        };
        let subscribe = |waker| Ok(file.subscribe(Ready::OUT, waker));
        let nonblock = now || file.status().contains(Status::NONBLOCK);
        let wait = if nonblock { Timeout::Now } else { Timeout::Never };
        let n = match cx.block_on(attempt, subscribe, wait, Interrupted::Restart) {
            Ok(n) => n,
            Err(e) => {
                // A write that was cut short at the limit of a file's size is no error yet; a broken pipe is one whatever went through.
                if moved == 0 || e != Errno::EFBIG {
                    tell(cx, e);
                }
                if moved > 0 {
                    break;
                }
                return Err(restart(cx, e));
            }
        };
        range.used(mark, n);
        moved += n;
        match cx.user(|u| range.resolve(u, Access::Read)) {
            Ok(true) => {}
            // A device may take bytes without looking at them (/dev/null).
            Ok(false) if n == 0 || moved >= wanted || range.remaining() == 0 => break,
            Ok(false) => {}
            Err(_) if moved > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(moved as u64)
}

/// The signals that come with errors of write(2).
pub(super) fn tell(cx: &Cx, e: Error) {
    let signal = match e.errno() {
        Errno::EPIPE => Signal::PIPE,
        Errno::EFBIG => Signal::XFSZ,
        _ => return,
    };
    // A signal that cannot be queued is lost, as on Linux.
    let _ = cx.process().signal_thread(cx.task(), SigInfo::kernel(signal));
}

/// read(2).
pub fn read(cx: &Cx, [fd, buf, len, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    let mut range = UserRange::new(buf, len as usize)?;
    fill(cx, &file, &mut range, None, false)
}

/// write(2).
pub fn write(cx: &Cx, [fd, buf, len, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    let mut range = UserRange::new(buf, len as usize)?;
    drain(cx, &file, &mut range, To::Position, false)
}

fn offset(at: u64) -> Result<u64> {
    if at as i64 >= 0 { Ok(at) } else { Err(invalid("negative offset")) }
}

/// pread64(2).
pub fn pread64(cx: &Cx, [fd, buf, len, at, ..]: [u64; 6]) -> Result<u64> {
    let at = offset(at)?;
    let file = file(cx, fd)?;
    fill(cx, &file, &mut UserRange::new(buf, len as usize)?, Some(at), false)
}

/// pwrite64(2).
pub fn pwrite64(cx: &Cx, [fd, buf, len, at, ..]: [u64; 6]) -> Result<u64> {
    let at = offset(at)?;
    let file = file(cx, fd)?;
    drain(cx, &file, &mut UserRange::new(buf, len as usize)?, To::Offset(at), false)
}

pub(super) fn list(cx: &Cx, at: u64, count: u64) -> Result<UserRange> {
    let count = usize::try_from(count).ok().filter(|n| *n <= IOV_MAX).ok_or(invalid("too many buffers"))?;
    cx.user(|u| u.iovecs(at, count)).map(UserRange::list)
}

/// readv(2).
pub fn readv(cx: &Cx, [fd, vec, count, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    fill(cx, &file, &mut list(cx, vec, count)?, None, false)
}

/// writev(2).
pub fn writev(cx: &Cx, [fd, vec, count, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    drain(cx, &file, &mut list(cx, vec, count)?, To::Position, false)
}

/// preadv(2).
pub fn preadv(cx: &Cx, [fd, vec, count, at, ..]: [u64; 6]) -> Result<u64> {
    let at = offset(at)?;
    let file = file(cx, fd)?;
    fill(cx, &file, &mut list(cx, vec, count)?, Some(at), false)
}

/// pwritev(2).
pub fn pwritev(cx: &Cx, [fd, vec, count, at, ..]: [u64; 6]) -> Result<u64> {
    let at = offset(at)?;
    let file = file(cx, fd)?;
    drain(cx, &file, &mut list(cx, vec, count)?, To::Offset(at), false)
}

/// preadv2(2). An offset of -1 is the position.
pub fn preadv2(cx: &Cx, [fd, vec, count, at, _, flags]: [u64; 6]) -> Result<u64> {
    if flags & !(RWF_KNOWN & !RWF_APPEND) != 0 {
        return Err(Error::new(Errno::EOPNOTSUPP, "unknown RWF_* flags"));
    }
    let at = if at == u64::MAX { None } else { Some(offset(at)?) };
    let file = file(cx, fd)?;
    fill(cx, &file, &mut list(cx, vec, count)?, at, flags & RWF_NOWAIT != 0)
}

/// pwritev2(2). An offset of -1 is the position.
pub fn pwritev2(cx: &Cx, [fd, vec, count, at, _, flags]: [u64; 6]) -> Result<u64> {
    if flags & !RWF_KNOWN != 0 {
        return Err(Error::new(Errno::EOPNOTSUPP, "unknown RWF_* flags"));
    }
    let to = match (at, flags & RWF_APPEND != 0) {
        (u64::MAX, false) => To::Position,
        (at, false) => To::Offset(offset(at)?),
        (at, true) => To::End { moves: at == u64::MAX },
    };
    let file = file(cx, fd)?;
    drain(cx, &file, &mut list(cx, vec, count)?, to, flags & RWF_NOWAIT != 0)
}

/// lseek(2).
pub fn lseek(cx: &Cx, [fd, by, whence, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    let by = by as i64;
    let from_start = || u64::try_from(by).map_err(|_| invalid("before the start"));
    let beyond = || u64::try_from(by).map_err(|_| Error::new(Errno::ENXIO, "before the start"));
    let to = match whence {
        0 => SeekFrom::Start(from_start()?),
        1 => SeekFrom::Current(by),
        2 => SeekFrom::End(by),
        3 => SeekFrom::Data(beyond()?),
        4 => SeekFrom::Hole(beyond()?),
        _ => return Err(invalid("unknown whence")),
    };
    super::settle(cx, file.seek(to))
}
