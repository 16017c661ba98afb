//! Descriptors: close(2), dup(2).

use alloc::sync::Arc;

use base::{Errno, Error, Result};
use linux_abi::flags::OpenFlags as Abi;
use task::Cx;
use vfs::OpenFile;

use super::{fd_limit, file, install, invalid};

/// A descriptor of this process is gone.
fn flush(cx: &Cx, file: &Arc<dyn OpenFile>) {
    file.flush(cx.kernel().vfs(), &cx.caller());
}

/// close(2).
pub fn close(cx: &Cx, [fd, ..]: [u64; 6]) -> Result<u64> {
    let file = cx.task().files().close(fd)?;
    flush(cx, &file);
    Ok(0)
}

/// close_range(2).
pub fn close_range(cx: &Cx, [first, last, flags, ..]: [u64; 6]) -> Result<u64> {
    const UNSHARE: u64 = 2;
    const CLOEXEC: u64 = 4;
    let (first, last) = (first as u32, last as u32);
    if first > last || flags & !(UNSHARE | CLOEXEC) != 0 {
        return Err(invalid("bad range or flags"));
    }
    if flags & UNSHARE != 0 {
        let own = cx.task().files().fork()?;
        drop(cx.task().set_files(own));
    }
    let files = cx.task().files();
    if flags & CLOEXEC != 0 {
        for (fd, _) in files.list() {
            if (first..=last).contains(&fd) {
                files.set_close_on_exec(u64::from(fd), true)?;
            }
        }
        return Ok(0);
    }
    for file in files.take(first..=last) {
        flush(cx, &file);
    }
    Ok(0)
}

/// dup(2).
pub fn dup(cx: &Cx, [fd, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    install(cx, file, false)
}

fn replace(cx: &Cx, old: u64, new: u64, close_on_exec: bool) -> Result<u64> {
    let source = file(cx, old)?;
    let limit = fd_limit(cx);
    if u64::from(new as u32) >= limit {
        return Err(Error::new(Errno::EBADF, "beyond RLIMIT_NOFILE"));
    }
    if let Some(gone) = cx.task().files().replace(new as u32, source, close_on_exec, limit)? {
        flush(cx, &gone);
    }
    Ok(u64::from(new as u32))
}

/// dup2(2).
pub fn dup2(cx: &Cx, [old, new, ..]: [u64; 6]) -> Result<u64> {
    if old as u32 == new as u32 {
        file(cx, old)?;
        return Ok(u64::from(new as u32));
    }
    replace(cx, old, new, false)
}

/// dup3(2).
pub fn dup3(cx: &Cx, [old, new, flags, ..]: [u64; 6]) -> Result<u64> {
    let flags = Abi::from_program(cx.task().isa, flags as u32);
    if old as u32 == new as u32 || !Abi::CLOEXEC.contains(flags) {
        return Err(invalid("equal descriptors or unknown flags"));
    }
    replace(cx, old, new, flags.contains(Abi::CLOEXEC))
}
