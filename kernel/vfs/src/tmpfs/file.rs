//! Open files and directories of tmpfs.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{
    Errno, Error, Result, Try, TryResult,
    io::{Sink, Source},
    wait::done,
};
use mm::MemoryObject;

use super::{Content, PAGE, TmpInode};
use crate::{
    Caller, DirSink, LocalFile, OpenFile, SeekFrom,
    inotify::Mask,
    local::{FileOps, Wrote},
    types::{OpenFlags, Status, Time},
};

/// `FALLOC_FL_*`.
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const ZERO_RANGE: u32 = 16;

impl TmpInode {
    fn cache(&self) -> Result<&Arc<mm::PageCache>> {
        match &self.content {
            Content::Regular(cache) => Ok(cache),
            Content::Directory(_) => Err(Error::new(Errno::EISDIR, "a directory")),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// Access times as `relatime` has them: once a day, or when older than the last change.
    fn accessed(&self, file: &LocalFile) {
        const DAY: i64 = 86_400_000_000_000;
        if file.status().contains(Status::NO_ATIME) {
            return;
        }
        let now = self.fs.now();
        let mut meta = self.meta.lock();
        let Time(then) = meta.accessed;
        if meta.accessed <= meta.modified || meta.accessed <= meta.changed || now.0 - then > DAY {
            meta.accessed = now;
        }
    }
}

impl TmpInode {
    fn tell(&self, file: &LocalFile, what: Mask) {
        if self.fs.watches.is_active()
            && let Some(place) = file.place()
        {
            self.fs.watches.tell_at(&place, what);
        }
    }
}

/// A source of which only so many bytes may be used.
struct Limited<'a> {
    inner: &'a mut dyn Source,
    left: usize,
}

impl Source for Limited<'_> {
    fn take(&mut self, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.left);
        let n = self.inner.take(buf.get_mut(..n).unwrap_or_default());
        self.left -= n;
        n
    }
    fn peek(&mut self, buf: &mut [u8]) -> usize {
        let n = buf.len().min(self.left);
        self.inner.peek(buf.get_mut(..n).unwrap_or_default())
    }
    fn left(&self) -> usize {
        self.inner.left().min(self.left)
    }
    fn can_take(&mut self, n: usize) -> bool {
        n <= self.left && self.inner.can_take(n)
    }
    fn stalled(&self) -> bool {
        self.inner.stalled()
    }
}

impl FileOps for TmpInode {
    fn read(&self, file: &LocalFile, _: &Caller, offset: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        let tried = self.cache()?.read(offset, sink)?;
        self.accessed(file);
        self.tell(file, Mask::ACCESS);
        Ok(tried)
    }

    fn write(
        &self,
        file: &LocalFile,
        caller: &Caller,
        offset: u64,
        append: bool,
        source: &mut dyn Source,
    ) -> TryResult<Wrote> {
        let cache = self.cache()?;
        let write = |source: &mut dyn Source| {
            if append {
                return cache.append(source);
            }
            Ok(cache.write(offset, source)?.map(move |bytes| (bytes, offset + bytes as u64)))
        };
        let offset = if append { cache.size() } else { offset };
        let limit = caller.file_size_limit;
        let tried = if offset.saturating_add(source.left() as u64) > limit {
            if offset >= limit && source.left() > 0 {
                return Err(Error::new(Errno::EFBIG, "beyond RLIMIT_FSIZE"));
            }
            write(&mut Limited { inner: source, left: (limit - offset) as usize })?
        } else {
            write(source)?
        };
        self.base.store(false, Ordering::Relaxed);
        if let Try::Done((n, _)) = tried
            && n > 0
        {
            self.written(caller);
            self.tell(file, Mask::MODIFY);
        }
        Ok(tried.map(|(bytes, end)| Wrote { bytes, end }))
    }

    fn seek(&self, to: SeekFrom, _: u64) -> Result<u64> {
        const INVALID: Error = Error::new(Errno::EINVAL, "before the start");
        const BEYOND: Error = Error::new(Errno::ENXIO, "no data there");
        let Content::Regular(cache) = &self.content else {
            return match to {
                SeekFrom::End(by) => (i64::MAX as u64).checked_add_signed(by).ok_or(INVALID),
                _ => Err(INVALID),
            };
        };
        let size = cache.size();
        match to {
            SeekFrom::End(by) => size.checked_add_signed(by).ok_or(INVALID),
            SeekFrom::Data(at) if at >= size => Err(BEYOND),
            SeekFrom::Hole(at) if at >= size => Err(BEYOND),
            SeekFrom::Data(at) => {
                if self.base.load(Ordering::Relaxed) {
                    return Ok(at);
                }
                let mut first = None;
                cache.resident(at / PAGE..u64::MAX, &mut |index, _| {
                    first = Some(index);
                    false
                });
                first.map(|index| at.max(index * PAGE)).filter(|at| *at < size).ok_or(BEYOND)
            }
            SeekFrom::Hole(at) => {
                if self.base.load(Ordering::Relaxed) {
                    return Ok(size);
                }
                let mut next = at / PAGE;
                cache.resident(next..u64::MAX, &mut |index, _| {
                    let together = index == next;
                    next += u64::from(together);
                    together
                });
                Ok(if next == at / PAGE { at } else { (next * PAGE).min(size) })
            }
            SeekFrom::Start(_) | SeekFrom::Current(_) => Err(INVALID),
        }
    }

    fn can_epoll(&self) -> bool {
        false
    }

    fn allocate(&self, caller: &Caller, mode: u32, offset: u64, length: u64) -> TryResult<()> {
        let cache = self.cache()?;
        let end = offset.checked_add(length).filter(|e| i64::try_from(*e).is_ok()).ok_or(Errno::EFBIG)?;
        if length == 0 {
            return Err(Errno::EINVAL.into());
        }
        let grow = mode & KEEP_SIZE == 0 && end > cache.size();
        if grow && end > caller.file_size_limit {
            return Err(Errno::EFBIG.into());
        }
        match mode & !KEEP_SIZE {
            // Space is not set aside: a later write can still say ENOSPC, as on a thin volume.
            0 => {}
            PUNCH_HOLE if mode & KEEP_SIZE == 0 => return Err(Errno::EOPNOTSUPP.into()),
            PUNCH_HOLE | ZERO_RANGE => {
                let stop = end.min(cache.size());
                let (first, last) = (offset.div_ceil(PAGE), stop / PAGE);
                let zero = |from: u64, to: u64| -> TryResult<()> {
                    let zeros = [0; PAGE as usize];
                    let n = to.saturating_sub(from).min(PAGE) as usize;
                    Ok(cache.write(from, &mut zeros.get(..n).unwrap_or_default())?.map(|_| ()))
                };
                if first <= last {
                    zero(offset, (first * PAGE).min(stop))?;
                    cache.punch(first..last)?;
                    zero((last * PAGE).max(offset), stop)?;
                } else {
                    zero(offset, stop)?;
                }
                self.base.store(false, Ordering::Relaxed);
                self.written(caller);
            }
            _ => return Err(Errno::EOPNOTSUPP.into()),
        }
        if grow { self.set_size(caller, end) } else { done(()) }
    }

    fn sync(&self) -> TryResult<()> {
        done(())
    }

    fn read_dir(&self, from: u64, sink: &mut dyn DirSink) -> TryResult<u64> {
        done(self.dir()?.read(self.ino, from, sink))
    }

    fn memory(&self) -> Result<Arc<dyn MemoryObject>> {
        match &self.content {
            Content::Regular(cache) => Ok(cache.clone()),
            _ => Err(Errno::ENODEV.into()),
        }
    }

    fn release(&self, file: &LocalFile) {
        let flags = file.flags();
        let last = self.opens.fetch_sub(1, Ordering::Relaxed) == 1;
        let writes = flags.contains(OpenFlags::WRITE);
        self.tell(file, if writes { Mask::CLOSE_WRITE } else { Mask::CLOSE_NOWRITE });
        if last {
            self.check_gone();
        }
        if flags.contains(OpenFlags::EXECUTE) {
            self.writers.fetch_add(1, Ordering::Relaxed);
        } else if flags.contains(OpenFlags::WRITE) && matches!(self.content, Content::Regular(_)) {
            self.writers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
