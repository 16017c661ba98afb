//! Calls that make descriptors out of nothing: pipe2(2), memfd_create(2).

use base::{Errno, Error, Result};
use linux_abi::flags::OpenFlags as Abi;
use mm::Seals;
use task::Cx;
use vfs::pipe::Pipe;

use super::{install, invalid, open};

fn do_pipe(cx: &Cx, at: u64, flags: Abi) -> Result<u64> {
    if !(Abi::CLOEXEC | Abi::NONBLOCK | Abi::DIRECT).contains(flags) {
        return Err(invalid("unknown flags"));
    }
    if flags.contains(Abi::DIRECT) {
        return Err(invalid("no packet pipes"));
    }
    let close_on_exec = flags.contains(Abi::CLOEXEC);
    let (reader, writer) = Pipe::pair(cx.kernel().vfs(), &cx.caller(), open::status(flags));
    let r = install(cx, reader, close_on_exec)?;
    let undo = |fd: u64| {
        let _ = cx.task().files().close(fd);
    };
    let w = install(cx, writer, close_on_exec).inspect_err(|_| undo(r))?;
    cx.user(|u| u.write_struct(at, &[r as u32, w as u32])).inspect_err(|_| {
        undo(r);
        undo(w);
    })?;
    Ok(0)
}

/// pipe(2).
pub fn pipe(cx: &Cx, [at, ..]: [u64; 6]) -> Result<u64> {
    do_pipe(cx, at, Abi::empty())
}

/// pipe2(2).
pub fn pipe2(cx: &Cx, [at, flags, ..]: [u64; 6]) -> Result<u64> {
    do_pipe(cx, at, Abi::from_program(cx.task().isa, flags as u32))
}

/// memfd_create(2).
pub fn memfd_create(cx: &Cx, [name, flags, ..]: [u64; 6]) -> Result<u64> {
    const CLOEXEC: u64 = 1;
    const ALLOW_SEALING: u64 = 2;
    const NOEXEC_SEAL: u64 = 8;
    const EXEC: u64 = 16;
    if flags & !(CLOEXEC | ALLOW_SEALING | NOEXEC_SEAL | EXEC) != 0 || flags & (NOEXEC_SEAL | EXEC) == 24 {
        return Err(invalid("unknown flags"));
    }
    let name = cx.user(|u| u.string(name, 250))?.ok_or(Error::new(Errno::EINVAL, "name too long"))?;
    let seals = if flags & ALLOW_SEALING != 0 { Seals::empty() } else { Seals::SEAL };
    let file = vfs::tmpfs::memfd(cx.kernel().vfs(), &cx.caller(), &name, seals)?;
    install(cx, file, flags & CLOEXEC != 0)
}
