//! Unix sockets.

use crate::sys;
use crate::sys::{Do, child, close, get, good, on, ready, write};
use crate::{cases, check, refused, same};

fn pair(kind: i32) -> sys::Sys<(i32, i32)> {
    let mut fds = [0i32; 2];
    sys!(SYS_socketpair, libc::AF_UNIX, kind, 0, fds.as_mut_ptr())?;
    Ok((fds[0], fds[1]))
}

/// A `sockaddr_un` for this path; a leading zero byte names it without a file.
fn address(path: &[u8]) -> (libc::sockaddr_un, u32) {
    // SAFETY: all zeroes is a valid struct of numbers.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (to, byte) in address.sun_path.iter_mut().zip(path) {
        *to = *byte as libc::c_char;
    }
    let end = if path.first() == Some(&0) { 2 } else { 3 };
    (address, (path.len() + end) as u32)
}

cases! {
    fn socketpair_both_ways [socketpair, read, write] {
        let (a, b) = pair(libc::SOCK_STREAM)?;
        write(a, b"to b")?;
        write(b, b"to a")?;
        same!((get(a, 10)?, get(b, 10)?), (b"to a".to_vec(), b"to b".to_vec()));
        close(a)?;
        same!(get(b, 10)?, b"");
        on(libc::SIGPIPE, Do::Ignore, 0)?;
        refused!(write(b, b"x"), EPIPE);
        Ok(())
    }

    fn socketpair_datagrams_keep_their_bounds [socketpair, recvfrom] {
        for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
            let (a, b) = pair(kind)?;
            write(a, b"one")?;
            write(a, b"three")?;
            same!((get(b, 10)?, get(b, 2)?), (b"one".to_vec(), b"th".to_vec()));
            refused!(sys!(SYS_recvfrom, b, 0usize, 0usize, libc::MSG_DONTWAIT, 0usize, 0usize), EAGAIN);
        }
        Ok(())
    }

    fn socket_shutdown_halves [shutdown] {
        let (a, b) = pair(libc::SOCK_STREAM)?;
        sys!(SYS_shutdown, a, libc::SHUT_WR)?;
        same!(get(b, 1)?, b"");
        write(b, b"still")?;
        same!(get(a, 10)?, b"still");
        on(libc::SIGPIPE, Do::Ignore, 0)?;
        refused!(write(a, b"x"), EPIPE);
        check!(ready(b, libc::POLLIN | libc::POLLRDHUP, 0)? & libc::POLLRDHUP != 0);
        Ok(())
    }

    fn socket_listen_and_connect [socket, bind, listen, accept4, connect] {
        let server = sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)? as i32;
        let (name, length) = address(b"sock");
        sys!(SYS_bind, server, &raw const name, length)?;
        let early = sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)? as i32;
        refused!(sys!(SYS_connect, early, &raw const name, length), ECONNREFUSED);
        sys!(SYS_listen, server, 5)?;
        same!(sys::stat("sock")?.st_mode & libc::S_IFMT, libc::S_IFSOCK);
        let pid = child(|| {
            let client = sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)? as i32;
            sys!(SYS_connect, client, &raw const name, length)?;
            write(client, b"hello")?;
            same!(get(client, 10)?, b"welcome");
            Ok(())
        })?;
        let peer = sys!(SYS_accept4, server, 0usize, 0usize, libc::SOCK_CLOEXEC)? as i32;
        same!(get(peer, 10)?, b"hello");
        write(peer, b"welcome")?;
        good(pid)?;
        refused!(sys!(SYS_bind, early, &raw const name, length), EADDRINUSE);
        Ok(())
    }

    fn socket_abstract_names [bind, connect] {
        let server = sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)? as i32;
        let (name, length) = address(format!("\0abi-{}", sys::pid()).as_bytes());
        sys!(SYS_bind, server, &raw const name, length)?;
        sys!(SYS_listen, server, 1)?;
        let client = sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)? as i32;
        sys!(SYS_connect, client, &raw const name, length)?;
        close(server)?;
        let late = sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)? as i32;
        refused!(sys!(SYS_connect, late, &raw const name, length), ECONNREFUSED);
        Ok(())
    }

    fn socket_passes_descriptors [sendmsg, recvmsg] {
        let (a, b) = pair(libc::SOCK_STREAM)?;
        let fd = sys::file("f", b"passed")?;
        let mut byte = *b"x";
        let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let mut control = [0u64; 3];
        // cmsghdr: length 20, SOL_SOCKET, SCM_RIGHTS, then the descriptor.
        control[0] = 20;
        control[1] = libc::SOL_SOCKET as u64 | (libc::SCM_RIGHTS as u64) << 32;
        control[2] = fd as u64;
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = 24;
        sys!(SYS_sendmsg, a, &raw const message, 0)?;
        control = [0; 3];
        message.msg_controllen = 24;
        sys!(SYS_recvmsg, b, &raw mut message, 0)?;
        let received = control[2] as i32;
        check!(received != fd && received > 0);
        same!(get(received, 10)?, b"passed");
        Ok(())
    }

    fn socket_peer_is_known [getsockopt] {
        let (a, _b) = pair(libc::SOCK_STREAM)?;
        let (mut peer, mut length) = ([0i32; 3], 12u32);
        sys!(SYS_getsockopt, a, libc::SOL_SOCKET, libc::SO_PEERCRED, peer.as_mut_ptr(), &raw mut length)?;
        same!((peer[0], peer[1]), (sys::pid(), sys!(SYS_getuid)? as i32));
        Ok(())
    }

    fn socket_checks [socket, socketpair, sendto] {
        refused!(sys!(SYS_socket, 999, libc::SOCK_STREAM, 0), EAFNOSUPPORT);
        refused!(sys!(SYS_socket, libc::AF_UNIX, 99, 0), EINVAL);
        let (reader, _writer) = sys::pipe()?;
        refused!(sys!(SYS_sendto, reader, b"x".as_ptr(), 1usize, 0, 0usize, 0), ENOTSOCK);
        refused!(sys!(SYS_listen, reader, 1), ENOTSOCK);
        let alone = sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)? as i32;
        refused!(sys!(SYS_sendto, alone, b"x".as_ptr(), 1usize, libc::MSG_NOSIGNAL, 0usize, 0), ENOTCONN);
        Ok(())
    }

    fn socket_large_transfer [read, write] {
        let (a, b) = pair(libc::SOCK_STREAM)?;
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n * 13 + n / 77) as u8).collect();
        let pid = child(|| {
            close(b)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                rest = rest.get(write(a, rest)?..).unwrap_or_default();
            }
            Ok(())
        })?;
        close(a)?;
        check!(sys::get_all(b, 2_000_000)? == bytes);
        good(pid)
    }
}
