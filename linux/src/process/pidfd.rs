//! pidfd_open(2) and what is done with a descriptor of a process.

use alloc::sync::Arc;

use base::{Errno, Error, Result};
use task::{
    Cx, Interrupted, Pid, SigInfo, cluster::ProcessRequest, limits::Resource, pidfd::PidFd, signal::info::code,
    table::Entry,
};
use vfs::{Ioctl, IoctlReply, OpenFile, OpenFlags, Status};

const NOT_ONE: Error = Error::new(Errno::EBADF, "not a pidfd");

/// `O_NONBLOCK` of x86-64, aarch64 and riscv64 (`PIDFD_NONBLOCK`).
const NONBLOCK: u64 = 0o4000;

fn file(cx: &Cx, fd: u64) -> Result<Arc<dyn OpenFile>> {
    cx.task().files().get(fd)
}

/// The process of a pidfd, and whether waits for it are not to block.
pub(super) fn process_of(cx: &Cx, fd: u64) -> Result<(Pid, bool)> {
    let file = file(cx, fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(NOT_ONE);
    }
    match cx.settle(file.ioctl(&cx.caller(), Ioctl::ProcessNumber), Interrupted::Killed) {
        Ok(IoctlReply::Number(pid)) => Ok((Pid(pid as u32), file.status().contains(Status::NONBLOCK))),
        Err(e) if e == Errno::ESRCH || e == Errno::EHOSTDOWN => Err(e),
        _ => Err(NOT_ONE),
    }
}

/// pidfd_open(2).
pub fn pidfd_open(cx: &Cx, [pid, flags, ..]: [u64; 6]) -> Result<u64> {
    let flags = flags & 0xffff_ffff;
    if flags & !NONBLOCK != 0 || (pid as i32) <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let (kernel, pid) = (cx.kernel(), Pid(pid as u32));
    let status = if flags & NONBLOCK != 0 { Status::NONBLOCK } else { Status::empty() };
    let file = match kernel.table.get(pid) {
        Some(Entry::Process(process)) => PidFd::of(kernel, &cx.caller(), &process, status),
        Some(Entry::Thread(_)) => return Err(Error::new(Errno::EINVAL, "a thread, not a process")),
        Some(Entry::Moved(_)) | None => {
            cx.settle(kernel.cluster().find_process(pid), Interrupted::Killed)?;
            PidFd::elsewhere(kernel, &cx.caller(), pid, status)
        }
    };
    let limit = cx.process().limits(|l| l.soft(Resource::Files));
    cx.task().files().open(file, true, 0, limit).map(u64::from)
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(cx: &Cx, [fd, signal, info_at, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & 0xffff_ffff != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (pid, _) = process_of(cx, fd)?;
    let wanted = crate::signal::optional(signal)?;
    let from = crate::signal::sender(cx);
    let info = if info_at == 0 {
        wanted.map(|s| SigInfo::user(s, from.pid, from.uid))
    } else {
        let mut bytes = [0; 128];
        cx.user(|u| u.read(info_at, &mut bytes))?;
        if bytes.first_chunk().map(|b| i32::from_le_bytes(*b)) != Some(signal as i32) {
            return Err(Error::new(Errno::EINVAL, "another signal in the siginfo"));
        }
        let info = wanted.map(|s| SigInfo::from_bytes(s, &bytes));
        // Nobody may pretend to others to be the kernel, kill or tkill.
        if info.is_some_and(|i| i.code >= 0 || i.code == code::SI_TKILL) && pid != cx.process().pid() {
            return Err(Errno::EPERM.into());
        }
        info
    };
    let process = cx.settle(cx.kernel().find(pid), Interrupted::Killed)?;
    cx.settle(process.request(ProcessRequest::Signal { info, from, thread: None }), Interrupted::Killed)?;
    Ok(0)
}

/// pidfd_getfd(2), of processes of this kernel.
pub fn pidfd_getfd(cx: &Cx, [fd, wanted, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & 0xffff_ffff != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (pid, _) = process_of(cx, fd)?;
    let process = match cx.kernel().table.get(pid) {
        Some(Entry::Process(process)) => process,
        Some(Entry::Moved(_)) => return Err(Error::new(Errno::EOPNOTSUPP, "a process of another kernel")),
        _ => return Err(Errno::ESRCH.into()),
    };
    if !task::creds::may_trace(&cx.process().creds(), &process) && pid != cx.process().pid() {
        return Err(Error::new(Errno::EPERM, "another user's process"));
    }
    let thread = process.leader().ok_or(Error::new(Errno::ESRCH, "it has ended"))?;
    let file = thread.files().get(wanted)?;
    let limit = cx.process().limits(|l| l.soft(Resource::Files));
    cx.task().files().open(file, true, 0, limit).map(u64::from)
}
