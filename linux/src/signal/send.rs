//! kill(2) and its relatives.

use base::{Errno, Error, Result};
use task::{
    Cx, Interrupted, Pid, SigInfo, Signal,
    cluster::ProcessRequest,
    session::{Request, Sender},
    signal::info::code,
};

pub fn sender(cx: &Cx) -> Sender {
    let process = cx.process();
    process.creds().sender(process.pid(), process.session().sid())
}

/// The signal of a call; nothing for number 0, which only asks whether one may.
pub fn optional(nr: u64) -> Result<Option<Signal>> {
    if nr as u32 == 0 { Ok(None) } else { super::signal(nr).map(Some) }
}

fn to_process(cx: &Cx, pid: Pid, info: Option<SigInfo>, thread: Option<Pid>) -> Result<u64> {
    let process = cx.settle(cx.kernel().find(pid), Interrupted::Killed)?;
    let request = ProcessRequest::Signal { info, from: sender(cx), thread };
    cx.settle(process.request(request), Interrupted::Killed)?;
    Ok(0)
}

fn to_group(cx: &Cx, pgid: Pid, info: Option<SigInfo>) -> Result<u64> {
    let request = || Request::SignalGroup { pgid, info, from: sender(cx) };
    let own = cx.process().session();
    // Mostly it is of the caller's session, which knows at once of a group that was just made; others know it by name a little later.
    match cx.settle(own.request(request()), Interrupted::Killed) {
        Err(e) if e == Errno::ESRCH => {}
        signalled => return signalled.map(|_| 0),
    }
    let session = cx.settle(cx.kernel().find_group(pgid), Interrupted::Killed)?;
    cx.settle(session.request(request()), Interrupted::Killed)?;
    Ok(0)
}

/// kill(2).
pub fn kill(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let from = sender(cx);
    let info = optional(args[1])?.map(|s| SigInfo::user(s, from.pid, from.uid));
    match args[0] as i32 {
        0 => to_group(cx, cx.process().pgid(), info),
        -1 => {
            let info = match info {
                Some(info) => info,
                None => return Ok(0),
            };
            let (here, refused) = cx.kernel().signal_all_here(info, from);
            let there = cx.settle(cx.kernel().cluster().signal_all(info, from), Interrupted::Killed)?;
            match (here + there, refused) {
                (0, true) => Err(Errno::EPERM.into()),
                (0, false) => Err(Errno::ESRCH.into()),
                _ => Ok(0),
            }
        }
        i32::MIN => Err(Errno::ESRCH.into()),
        n if n < 0 => to_group(cx, Pid(n.unsigned_abs()), info),
        n => to_process(cx, Pid(n.unsigned_abs()), info, None),
    }
}

fn thread_info(cx: &Cx, nr: u64) -> Result<Option<SigInfo>> {
    let from = sender(cx);
    Ok(optional(nr)?.map(|s| SigInfo { code: code::SI_TKILL, ..SigInfo::user(s, from.pid, from.uid) }))
}

/// tkill(2), for threads of this kernel.
pub fn tkill(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let tid = args[0] as i32;
    if tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let info = thread_info(cx, args[1])?;
    let tid = Pid(tid.unsigned_abs());
    let task = cx.kernel().table.task(tid).ok_or(Error::from(Errno::ESRCH))?;
    to_process(cx, task.process().pid(), info, Some(tid))
}

/// tgkill(2).
pub fn tgkill(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let (tgid, tid) = (args[0] as i32, args[1] as i32);
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let info = thread_info(cx, args[2])?;
    to_process(cx, Pid(tgid.unsigned_abs()), info, Some(Pid(tid.unsigned_abs())))
}

fn read_info(cx: &Cx, signal: Option<Signal>, target: Pid, at: u64) -> Result<Option<SigInfo>> {
    let mut bytes = [0; 128];
    cx.user(|u| u.read(at, &mut bytes))?;
    let Some(signal) = signal else { return Ok(None) };
    let info = SigInfo::from_bytes(signal, &bytes);
    // Nobody may pretend to others to be the kernel, kill or tkill.
    if (info.code >= 0 || info.code == code::SI_TKILL) && target != cx.process().pid() {
        return Err(Errno::EPERM.into());
    }
    Ok(Some(info))
}

/// rt_sigqueueinfo(2).
pub fn rt_sigqueueinfo(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let pid = Pid(args[0] as u32);
    let info = read_info(cx, optional(args[1])?, pid, args[2])?;
    if (args[0] as i32) <= 0 {
        return Err(Errno::ESRCH.into());
    }
    to_process(cx, pid, info, None)
}

/// rt_tgsigqueueinfo(2).
pub fn rt_tgsigqueueinfo(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let (tgid, tid) = (args[0] as i32, args[1] as i32);
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let pid = Pid(tgid.unsigned_abs());
    let info = read_info(cx, optional(args[2])?, pid, args[3])?;
    to_process(cx, pid, info, Some(Pid(tid.unsigned_abs())))
}
