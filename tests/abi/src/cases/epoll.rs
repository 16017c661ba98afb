//! epoll.

use crate::sys;
use crate::sys::{Do, child, close, file, get, good, ms, on, pipe, pipe2, write};
use crate::{cases, check, refused, same};

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const HUP: u32 = libc::EPOLLHUP as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const ONCE: u32 = libc::EPOLLONESHOT as u32;

fn create() -> sys::Sys<i32> {
    Ok(sys!(SYS_epoll_create1, libc::EPOLL_CLOEXEC)? as i32)
}

fn control(epoll: i32, op: i32, fd: i32, events: u32) -> sys::Sys {
    let mut event = libc::epoll_event { events, u64: fd as u64 | 0xabcd << 32 };
    sys!(SYS_epoll_ctl, epoll, op, fd, &raw mut event)
}

fn add(epoll: i32, fd: i32, events: u32) -> sys::Sys {
    control(epoll, libc::EPOLL_CTL_ADD, fd, events)
}

/// The events, as (descriptor, bits), after at most `timeout` milliseconds.
fn wait(epoll: i32, timeout: i32) -> sys::Sys<Vec<(i32, u32)>> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
    let count = sys!(SYS_epoll_pwait, epoll, events.as_mut_ptr(), 8, timeout, 0usize, 8usize)? as usize;
    Ok(events.iter().take(count).map(|event| ({ event.u64 } as i32, event.events)).collect())
}

cases! {
    fn epoll_level [epoll_create1, epoll_ctl, epoll_pwait] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        add(epoll, reader, IN)?;
        same!(wait(epoll, 0)?, []);
        write(writer, b"ab")?;
        same!(wait(epoll, -1)?, [(reader, IN)]);
        same!(wait(epoll, -1)?, [(reader, IN)]);
        get(reader, 1)?;
        same!(wait(epoll, -1)?, [(reader, IN)]);
        get(reader, 1)?;
        same!(wait(epoll, 0)?, []);
        Ok(())
    }

    fn epoll_edge [epoll_pwait] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        add(epoll, reader, IN | EDGE)?;
        write(writer, b"ab")?;
        same!(wait(epoll, -1)?, [(reader, IN)]);
        same!(wait(epoll, 0)?, []);
        write(writer, b"c")?;
        same!(wait(epoll, -1)?, [(reader, IN)]);
        same!(wait(epoll, 0)?, []);
        Ok(())
    }

    fn epoll_oneshot [epoll_ctl, epoll_pwait] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        add(epoll, reader, IN | ONCE)?;
        write(writer, b"x")?;
        same!(wait(epoll, -1)?, [(reader, IN)]);
        write(writer, b"x")?;
        same!(wait(epoll, 0)?, []);
        control(epoll, libc::EPOLL_CTL_MOD, reader, IN | ONCE)?;
        same!(wait(epoll, -1)?, [(reader, IN)]);
        Ok(())
    }

    fn epoll_adding_what_is_ready [epoll_ctl] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        write(writer, b"x")?;
        add(epoll, reader, IN | EDGE)?;
        add(epoll, writer, OUT | EDGE)?;
        let mut events = wait(epoll, -1)?;
        events.sort_unstable();
        same!(events, [(reader, IN), (writer, OUT)]);
        same!(wait(epoll, 0)?, []);
        Ok(())
    }

    fn epoll_modify_looks_again [epoll_ctl] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        write(writer, b"x")?;
        add(epoll, reader, 0)?;
        same!(wait(epoll, 0)?, []);
        control(epoll, libc::EPOLL_CTL_MOD, reader, IN | EDGE)?;
        same!(wait(epoll, 0)?, [(reader, IN)]);
        control(epoll, libc::EPOLL_CTL_MOD, reader, IN | EDGE)?;
        same!(wait(epoll, 0)?, [(reader, IN)]);
        Ok(())
    }

    fn epoll_delete_and_close [epoll_ctl, close] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        add(epoll, reader, IN)?;
        write(writer, b"x")?;
        control(epoll, libc::EPOLL_CTL_DEL, reader, 0)?;
        same!(wait(epoll, 0)?, []);
        add(epoll, reader, IN)?;
        close(reader)?;
        same!(wait(epoll, 0)?, []);
        Ok(())
    }

    fn epoll_keeps_the_open_file_of_a_dup [epoll_ctl, dup, close] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        add(epoll, reader, IN)?;
        let other = sys!(SYS_dup, reader)? as i32;
        close(reader)?;
        write(writer, b"x")?;
        same!(wait(epoll, -1)?, [(reader, IN)]);
        close(other)?;
        same!(wait(epoll, 0)?, []);
        Ok(())
    }

    fn epoll_hang_up [epoll_pwait] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        add(epoll, reader, 0)?;
        close(writer)?;
        same!(wait(epoll, -1)?, [(reader, HUP)]);
        Ok(())
    }

    fn epoll_checks [epoll_ctl, epoll_create1, epoll_pwait] {
        let (epoll, (reader, _writer)) = (create()?, pipe()?);
        add(epoll, reader, IN)?;
        refused!(add(epoll, reader, IN), EEXIST);
        refused!(add(epoll, epoll, IN), EINVAL);
        refused!(add(reader, epoll, IN), EINVAL);
        refused!(add(epoll, 999, IN), EBADF);
        refused!(add(epoll, file("f", b"")?, IN), EPERM);
        refused!(control(epoll, libc::EPOLL_CTL_MOD, _writer, IN), ENOENT);
        refused!(control(epoll, 9, reader, IN), EINVAL);
        refused!(sys!(SYS_epoll_create1, 1), EINVAL);
        refused!(sys!(SYS_epoll_pwait, epoll, 0usize, 0, 0, 0usize, 8usize), EINVAL);
        refused!(wait(reader, 0), EINVAL);
        Ok(())
    }

    fn epoll_wakes_up [epoll_pwait] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        add(epoll, reader, IN | EDGE)?;
        let pid = child(|| {
            write(writer, b"x")?;
            Ok(())
        })?;
        same!(wait(epoll, -1)?, [(reader, IN)]);
        good(pid)
    }

    fn epoll_times_out [epoll_pwait, epoll_pwait2] {
        let epoll = create()?;
        let start = sys::clock(libc::CLOCK_MONOTONIC)?;
        same!(wait(epoll, 30)?, []);
        check!(sys::clock(libc::CLOCK_MONOTONIC)? - start >= 30_000_000);
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let time = ms(1);
        same!(sys!(SYS_epoll_pwait2, epoll, &raw mut event, 1, &raw const time, 0usize, 8usize)?, 0);
        Ok(())
    }

    fn epoll_nested [epoll_ctl, ppoll] {
        let (outer, inner, (reader, writer)) = (create()?, create()?, pipe()?);
        add(inner, reader, IN)?;
        add(outer, inner, IN)?;
        refused!(add(inner, outer, IN), ELOOP);
        same!(wait(outer, 0)?, []);
        write(writer, b"x")?;
        same!(wait(outer, -1)?, [(inner, IN)]);
        same!(sys::ready(inner, libc::POLLIN, 0)?, libc::POLLIN);
        get(reader, 1)?;
        same!(wait(outer, 0)?, []);
        Ok(())
    }

    fn epoll_is_interrupted [epoll_pwait] {
        on(libc::SIGALRM, Do::Count, libc::SA_RESTART)?;
        sys::pester(5)?;
        refused!(wait(create()?, -1), EINTR);
        Ok(())
    }

    fn epoll_many_is_fair [epoll_pwait] {
        let epoll = create()?;
        let pipes = (0..20).map(|_| pipe()).collect::<Result<Vec<_>, _>>()?;
        for (reader, writer) in &pipes {
            add(epoll, *reader, IN)?;
            write(*writer, b"x")?;
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..5 {
            seen.extend(wait(epoll, 0)?.into_iter().map(|(fd, _)| fd));
        }
        same!(seen.len(), 20);
        Ok(())
    }

    fn epoll_writable_again [epoll_pwait] {
        let (epoll, (reader, writer)) = (create()?, pipe2(libc::O_NONBLOCK)?);
        while write(writer, &[0; 4096]).is_ok() {}
        add(epoll, writer, OUT | EDGE)?;
        same!(wait(epoll, 0)?, []);
        while get(reader, 4096).is_ok() {}
        same!(wait(epoll, -1)?, [(writer, OUT)]);
        Ok(())
    }

    fn epoll_shared_over_fork [epoll_pwait, clone] {
        let (epoll, (reader, writer)) = (create()?, pipe()?);
        add(epoll, reader, IN)?;
        let pid = child(|| {
            same!(wait(epoll, -1)?, [(reader, IN)]);
            Ok(())
        })?;
        write(writer, b"x")?;
        good(pid)
    }
}
