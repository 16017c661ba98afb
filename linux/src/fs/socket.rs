//! Sockets that are a pair from the beginning: socketpair(2), and sending and receiving on them.

use base::{Errno, Error, Result};
use linux_abi::flags::OpenFlags as Abi;
use mm::UserRange;
use task::Cx;
use vfs::{
    LocalFile, OpenFile,
    pair::{End, Flow},
};

use super::{file, install, invalid, open, rw};

const AF_UNIX: u64 = 1;
const SOCK_STREAM: u64 = 1;
const SOCK_DGRAM: u64 = 2;
const SOCK_SEQPACKET: u64 = 5;
/// The type without `SOCK_CLOEXEC` and `SOCK_NONBLOCK`, which are `O_CLOEXEC` and `O_NONBLOCK`.
const SOCK_TYPE: u64 = 0xf;

const MSG_DONTWAIT: u64 = 0x40;
const MSG_NOSIGNAL: u64 = 0x4000;

/// socketpair(2).
pub fn socketpair(cx: &Cx, [family, kind, protocol, at, ..]: [u64; 6]) -> Result<u64> {
    if family != AF_UNIX {
        return Err(Error::new(Errno::EAFNOSUPPORT, "only local sockets come in pairs"));
    }
    let flow = match kind & SOCK_TYPE {
        SOCK_STREAM => Flow::Bytes,
        SOCK_DGRAM | SOCK_SEQPACKET => Flow::Packets,
        _ => return Err(Error::new(Errno::ESOCKTNOSUPPORT, "no such socket type")),
    };
    if protocol != 0 {
        return Err(Error::new(Errno::EPROTONOSUPPORT, "local sockets have one protocol"));
    }
    let flags = Abi::from_program(cx.task().isa, (kind & !SOCK_TYPE) as u32);
    if !(Abi::CLOEXEC | Abi::NONBLOCK).contains(flags) {
        return Err(invalid("unknown flags"));
    }
    let close_on_exec = flags.contains(Abi::CLOEXEC);
    let [a, b] = vfs::pair::pair(cx.kernel().vfs(), &cx.caller(), flow, open::status(flags))?;
    let a = install(cx, a, close_on_exec)?;
    let undo = |fd: u64| {
        let _ = cx.task().files().close(fd);
    };
    let b = install(cx, b, close_on_exec).inspect_err(|_| undo(a))?;
    cx.user(|u| u.write_struct(at, &[a as u32, b as u32])).inspect_err(|_| {
        undo(a);
        undo(b);
    })?;
    Ok(0)
}

/// Does something with the end of a pair that a descriptor stands for.
fn with_end<R>(file: &dyn OpenFile, f: impl FnOnce(&End) -> R) -> Result<R> {
    let local = file.as_any().downcast_ref::<LocalFile>();
    let end = local.and_then(|l| l.ops().as_any().downcast_ref::<End>());
    end.map(f).ok_or(Error::new(Errno::ENOTSOCK, "not a socket"))
}

/// recvfrom(2), recv(2).
pub fn recvfrom(cx: &Cx, [fd, buf, len, flags, _, address_len]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    with_end(&*file, |_| ())?;
    if flags & !MSG_DONTWAIT != 0 {
        return Err(Error::new(Errno::EOPNOTSUPP, "a flag of recv that is not supported"));
    }
    if address_len != 0 {
        // The ends of a pair have no names.
        cx.user(|u| u.write(address_len, &0u32.to_le_bytes()))?;
    }
    let mut range = UserRange::new(buf, len as usize)?;
    rw::fill(cx, &file, &mut range, None, flags & MSG_DONTWAIT != 0)
}

/// sendto(2), send(2).
pub fn sendto(cx: &Cx, [fd, buf, len, flags, address, _]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    with_end(&*file, |_| ())?;
    if address != 0 {
        return Err(Error::new(Errno::EISCONN, "the ends of a pair are connected"));
    }
    if flags & !(MSG_DONTWAIT | MSG_NOSIGNAL) != 0 {
        return Err(Error::new(Errno::EOPNOTSUPP, "a flag of send that is not supported"));
    }
    let mut range = UserRange::new(buf, len as usize)?;
    rw::send(cx, &file, &mut range, flags & MSG_DONTWAIT != 0, flags & MSG_NOSIGNAL != 0)
}

/// shutdown(2).
pub fn shutdown(cx: &Cx, [fd, how, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    if how > 2 {
        return Err(invalid("no such way"));
    }
    with_end(&*file, |end| end.shut_down(how != 1, how != 0))?;
    Ok(0)
}
