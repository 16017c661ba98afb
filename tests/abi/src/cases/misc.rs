//! Identity, limits, scheduling, the system.

use crate::case::Fail;
use crate::sys;
use crate::sys::{child, good, pid};
use crate::{cases, check, refused, same};

/// `prlimit64` of ourselves. The C libraries disagree about the type of the resource.
fn limit(resource: impl Into<i64>, new: Option<[u64; 2]>) -> sys::Sys<[u64; 2]> {
    let mut old = [0u64; 2];
    let new = new.as_ref().map_or(std::ptr::null(), |new| new.as_ptr());
    sys!(SYS_prlimit64, 0, resource.into(), new, old.as_mut_ptr())?;
    Ok(old)
}

cases! {
    fn uname_says_linux [uname] {
        let mut names = [0u8; 65 * 6];
        sys!(SYS_uname, names.as_mut_ptr())?;
        let name = |at: usize| String::from_utf8_lossy(names[at * 65..].split(|b| *b == 0).next().unwrap_or_default()).into_owned();
        same!(name(0), "Linux");
        same!(name(4), std::env::consts::ARCH);
        check!(name(2).split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 5));
        refused!(sys!(SYS_uname, 8usize), EFAULT);
        Ok(())
    }

    fn hostname_in_its_place [sethostname, uname, unshare] {
        if sys!(SYS_geteuid)? != 0 || sys!(SYS_unshare, libc::CLONE_NEWUTS).is_err() {
            return Err(Fail::Skip("no name space of its own".into()));
        }
        sys!(SYS_sethostname, b"tested".as_ptr(), 6usize)?;
        same!(std::fs::read_to_string("/proc/sys/kernel/hostname")?, "tested\n");
        refused!(sys!(SYS_sethostname, b"x".as_ptr(), 65usize), EINVAL);
        Ok(())
    }

    fn sysinfo_agrees_with_meminfo [sysinfo] {
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
        sys!(SYS_sysinfo, &raw mut info)?;
        let kib = info.totalram as u64 * u64::from(info.mem_unit) / 1024;
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        let total = meminfo.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        same!(Some(kib), total);
        check!(info.uptime > 0 || info.procs > 0);
        Ok(())
    }

    fn user_ids [setresuid, getresuid, setresgid] {
        if sys!(SYS_geteuid)? != 0 {
            return Err(Fail::Skip("not root".into()));
        }
        good(child(|| {
            sys!(SYS_setresgid, 10, 20, 30)?;
            sys!(SYS_setresuid, 1, 2, 3)?;
            let mut ids = [0u32; 3];
            sys!(SYS_getresuid, &raw mut ids[0], &raw mut ids[1], &raw mut ids[2])?;
            same!(ids, [1, 2, 3]);
            same!((sys!(SYS_getuid)?, sys!(SYS_geteuid)?, sys!(SYS_getgid)?, sys!(SYS_getegid)?), (1, 2, 10, 20));
            sys!(SYS_setresuid, -1, 3, -1)?;
            same!(sys!(SYS_geteuid)?, 3);
            refused!(sys!(SYS_setresuid, 77, -1, -1), EPERM);
            refused!(sys!(SYS_setgroups, 0usize, 0usize), EPERM);
            Ok(())
        })?)
    }

    fn supplementary_groups [setgroups, getgroups] {
        if sys!(SYS_geteuid)? != 0 {
            return Err(Fail::Skip("not root".into()));
        }
        let groups = [5u32, 6, 7];
        sys!(SYS_setgroups, 3usize, groups.as_ptr())?;
        let mut seen = [0u32; 8];
        same!(sys!(SYS_getgroups, 8, seen.as_mut_ptr())?, 3);
        same!(seen[..3], groups);
        same!(sys!(SYS_getgroups, 0, 0usize)?, 3);
        refused!(sys!(SYS_getgroups, 2, seen.as_mut_ptr()), EINVAL);
        Ok(())
    }

    fn set_uid_program [execve, setresuid] {
        use std::os::unix::fs::PermissionsExt;
        if sys!(SYS_geteuid)? != 0 {
            return Err(Fail::Skip("not root".into()));
        }
        std::fs::copy(sys::me(), "suid")?;
        sys!(SYS_fchownat, libc::AT_FDCWD, sys::c("suid").as_ptr(), 4321, 4321, 0)?;
        std::fs::set_permissions("suid", PermissionsExt::from_mode(0o4755))?;
        std::fs::set_permissions(".", PermissionsExt::from_mode(0o755))?;
        let kid = child(|| {
            sys!(SYS_setresuid, 1111, 1111, 1111)?;
            let fd = sys::open("suid", libc::O_RDONLY, 0)?;
            same!(sys::stat_of(fd)?.st_mode & 0o7777, 0o4755);
            sys!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1usize, 0usize, 0usize, 0usize)?;
            same!(sys!(SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0usize, 0usize, 0usize, 0usize)?, 1);
            Ok(())
        })?;
        good(kid)
    }

    fn limits_are_kept_and_checked [prlimit64] {
        let old = limit(libc::RLIMIT_NOFILE, None)?;
        limit(libc::RLIMIT_NOFILE, Some([100, old[1]]))?;
        same!(limit(libc::RLIMIT_NOFILE, None)?, [100, old[1]]);
        refused!(limit(libc::RLIMIT_NOFILE, Some([101, 100])), EINVAL);
        refused!(limit(99, None), EINVAL);
        good(child(|| {
            same!(limit(libc::RLIMIT_NOFILE, None)?[0], 100);
            Ok(())
        })?)
    }

    fn limits_of_another_process [prlimit64] {
        let (reader, writer) = sys::pipe()?;
        let kid = child(|| {
            sys::close(writer)?;
            sys::get(reader, 1)?;
            same!(limit(libc::RLIMIT_NOFILE, None)?[0], 77);
            Ok(())
        })?;
        let new = [77u64, 4096];
        sys!(SYS_prlimit64, kid, libc::RLIMIT_NOFILE, new.as_ptr(), 0usize)?;
        sys::close(writer)?;
        good(kid)?;
        refused!(sys!(SYS_prlimit64, kid, libc::RLIMIT_NOFILE, 0usize, 0usize), ESRCH);
        Ok(())
    }

    fn nice_values [setpriority, getpriority] {
        // The system call answers 20 - nice, to be never negative.
        // Whoever runs this may be nice already, and going back wants privilege: half of what is left.
        let nice = 20 - sys!(SYS_getpriority, libc::PRIO_PROCESS, 0)?;
        check!((-20..20).contains(&nice));
        let nicer = (nice + 20) / 2;
        sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, nicer)?;
        same!(sys!(SYS_getpriority, libc::PRIO_PROCESS, 0)?, 20 - nicer);
        sys!(SYS_setpriority, libc::PRIO_PROCESS, 0, 99)?;
        same!(sys!(SYS_getpriority, libc::PRIO_PROCESS, 0)?, 1);
        good(child(|| {
            same!(sys!(SYS_getpriority, libc::PRIO_PROCESS, 0)?, 1);
            Ok(())
        })?)?;
        refused!(sys!(SYS_getpriority, 9, 0), EINVAL);
        Ok(())
    }

    fn scheduling_policies [sched_setscheduler, sched_getscheduler, sched_getparam] {
        same!(sys!(SYS_sched_getscheduler, 0)?, libc::SCHED_OTHER.into());
        same!((sys!(SYS_sched_get_priority_min, libc::SCHED_FIFO)?, sys!(SYS_sched_get_priority_max, libc::SCHED_FIFO)?), (1, 99));
        let zero = 0i32;
        sys!(SYS_sched_setscheduler, 0, libc::SCHED_BATCH, &raw const zero)?;
        same!(sys!(SYS_sched_getscheduler, 0)?, libc::SCHED_BATCH.into());
        refused!(sys!(SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const zero), EINVAL);
        refused!(sys!(SYS_sched_setscheduler, 0, 99, &raw const zero), EINVAL);
        Ok(())
    }

    fn affinity [sched_getaffinity, sched_setaffinity, getcpu] {
        let mut set = [0u64; 16];
        check!(sys!(SYS_sched_getaffinity, 0, 128usize, set.as_mut_ptr())? >= 8);
        let first = set.iter().position(|word| *word != 0).ok_or_else(|| crate::case::wrong("no CPU"))?;
        let cpu = first * 64 + set[first].trailing_zeros() as usize;
        let mut one = [0u64; 16];
        one[cpu / 64] = 1 << (cpu % 64);
        sys!(SYS_sched_setaffinity, 0, 128usize, one.as_ptr())?;
        let mut here = 0u32;
        sys!(SYS_getcpu, &raw mut here, 0usize, 0usize)?;
        same!(here as usize, cpu);
        sys!(SYS_sched_getaffinity, 0, 128usize, set.as_mut_ptr())?;
        same!(set, one);
        refused!(sys!(SYS_sched_setaffinity, 0, 128usize, [0u64; 16].as_ptr()), EINVAL);
        refused!(sys!(SYS_sched_getaffinity, 0, 1usize, set.as_mut_ptr()), EINVAL);
        Ok(())
    }

    fn process_name [prctl] {
        sys!(SYS_prctl, libc::PR_SET_NAME, sys::c("a name that is too long").as_ptr(), 0usize, 0usize, 0usize)?;
        let mut name = [0u8; 16];
        sys!(SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr(), 0usize, 0usize, 0usize)?;
        same!(&name, b"a name that is \0");
        same!(std::fs::read_to_string(format!("/proc/{}/comm", pid()))?, "a name that is \n");
        Ok(())
    }

    fn rusage_of_self_and_children [getrusage] {
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        sys!(SYS_getrusage, libc::RUSAGE_SELF, &raw mut usage)?;
        check!(usage.ru_maxrss > 0 && usage.ru_minflt > 0);
        sys!(SYS_getrusage, libc::RUSAGE_CHILDREN, &raw mut usage)?;
        same!((usage.ru_maxrss, usage.ru_utime.tv_sec), (0, 0));
        refused!(sys!(SYS_getrusage, 5, &raw mut usage), EINVAL);
        Ok(())
    }

    fn unknown_call [nosys] {
        refused!(sys::result(
            // SAFETY: a call that no kernel has does nothing.
            unsafe { libc::syscall(5000) }
        ), ENOSYS);
        Ok(())
    }

    fn auxiliary_vector [execve] {
        // SAFETY: reads the vector that the kernel put on the stack.
        let value = |key: u64| unsafe { libc::getauxval(key) };
        same!(value(libc::AT_PAGESZ), 4096);
        same!(value(libc::AT_UID), sys!(SYS_getuid)? as u64);
        check!(value(libc::AT_RANDOM) != 0 && value(libc::AT_PHDR) != 0 && value(libc::AT_ENTRY) != 0);
        same!(value(libc::AT_CLKTCK), 100);
        same!(value(libc::AT_SECURE), 0);
        Ok(())
    }
}
