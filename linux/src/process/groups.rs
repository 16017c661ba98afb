//! Groups and sessions.

use base::{Errno, Error, Result};
use task::{
    Cx, Interrupted, Pid,
    cluster::{Ids, ProcessReply, ProcessRequest},
    session::{Reply, Request},
};

/// getppid(2).
pub fn getppid(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    Ok(cx.process().ppid().raw())
}

/// getpgrp(2).
pub fn getpgrp(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    Ok(cx.process().pgid().raw())
}

fn ids(cx: &Cx, pid: u64) -> Result<Ids> {
    let pid = Pid(pid as u32);
    if pid.0 == 0 || pid == cx.process().pid() {
        return Ok(cx.process().ids());
    }
    let process = cx.settle(cx.kernel().find(pid), Interrupted::Killed)?;
    match cx.settle(process.request(ProcessRequest::Ids), Interrupted::Killed)? {
        ProcessReply::Ids(ids) => Ok(ids),
        _ => Err(Error::new(Errno::EIO, "a process answered something else")),
    }
}

/// getpgid(2).
pub fn getpgid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    ids(cx, args[0]).map(|ids| ids.pgid.raw())
}

/// getsid(2).
pub fn getsid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    ids(cx, args[0]).map(|ids| ids.sid.raw())
}

/// setpgid(2).
pub fn setpgid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let caller = cx.process().pid();
    if (args[1] as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = if args[0] as u32 == 0 { caller } else { Pid(args[0] as u32) };
    let pgid = Pid(args[1] as u32);
    let request = Request::SetGroup { caller, target, pgid };
    match cx.settle(cx.process().session().request(request), Interrupted::Killed) {
        Ok(_) => Ok(0),
        // A child that is in another session.
        Err(e) if e == Errno::ESRCH && cx.process().has_child(target) => Err(Errno::EPERM.into()),
        Err(e) => Err(e),
    }
}

/// setsid(2).
pub fn setsid(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    let pid = cx.process().pid();
    // It has left when the answer comes, so it must lead the new one, whatever happens to it meanwhile.
    let reply = cx.settle(cx.process().session().request(Request::Depart(pid)), Interrupted::Nothing)?;
    if reply != Reply::Done {
        return Err(Error::new(Errno::EIO, "a session answered something else"));
    }
    cx.process().lead_session();
    // Another kernel may look for it next: that of a terminal which it takes.
    cx.settle(cx.kernel().cluster().registered(), Interrupted::Nothing)?;
    Ok(pid.raw())
}
