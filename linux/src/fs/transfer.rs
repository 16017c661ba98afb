//! From file to file without a buffer of the program: sendfile(2), copy_file_range(2), splice(2). The bytes go through a page of the kernel.

use alloc::sync::Arc;

use base::{Errno, Error, Ready, Result, io::VecSink};
use task::{Cx, Interrupted, Timeout};
use vfs::{FileKind, OpenFile, OpenFlags, ReadOut, Status};

use super::{file, invalid, rw::tell};

const PIECE: usize = 65536;
const MAX: u64 = 0x7fff_f000;

fn wait(file: &Arc<dyn OpenFile>, now: bool) -> Timeout {
    if now || file.status().contains(Status::NONBLOCK) { Timeout::Now } else { Timeout::Never }
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
    let mut moved = 0;
    while moved < len.min(MAX) {
        let want = (len - moved).min(PIECE as u64) as usize;
        // What a stream gave cannot be put back, so nothing is read before it can be written.
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
            Ok(ReadOut::Bytes(bytes)) => bytes,
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
            let written = cx.block_on(
                || match *to_at {
                    Some(at) => to.write_at(&caller, at, &mut { left }),
                    None => to.write(&caller, &mut { left }),
                },
                |waker| Ok(to.subscribe(Ready::OUT, waker)),
                wait(to, false),
                Interrupted::Restart,
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
    if from.memory().is_err() && from.inode().is_none_or(|i| i.kind() != FileKind::Regular) {
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
        match f.inode().map(|i| i.kind()) {
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

/// splice(2): bytes are copied, not pages moved.
pub fn splice(cx: &Cx, [input, in_at, out, out_at, count, flags]: [u64; 6]) -> Result<u64> {
    const NONBLOCK: u64 = 2;
    if flags & !0xf != 0 {
        return Err(invalid("unknown flags"));
    }
    let (from, to) = (file(cx, input)?, file(cx, out)?);
    modes(&from, &to)?;
    let is_pipe = |f: &Arc<dyn OpenFile>| f.inode().is_some_and(|i| i.kind() == FileKind::Fifo);
    if !is_pipe(&from) && !is_pipe(&to) {
        return Err(invalid("neither is a pipe"));
    }
    if (is_pipe(&from) && in_at != 0) || (is_pipe(&to) && out_at != 0) {
        return Err(Errno::ESPIPE.into());
    }
    let (mut a, mut b) = (read_offset(cx, in_at)?, read_offset(cx, out_at)?);
    let n = copy(cx, &from, &mut a, &to, &mut b, count, flags & NONBLOCK != 0)?;
    write_offset(cx, in_at, a)?;
    write_offset(cx, out_at, b)?;
    Ok(n)
}
