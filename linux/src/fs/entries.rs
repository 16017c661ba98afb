//! Directories and names: getdents64(2), mkdir(2), rename(2) and the like, and where a process is.

use alloc::vec::Vec;

use base::{Errno, Error, Result};
use linux_abi::structs::Dirent;
use task::{Cx, Interrupted};
use vfs::{Device, DirSink, FileKind, Follow, NewNode, RenameFlags, Walk, caller::cap};

use super::{AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, at, file, find, invalid, path, settle, walk};

const CWD: u64 = AT_FDCWD as u64;

/// Encodes entries into a buffer of the program's size.
struct Entries {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl DirSink for Entries {
    fn put(&mut self, name: &[u8], inode: u64, kind: FileKind, next: u64) -> bool {
        let entry = Dirent { ino: inode, next: next as i64, kind: kind as u8, name };
        let start = self.bytes.len();
        if start + entry.length() > self.limit {
            self.full = true;
            return false;
        }
        self.bytes.resize(start + entry.length(), 0);
        self.bytes.get_mut(start..).and_then(|room| entry.encode(room)).is_some()
    }
}

/// getdents64(2).
pub fn getdents64(cx: &Cx, [fd, buf, len, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    // A page or so at a time is all that libc asks for; more is not needed at once.
    let limit = usize::try_from(len as u32).unwrap_or(usize::MAX).min(65536);
    let mut entries = Entries { bytes: Vec::new(), limit, full: false };
    // `Started`: the entries are on their way from another kernel; they are handed out when it is asked again.
    while let base::Try::Started(op) = file.read_dir(&mut entries)? {
        cx.wait_op(op, Interrupted::Killed)?;
    }
    if entries.bytes.is_empty() && entries.full {
        return Err(invalid("the buffer is too small for an entry"));
    }
    cx.user(|u| u.write(buf, &entries.bytes))?;
    Ok(entries.bytes.len() as u64)
}

/// getcwd(2).
pub fn getcwd(cx: &Cx, [buf, size, ..]: [u64; 6]) -> Result<u64> {
    let fs = cx.task().fs();
    let (cwd, root) = (fs.cwd()?, fs.root()?);
    if cwd.node.is_gone() {
        return Err(Error::new(Errno::ENOENT, "the working directory was removed"));
    }
    let (mut path, reachable) = cwd.path(Some(&root));
    if !reachable {
        path.splice(..0, b"(unreachable)".iter().copied());
    }
    path.push(0);
    if path.len() as u64 > size {
        return Err(Errno::ERANGE.into());
    }
    cx.user(|u| u.write(buf, &path))?;
    Ok(path.len() as u64)
}

/// chdir(2).
pub fn chdir(cx: &Cx, [name, ..]: [u64; 6]) -> Result<u64> {
    let path = path(cx, name)?;
    let place = walk(cx, CWD, &path, |w| {
        let place = w.find(&path, Follow::Yes)?;
        w.may_enter(&place)?;
        Ok(place)
    })?;
    cx.task().fs().set_cwd(place);
    Ok(0)
}

/// fchdir(2).
pub fn fchdir(cx: &Cx, [fd, ..]: [u64; 6]) -> Result<u64> {
    let place = at(cx, u64::from(fd as u32))?;
    walk(cx, CWD, b".", |w| w.may_enter(&place))?;
    cx.task().fs().set_cwd(place);
    Ok(0)
}

/// chroot(2).
pub fn chroot(cx: &Cx, [name, ..]: [u64; 6]) -> Result<u64> {
    const SYS_CHROOT: u8 = 18;
    let path = path(cx, name)?;
    let place = walk(cx, CWD, &path, |w| {
        let place = w.find(&path, Follow::Yes)?;
        w.may_enter(&place)?;
        if w.caller.can(SYS_CHROOT) { Ok(place) } else { Err(Errno::EPERM.into()) }
    })?;
    cx.task().fs().set_root(place);
    Ok(0)
}

fn create(cx: &Cx, dirfd: u64, name: u64, what: NewNode, mode: u64) -> Result<u64> {
    let path = path(cx, name)?;
    walk(cx, dirfd, &path, |w| w.create(&path, what, (mode & 0o7777) as u32))?;
    Ok(0)
}

/// mkdir(2).
pub fn mkdir(cx: &Cx, [name, mode, ..]: [u64; 6]) -> Result<u64> {
    create(cx, CWD, name, NewNode::Directory, mode & 0o1777)
}

/// mkdirat(2).
pub fn mkdirat(cx: &Cx, [dirfd, name, mode, ..]: [u64; 6]) -> Result<u64> {
    create(cx, dirfd, name, NewNode::Directory, mode & 0o1777)
}

fn do_mknod(cx: &Cx, dirfd: u64, name: u64, mode: u64, device: u64) -> Result<u64> {
    let device = Device::from_raw(u64::from(device as u32));
    let what = match FileKind::from_mode(mode as u32) {
        None if mode & 0o170_000 == 0 => NewNode::Regular,
        Some(FileKind::Regular) => NewNode::Regular,
        Some(FileKind::Fifo) => NewNode::Fifo,
        Some(FileKind::Socket) => NewNode::Socket,
        Some(kind @ (FileKind::Char | FileKind::Block)) => {
            if !cx.caller().can(cap::MKNOD) {
                return Err(Errno::EPERM.into());
            }
            NewNode::Device(kind, device)
        }
        Some(FileKind::Directory) => return Err(Errno::EPERM.into()),
        _ => return Err(invalid("unknown type of file")),
    };
    create(cx, dirfd, name, what, mode)
}

/// mknod(2).
pub fn mknod(cx: &Cx, [name, mode, device, ..]: [u64; 6]) -> Result<u64> {
    do_mknod(cx, CWD, name, mode, device)
}

/// mknodat(2).
pub fn mknodat(cx: &Cx, [dirfd, name, mode, device, ..]: [u64; 6]) -> Result<u64> {
    do_mknod(cx, dirfd, name, mode, device)
}

fn do_symlink(cx: &Cx, target: u64, dirfd: u64, name: u64) -> Result<u64> {
    let target = path(cx, target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    create(cx, dirfd, name, NewNode::Symlink(target), 0o777)
}

/// symlink(2).
pub fn symlink(cx: &Cx, [target, name, ..]: [u64; 6]) -> Result<u64> {
    do_symlink(cx, target, CWD, name)
}

/// symlinkat(2).
pub fn symlinkat(cx: &Cx, [target, dirfd, name, ..]: [u64; 6]) -> Result<u64> {
    do_symlink(cx, target, dirfd, name)
}

fn do_readlink(cx: &Cx, dirfd: u64, name: u64, buf: u64, size: u64) -> Result<u64> {
    if size as i32 <= 0 {
        return Err(invalid("no room"));
    }
    let path = path(cx, name)?;
    let place = find(cx, dirfd, &path, Follow::No, true)?;
    if place.kind() != FileKind::Symlink {
        return Err(if path.is_empty() { Errno::ENOENT } else { Errno::EINVAL }.into());
    }
    let target = settle(cx, place.inode().read_link(&cx.caller()))?;
    let n = target.len().min(size as u32 as usize);
    cx.user(|u| u.write(buf, target.get(..n).unwrap_or(&target)))?;
    Ok(n as u64)
}

/// readlink(2).
pub fn readlink(cx: &Cx, [name, buf, size, ..]: [u64; 6]) -> Result<u64> {
    do_readlink(cx, CWD, name, buf, size)
}

/// readlinkat(2).
pub fn readlinkat(cx: &Cx, [dirfd, name, buf, size, ..]: [u64; 6]) -> Result<u64> {
    do_readlink(cx, dirfd, name, buf, size)
}

fn do_link(cx: &Cx, old_dir: u64, old: u64, new_dir: u64, new: u64, flags: u64) -> Result<u64> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(invalid("unknown flags"));
    }
    let (old, new) = (path(cx, old)?, path(cx, new)?);
    let follow = if flags & AT_SYMLINK_FOLLOW != 0 { Follow::Yes } else { Follow::No };
    let from = find(cx, old_dir, &old, follow, flags & AT_EMPTY_PATH != 0)?;
    walk(cx, new_dir, &new, |w| w.link(&from, &new))?;
    Ok(0)
}

/// link(2).
pub fn link(cx: &Cx, [old, new, ..]: [u64; 6]) -> Result<u64> {
    do_link(cx, CWD, old, CWD, new, 0)
}

/// linkat(2).
pub fn linkat(cx: &Cx, [old_dir, old, new_dir, new, flags, _]: [u64; 6]) -> Result<u64> {
    do_link(cx, old_dir, old, new_dir, new, flags)
}

fn do_unlink(cx: &Cx, dirfd: u64, name: u64, directory: bool) -> Result<u64> {
    let path = path(cx, name)?;
    walk(cx, dirfd, &path, |w| w.unlink(&path, directory))?;
    Ok(0)
}

/// unlink(2).
pub fn unlink(cx: &Cx, [name, ..]: [u64; 6]) -> Result<u64> {
    do_unlink(cx, CWD, name, false)
}

/// unlinkat(2).
pub fn unlinkat(cx: &Cx, [dirfd, name, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !AT_REMOVEDIR != 0 {
        return Err(invalid("unknown flags"));
    }
    do_unlink(cx, dirfd, name, flags & AT_REMOVEDIR != 0)
}

/// rmdir(2).
pub fn rmdir(cx: &Cx, [name, ..]: [u64; 6]) -> Result<u64> {
    do_unlink(cx, CWD, name, true)
}

fn do_rename(cx: &Cx, old_dir: u64, old: u64, new_dir: u64, new: u64, flags: u64) -> Result<u64> {
    let flags = u32::try_from(flags).ok().and_then(RenameFlags::from_bits).ok_or(invalid("unknown flags"))?;
    let (old, new) = (path(cx, old)?, path(cx, new)?);
    walk(cx, old_dir, &old, |from| {
        let start = if new.first() == Some(&b'/') { from.root.clone() } else { at(cx, new_dir)? };
        let to = Walk { vfs: from.vfs, caller: from.caller, root: from.root.clone(), start, wait: from.wait };
        from.rename(&old, &to, &new, flags)
    })?;
    Ok(0)
}

/// rename(2).
pub fn rename(cx: &Cx, [old, new, ..]: [u64; 6]) -> Result<u64> {
    do_rename(cx, CWD, old, CWD, new, 0)
}

/// renameat(2).
pub fn renameat(cx: &Cx, [old_dir, old, new_dir, new, ..]: [u64; 6]) -> Result<u64> {
    do_rename(cx, old_dir, old, new_dir, new, 0)
}

/// renameat2(2).
pub fn renameat2(cx: &Cx, [old_dir, old, new_dir, new, flags, _]: [u64; 6]) -> Result<u64> {
    do_rename(cx, old_dir, old, new_dir, new, flags)
}
