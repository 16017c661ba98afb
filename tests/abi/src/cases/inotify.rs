//! inotify.

use crate::case::{Fail, wrong};
use crate::sys;
use crate::sys::{c, child, get, good, ready};
use crate::{cases, check, refused, same};

/// Watch, mask, cookie, name.
type Event = (i32, u32, u32, String);

fn instance() -> sys::Sys<i32> {
    Ok(sys!(SYS_inotify_init1, libc::IN_NONBLOCK)? as i32)
}

fn watch(fd: i32, path: &str, mask: u32) -> sys::Sys<i32> {
    Ok(sys!(SYS_inotify_add_watch, fd, c(path).as_ptr(), mask)? as i32)
}

/// All events that wait.
fn events(fd: i32) -> Result<Vec<Event>, Fail> {
    let bytes = match get(fd, 16384) {
        Err(linux_abi::Errno::EAGAIN) => Vec::new(),
        bytes => bytes?,
    };
    let mut events = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let word = |at: usize| rest.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let short = || wrong("half an event");
        let size = word(12).ok_or_else(short)? as usize;
        let name = rest.get(16..16 + size).ok_or_else(short)?;
        let name = String::from_utf8_lossy(name.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
        events.push((word(0).ok_or_else(short)? as i32, word(4).ok_or_else(short)?, word(8).ok_or_else(short)?, name));
        rest = &rest[16 + size..];
    }
    Ok(events)
}

fn event(watch: i32, mask: u32, name: &str) -> Event {
    (watch, mask, 0, name.into())
}

cases! {
    fn inotify_sees_a_file_used [inotify_init1, inotify_add_watch, read] {
        let fd = instance()?;
        std::fs::create_dir("d")?;
        let dir = watch(fd, "d", libc::IN_ALL_EVENTS)?;
        let file = sys::open("d/f", libc::O_RDWR | libc::O_CREAT, 0o600)?;
        sys::write(file, b"x")?;
        let own = watch(fd, "d/f", libc::IN_ALL_EVENTS)?;
        check!(own > dir);
        sys::seek(file, 0, libc::SEEK_SET)?;
        get(file, 5)?;
        sys!(SYS_fchmod, file, 0o640)?;
        sys!(SYS_ftruncate, file, 0i64)?;
        sys::close(file)?;
        let both = |mask: u32| [event(dir, mask, "f"), event(own, mask, "")];
        let mut want = vec![event(dir, libc::IN_CREATE, "f"), event(dir, libc::IN_OPEN, "f"), event(dir, libc::IN_MODIFY, "f")];
        for mask in [libc::IN_ACCESS, libc::IN_ATTRIB, libc::IN_MODIFY, libc::IN_CLOSE_WRITE] {
            want.extend(both(mask));
        }
        let mut got = events(fd)?;
        // Which of the two watches is told first is not promised.
        want.sort_by_key(|e| (want_order(e.1), e.0));
        got.sort_by_key(|e| (want_order(e.1), e.0));
        same!(got, want);
        Ok(())
    }

    fn inotify_sees_names_change [inotify_add_watch] {
        let fd = instance()?;
        std::fs::create_dir("d")?;
        std::fs::create_dir("e")?;
        let (d, e) = (watch(fd, "d", libc::IN_MOVE | libc::IN_CREATE | libc::IN_DELETE)?, watch(fd, "e", libc::IN_ALL_EVENTS & !libc::IN_OPEN)?);
        std::fs::create_dir("d/sub")?;
        std::fs::rename("d/sub", "e/moved")?;
        let got = events(fd)?;
        let cookie = got.get(1).map_or(0, |e| e.2);
        check!(cookie != 0);
        same!(got, [
            event(d, libc::IN_CREATE | libc::IN_ISDIR, "sub"),
            (d, libc::IN_MOVED_FROM | libc::IN_ISDIR, cookie, "sub".into()),
            (e, libc::IN_MOVED_TO | libc::IN_ISDIR, cookie, "moved".into()),
        ]);
        std::fs::remove_dir("e/moved")?;
        std::fs::remove_dir("e")?;
        same!(events(fd)?, [
            event(e, libc::IN_DELETE | libc::IN_ISDIR, "moved"),
            event(e, libc::IN_DELETE_SELF, ""),
            event(e, libc::IN_IGNORED, ""),
        ]);
        Ok(())
    }

    fn inotify_forgets_a_file_when_it_is_closed [inotify_add_watch] {
        let fd = instance()?;
        let file = sys::file("f", b"x")?;
        let own = watch(fd, "f", libc::IN_DELETE_SELF | libc::IN_ATTRIB)?;
        std::fs::remove_file("f")?;
        same!(events(fd)?, [event(own, libc::IN_ATTRIB, "")]);
        sys::close(file)?;
        same!(events(fd)?, [event(own, libc::IN_DELETE_SELF, ""), event(own, libc::IN_IGNORED, "")]);
        Ok(())
    }

    fn inotify_watches_change [inotify_add_watch, inotify_rm_watch] {
        let fd = instance()?;
        sys::file("f", b"")?;
        let own = watch(fd, "f", libc::IN_OPEN)?;
        same!(watch(fd, "f", libc::IN_ATTRIB | libc::IN_MASK_ADD)?, own);
        refused!(watch(fd, "f", libc::IN_OPEN | libc::IN_MASK_CREATE), EEXIST);
        sys!(SYS_fchmodat, libc::AT_FDCWD, c("f").as_ptr(), 0o600)?;
        sys::close(sys::open("f", libc::O_RDONLY, 0)?)?;
        same!(events(fd)?, [event(own, libc::IN_ATTRIB, ""), event(own, libc::IN_OPEN, "")]);
        sys!(SYS_inotify_rm_watch, fd, own)?;
        same!(events(fd)?, [event(own, libc::IN_IGNORED, "")]);
        refused!(sys!(SYS_inotify_rm_watch, fd, own), EINVAL);
        let once = watch(fd, "f", libc::IN_OPEN | libc::IN_ONESHOT)?;
        for _ in 0..2 {
            sys::close(sys::open("f", libc::O_RDONLY, 0)?)?;
        }
        same!(events(fd)?, [event(once, libc::IN_OPEN, ""), event(once, libc::IN_IGNORED, "")]);
        Ok(())
    }

    fn inotify_is_waited_for [inotify_init1, ppoll] {
        let fd = sys!(SYS_inotify_init1, 0)? as i32;
        std::fs::create_dir("d")?;
        watch(fd, "d", libc::IN_CREATE)?;
        same!(ready(fd, libc::POLLIN, 0)?, 0);
        let pid = child(|| {
            sys::file("d/new", b"")?;
            Ok(())
        })?;
        same!(ready(fd, libc::POLLIN, -1)?, libc::POLLIN);
        let mut bytes = 0i32;
        sys::ioctl(fd, libc::FIONREAD as u64, &mut bytes)?;
        same!(bytes, 32);
        refused!(get(fd, 20), EINVAL);
        same!(events(fd)?.len(), 1);
        good(pid)
    }

    fn inotify_checks [inotify_init1, inotify_add_watch] {
        refused!(sys!(SYS_inotify_init1, 1), EINVAL);
        let fd = instance()?;
        sys::file("f", b"")?;
        refused!(watch(fd, "f", 0), EINVAL);
        refused!(watch(fd, "none", libc::IN_OPEN), ENOENT);
        refused!(watch(fd, "f", libc::IN_OPEN | libc::IN_ONLYDIR), ENOTDIR);
        refused!(watch(sys::file("g", b"")?, "f", libc::IN_OPEN), EINVAL);
        refused!(watch(999, "f", libc::IN_OPEN), EBADF);
        refused!(sys::write(fd, b"x"), EBADF);
        Ok(())
    }

    fn inotify_the_old_way [inotify_init] {
        let fd = crate::old!(InotifyInit)? as i32;
        sys::file("f", b"")?;
        check!(watch(fd, "f", libc::IN_OPEN)? > 0);
        Ok(())
    }
}

/// The order in which the events of one case come, whichever watch they are of.
fn want_order(mask: u32) -> usize {
    [libc::IN_CREATE, libc::IN_OPEN, libc::IN_ACCESS, libc::IN_ATTRIB, libc::IN_MODIFY, libc::IN_CLOSE_WRITE]
        .iter()
        .position(|m| *m == mask)
        .unwrap_or(99)
}
