//! open(2) and its family.

use base::{Errno, Error, Result};
use linux_abi::flags::OpenFlags as Abi;
use task::Cx;
use vfs::{OpenFlags, Status};
use zerocopy::FromBytes;

use super::{AT_FDCWD, install, invalid, path, walk};

/// Flags of a program as kernel flags.
pub(super) fn decode(cx: &Cx, bits: u64) -> (OpenFlags, Status, bool) {
    let abi = Abi::from_program(cx.task().isa, bits as u32);
    if abi.contains(Abi::PATH) {
        let mut flags = OpenFlags::PATH;
        flags.set(OpenFlags::DIRECTORY, abi.contains(Abi::DIRECTORY));
        flags.set(OpenFlags::NO_FOLLOW, abi.contains(Abi::NOFOLLOW));
        return (flags, Status::empty(), abi.contains(Abi::CLOEXEC));
    }
    let mut flags = OpenFlags::LARGE;
    flags.set(OpenFlags::READ, abi.readable());
    flags.set(OpenFlags::WRITE, abi.writable());
    flags.set(OpenFlags::CREATE, abi.contains(Abi::CREAT));
    flags.set(OpenFlags::EXCLUSIVE, abi.contains(Abi::EXCL));
    flags.set(OpenFlags::NO_CTTY, abi.contains(Abi::NOCTTY));
    flags.set(OpenFlags::TRUNCATE, abi.contains(Abi::TRUNC));
    flags.set(OpenFlags::TMPFILE, abi.contains(Abi::TMPFILE));
    flags.set(OpenFlags::DIRECTORY, abi.contains(Abi::DIRECTORY) && !abi.contains(Abi::TMPFILE));
    flags.set(OpenFlags::NO_FOLLOW, abi.contains(Abi::NOFOLLOW));
    (flags, status(abi), abi.contains(Abi::CLOEXEC))
}

/// The flags that `F_SETFL` can change.
pub(super) fn status(abi: Abi) -> Status {
    let mut status = Status::empty();
    status.set(Status::APPEND, abi.contains(Abi::APPEND));
    status.set(Status::NONBLOCK, abi.contains(Abi::NONBLOCK));
    status.set(Status::ASYNC, abi.contains(Abi::ASYNC));
    status.set(Status::DIRECT, abi.contains(Abi::DIRECT));
    status.set(Status::NO_ATIME, abi.contains(Abi::NOATIME));
    status.set(Status::SYNC, abi.contains(Abi::DSYNC));
    status
}

/// `F_GETFL`.
pub(super) fn encode(cx: &Cx, flags: OpenFlags, status: Status) -> u64 {
    let mut abi = match (flags.contains(OpenFlags::READ), flags.contains(OpenFlags::WRITE)) {
        (true, true) => Abi::RDWR,
        (false, true) => Abi::WRONLY,
        _ => Abi::empty(),
    };
    abi.set(Abi::APPEND, status.contains(Status::APPEND));
    abi.set(Abi::NONBLOCK, status.contains(Status::NONBLOCK));
    abi.set(Abi::ASYNC, status.contains(Status::ASYNC));
    abi.set(Abi::DIRECT, status.contains(Status::DIRECT));
    abi.set(Abi::NOATIME, status.contains(Status::NO_ATIME));
    abi.set(Abi::DSYNC, status.contains(Status::SYNC));
    abi.set(Abi::PATH, flags.contains(OpenFlags::PATH));
    abi.set(Abi::LARGEFILE, flags.contains(OpenFlags::LARGE));
    u64::from(abi.to_program(cx.task().isa))
}

fn do_open(cx: &Cx, dirfd: u64, name: u64, flags: u64, mode: u64) -> Result<u64> {
    let (flags, status, close_on_exec) = decode(cx, flags);
    let path = path(cx, name)?;
    let file = walk(cx, dirfd, &path, |w| w.open(&path, flags, status, (mode & 0o7777) as u32))?;
    install(cx, file, close_on_exec)
}

/// open(2).
pub fn open(cx: &Cx, [name, flags, mode, ..]: [u64; 6]) -> Result<u64> {
    do_open(cx, AT_FDCWD as u64, name, flags, mode)
}

/// creat(2).
pub fn creat(cx: &Cx, [name, mode, ..]: [u64; 6]) -> Result<u64> {
    let flags = Abi::CREAT | Abi::WRONLY | Abi::TRUNC;
    do_open(cx, AT_FDCWD as u64, name, u64::from(flags.to_program(cx.task().isa)), mode)
}

/// openat(2).
pub fn openat(cx: &Cx, [dirfd, name, flags, mode, ..]: [u64; 6]) -> Result<u64> {
    do_open(cx, dirfd, name, flags, mode)
}

/// `struct open_how`.
#[derive(FromBytes, zerocopy::IntoBytes, Clone, Copy)]
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2), without `RESOLVE_*`.
pub fn openat2(cx: &Cx, [dirfd, name, how, size, ..]: [u64; 6]) -> Result<u64> {
    const SIZE: u64 = size_of::<OpenHow>() as u64;
    if size < SIZE {
        return Err(invalid("open_how is too small"));
    }
    if size > SIZE {
        // What a newer program says and this kernel does not know must be nothing.
        let rest = size.min(4096) - SIZE;
        let mut tail = alloc::vec![0_u8; rest as usize];
        cx.user(|u| u.read(how + SIZE, &mut tail))?;
        if size > 4096 || tail.iter().any(|b| *b != 0) {
            return Err(Error::new(Errno::E2BIG, "open_how is of a later Linux"));
        }
    }
    let how: OpenHow = cx.user(|u| u.read_struct(how))?;
    let abi = Abi::from_program(cx.task().isa, how.flags as u32);
    let known = Abi::all().bits();
    if how.flags >> 32 != 0 || abi.bits() & !known != 0 || how.mode & !0o7777 != 0 {
        return Err(invalid("unknown flags"));
    }
    if how.mode != 0 && !abi.contains(Abi::CREAT) && !abi.contains(Abi::TMPFILE) {
        return Err(invalid("a mode without O_CREAT"));
    }
    if how.resolve & !0x3f != 0 {
        return Err(invalid("unknown RESOLVE_* flags"));
    }
    if how.resolve != 0 {
        return Err(Error::new(Errno::ENOSYS, "RESOLVE_* is not here yet"));
    }
    do_open(cx, dirfd, name, how.flags, how.mode)
}
