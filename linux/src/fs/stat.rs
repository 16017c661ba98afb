//! What files are: stat(2), statx(2), statfs(2), access(2).

use base::{Errno, Error, Result};
use linux_abi::structs::{Stat as AbiStat, Statfs, StatxTimestamp, Timespec};
use task::Cx;
use vfs::{Access, Caller, FileKind, Follow, Place, Stat, StatFs, Time, Walk, place::MountFlags};

use super::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, file, find, invalid, path, settle, walk_as};

const AT_NO_AUTOMOUNT: u64 = 0x800;
const AT_STATX: u64 = 0x6000;
const AT_EACCESS: u64 = 0x200;

fn timespec(time: Time) -> Timespec {
    Timespec { sec: time.0.div_euclid(1_000_000_000), nsec: time.0.rem_euclid(1_000_000_000) }
}

fn encode(stat: &Stat) -> AbiStat {
    AbiStat {
        dev: stat.device.raw(),
        ino: stat.inode,
        mode: stat.kind.mode_bits() | stat.mode,
        nlink: u64::from(stat.links),
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev.raw(),
        size: stat.size as i64,
        blksize: stat.block_size,
        blocks: stat.blocks as i64,
        atime: timespec(stat.accessed),
        mtime: timespec(stat.modified),
        ctime: timespec(stat.changed),
    }
}

fn put(cx: &Cx, stat: &Stat, at: u64) -> Result<u64> {
    let bytes = encode(stat).encode(cx.task().isa);
    cx.user(|u| u.write(at, &bytes)).map(|()| 0)
}

fn of_path(cx: &Cx, dirfd: u64, name: u64, flags: u64) -> Result<Stat> {
    let path = path(cx, name)?;
    if path.is_empty() && flags & AT_EMPTY_PATH != 0 && dirfd as i32 != AT_FDCWD {
        return settle(cx, file(cx, dirfd)?.stat());
    }
    let follow = if flags & AT_SYMLINK_NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
    let place = find(cx, dirfd, &path, follow, flags & AT_EMPTY_PATH != 0)?;
    settle(cx, place.inode().stat())
}

/// stat(2).
pub fn stat(cx: &Cx, [name, at, ..]: [u64; 6]) -> Result<u64> {
    let stat = of_path(cx, AT_FDCWD as u64, name, 0)?;
    put(cx, &stat, at)
}

/// lstat(2).
pub fn lstat(cx: &Cx, [name, at, ..]: [u64; 6]) -> Result<u64> {
    let stat = of_path(cx, AT_FDCWD as u64, name, AT_SYMLINK_NOFOLLOW)?;
    put(cx, &stat, at)
}

/// fstat(2).
pub fn fstat(cx: &Cx, [fd, at, ..]: [u64; 6]) -> Result<u64> {
    let stat = settle(cx, file(cx, fd)?.stat())?;
    put(cx, &stat, at)
}

/// newfstatat(2).
pub fn newfstatat(cx: &Cx, [dirfd, name, at, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT) != 0 {
        return Err(invalid("unknown flags"));
    }
    let stat = of_path(cx, dirfd, name, flags)?;
    put(cx, &stat, at)
}

/// statx(2).
pub fn statx(cx: &Cx, [dirfd, name, flags, mask, at, _]: [u64; 6]) -> Result<u64> {
    const BTIME: u32 = 0x800;
    const RESERVED: u64 = 0x8000_0000;
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX) != 0
        || flags & AT_STATX == AT_STATX
        || mask & RESERVED != 0
    {
        return Err(invalid("unknown flags"));
    }
    let stat = of_path(cx, dirfd, name, flags)?;
    let mut statx = encode(&stat).to_statx();
    let born = timespec(stat.born);
    statx.mask |= BTIME;
    statx.btime = StatxTimestamp { sec: born.sec, nsec: born.nsec as u32, reserved: 0 };
    cx.user(|u| u.write_struct(at, &statx)).map(|()| 0)
}

fn put_statfs(cx: &Cx, fs: &StatFs, at: u64) -> Result<u64> {
    let statfs = Statfs {
        kind: fs.magic as i64,
        bsize: fs.block_size as i64,
        blocks: fs.blocks,
        bfree: fs.free,
        bavail: fs.free,
        files: fs.files,
        ffree: fs.free_files,
        namelen: fs.name_max as i64,
        frsize: fs.block_size as i64,
        // ST_VALID says that the flags mean something.
        flags: fs.flags as i64 | 0x20,
        ..Statfs::default()
    };
    cx.user(|u| u.write_struct(at, &statfs)).map(|()| 0)
}

fn statfs_of(cx: &Cx, place: &Place) -> Result<StatFs> {
    let mut fs = settle(cx, place.inode().stat_fs())?;
    let flags = place.mount.flags();
    for (flag, st) in [
        (MountFlags::RDONLY, 1),
        (MountFlags::NOSUID, 2),
        (MountFlags::NODEV, 4),
        (MountFlags::NOEXEC, 8),
        (MountFlags::NOATIME, 1024),
        (MountFlags::RELATIME, 4096),
    ] {
        if flags.contains(flag) {
            fs.flags |= st;
        }
    }
    Ok(fs)
}

/// statfs(2).
pub fn statfs(cx: &Cx, [name, at, ..]: [u64; 6]) -> Result<u64> {
    let path = path(cx, name)?;
    let place = find(cx, AT_FDCWD as u64, &path, Follow::Yes, false)?;
    let fs = statfs_of(cx, &place)?;
    put_statfs(cx, &fs, at)
}

/// fstatfs(2).
pub fn fstatfs(cx: &Cx, [fd, at, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    let fs = match file.place() {
        Some(place) => statfs_of(cx, &place)?,
        None => settle(cx, file.stat_fs())?,
    };
    put_statfs(cx, &fs, at)
}

fn do_access(cx: &Cx, dirfd: u64, name: u64, mode: u64, flags: u64) -> Result<u64> {
    if mode & !7 != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(invalid("unknown mode or flags"));
    }
    let mut caller = (*cx.caller()).clone();
    if flags & AT_EACCESS == 0 {
        // access(2) asks for the real user; capabilities count as if that user had made the call.
        let creds = cx.process().creds();
        caller = Caller {
            uid: creds.uid,
            gid: creds.gid,
            capabilities: if creds.uid == 0 { creds.permitted } else { 0 },
            ..caller
        };
    }
    let path = path(cx, name)?;
    let follow = if flags & AT_SYMLINK_NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
    let check = |place: &Place, walk: &Walk<'_>| {
        let want = Access::from_bits_truncate(mode as u8);
        if want.contains(Access::WRITE)
            && place.mount.flags().contains(MountFlags::RDONLY)
            && matches!(place.kind(), FileKind::Regular | FileKind::Directory | FileKind::Symlink)
        {
            return Err(Error::new(Errno::EROFS, "read-only mount"));
        }
        if want.contains(Access::EXECUTE)
            && place.mount.flags().contains(MountFlags::NOEXEC)
            && place.kind() == FileKind::Regular
        {
            return Err(Errno::EACCES.into());
        }
        walk.wait.finish(place.inode().access(walk.caller, want))
    };
    walk_as(cx, &caller, dirfd, &path, |w| {
        if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
            return check(&w.start, w);
        }
        check(&w.find(&path, follow)?, w)
    })?;
    Ok(0)
}

/// access(2).
pub fn access(cx: &Cx, [name, mode, ..]: [u64; 6]) -> Result<u64> {
    do_access(cx, AT_FDCWD as u64, name, mode, 0)
}

/// faccessat(2) without flags.
pub fn faccessat(cx: &Cx, [dirfd, name, mode, ..]: [u64; 6]) -> Result<u64> {
    do_access(cx, dirfd, name, mode, 0)
}

/// faccessat2(2).
pub fn faccessat2(cx: &Cx, [dirfd, name, mode, flags, ..]: [u64; 6]) -> Result<u64> {
    do_access(cx, dirfd, name, mode, flags)
}
