//! Changing what files are: modes, owners, times, sizes.

use base::{Errno, Error, Result};
use linux_abi::structs::{Timespec, Timeval};
use task::Cx;
use vfs::{FileKind, Follow, OpenFlags, Place, SetAttr, Time, place::MountFlags};

use super::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, file, find, invalid, path, settle};

const CWD: u64 = AT_FDCWD as u64;
const SECOND: i64 = 1_000_000_000;

fn writable(place: &Place) -> Result<()> {
    if place.mount.flags().contains(MountFlags::RDONLY) { Err(Errno::EROFS.into()) } else { Ok(()) }
}

fn change(cx: &Cx, dirfd: u64, name: u64, flags: u64, change: SetAttr) -> Result<u64> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(invalid("unknown flags"));
    }
    let path = path(cx, name)?;
    let follow = if flags & AT_SYMLINK_NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
    let place = find(cx, dirfd, &path, follow, flags & AT_EMPTY_PATH != 0)?;
    writable(&place)?;
    if change.mode.is_some() && place.kind() == FileKind::Symlink {
        return Err(Error::new(Errno::EOPNOTSUPP, "modes of symbolic links mean nothing"));
    }
    settle(cx, place.inode().set_attr(&cx.caller(), change))?;
    tell(cx, &place, &change);
    Ok(0)
}

/// The file tells who watches it; who watches its directory is told here, where its name is known.
fn tell(cx: &Cx, place: &Place, change: &SetAttr) {
    let watches = &cx.kernel().vfs().watches;
    match place.inode().teller() {
        Ok(Some(_)) => watches.tell_parent(place, change.event()),
        Ok(None) if watches.is_active() => watches.tell_parent(place, change.event()),
        _ => {}
    }
}

fn change_file(cx: &Cx, fd: u64, change: SetAttr) -> Result<u64> {
    let file = file(cx, fd)?;
    if let Some(place) = file.place() {
        writable(&place)?;
    }
    settle(cx, file.set_attr(&cx.caller(), change))?;
    if let Some(place) = file.place() {
        tell(cx, &place, &change);
    }
    Ok(0)
}

fn mode(mode: u64) -> SetAttr {
    SetAttr { mode: Some((mode & 0o7777) as u32), ..SetAttr::default() }
}

/// -1 leaves an owner as it is.
fn owner(uid: u64, gid: u64) -> SetAttr {
    let id = |id: u64| (id as u32 != u32::MAX).then_some(id as u32);
    SetAttr { uid: id(uid), gid: id(gid), ..SetAttr::default() }
}

/// chmod(2).
pub fn chmod(cx: &Cx, [name, bits, ..]: [u64; 6]) -> Result<u64> {
    change(cx, CWD, name, 0, mode(bits))
}

/// fchmod(2).
pub fn fchmod(cx: &Cx, [fd, bits, ..]: [u64; 6]) -> Result<u64> {
    change_file(cx, fd, mode(bits))
}

/// fchmodat(2).
pub fn fchmodat(cx: &Cx, [dirfd, name, bits, ..]: [u64; 6]) -> Result<u64> {
    change(cx, dirfd, name, 0, mode(bits))
}

/// fchmodat2(2).
pub fn fchmodat2(cx: &Cx, [dirfd, name, bits, flags, ..]: [u64; 6]) -> Result<u64> {
    change(cx, dirfd, name, flags, mode(bits))
}

/// chown(2).
pub fn chown(cx: &Cx, [name, uid, gid, ..]: [u64; 6]) -> Result<u64> {
    change(cx, CWD, name, 0, owner(uid, gid))
}

/// lchown(2).
pub fn lchown(cx: &Cx, [name, uid, gid, ..]: [u64; 6]) -> Result<u64> {
    change(cx, CWD, name, AT_SYMLINK_NOFOLLOW, owner(uid, gid))
}

/// fchown(2).
pub fn fchown(cx: &Cx, [fd, uid, gid, ..]: [u64; 6]) -> Result<u64> {
    change_file(cx, fd, owner(uid, gid))
}

/// fchownat(2).
pub fn fchownat(cx: &Cx, [dirfd, name, uid, gid, flags, _]: [u64; 6]) -> Result<u64> {
    change(cx, dirfd, name, flags, owner(uid, gid))
}

/// The current time as a new time stamp; where the file is at home its own clock says what that is.
const NOW: SetAttr = SetAttr {
    mode: None,
    uid: None,
    gid: None,
    accessed: Some(Time(0)),
    modified: Some(Time(0)),
    times_are_now: true,
    size: None,
};

/// Two times for `utimensat`; `UTIME_NOW` and `UTIME_OMIT` in the place of nanoseconds.
fn times(cx: &Cx, at: u64) -> Result<SetAttr> {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    if at == 0 {
        return Ok(NOW);
    }
    let [a, m] = [cx.user(|u| u.read_struct::<Timespec>(at))?, cx.user(|u| u.read_struct::<Timespec>(at + 16))?];
    if a.nsec == UTIME_NOW && m.nsec == UTIME_NOW {
        return Ok(NOW);
    }
    let now = Time(cx.kernel().vfs().env().realtime());
    let time = |t: Timespec| match t.nsec {
        UTIME_OMIT => Ok(None),
        UTIME_NOW => Ok(Some(now)),
        0..SECOND => Ok(Some(Time(t.sec.saturating_mul(SECOND).saturating_add(t.nsec)))),
        _ => Err(invalid("bad nanoseconds")),
    };
    Ok(SetAttr { accessed: time(a)?, modified: time(m)?, ..SetAttr::default() })
}

/// utimensat(2). Without a path it is about the descriptor.
pub fn utimensat(cx: &Cx, [dirfd, name, at, flags, ..]: [u64; 6]) -> Result<u64> {
    let attr = times(cx, at)?;
    if attr.accessed.is_none() && attr.modified.is_none() {
        return Ok(0);
    }
    if name == 0 {
        return if flags == 0 { change_file(cx, dirfd, attr) } else { Err(invalid("flags without a path")) };
    }
    change(cx, dirfd, name, flags, attr)
}

fn timevals(cx: &Cx, at: u64) -> Result<SetAttr> {
    if at == 0 {
        return Ok(NOW);
    }
    let time = |at: u64| -> Result<Time> {
        let t: Timeval = cx.user(|u| u.read_struct(at))?;
        if !(0..1_000_000).contains(&t.usec) {
            return Err(invalid("bad microseconds"));
        }
        Ok(Time(t.sec.saturating_mul(SECOND).saturating_add(t.usec * 1000)))
    };
    Ok(SetAttr { accessed: Some(time(at)?), modified: Some(time(at + 16)?), ..SetAttr::default() })
}

/// utimes(2).
pub fn utimes(cx: &Cx, [name, at, ..]: [u64; 6]) -> Result<u64> {
    let attr = timevals(cx, at)?;
    change(cx, CWD, name, 0, attr)
}

/// futimesat(2).
pub fn futimesat(cx: &Cx, [dirfd, name, at, ..]: [u64; 6]) -> Result<u64> {
    let attr = timevals(cx, at)?;
    change(cx, dirfd, name, 0, attr)
}

/// utime(2).
pub fn utime(cx: &Cx, [name, at, ..]: [u64; 6]) -> Result<u64> {
    let mut attr = NOW;
    if at != 0 {
        let [a, m]: [i64; 2] = cx.user(|u| u.read_struct(at))?;
        let time = |s: i64| Some(Time(s.saturating_mul(SECOND)));
        attr = SetAttr { accessed: time(a), modified: time(m), ..SetAttr::default() };
    }
    change(cx, CWD, name, 0, attr)
}

fn size(len: u64) -> Result<SetAttr> {
    if len as i64 >= 0 { Ok(SetAttr { size: Some(len), ..SetAttr::default() }) } else { Err(invalid("negative size")) }
}

/// truncate(2).
pub fn truncate(cx: &Cx, [name, len, ..]: [u64; 6]) -> Result<u64> {
    let attr = size(len)?;
    change(cx, CWD, name, 0, attr).inspect_err(|e| super::rw::tell(cx, *e))
}

/// ftruncate(2).
pub fn ftruncate(cx: &Cx, [fd, len, ..]: [u64; 6]) -> Result<u64> {
    let attr = size(len)?;
    change_file(cx, fd, attr).inspect_err(|e| super::rw::tell(cx, *e))
}

/// fallocate(2).
pub fn fallocate(cx: &Cx, [fd, mode, offset, len, ..]: [u64; 6]) -> Result<u64> {
    if (offset as i64) < 0 || len as i64 <= 0 {
        return Err(invalid("bad range"));
    }
    let file = file(cx, fd)?;
    let done = settle(cx, file.allocate(&cx.caller(), mode as u32, offset, len));
    done.inspect_err(|e| super::rw::tell(cx, *e)).map(|()| 0)
}

/// fsync(2) and fdatasync(2).
pub fn fsync(cx: &Cx, [fd, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    settle(cx, file.sync()).map(|()| 0)
}

/// sync(2): nothing here is kept anywhere but in memory.
pub fn sync(_: &Cx, _: [u64; 6]) -> Result<u64> {
    Ok(0)
}

/// syncfs(2).
pub fn syncfs(cx: &Cx, [fd, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    if file.flags().contains(OpenFlags::PATH) { Err(Errno::EBADF.into()) } else { Ok(0) }
}

fn is_file(cx: &Cx, fd: u64) -> Result<()> {
    let file = file(cx, fd)?;
    match file.inode().map(|i| i.kind()) {
        Some(FileKind::Fifo) => Err(Errno::ESPIPE.into()),
        Some(FileKind::Regular | FileKind::Directory | FileKind::Block) => Ok(()),
        _ => Err(invalid("not a file")),
    }
}

/// sync_file_range(2).
pub fn sync_file_range(cx: &Cx, [fd, _, _, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !7 != 0 {
        return Err(invalid("unknown flags"));
    }
    is_file(cx, fd).map(|()| 0)
}

/// fadvise64(2): all advice is about a disk that is not there.
pub fn fadvise64(cx: &Cx, [fd, _, _, advice, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    if file.inode().is_some_and(|i| i.kind() == FileKind::Fifo) {
        return Err(Errno::ESPIPE.into());
    }
    if advice > 5 { Err(invalid("unknown advice")) } else { Ok(0) }
}

/// readahead(2).
pub fn readahead(cx: &Cx, [fd, ..]: [u64; 6]) -> Result<u64> {
    is_file(cx, fd).map_err(|_| invalid("nothing to read ahead")).map(|()| 0)
}

/// umask(2).
pub fn umask(cx: &Cx, [mask, ..]: [u64; 6]) -> Result<u64> {
    Ok(u64::from(cx.task().fs().set_umask((mask & 0o777) as u32)))
}
