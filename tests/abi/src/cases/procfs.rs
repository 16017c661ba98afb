//! What programs read in /proc and /sys.

use crate::sys;
use crate::sys::{child, file, good, open, pid, pipe};
use crate::{cases, check, refused, same};

/// The value of a `key: value` line.
fn field(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_string()))
}

fn text(path: &str) -> Result<String, crate::case::Fail> {
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

cases! {
    fn proc_self_is_me [readlinkat] {
        same!(std::fs::read_link("/proc/self")?.to_string_lossy(), pid().to_string());
        same!(std::fs::read_link("/proc/self/exe")?.to_string_lossy(), sys::me());
        same!(std::fs::read_link("/proc/self/cwd")?, std::env::current_dir()?);
        Ok(())
    }

    fn proc_stat_fields [read] {
        let stat = sys::proc_stat(pid())?;
        check!(stat.len() >= 40, "{} fields", stat.len());
        same!((stat[0].as_str(), stat[1].as_str()), ("R", sys!(SYS_getppid)?.to_string().as_str()));
        same!((stat[2].as_str(), stat[3].as_str()), (pid().to_string().as_str(), pid().to_string().as_str()));
        same!(stat[17].as_str(), "1");
        Ok(())
    }

    fn proc_status_fields [read] {
        let status = text("/proc/self/status")?;
        same!(field(&status, "Pid"), Some(pid().to_string()));
        same!(field(&status, "Tgid"), Some(pid().to_string()));
        same!(field(&status, "Threads"), Some("1".into()));
        let uid = sys!(SYS_getuid)?;
        same!(field(&status, "Uid"), Some(format!("{uid}\t{uid}\t{uid}\t{uid}")));
        check!(field(&status, "VmRSS").is_some_and(|size| size.ends_with(" kB")));
        check!(field(&status, "State").is_some_and(|state| state.starts_with("R (running)")));
        Ok(())
    }

    fn proc_cmdline_and_environ [read] {
        let line = text("/proc/self/cmdline")?;
        check!(line.ends_with('\0') && line.split('\0').count() >= 2);
        let (reader, writer) = pipe()?;
        let kid = child(|| {
            sys!(SYS_dup3, writer, 1, 0)?;
            sys::exec(&sys::me(), &["abi", "child", "ids"], &["KEY=value"])?;
            Ok(())
        })?;
        sys::get(reader, 100)?;
        good(kid)?;
        Ok(())
    }

    fn proc_descriptors [readlinkat, getdents64, openat] {
        let fd = file("f", b"through proc")?;
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}"))?;
        same!(link, std::env::current_dir()?.join("f"));
        same!(std::fs::read(format!("/proc/self/fd/{fd}"))?, b"through proc");
        let (reader, _writer) = pipe()?;
        check!(std::fs::read_link(format!("/proc/self/fd/{reader}"))?.to_string_lossy().starts_with("pipe:["));
        let listed = std::fs::read_dir("/proc/self/fd")?.filter(|e| e.as_ref().is_ok_and(|e| e.file_name() == *fd.to_string())).count();
        same!(listed, 1);
        std::fs::remove_file("f")?;
        check!(std::fs::read_link(format!("/proc/self/fd/{fd}"))?.to_string_lossy().ends_with("f (deleted)"));
        let info = text(&format!("/proc/self/fdinfo/{fd}"))?;
        same!(field(&info, "pos"), Some("0".into()));
        Ok(())
    }

    fn proc_maps [read, mmap] {
        let map = sys::mmap(0, 8192, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)?;
        let maps = text("/proc/self/maps")?;
        let found = maps.lines().filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let number = |text: &str| usize::from_str_radix(text, 16).ok();
            Some((number(start)?, number(end)?, rest.to_string()))
        });
        let found: Vec<_> = found.collect();
        check!(found.iter().any(|(start, end, rest)| *start <= map && map + 8192 <= *end && rest.starts_with("r--p")));
        check!(found.iter().any(|(_, _, rest)| rest.ends_with("[stack]")));
        check!(found.iter().any(|(_, _, rest)| rest.ends_with(&sys::me()) && rest.starts_with("r-xp")));
        check!(found.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        Ok(())
    }

    fn proc_lists_processes [getdents64] {
        let (reader, writer) = pipe()?;
        let kid = child(|| {
            sys::close(writer)?;
            sys::get(reader, 1)?;
            Ok(())
        })?;
        let names: Vec<_> = std::fs::read_dir("/proc")?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        for pid in [1, pid(), kid] {
            check!(names.contains(&pid.to_string()), "{pid}");
        }
        same!(sys::proc_stat(kid)?.get(1), Some(&pid().to_string()));
        sys::close(writer)?;
        good(kid)?;
        refused!(sys::stat(&format!("/proc/{kid}")), ENOENT);
        Ok(())
    }

    fn proc_zombie_state [read] {
        let kid = child(|| Ok(()))?;
        sys::until(|| sys::proc_stat(kid).is_ok_and(|stat| stat.first().is_some_and(|state| state == "Z")));
        same!(text(&format!("/proc/{kid}/cmdline"))?, "");
        good(kid)
    }

    fn proc_stopped_and_sleeping_states [read] {
        let (reader, writer) = pipe()?;
        let kid = child(|| {
            sys::close(writer)?;
            sys::get(reader, 1)?;
            Ok(())
        })?;
        let is = |state: &'static str| sys::until(|| sys::proc_stat(kid).is_ok_and(|stat| stat.first().is_some_and(|s| s == state)));
        is("S");
        sys::kill(kid, libc::SIGSTOP)?;
        is("T");
        sys::kill(kid, libc::SIGCONT)?;
        is("S");
        sys::close(writer)?;
        good(kid)
    }

    fn proc_threads [getdents64, read] {
        let (tx, rx) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || rx.recv().is_err());
        same!(std::fs::read_dir("/proc/self/task")?.count(), 2);
        same!(field(&text("/proc/self/status")?, "Threads"), Some("2".into()));
        drop(tx);
        check!(thread.join().unwrap_or(false));
        Ok(())
    }

    fn proc_system_files [read] {
        let meminfo = text("/proc/meminfo")?;
        for key in ["MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal"] {
            check!(field(&meminfo, key).is_some_and(|value| value.ends_with(" kB")), "{key}");
        }
        same!(text("/proc/uptime")?.split_whitespace().filter(|word| word.parse::<f64>().is_ok()).count(), 2);
        let load = text("/proc/loadavg")?;
        same!(load.split_whitespace().count(), 5);
        let stat = text("/proc/stat")?;
        check!(stat.starts_with("cpu ") && stat.contains("\ncpu0 ") && stat.contains("\nbtime "));
        check!(text("/proc/mounts")?.lines().any(|line| line.split(' ').nth(1) == Some("/proc")));
        check!(text("/proc/filesystems")?.contains("tmpfs"));
        check!(text("/proc/version")?.starts_with("Linux version "));
        check!(text("/proc/cpuinfo")?.lines().any(|line| line.starts_with("processor")));
        Ok(())
    }

    fn proc_file_is_read_in_pieces [read, lseek] {
        let fd = open("/proc/self/status", libc::O_RDONLY, 0)?;
        let mut small = Vec::new();
        loop {
            let part = sys::get(fd, 7)?;
            if part.is_empty() {
                break;
            }
            small.extend(part);
        }
        sys::seek(fd, 0, libc::SEEK_SET)?;
        let whole = sys::get_all(fd, 1 << 16)?;
        let keys = |bytes: &[u8]| bytes.split(|b| *b == b'\n').filter_map(|l| l.split(|b| *b == b':').next().map(<[u8]>::to_vec)).collect::<Vec<_>>();
        same!(keys(&small), keys(&whole));
        Ok(())
    }

    fn proc_nothing_there [openat, mkdirat] {
        refused!(open("/proc/999999999", libc::O_RDONLY, 0), ENOENT);
        refused!(open("/proc/self/nothing", libc::O_RDONLY, 0), ENOENT);
        check!(sys!(SYS_mkdirat, libc::AT_FDCWD, sys::c("/proc/new").as_ptr(), 0o755).is_err());
        check!(open("/proc/new", libc::O_CREAT | libc::O_WRONLY, 0o600).is_err());
        Ok(())
    }

    fn sys_cpus_and_nodes [getdents64, read] {
        let online = text("/sys/devices/system/cpu/online")?;
        check!(online.starts_with('0'), "{online}");
        check!(sys::stat("/sys/devices/system/cpu/cpu0").is_ok());
        Ok(())
    }
}
