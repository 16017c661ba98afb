//! Users, groups, capabilities, policies: what a process is and may.

use crate::case::{Fail, Outcome};
use crate::sys;
use crate::sys::{child, good, pid};
use crate::{cases, check, refused, same};

fn need_root() -> Result<(), Fail> {
    if sys!(SYS_geteuid)? == 0 { Ok(()) } else { Err(Fail::Skip("not root".into())) }
}

/// In a child that has become somebody without rights.
fn as_nobody(run: impl FnOnce() -> Outcome) -> Outcome {
    need_root()?;
    good(child(|| {
        sys!(SYS_setgroups, 0usize, 0usize)?;
        sys!(SYS_setgid, 65534)?;
        sys!(SYS_setuid, 65534)?;
        run()
    })?)
}

/// Real, effective and saved user.
fn users() -> sys::Sys<[u32; 3]> {
    let mut ids = [0u32; 3];
    sys!(SYS_getresuid, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2])?;
    Ok(ids)
}

fn groups() -> sys::Sys<[u32; 3]> {
    let mut ids = [0u32; 3];
    sys!(SYS_getresgid, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2])?;
    Ok(ids)
}

/// The capability header of version 3 and the three sets of a process: effective, permitted, inheritable.
fn capabilities(of: i32) -> sys::Sys<[u64; 3]> {
    let (header, mut data) = ([0x2008_0522u32, of as u32], [0u32; 6]);
    sys!(SYS_capget, header.as_ptr(), data.as_mut_ptr())?;
    Ok([0, 1, 2].map(|set| u64::from(data[set]) | u64::from(data[set + 3]) << 32))
}

fn set_capabilities(sets: [u64; 3]) -> sys::Sys {
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    for (set, bits) in sets.into_iter().enumerate() {
        (data[set], data[set + 3]) = (bits as u32, (bits >> 32) as u32);
    }
    sys!(SYS_capset, header.as_ptr(), data.as_ptr())
}

cases! {
    fn ids_of_nobody [setuid, setgid, getuid, geteuid, getgid, getegid] {
        as_nobody(|| {
            same!((sys!(SYS_getuid)?, sys!(SYS_geteuid)?, sys!(SYS_getgid)?, sys!(SYS_getegid)?), (65534, 65534, 65534, 65534));
            same!(users()?, [65534; 3]);
            refused!(sys!(SYS_setuid, 0), EPERM);
            refused!(sys!(SYS_setgid, 0), EPERM);
            refused!(sys!(SYS_setuid, -1), EINVAL);
            same!(sys!(SYS_setuid, 65534)?, 0);
            Ok(())
        })
    }

    fn ids_real_and_effective [setreuid, setregid, getresgid] {
        need_root()?;
        good(child(|| {
            sys!(SYS_setregid, 5, 6)?;
            same!(groups()?, [5, 6, 6]);
            sys!(SYS_setreuid, 7, 8)?;
            same!(users()?, [7, 8, 8]);
            // To and fro between real and effective is allowed, elsewhere is not.
            sys!(SYS_setreuid, 8, 7)?;
            same!(users()?, [8, 7, 7]);
            refused!(sys!(SYS_setreuid, 9, -1), EPERM);
            refused!(sys!(SYS_setregid, -1, 9), EPERM);
            Ok(())
        })?)
    }

    fn ids_of_files [setfsuid, setfsgid] {
        need_root()?;
        good(child(|| {
            std::fs::set_permissions(".", std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
            same!(sys!(SYS_setfsgid, 4)?, 0);
            same!(sys!(SYS_setfsuid, 3)?, 0);
            // Asking with what cannot be set tells what it is.
            same!((sys!(SYS_setfsuid, -1)?, sys!(SYS_setfsgid, -1)?), (3, 4));
            let stat = sys::stat_of(sys::file("f", b"")?)?;
            same!((stat.st_uid, stat.st_gid), (3, 4));
            Ok(())
        })?)
    }

    fn capability_sets [capget, capset] {
        need_root()?;
        good(child(|| {
            let [effective, permitted, inheritable] = capabilities(0)?;
            check!(effective & !permitted == 0);
            same!(capabilities(pid())?, [effective, permitted, inheritable]);
            // CAP_CHOWN is given away and cannot be had again.
            set_capabilities([effective & !1, permitted & !1, inheritable & !1])?;
            same!(capabilities(0)?, [effective & !1, permitted & !1, inheritable & !1]);
            refused!(set_capabilities([effective | 1, permitted | 1, inheritable & !1]), EPERM);
            refused!(set_capabilities([permitted, permitted & !2 & !1, inheritable & !1]), EPERM);
            sys::file("f", b"")?;
            refused!(sys!(SYS_fchownat, libc::AT_FDCWD, sys::c("f").as_ptr(), 9, 9, 0), EPERM);
            let mut wrong = [7u32, 0];
            refused!(sys!(SYS_capget, wrong.as_mut_ptr(), [0u32; 6].as_mut_ptr()), EINVAL);
            same!(wrong[0], 0x2008_0522);
            let negative = [0x2008_0522u32, u32::MAX];
            refused!(sys!(SYS_capget, negative.as_ptr(), [0u32; 6].as_mut_ptr()), EINVAL);
            Ok(())
        })?)
    }

    fn personality_is_linux [personality] {
        same!(sys!(SYS_personality, 0xffff_ffffu32)?, 0);
        same!(sys!(SYS_personality, 0)?, 0);
        same!(sys!(SYS_personality, 0xffff_ffffu32)?, 0);
        Ok(())
    }

    fn scheduling_parameters [sched_setparam, sched_get_priority_max, sched_get_priority_min, sched_rr_get_interval] {
        same!((sys!(SYS_sched_get_priority_min, libc::SCHED_RR)?, sys!(SYS_sched_get_priority_max, libc::SCHED_RR)?), (1, 99));
        same!((sys!(SYS_sched_get_priority_min, 0)?, sys!(SYS_sched_get_priority_max, 0)?), (0, 0));
        refused!(sys!(SYS_sched_get_priority_max, 77), EINVAL);
        let (zero, five) = (0i32, 5i32);
        sys!(SYS_sched_setparam, 0, &raw const zero)?;
        refused!(sys!(SYS_sched_setparam, 0, &raw const five), EINVAL);
        refused!(sys!(SYS_sched_setparam, -1, &raw const zero), EINVAL);
        let mut time = [-1i64; 2];
        sys!(SYS_sched_rr_get_interval, 0, time.as_mut_ptr())?;
        check!(time[0] == 0 && (0..1_000_000_000).contains(&time[1]));
        refused!(sys!(SYS_sched_rr_get_interval, -1, time.as_mut_ptr()), EINVAL);
        Ok(())
    }

    fn scheduling_attributes [sched_setattr, sched_getattr] {
        let mut attr = [0u32; 12];
        sys!(SYS_sched_getattr, 0, attr.as_mut_ptr(), 48, 0)?;
        same!((attr[0], attr[1], attr[5]), (48, libc::SCHED_OTHER as u32, 0));
        // Batch, and as nice as can be: less could take privilege, if whoever runs this is nice already.
        (attr[1], attr[4]) = (libc::SCHED_BATCH as u32, 19);
        sys!(SYS_sched_setattr, 0, attr.as_ptr(), 0)?;
        let mut now = [0u32; 12];
        sys!(SYS_sched_getattr, 0, now.as_mut_ptr(), 48, 0)?;
        same!((now[1], now[4]), (libc::SCHED_BATCH as u32, 19));
        same!(sys!(SYS_getpriority, libc::PRIO_PROCESS as i32, 0)?, 1);
        refused!(sys!(SYS_sched_getattr, 0, now.as_mut_ptr(), 47, 0), EINVAL);
        refused!(sys!(SYS_sched_setattr, 0, attr.as_ptr(), 1), EINVAL);
        attr[1] = 77;
        refused!(sys!(SYS_sched_setattr, 0, attr.as_ptr(), 0), EINVAL);
        Ok(())
    }

    fn rights_that_nobody_has [reboot, settimeofday, clock_settime, setdomainname, sethostname] {
        as_nobody(|| {
            refused!(sys!(SYS_reboot, 0xfee1_deadu32, 672_274_793, 0x89ab_cdefu32, 0usize), EPERM);
            let now = [sys::clock(libc::CLOCK_REALTIME)? / 1_000_000_000, 0];
            refused!(sys!(SYS_settimeofday, now.as_ptr(), 0usize), EPERM);
            refused!(sys!(SYS_clock_settime, libc::CLOCK_REALTIME, now.as_ptr()), EPERM);
            refused!(sys!(SYS_clock_settime, libc::CLOCK_MONOTONIC, now.as_ptr()), EINVAL);
            refused!(sys!(SYS_clock_settime, libc::CLOCK_REALTIME, [0i64, 1_000_000_000].as_ptr()), EINVAL);
            refused!(sys!(SYS_setdomainname, b"x".as_ptr(), 1usize), EPERM);
            refused!(sys!(SYS_sethostname, b"x".as_ptr(), 1usize), EPERM);
            Ok(())
        })
    }

    fn seccomp_that_is_not_known [seccomp] {
        refused!(sys!(SYS_seccomp, 77, 0, 0usize), EINVAL);
        Ok(())
    }
}
