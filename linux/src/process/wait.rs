//! wait4(2) and waitid(2).

use base::{Errno, Error, Result};
use linux_abi::{flags::WaitOptions, structs::RUsage, structs::Timeval};
use task::{
    Cx, Pid,
    children::{CloneChildren, Usage, Wanted, Who},
    signal::{Origin, SigInfo, Signal},
};
use zerocopy::FromZeros;

/// As getrusage(2) shows it.
pub fn rusage(usage: &Usage) -> RUsage {
    let mut it = RUsage::new_zeroed();
    it.utime = Timeval::from_nanos(usage.user);
    it.stime = Timeval::from_nanos(usage.system);
    it.maxrss = usage.max_rss as i64;
    it.minflt = usage.minor_faults as i64;
    it.majflt = usage.major_faults as i64;
    it.nvcsw = usage.voluntary as i64;
    it.nivcsw = usage.involuntary as i64;
    it
}

fn wanted(cx: &Cx, who: Who, options: WaitOptions) -> Wanted {
    let clone = if options.contains(WaitOptions::ALL) {
        CloneChildren::Too
    } else if options.contains(WaitOptions::CLONE) {
        CloneChildren::Only
    } else {
        CloneChildren::No
    };
    Wanted {
        who,
        exited: options.contains(WaitOptions::EXITED),
        stopped: options.contains(WaitOptions::UNTRACED),
        continued: options.contains(WaitOptions::CONTINUED),
        keep: options.contains(WaitOptions::NOWAIT),
        clone,
        by: options.contains(WaitOptions::NOTHREAD).then(|| cx.task().tid()),
    }
}

/// wait4(2).
pub fn wait4(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [pid, status_at, options, usage_at, ..] = args;
    let known = WaitOptions::NOHANG
        | WaitOptions::UNTRACED
        | WaitOptions::CONTINUED
        | WaitOptions::NOTHREAD
        | WaitOptions::CLONE
        | WaitOptions::ALL;
    let options =
        WaitOptions::from_bits(options as u32).filter(|o| known.contains(*o)).ok_or(Error::from(Errno::EINVAL))?;
    let who = match pid as i32 {
        i32::MIN => return Err(Errno::ESRCH.into()),
        -1 => Who::Any,
        0 => Who::Group(cx.process().pgid()),
        n if n < 0 => Who::Group(Pid(n.unsigned_abs())),
        n => Who::One(Pid(n.unsigned_abs())),
    };
    let wanted = wanted(cx, who, options | WaitOptions::EXITED);
    let Some((child, status, usage)) = cx.wait_child(&wanted, options.contains(WaitOptions::NOHANG))? else {
        return Ok(0);
    };
    cx.user(|u| {
        if status_at != 0 {
            u.write(status_at, &status.wstatus().to_le_bytes())?;
        }
        if usage_at != 0 {
            u.write_struct(usage_at, &rusage(&usage))?;
        }
        Ok(())
    })?;
    Ok(child.pid.raw())
}

/// waitid(2).
pub fn waitid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const P_ALL: u64 = 0;
    const P_PID: u64 = 1;
    const P_PGID: u64 = 2;
    const P_PIDFD: u64 = 3;
    let [kind, id, info_at, options, usage_at, _] = args;
    // A pidfd with O_NONBLOCK: nothing to tell is an error then.
    let mut at_once = false;
    let options = WaitOptions::from_bits(options as u32).ok_or(Error::from(Errno::EINVAL))?;
    if !options.intersects(WaitOptions::EXITED | WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
        return Err(Errno::EINVAL.into());
    }
    let id = id as i32;
    let mut hang = !options.contains(WaitOptions::NOHANG);
    let who = match kind {
        P_PIDFD => {
            let (pid, nonblocking) = super::pidfd::process_of(cx, id as u64).map_err(|e| match e.errno() {
                // Whoever is gone is nobody's child.
                Errno::ESRCH | Errno::EHOSTDOWN => Errno::ECHILD.into(),
                _ => e,
            })?;
            if nonblocking && hang {
                hang = false;
                at_once = true;
            }
            Who::One(pid)
        }
        P_ALL => Who::Any,
        P_PID if id > 0 => Who::One(Pid(id.unsigned_abs())),
        P_PGID if id > 0 => Who::Group(Pid(id.unsigned_abs())),
        P_PGID if id == 0 => Who::Group(cx.process().pgid()),
        _ => return Err(Errno::EINVAL.into()),
    };
    let wanted = wanted(cx, who, options);
    let found = cx.wait_child(&wanted, !hang)?;
    if found.is_none() && at_once {
        return Err(Errno::EAGAIN.into());
    }
    let mut bytes = [0; 128];
    let mut used = Usage::default();
    if let Some((child, status, usage)) = found {
        let (code, si_status) = status.code_and_status();
        used = usage;
        let origin = Origin::Child { pid: child.pid, uid: child.uid, status: si_status, utime: 0, stime: 0 };
        bytes = SigInfo { signal: Signal::CHLD, code, errno: 0, origin }.to_bytes();
    }
    cx.user(|u| {
        if info_at != 0 {
            u.write(info_at, &bytes)?;
        }
        if usage_at != 0 && found.is_some() {
            u.write_struct(usage_at, &rusage(&used))?;
        }
        Ok(())
    })?;
    Ok(0)
}
