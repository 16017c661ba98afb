//! execve(2) and execveat(2).

use base::{Errno, Error, Result};
use task::{Cx, exec::Strings};
use vfs::Follow;

/// "Where the caller is".
const AT_FDCWD: i32 = -100;

/// Reads a list of strings that ends with a null pointer.
fn strings(cx: &Cx, at: u64) -> Result<Strings> {
    let mut all = Strings::new();
    if at == 0 {
        // Linux takes a null list for an empty one.
        return Ok(all);
    }
    let mut next = at;
    loop {
        let string: u64 = cx.user(|u| u.read_struct(next))?;
        if string == 0 {
            return Ok(all);
        }
        let limit = task::exec::stack::STRING_MAX;
        let bytes = cx.user(|u| u.string(string, limit))?.ok_or(Error::new(Errno::E2BIG, "argument too long"))?;
        all.push(&bytes)?;
        next = next.wrapping_add(8);
    }
}

/// execve(2).
pub fn execve(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [path, argv, envp, ..] = args;
    let path = cx.user(|u| u.path(path))?;
    let (argv, envp) = (strings(cx, argv)?, strings(cx, envp)?);
    cx.execve(cx.task().fs().cwd()?, &path, Follow::Yes, argv, envp)?;
    Ok(cx.regs().result() as u64)
}

/// execveat(2).
pub fn execveat(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const NOFOLLOW: u64 = 0x100;
    const EMPTY_PATH: u64 = 0x1000;
    let [dir, path, argv, envp, flags, _] = args;
    if flags & !(NOFOLLOW | EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = cx.user(|u| u.path(path))?;
    let (argv, envp) = (strings(cx, argv)?, strings(cx, envp)?);
    let at = |fd: u64| -> Result<vfs::Place> {
        if fd as i32 == AT_FDCWD {
            return cx.task().fs().cwd();
        }
        let file = cx.task().files().get(fd)?;
        let place = cx.settle(file.find_place(), task::Interrupted::Restart)?;
        place.ok_or(Error::new(Errno::EACCES, "not a file with a place"))
    };
    if path.is_empty() {
        if flags & EMPTY_PATH == 0 {
            return Err(Errno::ENOENT.into());
        }
        let name = alloc::format!("/dev/fd/{}", dir as i32);
        cx.execve_place(at(dir)?, name.as_bytes(), argv, envp)?;
    } else {
        let follow = if flags & NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
        let start = if path.first() == Some(&b'/') { cx.task().fs().root()? } else { at(dir)? };
        cx.execve(start, &path, follow, argv, envp)?;
    }
    Ok(cx.regs().result() as u64)
}
