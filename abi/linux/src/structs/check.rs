//! Layouts against `linux-raw-sys`, which has those of the target that this is compiled for.

use core::mem::offset_of;

use linux_raw_sys::general as raw;

use super::stat::{StatGeneric, StatX86_64};
use crate::Isa;

/// The ISA of the target, told by its numbers: this crate asks no `cfg`.
const HERE: Isa = if raw::__NR_read == 0 {
    Isa::X86_64
} else if raw::O_DIRECTORY == 0o040_000 {
    Isa::Aarch64
} else {
    Isa::Riscv64
};

/// Our struct, Linux' struct, and pairs of fields that must lie at the same offset.
macro_rules! same {
    ($ours:ty, $theirs:ty $(, $our:ident = $their:ident)*) => {
        assert!(size_of::<$ours>() == size_of::<$theirs>());
        $(assert!(offset_of!($ours, $our) == offset_of!($theirs, $their));)*
    };
}

const _: () = {
    same!(super::Timespec, raw::__kernel_timespec, sec = tv_sec, nsec = tv_nsec);
    same!(super::Timeval, raw::__kernel_old_timeval, sec = tv_sec, usec = tv_usec);
    same!(super::Itimerspec, raw::__kernel_itimerspec, interval = it_interval, value = it_value);
    same!(super::StatxTimestamp, raw::statx_timestamp, sec = tv_sec, nsec = tv_nsec);
    same!(super::Statx, raw::statx, mask = stx_mask, mode = stx_mode, ino = stx_ino, blocks = stx_blocks);
    same!(super::Statx, raw::statx, atime = stx_atime, btime = stx_btime, ctime = stx_ctime, mtime = stx_mtime);
    same!(super::Statx, raw::statx, rdev_major = stx_rdev_major, dev_minor = stx_dev_minor, mnt_id = stx_mnt_id);
    same!(super::IoVec, raw::iovec, base = iov_base, len = iov_len);
    same!(
        super::Statfs,
        raw::statfs,
        kind = f_type,
        bsize = f_bsize,
        fsid = f_fsid,
        namelen = f_namelen,
        spare = f_spare
    );
    same!(super::FileLock, raw::flock, kind = l_type, whence = l_whence, start = l_start, len = l_len, pid = l_pid);
    same!(super::PollFd, raw::pollfd, fd = fd, events = events, revents = revents);
    same!(super::SigAltStack, raw::sigaltstack, sp = ss_sp, flags = ss_flags, size = ss_size);
    same!(super::Termios, raw::termios, iflag = c_iflag, lflag = c_lflag, line = c_line, cc = c_cc);
    same!(super::Termios2, raw::termios2, ispeed = c_ispeed, ospeed = c_ospeed);
    same!(super::Winsize, raw::winsize, row = ws_row, col = ws_col, xpixel = ws_xpixel, ypixel = ws_ypixel);
    same!(super::Utsname, linux_raw_sys::system::new_utsname, nodename = nodename, domainname = domainname);
    same!(super::RLimit, raw::rlimit64, cur = rlim_cur, max = rlim_max);
    same!(super::RUsage, raw::rusage, utime = ru_utime, maxrss = ru_maxrss, nvcsw = ru_nvcsw, nivcsw = ru_nivcsw);
    same!(super::CloneArgs, raw::clone_args, exit_signal = exit_signal, tls = tls, cgroup = cgroup);
    same!(super::RobustListHead, raw::robust_list_head, futex_offset = futex_offset, list_op_pending = list_op_pending);
    same!([u8; super::SigInfo::SIZE], raw::siginfo);

    use linux_raw_sys::system::sysinfo;
    same!(super::Sysinfo, sysinfo, loads = loads, totalram = totalram, procs = procs, mem_unit = mem_unit);

    assert!(size_of::<raw::epoll_event>() == super::EpollEvent::size(HERE));
    assert!(size_of::<raw::kernel_sigaction>() == super::SigAction::size(HERE));
    assert!(offset_of!(raw::kernel_sigaction, sa_mask) == super::SigAction::size(HERE) - 8);
    assert!(offset_of!(raw::linux_dirent64, d_name) == 19);

    /// Whether this layout of `stat` is that of the target.
    macro_rules! stat_agrees {
        ($ours:ty) => {
            size_of::<$ours>() == size_of::<raw::stat>()
                && offset_of!($ours, nlink) == offset_of!(raw::stat, st_nlink)
                && offset_of!($ours, mode) == offset_of!(raw::stat, st_mode)
                && offset_of!($ours, uid) == offset_of!(raw::stat, st_uid)
                && offset_of!($ours, rdev) == offset_of!(raw::stat, st_rdev)
                && offset_of!($ours, size) == offset_of!(raw::stat, st_size)
                && offset_of!($ours, blksize) == offset_of!(raw::stat, st_blksize)
                && offset_of!($ours, blocks) == offset_of!(raw::stat, st_blocks)
                && offset_of!($ours, times) == offset_of!(raw::stat, st_atime)
        };
    }
    assert!(match HERE {
        Isa::X86_64 => stat_agrees!(StatX86_64),
        Isa::Aarch64 | Isa::Riscv64 => stat_agrees!(StatGeneric),
    });
};
