//! `process_vm_readv(2)` and `process_vm_writev(2)`: the memory of another process of this kernel.

use alloc::{sync::Arc, vec};

use base::{Errno, Error, Result};
use hal::addr::UserAddr;
use mm::{
    PageWait, Space,
    space::{Poked, Stopped},
};
use task::{Cx, Pid, creds::cap};

use super::invalid;

/// Bytes of one step.
const STEP: usize = 4096;

/// The space of a process that the caller may look into.
fn target(cx: &Cx, pid: u64) -> Result<Arc<Space>> {
    let gone = || Error::new(Errno::ESRCH, "no such process");
    let process = cx.kernel().table.process(Pid(pid as u32)).ok_or_else(gone)?;
    let (mine, theirs) = (cx.process().creds(), process.creds());
    let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|uid| *uid == mine.uid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|gid| *gid == mine.gid);
    if !same && !mine.can(cap::SYS_PTRACE) {
        return Err(Error::new(Errno::EPERM, "may not look into that process"));
    }
    process.space().ok_or_else(gone)
}

/// Waits for what stopped a copy, or says why it cannot go on.
fn go_on(cx: &Cx, poked: &mut Poked) -> Result<bool> {
    match poked.stopped.take() {
        None => Ok(false),
        Some(Stopped::Violation(violation)) => Err(violation.into()),
        Some(Stopped::Wait(op)) => match cx.wait(op) {
            Ok(()) => Ok(true),
            Err(error) if error == Errno::EINTR => Err(error),
            Err(_) => Err(Error::new(Errno::EFAULT, "the page cannot be had")),
        },
        Some(Stopped::NoMemory) => cx.no_memory().map(|()| true),
    }
}

fn transfer(cx: &Cx, [pid, local, local_count, remote, remote_count, flags]: [u64; 6], write: bool) -> Result<u64> {
    if flags != 0 {
        return Err(invalid("unknown flags"));
    }
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let (mut locals, remotes) = cx.user(|user| {
        Ok((user.iovecs(local, count(local_count))?.into_iter(), user.iovecs(remote, count(remote_count))?))
    })?;
    let space = target(cx, pid)?;
    let mut here = locals.next();
    let mut total = 0_u64;
    let mut buffer = vec![0; STEP];
    for remote in remotes {
        let mut done = 0;
        while done < remote.len {
            let Some(vec) = here.as_mut() else { return Ok(total) };
            if vec.len == 0 {
                here = locals.next();
                continue;
            }
            let n = STEP.min(remote.len - done).min(vec.len);
            let Some(bytes) = buffer.get_mut(..n) else { break };
            let at = UserAddr(remote.base + done as u64);
            match step(cx, &space, at, vec.base, bytes, write) {
                Ok(()) => {}
                // What was moved before counts.
                Err(_) if total > 0 => return Ok(total),
                Err(error) => return Err(error),
            }
            vec.base += n as u64;
            vec.len -= n;
            done += n;
            total += n as u64;
        }
    }
    Ok(total)
}

fn step(cx: &Cx, space: &Space, there: UserAddr, here: u64, bytes: &mut [u8], write: bool) -> Result<()> {
    if write {
        cx.user(|user| user.read(here, bytes))?;
    }
    let mut done = 0;
    while done < bytes.len() {
        let at = there + done as u64;
        let Some(rest) = bytes.get_mut(done..) else { break };
        let mut poked = if write { space.poke(at, rest) } else { space.peek(at, rest) };
        done += poked.done;
        if !go_on(cx, &mut poked)? {
            break;
        }
    }
    if write { Ok(()) } else { cx.user(|user| user.write(here, bytes)) }
}

/// `process_vm_readv(pid, local_iov, liovcnt, remote_iov, riovcnt, flags)`.
///
/// # Errors
/// See process_vm_readv(2).
pub fn process_vm_readv(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    transfer(cx, args, false)
}

/// `process_vm_writev(pid, local_iov, liovcnt, remote_iov, riovcnt, flags)`.
///
/// # Errors
/// See process_vm_writev(2).
pub fn process_vm_writev(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    transfer(cx, args, true)
}
