//! Limits and what was used.

use base::{Errno, Error, Result};
use linux_abi::structs::RLimit;
use task::{
    Cx, Interrupted, Pid,
    cluster::{ProcessReply, ProcessRequest},
    creds::cap,
    limits::{Limit, Resource},
    session::Sender,
};

use super::wait::rusage;

fn limit(cx: &Cx, pid: u32, nr: u64, new: Option<Limit>) -> Result<Limit> {
    let resource = Resource::new(nr).ok_or(Error::from(Errno::EINVAL))?;
    let creds = cx.process().creds();
    let me = cx.process().pid();
    let privileged = creds.can(cap::SYS_RESOURCE);
    let from = Sender { privileged, ..creds.sender(me, cx.process().session().sid()) };
    let request = ProcessRequest::Limit { resource, new, from };
    let pid = if pid == 0 { me } else { Pid(pid) };
    let process = cx.settle(cx.kernel().find(pid), Interrupted::Killed)?;
    match cx.settle(process.request(request), Interrupted::Killed)? {
        ProcessReply::Limit(old) => Ok(old),
        _ => Err(Error::new(Errno::EIO, "a process answered something else")),
    }
}

const fn encode(limit: Limit) -> RLimit {
    RLimit { cur: limit.soft, max: limit.hard }
}

fn read(cx: &Cx, at: u64) -> Result<Limit> {
    let raw: RLimit = cx.user(|u| u.read_struct(at))?;
    Ok(Limit { soft: raw.cur, hard: raw.max })
}

/// getrlimit(2).
pub fn getrlimit(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let old = limit(cx, 0, args[0], None)?;
    cx.user(|u| u.write_struct(args[1], &encode(old)))?;
    Ok(0)
}

/// setrlimit(2).
pub fn setrlimit(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let new = read(cx, args[1])?;
    limit(cx, 0, args[0], Some(new))?;
    Ok(0)
}

/// prlimit64(2).
pub fn prlimit64(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [pid, nr, new_at, old_at, ..] = args;
    let new = if new_at == 0 { None } else { Some(read(cx, new_at)?) };
    let old = limit(cx, pid as u32, nr, new)?;
    if old_at != 0 {
        cx.user(|u| u.write_struct(old_at, &encode(old)))?;
    }
    Ok(0)
}

/// getrusage(2).
pub fn getrusage(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const SELF: i32 = 0;
    const CHILDREN: i32 = -1;
    const THREAD: i32 = 1;
    let (own, children) = cx.process().usage();
    let mut usage = match args[0] as i32 {
        SELF => own,
        CHILDREN => children,
        THREAD => cx.task().usage(),
        _ => return Err(Errno::EINVAL.into()),
    };
    if args[0] as i32 != CHILDREN {
        usage.max_rss = cx.space().resident_pages() as u64 * 4;
    }
    cx.user(|u| u.write_struct(args[1], &rusage(&usage)))?;
    Ok(0)
}

/// times(2).
pub fn times(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const TICK: u64 = 10_000_000;
    let (own, children) = cx.process().usage();
    if args[0] != 0 {
        let ticks = [own.user, own.system, children.user, children.system].map(|ns| ns / TICK);
        cx.user(|u| u.write_struct(args[0], &ticks))?;
    }
    Ok(cx.kernel().clocks.monotonic() / TICK)
}
