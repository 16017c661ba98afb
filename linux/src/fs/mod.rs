//! System calls on files: descriptors, paths, reading and writing, waiting for many.

mod control;
mod descriptor;
mod entries;
mod epoll;
mod event;
mod inotify;
mod ioctl;
mod meta;
mod mount;
mod open;
mod poll;
mod rw;
mod socket;
mod stat;
mod transfer;
mod xattr;

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, Result, TryResult};
use linux_abi::Call;
use task::{Cx, Interrupted, cx::Restart, limits::Resource};
use vfs::{Caller, Follow, OpenFile, Place, Walk};

use crate::entry::Handler;

/// "Where the caller is".
const AT_FDCWD: i32 = -100;
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_REMOVEDIR: u64 = 0x200;
const AT_SYMLINK_FOLLOW: u64 = 0x400;
const AT_EMPTY_PATH: u64 = 0x1000;

/// The handler of a call of this family; none for others.
pub const fn handler(call: Call) -> Option<Handler> {
    Some(match call {
        Call::Read => rw::read,
        Call::Write => rw::write,
        Call::Readv => rw::readv,
        Call::Writev => rw::writev,
        Call::Pread64 => rw::pread64,
        Call::Pwrite64 => rw::pwrite64,
        Call::Preadv => rw::preadv,
        Call::Pwritev => rw::pwritev,
        Call::Preadv2 => rw::preadv2,
        Call::Pwritev2 => rw::pwritev2,
        Call::Lseek => rw::lseek,
        Call::Sendfile => transfer::sendfile,
        Call::CopyFileRange => transfer::copy_file_range,
        Call::Splice => transfer::splice,
        Call::Tee => transfer::tee,
        Call::Vmsplice => transfer::vmsplice,
        Call::Open => open::open,
        Call::Openat => open::openat,
        Call::Openat2 => open::openat2,
        Call::Creat => open::creat,
        Call::Close => descriptor::close,
        Call::CloseRange => descriptor::close_range,
        Call::Dup => descriptor::dup,
        Call::Dup2 => descriptor::dup2,
        Call::Dup3 => descriptor::dup3,
        Call::Fcntl => control::fcntl,
        Call::Flock => control::flock,
        Call::Ioctl => ioctl::ioctl,
        Call::Stat => stat::stat,
        Call::Lstat => stat::lstat,
        Call::Fstat => stat::fstat,
        Call::Newfstatat => stat::newfstatat,
        Call::Statx => stat::statx,
        Call::Statfs => stat::statfs,
        Call::Fstatfs => stat::fstatfs,
        Call::Access => stat::access,
        Call::Faccessat => stat::faccessat,
        Call::Faccessat2 => stat::faccessat2,
        Call::Getdents64 => entries::getdents64,
        Call::Getcwd => entries::getcwd,
        Call::Chdir => entries::chdir,
        Call::Fchdir => entries::fchdir,
        Call::Chroot => entries::chroot,
        Call::Mkdir => entries::mkdir,
        Call::Mkdirat => entries::mkdirat,
        Call::Mknod => entries::mknod,
        Call::Mknodat => entries::mknodat,
        Call::Symlink => entries::symlink,
        Call::Symlinkat => entries::symlinkat,
        Call::Readlink => entries::readlink,
        Call::Readlinkat => entries::readlinkat,
        Call::Link => entries::link,
        Call::Linkat => entries::linkat,
        Call::Unlink => entries::unlink,
        Call::Unlinkat => entries::unlinkat,
        Call::Rmdir => entries::rmdir,
        Call::Rename => entries::rename,
        Call::Renameat => entries::renameat,
        Call::Renameat2 => entries::renameat2,
        Call::Chmod => meta::chmod,
        Call::Fchmod => meta::fchmod,
        Call::Fchmodat => meta::fchmodat,
        Call::Fchmodat2 => meta::fchmodat2,
        Call::Chown => meta::chown,
        Call::Lchown => meta::lchown,
        Call::Fchown => meta::fchown,
        Call::Fchownat => meta::fchownat,
        Call::Utime => meta::utime,
        Call::Utimes => meta::utimes,
        Call::Futimesat => meta::futimesat,
        Call::Utimensat => meta::utimensat,
        Call::Truncate => meta::truncate,
        Call::Ftruncate => meta::ftruncate,
        Call::Fallocate => meta::fallocate,
        Call::Fsync | Call::Fdatasync => meta::fsync,
        Call::Sync => meta::sync,
        Call::Syncfs => meta::syncfs,
        Call::SyncFileRange => meta::sync_file_range,
        Call::Fadvise64 => meta::fadvise64,
        Call::Readahead => meta::readahead,
        Call::Umask => meta::umask,
        Call::Setxattr | Call::Getxattr | Call::Removexattr => xattr::path,
        Call::Lsetxattr | Call::Lgetxattr | Call::Lremovexattr => xattr::link,
        Call::Fsetxattr | Call::Fgetxattr | Call::Fremovexattr => xattr::descriptor,
        Call::Listxattr => xattr::list,
        Call::Llistxattr => xattr::list_link,
        Call::Flistxattr => xattr::list_descriptor,
        Call::Pipe => event::pipe,
        Call::Pipe2 => event::pipe2,
        Call::Socket => socket::socket,
        Call::Socketpair => socket::socketpair,
        Call::Bind => socket::bind,
        Call::Listen => socket::listen,
        Call::Connect => socket::connect,
        Call::Accept => socket::accept,
        Call::Accept4 => socket::accept4,
        Call::Getsockname => socket::getsockname,
        Call::Getpeername => socket::getpeername,
        Call::Getsockopt => socket::getsockopt,
        Call::Setsockopt => socket::setsockopt,
        Call::Sendmsg => socket::sendmsg,
        Call::Recvmsg => socket::recvmsg,
        Call::Recvfrom => socket::recvfrom,
        Call::Sendto => socket::sendto,
        Call::Shutdown => socket::shutdown,
        Call::InotifyInit => inotify::inotify_init,
        Call::InotifyInit1 => inotify::inotify_init1,
        Call::InotifyAddWatch => inotify::inotify_add_watch,
        Call::InotifyRmWatch => inotify::inotify_rm_watch,
        Call::MemfdCreate => event::memfd_create,
        Call::Poll => poll::poll,
        Call::Ppoll => poll::ppoll,
        Call::Select => poll::select,
        Call::Pselect6 => poll::pselect6,
        Call::EpollCreate => epoll::epoll_create,
        Call::EpollCreate1 => epoll::epoll_create1,
        Call::EpollCtl => epoll::epoll_ctl,
        Call::EpollWait => epoll::epoll_wait,
        Call::EpollPwait => epoll::epoll_pwait,
        Call::EpollPwait2 => epoll::epoll_pwait2,
        Call::Eventfd => event::eventfd,
        Call::Eventfd2 => event::eventfd2,
        Call::TimerfdCreate => event::timerfd_create,
        Call::TimerfdSettime => event::timerfd_settime,
        Call::TimerfdGettime => event::timerfd_gettime,
        Call::Signalfd => event::signalfd,
        Call::Signalfd4 => event::signalfd4,
        Call::Mount => mount::mount,
        Call::Umount2 => mount::umount2,
        _ => return None,
    })
}

/// The file of a descriptor.
#[inline]
fn file(cx: &Cx, fd: u64) -> Result<Arc<dyn OpenFile>> {
    cx.task().files().get(fd)
}

/// Where `dirfd` is.
fn at(cx: &Cx, dirfd: u64) -> Result<Place> {
    if dirfd as i32 == AT_FDCWD {
        return cx.task().fs().cwd();
    }
    let place = settle(cx, file(cx, dirfd)?.find_place())?;
    place.ok_or(Error::new(Errno::ENOTDIR, "a descriptor without a place"))
}

/// Reads a path of the program.
#[inline]
fn path(cx: &Cx, from: u64) -> Result<Vec<u8>> {
    cx.user(|u| u.path(from))
}

/// Walks on behalf of the program, relative paths starting at `dirfd`.
#[inline]
fn walk<R>(cx: &Cx, dirfd: u64, path: &[u8], f: impl FnOnce(&Walk<'_>) -> Result<R>) -> Result<R> {
    walk_as(cx, &cx.caller(), dirfd, path, f)
}

fn walk_as<R>(cx: &Cx, caller: &Caller, dirfd: u64, path: &[u8], f: impl FnOnce(&Walk<'_>) -> Result<R>) -> Result<R> {
    let root = cx.task().fs().root()?;
    let start = if path.first() == Some(&b'/') { root.clone() } else { at(cx, dirfd)? };
    f(&Walk { vfs: cx.kernel().vfs(), caller, root, start, wait: cx })
}

/// The place that `path` names from `dirfd`; with `empty`, an empty path names what `dirfd` is.
fn find(cx: &Cx, dirfd: u64, path: &[u8], follow: Follow, empty: bool) -> Result<Place> {
    if path.is_empty() && empty {
        return at(cx, dirfd);
    }
    walk(cx, dirfd, path, |w| w.find(path, follow))
}

/// The value of a try that is only slow if a peer must be asked. A signal restarts the call.
#[inline]
fn settle<T>(cx: &Cx, tried: TryResult<T>) -> Result<T> {
    match tried {
        Ok(base::Try::Done(value)) => Ok(value),
        Err(e) => Err(restart(cx, e)),
        tried => cx.settle(tried, Interrupted::Restart),
    }
}

/// An object said `EINTR` (a background process at its terminal): the call starts again after the signal.
fn restart(cx: &Cx, e: Error) -> Error {
    if e == Errno::EINTR {
        cx.set_restart(Restart::IfAllowed);
    }
    e
}

/// RLIMIT_NOFILE.
fn fd_limit(cx: &Cx) -> u64 {
    cx.process().limits(|l| l.soft(Resource::Files))
}

/// Opens a descriptor for `file`.
fn install(cx: &Cx, file: Arc<dyn OpenFile>, close_on_exec: bool) -> Result<u64> {
    cx.task().files().open(file, close_on_exec, 0, fd_limit(cx)).map(u64::from)
}

fn invalid(why: &'static str) -> Error {
    Error::new(Errno::EINVAL, why)
}
