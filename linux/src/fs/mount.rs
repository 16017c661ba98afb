//! mount(2) and umount2(2).

use alloc::string::String;

use base::{Errno, Error, Result};
use task::Cx;
use vfs::{Follow, place::MountFlags};

use super::{AT_FDCWD, invalid, path, walk};

const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MS_MOVE: u64 = 8192;
const MS_REC: u64 = 16384;
/// `MS_UNBINDABLE`, `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`.
const MS_PROPAGATION: u64 = 0x1e_0000;
const MS_SILENT: u64 = 32768;
/// The old magic number in the upper half.
const MS_MGC: u64 = 0xc0ed_0000;

fn text(cx: &Cx, at: u64) -> Result<String> {
    if at == 0 {
        return Ok(String::new());
    }
    let bytes = cx.user(|u| u.string(at, 4096))?.ok_or(invalid("too long"))?;
    String::from_utf8(bytes).map_err(|_| invalid("not text"))
}

/// mount(2).
pub fn mount(cx: &Cx, [source, target, fs_type, flags, data, _]: [u64; 6]) -> Result<u64> {
    let flags = if flags & 0xffff_0000 == MS_MGC { flags & 0xffff } else { flags };
    let (source, target) = (text(cx, source)?, path(cx, target)?);
    let mount_flags = MountFlags::from_bits_truncate((flags & !(MS_REMOUNT | MS_BIND | MS_REC | MS_SILENT)) as u32);
    walk(cx, AT_FDCWD as u64, &target, |w| {
        let at = w.find(&target, Follow::Yes)?;
        if flags & MS_REMOUNT != 0 {
            if !text(cx, data)?.is_empty() {
                return Err(invalid("the options of a file system cannot be changed"));
            }
            return w.vfs.remount(w.caller, &at, mount_flags);
        }
        if flags & MS_BIND != 0 {
            let from = w.find(source.as_bytes(), Follow::Yes)?;
            return w.vfs.bind(w.caller, &from, at);
        }
        if flags & MS_PROPAGATION != 0 {
            // There is one namespace, so nothing is ever propagated: private is what all mounts are.
            return if flags & MS_PROPAGATION == 1 << 18 { Ok(()) } else { Err(invalid("only private mounts")) };
        }
        if flags & MS_MOVE != 0 {
            return Err(Error::new(Errno::EINVAL, "mounts cannot move"));
        }
        let (fs_type, options) = (text(cx, fs_type)?, text(cx, data)?);
        w.vfs.mount(w.caller, at, &source, &fs_type, &options, mount_flags)
    })?;
    Ok(0)
}

/// umount2(2).
pub fn umount2(cx: &Cx, [target, flags, ..]: [u64; 6]) -> Result<u64> {
    const FORCE: u64 = 1;
    const DETACH: u64 = 2;
    const NOFOLLOW: u64 = 8;
    if flags & !(FORCE | DETACH | NOFOLLOW) != 0 {
        return Err(invalid("unknown flags"));
    }
    let target = path(cx, target)?;
    let follow = if flags & NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
    walk(cx, AT_FDCWD as u64, &target, |w| {
        let at = w.find(&target, follow)?;
        w.vfs.unmount(w.caller, at, flags & DETACH != 0)
    })?;
    Ok(0)
}
