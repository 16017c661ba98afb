//! Users and groups; credentials(7).

use alloc::vec::Vec;

use base::{Errno, Error, Result};
use task::{
    Cx,
    creds::{Creds, cap},
};

/// "Leave it as it is".
const KEEP: u32 = u32::MAX;
/// Most supplementary groups.
const NGROUPS_MAX: u64 = 65536;

/// getuid(2).
pub fn getuid(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    Ok(cx.process().creds().uid.into())
}

/// geteuid(2).
pub fn geteuid(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    Ok(cx.process().creds().euid.into())
}

/// getgid(2).
pub fn getgid(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    Ok(cx.process().creds().gid.into())
}

/// getegid(2).
pub fn getegid(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    Ok(cx.process().creds().egid.into())
}

fn write_three(cx: &Cx, at: [u64; 6], values: [u32; 3]) -> Result<u64> {
    cx.user(|u| {
        for (at, value) in at.into_iter().zip(values) {
            u.write(at, &value.to_le_bytes())?;
        }
        Ok(())
    })?;
    Ok(0)
}

/// getresuid(2).
pub fn getresuid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let c = cx.process().creds();
    write_three(cx, args, [c.uid, c.euid, c.suid])
}

/// getresgid(2).
pub fn getresgid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let c = cx.process().creds();
    write_three(cx, args, [c.gid, c.egid, c.sgid])
}

const fn denied() -> Error {
    Error::new(Errno::EPERM, "may not become that user or group")
}

fn is_mine(value: u32, mine: [u32; 3]) -> bool {
    value == KEEP || mine.contains(&value)
}

/// setuid(2).
pub fn setuid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let uid = args[0] as u32;
    if uid == KEEP {
        return Err(Errno::EINVAL.into());
    }
    cx.process().change_creds(|c| {
        if c.can(cap::SETUID) {
            c.set_users(uid, uid, uid, uid);
        } else if uid == c.uid || uid == c.suid {
            c.set_users(c.uid, uid, c.suid, uid);
        } else {
            return Err(denied());
        }
        Ok(0)
    })
}

/// setreuid(2).
pub fn setreuid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let (r, e) = (args[0] as u32, args[1] as u32);
    cx.process().change_creds(|c| {
        if !c.can(cap::SETUID) && !(is_mine(r, [c.uid, c.euid, c.euid]) && is_mine(e, [c.uid, c.euid, c.suid])) {
            return Err(denied());
        }
        let uid = if r == KEEP { c.uid } else { r };
        let euid = if e == KEEP { c.euid } else { e };
        let suid = if r != KEEP || (e != KEEP && e != c.uid) { euid } else { c.suid };
        c.set_users(uid, euid, suid, euid);
        Ok(0)
    })
}

/// setresuid(2).
pub fn setresuid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [r, e, s] = [args[0] as u32, args[1] as u32, args[2] as u32];
    cx.process().change_creds(|c| {
        let mine = [c.uid, c.euid, c.suid];
        if !c.can(cap::SETUID) && ![r, e, s].into_iter().all(|v| is_mine(v, mine)) {
            return Err(denied());
        }
        let pick = |new, old| if new == KEEP { old } else { new };
        let euid = pick(e, c.euid);
        c.set_users(pick(r, c.uid), euid, pick(s, c.suid), euid);
        Ok(0)
    })
}

/// setfsuid(2): the old one, whatever happens.
pub fn setfsuid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let uid = args[0] as u32;
    cx.process().change_creds(|c| {
        let old = c.fsuid;
        if uid != KEEP && (c.can(cap::SETUID) || [c.uid, c.euid, c.suid, c.fsuid].contains(&uid)) {
            c.set_fsuid(uid);
        }
        Ok(old.into())
    })
}

fn set_groups(c: &mut Creds, gid: u32, egid: u32, sgid: u32) {
    (c.gid, c.egid, c.sgid, c.fsgid) = (gid, egid, sgid, egid);
}

/// setgid(2).
pub fn setgid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let gid = args[0] as u32;
    if gid == KEEP {
        return Err(Errno::EINVAL.into());
    }
    cx.process().change_creds(|c| {
        if c.can(cap::SETGID) {
            set_groups(c, gid, gid, gid);
        } else if gid == c.gid || gid == c.sgid {
            set_groups(c, c.gid, gid, c.sgid);
        } else {
            return Err(denied());
        }
        Ok(0)
    })
}

/// setregid(2).
pub fn setregid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let (r, e) = (args[0] as u32, args[1] as u32);
    cx.process().change_creds(|c| {
        if !c.can(cap::SETGID) && !(is_mine(r, [c.gid, c.egid, c.egid]) && is_mine(e, [c.gid, c.egid, c.sgid])) {
            return Err(denied());
        }
        let gid = if r == KEEP { c.gid } else { r };
        let egid = if e == KEEP { c.egid } else { e };
        let sgid = if r != KEEP || (e != KEEP && e != c.gid) { egid } else { c.sgid };
        set_groups(c, gid, egid, sgid);
        Ok(0)
    })
}

/// setresgid(2).
pub fn setresgid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [r, e, s] = [args[0] as u32, args[1] as u32, args[2] as u32];
    cx.process().change_creds(|c| {
        let mine = [c.gid, c.egid, c.sgid];
        if !c.can(cap::SETGID) && ![r, e, s].into_iter().all(|v| is_mine(v, mine)) {
            return Err(denied());
        }
        let pick = |new, old| if new == KEEP { old } else { new };
        set_groups(c, pick(r, c.gid), pick(e, c.egid), pick(s, c.sgid));
        Ok(0)
    })
}

/// setfsgid(2): the old one, whatever happens.
pub fn setfsgid(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let gid = args[0] as u32;
    cx.process().change_creds(|c| {
        let old = c.fsgid;
        if gid != KEEP && (c.can(cap::SETGID) || [c.gid, c.egid, c.sgid, c.fsgid].contains(&gid)) {
            c.fsgid = gid;
        }
        Ok(old.into())
    })
}

/// getgroups(2).
pub fn getgroups(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let size = args[0] as i32;
    let creds = cx.process().creds();
    let count = creds.groups.len();
    if size < 0 || (size > 0 && (size as usize) < count) {
        return Err(Errno::EINVAL.into());
    }
    if size > 0 {
        let bytes: Vec<u8> = creds.groups.iter().flat_map(|g| g.to_le_bytes()).collect();
        cx.user(|u| u.write(args[1], &bytes))?;
    }
    Ok(count as u64)
}

/// setgroups(2).
pub fn setgroups(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    if !cx.process().creds().can(cap::SETGID) {
        return Err(denied());
    }
    if args[0] > NGROUPS_MAX {
        return Err(Errno::EINVAL.into());
    }
    let mut groups: Vec<u32> = cx.user(|u| u.read_structs(args[1], args[0] as usize, NGROUPS_MAX as usize))?;
    groups.sort_unstable();
    cx.process().change_creds(|c| {
        c.groups = groups.into();
        Ok(0)
    })
}
