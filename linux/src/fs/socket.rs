//! Local sockets: socket(2), bind(2), connect(2), sendmsg(2) and the rest; unix(7).

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, Ready, Result};
use hal::usermode::Access as UserAccess;
use linux_abi::flags::OpenFlags as Abi;
use mm::UserRange;
use task::{Cx, Interrupted, Timeout};
use vfs::{
    Follow, NewNode, OpenFile, Status,
    socket::{Address as Target, Socket, behind as socket_of},
    unix::{Attached, Kind, Name, Received, UnixSocket},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{AT_FDCWD, file, install, invalid, open, rw, settle, walk};

const AF_UNSPEC: u16 = 0;
const AF_UNIX: u16 = 1;
/// The type without `SOCK_CLOEXEC` and `SOCK_NONBLOCK`, which are `O_CLOEXEC` and `O_NONBLOCK`.
const SOCK_TYPE: u64 = 0xf;

const MSG_PEEK: u64 = 2;
const MSG_CTRUNC: u32 = 8;
const MSG_TRUNC: u64 = 0x20;
const MSG_DONTWAIT: u64 = 0x40;
const MSG_EOR: u64 = 0x80;
const MSG_WAITALL: u64 = 0x100;
const MSG_NOSIGNAL: u64 = 0x4000;
const MSG_CMSG_CLOEXEC: u64 = 0x4000_0000;

const SOL_SOCKET: u32 = 1;
const SCM_RIGHTS: u32 = 1;
/// The most descriptors in one message (`SCM_MAX_FD`).
const MAX_FILES: usize = 253;

fn kind(kind: u64) -> Result<Kind> {
    match kind & SOCK_TYPE {
        1 => Ok(Kind::Stream),
        2 => Ok(Kind::Datagram),
        5 => Ok(Kind::Packets),
        _ => Err(Error::new(Errno::ESOCKTNOSUPPORT, "no such type of socket")),
    }
}

/// Checks what socket and socketpair have in common.
fn checked(cx: &Cx, family: u64, type_: u64, protocol: u64) -> Result<(Kind, Abi)> {
    if family != u64::from(AF_UNIX) {
        return Err(Error::new(Errno::EAFNOSUPPORT, "only local sockets"));
    }
    if protocol != 0 && protocol != u64::from(AF_UNIX) {
        return Err(Error::new(Errno::EPROTONOSUPPORT, "local sockets have one protocol"));
    }
    let flags = Abi::from_program(cx.task().isa, (type_ & !SOCK_TYPE) as u32);
    if !(Abi::CLOEXEC | Abi::NONBLOCK).contains(flags) {
        return Err(invalid("unknown flags"));
    }
    Ok((kind(type_)?, flags))
}

/// socket(2).
pub fn socket(cx: &Cx, [family, type_, protocol, ..]: [u64; 6]) -> Result<u64> {
    let (kind, flags) = checked(cx, family, type_, protocol)?;
    let file = UnixSocket::open(cx.kernel().vfs(), &cx.caller(), kind, open::status(flags));
    install(cx, file, flags.contains(Abi::CLOEXEC))
}

/// socketpair(2).
pub fn socketpair(cx: &Cx, [family, type_, protocol, at, ..]: [u64; 6]) -> Result<u64> {
    let (kind, flags) = checked(cx, family, type_, protocol)?;
    let close_on_exec = flags.contains(Abi::CLOEXEC);
    let [a, b] = UnixSocket::pair(cx.kernel().vfs(), &cx.caller(), kind, open::status(flags));
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

fn behind(cx: &Cx, fd: u64) -> Result<(Arc<dyn OpenFile>, Arc<dyn Socket>)> {
    let file = file(cx, fd)?;
    let socket = socket_of(&*file)?;
    Ok((file, socket))
}

/// An address as a program gives it.
enum Address {
    /// `AF_UNSPEC`.
    None,
    /// Without a name: bind(2) chooses one.
    Unnamed,
    Named(Name),
}

fn address(cx: &Cx, at: u64, len: u64) -> Result<Address> {
    let len = usize::try_from(len as i32).ok().filter(|n| (2..=110).contains(n)).ok_or(invalid("bad length"))?;
    let mut bytes = alloc::vec![0; len];
    cx.user(|u| u.read(at, &mut bytes))?;
    let (family, path) = bytes.split_first_chunk::<2>().ok_or(invalid("too short"))?;
    match u16::from_le_bytes(*family) {
        AF_UNIX => {}
        AF_UNSPEC => return Ok(Address::None),
        _ => return Err(invalid("not a local address")),
    }
    Ok(match path.split_first() {
        None => Address::Unnamed,
        Some((0, name)) => Address::Named(Name::Abstract(name.into())),
        Some(_) => {
            let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
            Address::Named(Name::Path(path.get(..end).unwrap_or(path).into()))
        }
    })
}

fn encode(name: Option<&Name>) -> Vec<u8> {
    let mut bytes = AF_UNIX.to_le_bytes().to_vec();
    match name {
        None => {}
        Some(Name::Abstract(name)) => {
            bytes.push(0);
            bytes.extend_from_slice(name);
        }
        Some(Name::Path(path)) => {
            bytes.extend_from_slice(path);
            bytes.push(0);
        }
    }
    bytes
}

/// Writes an address where a program wants it: as much as fits, and its whole length.
fn put_address(cx: &Cx, name: Option<&Name>, at: u64, len_at: u64) -> Result<()> {
    if at == 0 {
        return Ok(());
    }
    let room: i32 = cx.user(|u| u.read_struct(len_at))?;
    let room = usize::try_from(room).map_err(|_| invalid("negative length"))?;
    let bytes = encode(name);
    cx.user(|u| u.write(at, bytes.get(..room.min(bytes.len())).unwrap_or(&bytes)))?;
    cx.user(|u| u.write_struct(len_at, &(bytes.len() as u32)))
}

/// What this name stands for.
fn lookup(cx: &Cx, name: &Name) -> Result<Arc<dyn Target>> {
    match name {
        Name::Abstract(name) => settle(cx, UnixSocket::find_abstract(cx.kernel().vfs(), name)),
        Name::Path(path) => walk(cx, AT_FDCWD as u64, path, |w| {
            let place = w.find(path, Follow::Yes)?;
            w.wait.finish(place.inode().socket_address(w.caller))
        }),
    }
}

/// bind(2).
pub fn bind(cx: &Cx, [fd, at, len, ..]: [u64; 6]) -> Result<u64> {
    let (_, socket) = behind(cx, fd)?;
    if settle(cx, socket.facts())?.name.is_some() {
        return Err(invalid("bound already"));
    }
    match address(cx, at, len)? {
        Address::None => return Err(invalid("no address")),
        Address::Unnamed => loop {
            match settle(cx, socket.bind_abstract(None)) {
                Err(e) if e == Errno::EADDRINUSE => {}
                ended => break ended?,
            }
        },
        Address::Named(Name::Abstract(name)) => settle(cx, socket.bind_abstract(Some(name)))?,
        Address::Named(Name::Path(path)) => {
            let target = settle(cx, socket.address())?;
            let taken = |e: Error| if e == Errno::EEXIST { Errno::EADDRINUSE.into() } else { e };
            walk(cx, AT_FDCWD as u64, &path, |w| {
                let place = w.create(&path, NewNode::Socket, 0o777).map_err(taken)?;
                w.wait.finish(place.inode().bind_socket(w.caller, &target))
            })?;
            settle(cx, socket.bound(path))?;
        }
    }
    Ok(0)
}

/// listen(2).
pub fn listen(cx: &Cx, [fd, backlog, ..]: [u64; 6]) -> Result<u64> {
    let (_, socket) = behind(cx, fd)?;
    settle(cx, socket.listen(usize::try_from(backlog as i32).unwrap_or(4096))).map(|()| 0)
}

fn timeout(file: &Arc<dyn OpenFile>, flags: u64) -> Timeout {
    let now = flags & MSG_DONTWAIT != 0 || file.status().contains(Status::NONBLOCK);
    if now { Timeout::Now } else { Timeout::Never }
}

/// connect(2).
pub fn connect(cx: &Cx, [fd, at, len, ..]: [u64; 6]) -> Result<u64> {
    let (file, socket) = behind(cx, fd)?;
    let name = match address(cx, at, len)? {
        Address::None if socket.kind() == Kind::Datagram => {
            return settle(cx, socket.disconnect()).map(|()| 0);
        }
        Address::Named(name) => name,
        _ => return Err(invalid("no address")),
    };
    let target = lookup(cx, &name)?;
    let caller = cx.caller();
    let wait = |waker| Ok(target.subscribe(Ready::OUT, waker));
    cx.block_on(|| socket.connect(&caller, &target), wait, timeout(&file, 0), Interrupted::Restart)?;
    Ok(0)
}

/// accept4(2).
pub fn accept4(cx: &Cx, [fd, at, len_at, flags, ..]: [u64; 6]) -> Result<u64> {
    let flags = Abi::from_program(cx.task().isa, flags as u32);
    if !(Abi::CLOEXEC | Abi::NONBLOCK).contains(flags) {
        return Err(invalid("unknown flags"));
    }
    let (file, socket) = behind(cx, fd)?;
    let wait = |waker| Ok(file.subscribe(Ready::IN, waker));
    let new = cx.block_on(|| socket.accept(), wait, timeout(&file, 0), Interrupted::Restart)?;
    settle(cx, new.set_status(open::status(flags)))?;
    let peer = match at {
        0 => None,
        _ => settle(cx, socket_of(&*new)?.facts())?.peer_name.flatten(),
    };
    put_address(cx, peer.as_ref(), at, len_at)?;
    install(cx, new, flags.contains(Abi::CLOEXEC))
}

/// accept(2).
pub fn accept(cx: &Cx, [fd, at, len_at, ..]: [u64; 6]) -> Result<u64> {
    accept4(cx, [fd, at, len_at, 0, 0, 0])
}

/// getsockname(2).
pub fn getsockname(cx: &Cx, [fd, at, len_at, ..]: [u64; 6]) -> Result<u64> {
    let (_, socket) = behind(cx, fd)?;
    put_address(cx, settle(cx, socket.facts())?.name.as_ref(), at, len_at).map(|()| 0)
}

/// getpeername(2).
pub fn getpeername(cx: &Cx, [fd, at, len_at, ..]: [u64; 6]) -> Result<u64> {
    let (_, socket) = behind(cx, fd)?;
    let name = settle(cx, socket.facts())?.peer_name.ok_or(Error::new(Errno::ENOTCONN, "not connected"))?;
    put_address(cx, name.as_ref(), at, len_at).map(|()| 0)
}

/// shutdown(2).
pub fn shutdown(cx: &Cx, [fd, how, ..]: [u64; 6]) -> Result<u64> {
    let (_, socket) = behind(cx, fd)?;
    if how > 2 {
        return Err(invalid("no such direction"));
    }
    settle(cx, socket.shut_down(how != 1, how != 0)).map(|()| 0)
}

/// Sends all of `range`; a stream that may wait takes it in pieces.
fn send(
    cx: &Cx,
    file: &Arc<dyn OpenFile>,
    socket: &Arc<dyn Socket>,
    range: &mut UserRange,
    mut attached: Attached,
    to: Option<&Arc<dyn Target>>,
    flags: u64,
) -> Result<u64> {
    if flags & !(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_EOR) != 0 {
        return Err(Error::new(Errno::EOPNOTSUPP, "unknown flags"));
    }
    let stream = socket.kind() == Kind::Stream;
    let mut moved: u64 = 0;
    loop {
        let wait = |waker| Ok(socket.send_room(to, waker));
        // A peer's socket takes bytes before it is known whether there is room for them.
        let mark = range.mark();
        let attempt = || {
            range.rewind(mark);
            socket.send(range, &mut attached, to)
        };
        let n = match cx.block_on(attempt, wait, timeout(file, flags), Interrupted::Restart) {
            Ok(n) => n,
            Err(e) => {
                if flags & MSG_NOSIGNAL == 0 {
                    rw::tell(cx, e);
                }
                return if moved > 0 { Ok(moved) } else { Err(e) };
            }
        };
        range.used(mark, n);
        moved += n as u64;
        if n > 0 {
            // They have gone with the message.
            attached.files.clear();
        }
        match cx.user(|u| range.resolve(u, UserAccess::Read)) {
            Ok(true) => {}
            Ok(false) if !stream || n == 0 || range.remaining() == 0 => return Ok(moved),
            Ok(false) => {}
            Err(_) if moved > 0 => return Ok(moved),
            Err(e) => return Err(e),
        }
    }
}

/// Receives into `range`.
fn receive(
    cx: &Cx,
    file: &Arc<dyn OpenFile>,
    socket: &Arc<dyn Socket>,
    range: &mut UserRange,
    flags: u64,
) -> Result<Received> {
    const KNOWN: u64 = MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL | MSG_CMSG_CLOEXEC;
    if flags & !KNOWN != 0 {
        return Err(Error::new(Errno::EOPNOTSUPP, "unknown flags"));
    }
    let peek = flags & MSG_PEEK != 0;
    let all = flags & MSG_WAITALL != 0 && socket.kind() == Kind::Stream && !peek;
    let mut total = Received::default();
    loop {
        let wait = |waker| Ok(file.subscribe(Ready::IN, waker));
        let some = total.bytes > 0 && !all;
        let timeout = if some { Timeout::Now } else { timeout(file, flags) };
        let got = match cx.block_on(|| socket.receive(range, peek), wait, timeout, Interrupted::Restart) {
            Ok(got) => got,
            Err(_) if total.bytes > 0 => return Ok(total),
            Err(e) => return Err(e),
        };
        if !got.data.is_empty() {
            rw::deliver(cx, range, &got.data)?;
        }
        let n = got.bytes;
        let first = total.bytes == 0 && total.attached.files.is_empty();
        let more = total.bytes + n;
        if first {
            total = got;
        }
        total.bytes = more;
        total.length = total.length.max(more);
        match cx.user(|u| range.resolve(u, UserAccess::Write)) {
            Ok(true) if !peek || n == 0 => {}
            Ok(false) if all && n > 0 && range.remaining() > 0 => {}
            Ok(_) => return Ok(total),
            Err(_) if total.bytes > 0 => return Ok(total),
            Err(e) => return Err(e),
        }
    }
}

/// sendto(2), send(2).
pub fn sendto(cx: &Cx, [fd, buf, len, flags, at, at_len]: [u64; 6]) -> Result<u64> {
    let (file, socket) = behind(cx, fd)?;
    let to = match at {
        0 => None,
        at => match address(cx, at, at_len)? {
            Address::Named(name) => Some(lookup(cx, &name)?),
            _ => return Err(invalid("no address")),
        },
    };
    let mut range = UserRange::new(buf, len as usize)?;
    send(cx, &file, &socket, &mut range, Attached::of(&cx.caller()), to.as_ref(), flags)
}

fn count(received: &Received, flags: u64) -> u64 {
    if flags & MSG_TRUNC != 0 { received.length as u64 } else { received.bytes as u64 }
}

/// recvfrom(2), recv(2).
pub fn recvfrom(cx: &Cx, [fd, buf, len, flags, at, len_at]: [u64; 6]) -> Result<u64> {
    let (file, socket) = behind(cx, fd)?;
    let mut range = UserRange::new(buf, len as usize)?;
    let received = receive(cx, &file, &socket, &mut range, flags)?;
    put_address(cx, received.name.as_ref(), at, len_at)?;
    Ok(count(&received, flags))
}

/// `struct msghdr`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MsgHdr {
    name: u64,
    name_len: u32,
    pad: u32,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: u32,
    pad2: u32,
}

/// `struct cmsghdr`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct CmsgHdr {
    len: u64,
    level: u32,
    kind: u32,
}

const CMSG: usize = size_of::<CmsgHdr>();

/// Reads what goes with a message: descriptors.
fn attached(cx: &Cx, header: &MsgHdr) -> Result<Attached> {
    let mut attached = Attached::of(&cx.caller());
    if header.control == 0 || header.control_len == 0 {
        return Ok(attached);
    }
    let len = usize::try_from(header.control_len).ok().filter(|n| *n <= 20480).ok_or(Errno::ENOBUFS)?;
    let mut bytes = alloc::vec![0; len];
    cx.user(|u| u.read(header.control, &mut bytes))?;
    let mut rest = bytes.as_slice();
    while let Ok((part, _)) = CmsgHdr::read_from_prefix(rest) {
        let size = usize::try_from(part.len).ok().filter(|n| (CMSG..=rest.len()).contains(n));
        let size = size.ok_or(invalid("bad control message"))?;
        let data = rest.get(CMSG..size).unwrap_or_default();
        match (part.level, part.kind) {
            (SOL_SOCKET, SCM_RIGHTS) => {
                for fd in data.as_chunks::<4>().0 {
                    attached.files.push(file(cx, u64::from(u32::from_le_bytes(*fd)))?);
                }
                if attached.files.len() > MAX_FILES {
                    return Err(invalid("too many descriptors"));
                }
            }
            // Whom it is from is known anyway; a program may say so if it is true.
            (SOL_SOCKET, 2) => {
                let own = [attached.from.pid, attached.from.uid, attached.from.gid];
                if data != own.as_bytes() && !cx.caller().can(vfs::caller::cap::SYS_ADMIN) {
                    return Err(Errno::EPERM.into());
                }
            }
            _ => return Err(invalid("unknown control message")),
        }
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(attached)
}

fn buffers(cx: &Cx, header: &MsgHdr) -> Result<UserRange> {
    let count = usize::try_from(header.iov_len).ok().filter(|n| *n <= 1024).ok_or(Errno::EMSGSIZE)?;
    cx.user(|u| u.iovecs(header.iov, count)).map(UserRange::list)
}

/// sendmsg(2).
pub fn sendmsg(cx: &Cx, [fd, at, flags, ..]: [u64; 6]) -> Result<u64> {
    let (file, socket) = behind(cx, fd)?;
    let header: MsgHdr = cx.user(|u| u.read_struct(at))?;
    let to = match header.name {
        0 => None,
        name => match address(cx, name, u64::from(header.name_len))? {
            Address::Named(name) => Some(lookup(cx, &name)?),
            _ => return Err(invalid("no address")),
        },
    };
    let attached = attached(cx, &header)?;
    let mut range = buffers(cx, &header)?;
    send(cx, &file, &socket, &mut range, attached, to.as_ref(), flags)
}

/// Gives the program the descriptors of a message; the bytes of the control message, and whether some were lost.
fn deliver(cx: &Cx, received: &Received, room: u64, close_on_exec: bool) -> (Vec<u8>, bool) {
    let fits = usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(CMSG) / 4;
    let mut fds: Vec<u8> = Vec::new();
    let mut lost = false;
    for (i, file) in received.attached.files.iter().enumerate() {
        match install(cx, file.clone(), close_on_exec) {
            Ok(fd) if i < fits => fds.extend_from_slice(&(fd as u32).to_le_bytes()),
            Ok(fd) => {
                lost = true;
                let _ = cx.task().files().close(fd);
            }
            Err(_) => lost = true,
        }
    }
    if fds.is_empty() {
        return (Vec::new(), lost);
    }
    let header = CmsgHdr { len: (CMSG + fds.len()) as u64, level: SOL_SOCKET, kind: SCM_RIGHTS };
    let mut bytes = header.as_bytes().to_vec();
    bytes.append(&mut fds);
    (bytes, lost)
}

/// recvmsg(2).
pub fn recvmsg(cx: &Cx, [fd, at, flags, ..]: [u64; 6]) -> Result<u64> {
    let (file, socket) = behind(cx, fd)?;
    let mut header: MsgHdr = cx.user(|u| u.read_struct(at))?;
    let mut range = buffers(cx, &header)?;
    let received = receive(cx, &file, &socket, &mut range, flags)?;
    header.flags = 0;
    if received.truncated {
        header.flags |= MSG_TRUNC as u32;
    }
    let (control, lost) = deliver(cx, &received, header.control_len, flags & MSG_CMSG_CLOEXEC != 0);
    if lost {
        header.flags |= MSG_CTRUNC;
    }
    cx.user(|u| u.write(header.control, &control))?;
    header.control_len = control.len() as u64;
    if header.name != 0 {
        let name = received.name.as_ref().map(|n| encode(Some(n))).unwrap_or_default();
        let n = name.len().min(header.name_len as usize);
        cx.user(|u| u.write(header.name, name.get(..n).unwrap_or(&name)))?;
        header.name_len = name.len() as u32;
    }
    cx.user(|u| u.write_struct(at, &header))?;
    Ok(count(&received, flags))
}

const SO_TYPE: u64 = 3;
const SO_ERROR: u64 = 4;
const SO_SNDBUF: u64 = 7;
const SO_RCVBUF: u64 = 8;
const SO_PEERCRED: u64 = 17;
const SO_ACCEPTCONN: u64 = 30;
const SO_PROTOCOL: u64 = 38;
const SO_DOMAIN: u64 = 39;

/// getsockopt(2).
pub fn getsockopt(cx: &Cx, [fd, level, option, at, len_at, _]: [u64; 6]) -> Result<u64> {
    let (_, socket) = behind(cx, fd)?;
    if level != u64::from(SOL_SOCKET) {
        return Err(Error::new(Errno::ENOPROTOOPT, "no such level"));
    }
    let int = |n: u32| n.to_le_bytes().to_vec();
    let value = match option {
        SO_TYPE => int(match socket.kind() {
            Kind::Stream => 1,
            Kind::Datagram => 2,
            Kind::Packets => 5,
        }),
        SO_ERROR => int(settle(cx, socket.take_error())?.map_or(0, |e| u32::from(e.number()))),
        SO_SNDBUF | SO_RCVBUF => int(212_992),
        SO_PEERCRED => {
            let peer = settle(cx, socket.facts())?.peer;
            [peer.pid, peer.uid, peer.gid].as_bytes().to_vec()
        }
        SO_ACCEPTCONN => int(u32::from(settle(cx, socket.facts())?.listening)),
        SO_PROTOCOL => int(0),
        SO_DOMAIN => int(u32::from(AF_UNIX)),
        _ => return Err(Error::new(Errno::ENOPROTOOPT, "no such option")),
    };
    let room: i32 = cx.user(|u| u.read_struct(len_at))?;
    let n = usize::try_from(room).map_err(|_| invalid("negative length"))?.min(value.len());
    cx.user(|u| u.write(at, value.get(..n).unwrap_or(&value)))?;
    cx.user(|u| u.write_struct(len_at, &(n as u32))).map(|()| 0)
}

/// setsockopt(2): sizes are fixed, so that setting them is refused rather than ignored.
pub fn setsockopt(cx: &Cx, [fd, ..]: [u64; 6]) -> Result<u64> {
    behind(cx, fd)?;
    Err(Error::new(Errno::ENOPROTOOPT, "no option can be changed"))
}
