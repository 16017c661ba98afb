//! inotify(7): inotify_init1(2), inotify_add_watch(2), inotify_rm_watch(2).

use base::{Errno, Error, Result};
use linux_abi::flags::OpenFlags as Abi;
use task::Cx;
use vfs::{
    Access, FileKind, Follow, LocalFile,
    inotify::{Inotify, Mask},
};

use super::{AT_FDCWD, file, find, install, invalid, open, path, settle};

/// inotify_init(2).
pub fn inotify_init(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    inotify_init1(cx, [0; 6])
}

/// inotify_init1(2): `IN_CLOEXEC` and `IN_NONBLOCK` are `O_CLOEXEC` and `O_NONBLOCK`.
pub fn inotify_init1(cx: &Cx, [flags, ..]: [u64; 6]) -> Result<u64> {
    let abi = Abi::from_program(cx.task().isa, flags as u32);
    if !(Abi::CLOEXEC | Abi::NONBLOCK).contains(abi) {
        return Err(invalid("unknown flags"));
    }
    let file = Inotify::open(cx.kernel().vfs(), &cx.caller(), open::status(abi));
    install(cx, file, abi.contains(Abi::CLOEXEC))
}

/// Does something with the instance behind a descriptor.
fn instance<R>(cx: &Cx, fd: u64, f: impl FnOnce(&Inotify) -> Result<R>) -> Result<R> {
    let file = file(cx, fd)?;
    let local = file.as_any().downcast_ref::<LocalFile>();
    let inotify = local.and_then(|l| l.ops().as_any().downcast_ref::<Inotify>());
    f(inotify.ok_or(invalid("not an inotify instance"))?)
}

/// inotify_add_watch(2).
pub fn inotify_add_watch(cx: &Cx, [fd, name, mask, ..]: [u64; 6]) -> Result<u64> {
    let mask = Mask::from_bits_truncate(mask as u32);
    if !mask.intersects(Mask::EVENTS) {
        return Err(invalid("nothing to watch for"));
    }
    instance(cx, fd, |_| Ok(()))?;
    let name = path(cx, name)?;
    let follow = if mask.contains(Mask::DONT_FOLLOW) { Follow::No } else { Follow::Yes };
    let place = find(cx, AT_FDCWD as u64, &name, follow, false)?;
    if mask.contains(Mask::ONLYDIR) && place.kind() != FileKind::Directory {
        return Err(Error::new(Errno::ENOTDIR, "IN_ONLYDIR"));
    }
    settle(cx, place.inode().access(&cx.caller(), Access::READ))?;
    let watched = instance(cx, fd, |inotify| inotify.watch(place.inode(), mask));
    settle(cx, watched).map(|number| number as u64)
}

/// inotify_rm_watch(2).
pub fn inotify_rm_watch(cx: &Cx, [fd, number, ..]: [u64; 6]) -> Result<u64> {
    instance(cx, fd, |inotify| inotify.unwatch(number as i32)).map(|()| 0)
}
