//! fork, clone, exit, and the numbers of the caller.

use core::sync::atomic::Ordering::Relaxed;

use base::{Errno, Error, Result};
use linux_abi::Isa;
use task::{CloneArgs, Cx, Pid, children::Status, fork::flags, table::Entry};

/// getpid(2).
pub fn getpid(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    Ok(cx.process().pid().raw())
}

/// gettid(2).
pub fn gettid(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    Ok(cx.task().tid().raw())
}

/// fork(2).
pub fn fork(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    let args = CloneArgs { exit_signal: task::Signal::CHLD.number(), ..CloneArgs::default() };
    cx.clone(args).map(Pid::raw)
}

/// vfork(2).
pub fn vfork(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    let args =
        CloneArgs { flags: flags::VFORK | flags::VM, exit_signal: task::Signal::CHLD.number(), ..CloneArgs::default() };
    cx.clone(args).map(Pid::raw)
}

/// clone(2). The last two arguments change places between ISAs.
pub fn clone(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [bits, stack, parent_tid, a, b, _] = args;
    let (child_tid, tls) = match cx.task().isa {
        Isa::X86_64 => (a, b),
        Isa::Aarch64 | Isa::Riscv64 => (b, a),
    };
    let args = CloneArgs {
        flags: bits & 0xffff_ff00,
        exit_signal: bits as u8,
        stack: (stack != 0).then_some(stack),
        tls,
        parent_tid,
        child_tid,
        // Both are stored at the same address, so one excludes the other.
        pidfd: parent_tid,
    };
    if bits & flags::PIDFD != 0 && bits & flags::PARENT_SETTID != 0 {
        return Err(Error::new(Errno::EINVAL, "one address for two numbers"));
    }
    cx.clone(args).map(Pid::raw)
}

/// clone3(2).
pub fn clone3(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const KNOWN: u64 = size_of::<linux_abi::structs::CloneArgs>() as u64;
    let [at, size, ..] = args;
    if size < 64 {
        return Err(Errno::EINVAL.into());
    }
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    let mut raw = [0_u8; KNOWN as usize];
    let n = size.min(KNOWN) as usize;
    cx.user(|u| u.read(at, raw.get_mut(..n).unwrap_or(&mut [])))?;
    if size > KNOWN {
        // What a newer program says and this kernel does not know must be nothing.
        let mut tail = alloc::vec![0_u8; (size - KNOWN) as usize];
        cx.user(|u| u.read(at + KNOWN, &mut tail))?;
        if tail.iter().any(|b| *b != 0) {
            return Err(Errno::E2BIG.into());
        }
    }
    let mut words = [0_u64; 11];
    for (word, bytes) in words.iter_mut().zip(raw.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap_or([0; 8]));
    }
    let [bits, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _cgroup] =
        words;
    if set_tid != 0 || set_tid_size != 0 || exit_signal > 64 || (stack == 0) != (stack_size == 0) {
        return Err(Error::new(Errno::EINVAL, "clone3 arguments"));
    }
    if bits & (flags::THREAD | flags::PARENT) != 0 && exit_signal != 0 {
        return Err(Error::new(Errno::EINVAL, "clone3 arguments"));
    }
    let args = CloneArgs {
        flags: bits,
        exit_signal: exit_signal as u8,
        stack: (stack != 0).then(|| stack.wrapping_add(stack_size)),
        tls,
        parent_tid,
        child_tid,
        pidfd,
    };
    cx.clone(args).map(Pid::raw)
}

/// exit(2).
pub fn exit(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    cx.exit_thread(Status::Exited(args[0] as u8));
    Ok(0)
}

/// exit_group(2).
pub fn exit_group(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    cx.exit_group(Status::Exited(args[0] as u8));
    Ok(0)
}

/// set_tid_address(2).
pub fn set_tid_address(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    cx.task().clear_tid.store(args[0], Relaxed);
    gettid(cx, args)
}

const ROBUST_HEAD: u64 = 24;

/// set_robust_list(2).
pub fn set_robust_list(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    if args[1] != ROBUST_HEAD {
        return Err(Errno::EINVAL.into());
    }
    cx.task().robust_list.store(args[0], Relaxed);
    Ok(0)
}

/// get_robust_list(2), of threads of this kernel.
pub fn get_robust_list(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [pid, head_at, len_at, ..] = args;
    let head = if pid == 0 {
        cx.task().robust_list.load(Relaxed)
    } else {
        let task = cx.kernel().table.task(Pid(pid as u32)).ok_or(Error::from(Errno::ESRCH))?;
        let mine = task.process().pid() == cx.process().pid();
        if !mine && task.process().creds().uid != cx.process().creds().euid && cx.process().creds().euid != 0 {
            return Err(Errno::EPERM.into());
        }
        task.robust_list.load(Relaxed)
    };
    cx.user(|u| {
        u.write(len_at, &ROBUST_HEAD.to_le_bytes())?;
        u.write(head_at, &head.to_le_bytes())
    })?;
    Ok(0)
}

/// rseq(2).
pub fn rseq(cx: &Cx, [at, len, flags, signature, ..]: [u64; 6]) -> Result<u64> {
    const UNREGISTER: u32 = 1;
    let (len, signature) = (u64::from(len as u32), signature as u32);
    match flags as u32 {
        0 => cx.rseq_register(at, len, signature),
        UNREGISTER => cx.rseq_unregister(at, len, signature),
        _ => Err(Error::new(Errno::EINVAL, "unknown flags of rseq")),
    }
    .map(|()| 0)
}

/// unshare(2): descriptors and the working directory; there are no namespaces.
pub fn unshare(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let bits = args[0];
    let known = flags::FS | flags::FILES | flags::VM | flags::SIGHAND | flags::THREAD | flags::SYSVSEM;
    if bits & !known != 0 {
        return Err(Error::new(Errno::EINVAL, "no namespaces"));
    }
    if bits & (flags::VM | flags::SIGHAND | flags::THREAD) != 0 && cx.process().thread_count() > 1 {
        return Err(Error::new(Errno::EINVAL, "the process has other threads"));
    }
    let task = cx.task();
    if bits & flags::FILES != 0 {
        let own = task.files().fork()?;
        drop(task.set_files(own));
    }
    if bits & flags::FS != 0 {
        let own = task.fs().fork();
        drop(task.set_fs(own));
    }
    Ok(0)
}

/// The thread with this number, which must be of this kernel; 0 is the caller.
pub fn thread(cx: &Cx, tid: u64) -> Result<alloc::sync::Arc<task::Task>> {
    if tid as u32 == 0 {
        return Ok(cx.task().clone());
    }
    if (tid as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    match cx.kernel().table.get(Pid(tid as u32)) {
        Some(Entry::Process(p)) => p.leader().ok_or(Errno::ESRCH.into()),
        Some(Entry::Thread(t)) => Ok(t),
        Some(Entry::Moved(_)) => Err(Error::new(Errno::EOPNOTSUPP, "the thread is on another kernel")),
        None => Err(Errno::ESRCH.into()),
    }
}
