//! From file to file without a buffer of the program: sendfile(2), copy_file_range(2), splice(2). The bytes go through a page of the kernel.

use alloc::sync::Arc;

use base::{Errno, Error, Ready, Result, Try, io::VecSink, wait::done};
use task::{Cx, Interrupted, Timeout};
use vfs::{FileKind, OpenFile, OpenFlags, ReadOut, Status};

use super::{file, invalid, rw::tell};

const PIECE: usize = 65536;
const MAX: u64 = 0x7fff_f000;

fn wait(file: &Arc<dyn OpenFile>, now: bool) -> Timeout {
    if now || file.status().contains(Status::NONBLOCK) { Timeout::Now } else { Timeout::Never }
}

/// Whether what was read from it can be read again after a seek.
fn can_go_back(file: &Arc<dyn OpenFile>) -> bool {
    file.inode().is_some_and(|i| matches!(i.kind(), FileKind::Regular | FileKind::Block))
}

/// Waits until some bytes can be written.
fn wait_for_room(cx: &Cx, to: &Arc<dyn OpenFile>, now: bool) -> Result<()> {
    let caller = cx.caller();
    let room = |ready: Ready| if ready.intersects(Ready::OUT | Ready::ERR) { done(()) } else { Ok(Try::WouldBlock) };
    cx.block_on(
        || to.poll(&caller)?.and_then(room),
        |waker| Ok(to.subscribe(Ready::OUT, waker)),
        wait(to, now),
        Interrupted::Restart,
    )
}

/// Moves up to `len` bytes; offsets that are given are used and moved on, otherwise the positions are.
fn copy(
    cx: &Cx,
    from: &Arc<dyn OpenFile>,
    from_at: &mut Option<u64>,
    to: &Arc<dyn OpenFile>,
    to_at: &mut Option<u64>,
    len: u64,
    now: bool,
) -> Result<u64> {
    let caller = cx.caller();
    let goes_back = from_at.is_some() || can_go_back(from);
    let mut moved = 0;
    while moved < len.min(MAX) {
        let mut want = (len - moved).min(PIECE as u64) as usize;
        let mut until = Interrupted::Restart;
        if !goes_back {
            // What a stream gave cannot be put back, so nothing is taken before it can be written; if somebody else fills the room meanwhile,
            // only the end of the task loses it.
            match wait_for_room(cx, to, now || moved > 0) {
                Ok(()) => {}
                Err(_) if moved > 0 => break,
                Err(e) => return Err(e),
            }
            want = want.min(vfs::pipe::ATOMIC);
            until = Interrupted::Killed;
        }
        let mut bytes = VecSink::new(want);
        let read = cx.block_on(
            || match *from_at {
                Some(at) => from.read_at(&caller, at, &mut bytes),
                None => from.read(&caller, &mut bytes),
            },
            |waker| Ok(from.subscribe(Ready::IN, waker)),
            wait(from, now || moved > 0),
            Interrupted::Restart,
        );
        let bytes = match read {
            Ok(ReadOut::InPlace(_)) => bytes.bytes,
            Ok(ReadOut::Bytes(bytes) | ReadOut::Part(bytes)) => bytes,
            Err(_) if moved > 0 => break,
            Err(e) => return Err(e),
        };
        if bytes.is_empty() {
            break;
        }
        if let Some(at) = from_at {
            *at += bytes.len() as u64;
        }
        let mut left: &[u8] = &bytes;
        while !left.is_empty() {
            let patience = if goes_back { wait(to, false) } else { Timeout::Never };
            let written = cx.block_on(
                || match *to_at {
                    Some(at) => to.write_at(&caller, at, &mut { left }),
                    None => to.write(&caller, &mut { left }),
                },
                |waker| Ok(to.subscribe(Ready::OUT, waker)),
                patience,
                until,
            );
            match written {
                Ok(n) if n > 0 => {
                    left = left.get(n..).unwrap_or_default();
                    moved += n as u64;
                    if let Some(at) = to_at {
                        *at += n as u64;
                    }
                }
                other => {
                    // Give back what was read and not written, where that can be done.
                    let back = left.len() as i64;
                    match from_at {
                        Some(at) => *at -= left.len() as u64,
                        None => {
                            let _ = from.seek(vfs::SeekFrom::Current(-back));
                        }
                    }
                    return match other {
                        Err(e) => {
                            tell(cx, e);
                            if moved > 0 { Ok(moved) } else { Err(e) }
                        }
                        Ok(_) => Ok(moved),
                    };
                }
            }
        }
        if bytes.len() < want {
            break;
        }
        cx.relax();
    }
    Ok(moved)
}

fn read_offset(cx: &Cx, at: u64) -> Result<Option<u64>> {
    if at == 0 {
        return Ok(None);
    }
    let value: i64 = cx.user(|u| u.read_struct(at))?;
    u64::try_from(value).map(Some).map_err(|_| invalid("negative offset"))
}

fn write_offset(cx: &Cx, at: u64, value: Option<u64>) -> Result<()> {
    match value {
        Some(value) if at != 0 => cx.user(|u| u.write_struct(at, &value)),
        _ => Ok(()),
    }
}

fn modes(from: &Arc<dyn OpenFile>, to: &Arc<dyn OpenFile>) -> Result<()> {
    if from.flags().contains(OpenFlags::READ) && to.flags().contains(OpenFlags::WRITE) {
        Ok(())
    } else {
        Err(Error::new(Errno::EBADF, "not open for that"))
    }
}

/// sendfile(2).
pub fn sendfile(cx: &Cx, [out, input, offset, count, ..]: [u64; 6]) -> Result<u64> {
    let (from, to) = (file(cx, input)?, file(cx, out)?);
    modes(&from, &to)?;
    if from.memory().is_err() && from.kind() != Some(FileKind::Regular) {
        return Err(invalid("not a file that can be mapped"));
    }
    if to.status().contains(Status::APPEND) {
        return Err(invalid("the target appends"));
    }
    let mut at = read_offset(cx, offset)?;
    let n = copy(cx, &from, &mut at, &to, &mut None, count, false)?;
    write_offset(cx, offset, at)?;
    Ok(n)
}

/// copy_file_range(2).
pub fn copy_file_range(cx: &Cx, [input, in_at, out, out_at, count, flags]: [u64; 6]) -> Result<u64> {
    if flags != 0 {
        return Err(invalid("unknown flags"));
    }
    let (from, to) = (file(cx, input)?, file(cx, out)?);
    modes(&from, &to)?;
    for f in [&from, &to] {
        match f.kind() {
            Some(FileKind::Regular) => {}
            Some(FileKind::Directory) => return Err(Errno::EISDIR.into()),
            _ => return Err(invalid("not a regular file")),
        }
    }
    if to.status().contains(Status::APPEND) {
        return Err(Error::new(Errno::EBADF, "the target appends"));
    }
    let (mut a, mut b) = (read_offset(cx, in_at)?, read_offset(cx, out_at)?);
    let n = copy(cx, &from, &mut a, &to, &mut b, count, false)?;
    write_offset(cx, in_at, a)?;
    write_offset(cx, out_at, b)?;
    Ok(n)
}

/// `SPLICE_F_NONBLOCK`; the others (`MOVE`, `MORE`, `GIFT`) are advice.
const SPLICE_NONBLOCK: u64 = 2;

fn splice_flags(flags: u64) -> Result<bool> {
    if flags & 0xffff_fff0 != 0 { Err(invalid("unknown flags")) } else { Ok(flags & SPLICE_NONBLOCK != 0) }
}

fn is_pipe(file: &Arc<dyn OpenFile>) -> bool {
    file.kind() == Some(FileKind::Fifo)
}

/// Whether both are ends of one pipe.
fn same_pipe(a: &Arc<dyn OpenFile>, b: &Arc<dyn OpenFile>) -> bool {
    is_pipe(a) && is_pipe(b) && a.inode_id() == b.inode_id()
}

/// splice(2): bytes are copied, not pages moved.
pub fn splice(cx: &Cx, [input, in_at, out, out_at, count, flags]: [u64; 6]) -> Result<u64> {
    let now = splice_flags(flags)?;
    let (from, to) = (file(cx, input)?, file(cx, out)?);
    modes(&from, &to)?;
    if !is_pipe(&from) && !is_pipe(&to) {
        return Err(invalid("neither is a pipe"));
    }
    if (is_pipe(&from) && in_at != 0) || (is_pipe(&to) && out_at != 0) {
        return Err(Errno::ESPIPE.into());
    }
    if same_pipe(&from, &to) || to.status().contains(Status::APPEND) {
        return Err(invalid("into itself, or to where a file ends"));
    }
    let (mut a, mut b) = (read_offset(cx, in_at)?, read_offset(cx, out_at)?);
    let n = copy(cx, &from, &mut a, &to, &mut b, count, now)?;
    write_offset(cx, in_at, a)?;
    write_offset(cx, out_at, b)?;
    Ok(n)
}

/// tee(2): what is in one pipe into another, and it stays.
pub fn tee(cx: &Cx, [input, out, count, flags, ..]: [u64; 6]) -> Result<u64> {
    let now = splice_flags(flags)?;
    let (from, to) = (file(cx, input)?, file(cx, out)?);
    modes(&from, &to)?;
    if !is_pipe(&from) || !is_pipe(&to) || same_pipe(&from, &to) {
        return Err(invalid("not two pipes"));
    }
    if count == 0 {
        return Ok(0);
    }
    let mut bytes = VecSink::new(count.min(PIECE as u64) as usize);
    let read = cx.block_on(
        || from.peek(&mut bytes),
        |waker| Ok(from.subscribe(Ready::IN, waker)),
        wait(&from, now),
        Interrupted::Restart,
    )?;
    let bytes = match read {
        ReadOut::InPlace(_) => bytes.bytes,
        ReadOut::Bytes(bytes) | ReadOut::Part(bytes) => bytes,
    };
    if bytes.is_empty() {
        return Ok(0);
    }
    let caller = cx.caller();
    let written = cx.block_on(
        || to.write(&caller, &mut { &bytes[..] }),
        |waker| Ok(to.subscribe(Ready::OUT, waker)),
        wait(&to, now),
        Interrupted::Restart,
    );
    written.map(|n| n as u64).inspect_err(|e| tell(cx, *e))
}

/// vmsplice(2): memory of the program into a pipe, or out of one. Bytes are copied, pages stay whose they are.
pub fn vmsplice(cx: &Cx, [fd, vec, count, flags, ..]: [u64; 6]) -> Result<u64> {
    let now = splice_flags(flags)?;
    let pipe = file(cx, fd)?;
    if !is_pipe(&pipe) {
        return Err(Error::new(Errno::EBADF, "not a pipe"));
    }
    let mut range = super::rw::list(cx, vec, count)?;
    if range.remaining() == 0 {
        return Ok(0);
    }
    if pipe.flags().contains(OpenFlags::WRITE) {
        super::rw::drain(cx, &pipe, &mut range, super::rw::To::Position, now)
    } else {
        super::rw::fill(cx, &pipe, &mut range, None, now)
    }
}
