//! Extended attributes, xattr(7): no file system here has any. So lists are empty, and an attribute cannot be set or had.

use base::{Errno, Error, Result};
use task::Cx;
use vfs::{Follow, OpenFlags};

use super::{AT_FDCWD, file, find, path as read_path};

const NONE: Error = Error::new(Errno::EOPNOTSUPP, "no extended attributes");

fn exists(cx: &Cx, name: u64, follow: Follow) -> Result<()> {
    let name = read_path(cx, name)?;
    find(cx, AT_FDCWD as u64, &name, follow, false).map(drop)
}

fn is_open(cx: &Cx, fd: u64) -> Result<()> {
    let file = file(cx, fd)?;
    if file.flags().contains(OpenFlags::PATH) { Err(Errno::EBADF.into()) } else { Ok(()) }
}

/// The name of an attribute: 1 to 255 bytes.
fn name(cx: &Cx, at: u64) -> Result<()> {
    match cx.user(|u| u.string(at, 256))? {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err(Error::new(Errno::ERANGE, "the name of an attribute")),
    }
}

/// setxattr(2), getxattr(2), removexattr(2).
pub fn path(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    name(cx, args[1])?;
    exists(cx, args[0], Follow::Yes)?;
    Err(NONE)
}

/// lsetxattr(2), lgetxattr(2), lremovexattr(2).
pub fn link(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    name(cx, args[1])?;
    exists(cx, args[0], Follow::No)?;
    Err(NONE)
}

/// fsetxattr(2), fgetxattr(2), fremovexattr(2).
pub fn descriptor(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    is_open(cx, args[0])?;
    name(cx, args[1])?;
    Err(NONE)
}

/// listxattr(2).
pub fn list(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    exists(cx, args[0], Follow::Yes).map(|()| 0)
}

/// llistxattr(2).
pub fn list_link(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    exists(cx, args[0], Follow::No).map(|()| 0)
}

/// flistxattr(2).
pub fn list_descriptor(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    is_open(cx, args[0]).map(|()| 0)
}
