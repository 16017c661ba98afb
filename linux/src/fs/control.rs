//! fcntl(2) and flock(2).

use alloc::sync::Arc;

use base::{Errno, Error, Result};
use linux_abi::{flags::OpenFlags as Abi, structs::FileLock};
use mm::{PageCache, Seals};
use task::{Cx, Interrupted, Timeout};
use vfs::{
    LocalFile, OpenFile, OpenFlags, SeekFrom, Status,
    lock::{Change, Lock, Owner},
    pipe::PipeEnd,
};

use super::{fd_limit, file, invalid, open, settle};

/// fcntl(2).
pub fn fcntl(cx: &Cx, [fd, command, arg, ..]: [u64; 6]) -> Result<u64> {
    let descriptor = cx.task().files().descriptor(fd)?;
    let file = &descriptor.file;
    let path_only = file.flags().contains(OpenFlags::PATH);
    match command {
        0 | 1030 => {
            let from = usize::try_from(arg as u32).unwrap_or(usize::MAX);
            if u64::from(arg as u32) >= fd_limit(cx) {
                return Err(invalid("beyond RLIMIT_NOFILE"));
            }
            cx.task().files().open(file.clone(), command == 1030, from, fd_limit(cx)).map(u64::from)
        }
        1 => Ok(u64::from(descriptor.close_on_exec)),
        2 => cx.task().files().set_close_on_exec(fd, arg & 1 != 0).map(|()| 0),
        3 => Ok(open::encode(cx, file.flags(), file.status())),
        _ if path_only => Err(Error::new(Errno::EBADF, "only a place in the tree")),
        4 => {
            let wanted = open::status(Abi::from_program(cx.task().isa, arg as u32));
            let kept = file.status() & Status::SYNC;
            if wanted.contains(Status::ASYNC) {
                // Nothing sends SIGIO; who asks for it would wait for ever.
                return Err(invalid("no signal-driven I/O"));
            }
            settle(cx, file.set_status((wanted - Status::SYNC) | kept)).map(|()| 0)
        }
        5 | 36 => get_lock(cx, file, arg, command == 36),
        6 | 37 => set_lock(cx, file, arg, command == 37, false),
        7 | 38 => set_lock(cx, file, arg, command == 38, true),
        1031 | 1032 => {
            let local = file.as_any().downcast_ref::<LocalFile>();
            let end = local.and_then(|l| l.ops().as_any().downcast_ref::<PipeEnd>());
            let end = end.ok_or(Error::new(Errno::EBADF, "not a pipe"))?;
            if command == 1032 {
                Ok(end.pipe().capacity() as u64)
            } else {
                end.pipe().set_capacity(&cx.caller(), arg as u32 as usize).map(|n| n as u64)
            }
        }
        1033 | 1034 => seals(file, command == 1033, arg),
        _ => Err(invalid("unknown command")),
    }
}

fn seals(file: &Arc<dyn OpenFile>, add: bool, arg: u64) -> Result<u64> {
    let local = file.as_any().downcast_ref::<LocalFile>().ok_or(invalid("no seals here"))?;
    let cache: &PageCache = vfs::tmpfs::seals_of(local).ok_or(invalid("no seals here"))?;
    if !add {
        return Ok(u64::from(cache.seals().bits()));
    }
    if !file.flags().contains(OpenFlags::WRITE) {
        return Err(Errno::EPERM.into());
    }
    let seals = Seals::from_bits(arg as u32).ok_or(invalid("unknown seals"))?;
    cache.add_seals(seals).map(|()| 0)
}

/// What a `struct flock` is about.
fn range(cx: &Cx, file: &Arc<dyn OpenFile>, lock: &FileLock) -> Result<(u64, u64)> {
    let base = match lock.whence {
        0 => 0,
        1 => settle(cx, file.seek(SeekFrom::Current(0)))? as i64,
        2 => settle(cx, file.stat())?.size as i64,
        _ => return Err(invalid("unknown whence")),
    };
    let overflow = Error::new(Errno::EOVERFLOW, "beyond the largest offset");
    let start = base.checked_add(lock.start).ok_or(overflow)?;
    let (start, end) = match lock.len {
        0 => (start, None),
        n if n > 0 => (start, Some(start.checked_add(n).ok_or(overflow)?)),
        n => (start.checked_add(n).ok_or(overflow)?, Some(start)),
    };
    let start = u64::try_from(start).map_err(|_| invalid("before the start"))?;
    Ok((start, end.map_or(u64::MAX, |e| e as u64)))
}

fn owner(cx: &Cx, file: &Arc<dyn OpenFile>, of_file: bool) -> Owner {
    if of_file { Owner::File(file.id()) } else { Owner::Process(cx.process().pid().0) }
}

fn get_lock(cx: &Cx, file: &Arc<dyn OpenFile>, at: u64, of_file: bool) -> Result<u64> {
    let mut lock: FileLock = cx.user(|u| u.read_struct(at))?;
    let (start, end) = range(cx, file, &lock)?;
    let exclusive = match lock.kind {
        0 => false,
        1 => true,
        _ => return Err(invalid("neither read nor write lock")),
    };
    let owner = owner(cx, file, of_file);
    let wanted = Lock { owner, kernel: cx.kernel().id(), exclusive, start, end };
    match settle(cx, file.lock_conflict(cx.kernel().vfs(), &wanted))? {
        None => lock.kind = 2,
        Some(found) => {
            lock.kind = i16::from(found.exclusive);
            lock.whence = 0;
            lock.start = found.start as i64;
            lock.len = if found.end == u64::MAX { 0 } else { (found.end - found.start) as i64 };
            lock.pid = if let Owner::Process(pid) = found.owner { pid as i32 } else { -1 };
        }
    }
    cx.user(|u| u.write_struct(at, &lock)).map(|()| 0)
}

fn set_lock(cx: &Cx, file: &Arc<dyn OpenFile>, at: u64, of_file: bool, wait: bool) -> Result<u64> {
    let lock: FileLock = cx.user(|u| u.read_struct(at))?;
    let (start, end) = range(cx, file, &lock)?;
    let owner = owner(cx, file, of_file);
    let wanted = Lock { owner, kernel: cx.kernel().id(), exclusive: lock.kind == 1, start, end };
    let need = match lock.kind {
        0 => OpenFlags::READ,
        1 => OpenFlags::WRITE,
        2 => return settle(cx, file.lock(cx.kernel().vfs(), Change::Give(wanted))).map(|()| 0),
        _ => return Err(invalid("unknown kind of lock")),
    };
    if !file.flags().contains(need) {
        return Err(Errno::EBADF.into());
    }
    take(cx, file, wanted, wait)
}

fn take(cx: &Cx, file: &Arc<dyn OpenFile>, wanted: Lock, wait: bool) -> Result<u64> {
    let vfs = cx.kernel().vfs();
    let (timeout, change) = match wait {
        true => (Timeout::Never, Change::TakeInTime(wanted)),
        false => (Timeout::Now, Change::Take(wanted)),
    };
    let subscribe = |waker| Ok(file.lock_wait(vfs, &wanted, waker));
    cx.block_on(|| file.lock(vfs, change), subscribe, timeout, Interrupted::Restart)?;
    Ok(0)
}

/// flock(2).
pub fn flock(cx: &Cx, [fd, operation, ..]: [u64; 6]) -> Result<u64> {
    const NONBLOCK: u64 = 4;
    let file = file(cx, fd)?;
    let all =
        Lock { owner: Owner::Flock(file.id()), kernel: cx.kernel().id(), exclusive: false, start: 0, end: u64::MAX };
    let exclusive = match operation & !NONBLOCK {
        1 => false,
        2 => true,
        8 => return settle(cx, file.lock(cx.kernel().vfs(), Change::Give(all))).map(|()| 0),
        _ => return Err(invalid("unknown operation")),
    };
    take(cx, &file, Lock { exclusive, ..all }, operation & NONBLOCK == 0)
}
