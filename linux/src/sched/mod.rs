//! Scheduling: policies, priorities, CPUs.

use alloc::{sync::Arc, vec, vec::Vec};

use base::{Errno, Error, Result};
use task::{
    Cx, Interrupted, Pid, Task,
    cluster::{ProcessReply, ProcessRequest},
    creds::cap,
    limits::Resource,
    sched::{Policy, queue::RR_SLICE, queue::SLICE},
    session::Sender,
};

use crate::process::thread;

const RESET_ON_FORK: u64 = 0x4000_0000;
const BAD: Error = Error::new(Errno::EINVAL, "scheduling");

/// sched_yield(2).
pub fn sched_yield(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    cx.yield_now();
    Ok(0)
}

/// Whether the caller may change how `task` is scheduled.
fn check_owner(cx: &Cx, task: &Task) -> Result<()> {
    let (mine, theirs) = (cx.process().creds(), task.process().creds());
    if mine.euid == theirs.uid || mine.euid == theirs.euid || mine.can(cap::SYS_NICE) {
        Ok(())
    } else {
        Err(Errno::EPERM.into())
    }
}

fn set(cx: &Cx, task: &Arc<Task>, policy: Policy, priority: u32, reset: bool) -> Result<u64> {
    let valid = if policy.is_realtime() { (1..=99).contains(&priority) } else { priority == 0 };
    if !valid {
        return Err(BAD);
    }
    check_owner(cx, task)?;
    if policy.is_realtime() && !cx.process().creds().can(cap::SYS_NICE) {
        let limit = task.process().limits(|l| l.soft(Resource::RtPriority));
        if u64::from(priority) > limit.max(task.sched.priority().into()) {
            return Err(Errno::EPERM.into());
        }
    }
    task.sched.set_policy(policy, priority as u8, reset);
    cx.kernel().sched_changed(task);
    Ok(0)
}

/// sched_setscheduler(2).
pub fn sched_setscheduler(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [pid, policy, param, ..] = args;
    if (pid as i32) < 0 || param == 0 {
        return Err(BAD);
    }
    let priority: u32 = cx.user(|u| u.read_struct(param))?;
    let reset = policy & RESET_ON_FORK != 0;
    let policy = Policy::new(u64::from(policy as u32) & !RESET_ON_FORK).ok_or(BAD)?;
    set(cx, &thread(cx, pid)?, policy, priority, reset)
}

/// sched_setparam(2).
pub fn sched_setparam(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [pid, param, ..] = args;
    if (pid as i32) < 0 || param == 0 {
        return Err(BAD);
    }
    let priority: u32 = cx.user(|u| u.read_struct(param))?;
    let task = thread(cx, pid)?;
    let (policy, reset) = (task.sched.policy(), task.sched.resets_on_fork());
    set(cx, &task, policy, priority, reset)
}

/// sched_getscheduler(2).
pub fn sched_getscheduler(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let task = thread(cx, args[0])?;
    let reset = if task.sched.resets_on_fork() { RESET_ON_FORK } else { 0 };
    Ok(task.sched.policy() as u64 | reset)
}

/// sched_getparam(2).
pub fn sched_getparam(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    if args[1] == 0 {
        return Err(BAD);
    }
    let priority = u32::from(thread(cx, args[0])?.sched.priority());
    cx.user(|u| u.write(args[1], &priority.to_le_bytes()))?;
    Ok(0)
}

/// sched_get_priority_max(2).
pub fn sched_get_priority_max(_: &Cx, args: [u64; 6]) -> Result<u64> {
    Policy::new(args[0]).map(|p| if p.is_realtime() { 99 } else { 0 }).ok_or(BAD)
}

/// sched_get_priority_min(2).
pub fn sched_get_priority_min(_: &Cx, args: [u64; 6]) -> Result<u64> {
    Policy::new(args[0]).map(|p| p.is_realtime().into()).ok_or(BAD)
}

/// sched_rr_get_interval(2).
pub fn sched_rr_get_interval(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let ns = match thread(cx, args[0])?.sched.policy() {
        Policy::RoundRobin => RR_SLICE,
        Policy::Fifo => 0,
        _ => SLICE,
    };
    cx.user(|u| u.write_struct(args[1], &linux_abi::structs::Timespec::from_nanos(ns)))?;
    Ok(0)
}

/// struct sched_attr, version 0: size, policy, flags, nice, priority, and three times of SCHED_DEADLINE.
const ATTR_SIZE: u32 = 48;

/// sched_getattr(2).
pub fn sched_getattr(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [pid, at, size, flags, ..] = args;
    if at == 0 || flags != 0 || size < ATTR_SIZE.into() || size > 4096 {
        return Err(BAD);
    }
    let task = thread(cx, pid)?;
    let mut attr = [0_u8; ATTR_SIZE as usize];
    let words = [
        ATTR_SIZE,
        task.sched.policy() as u32,
        u32::from(task.sched.resets_on_fork()),
        0,
        if task.sched.policy().is_realtime() { 0 } else { i32::from(task.sched.nice()) as u32 },
        task.sched.priority().into(),
    ];
    for (bytes, word) in attr.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    cx.user(|u| u.write(at, &attr))?;
    Ok(0)
}

/// sched_setattr(2).
pub fn sched_setattr(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [pid, at, flags, ..] = args;
    if at == 0 || flags != 0 || (pid as i32) < 0 {
        return Err(BAD);
    }
    let [size, policy, flags, _, nice, priority]: [u32; 6] = cx.user(|u| u.read_struct(at))?;
    if size != 0 && size < ATTR_SIZE {
        cx.user(|u| u.write(at, &ATTR_SIZE.to_le_bytes()))?;
        return Err(Errno::E2BIG.into());
    }
    // Only SCHED_FLAG_RESET_ON_FORK.
    if flags & !1 != 0 {
        return Err(BAD);
    }
    let policy = Policy::new(policy.into()).ok_or(BAD)?;
    let task = thread(cx, pid)?;
    set(cx, &task, policy, priority, flags & 1 != 0)?;
    if !policy.is_realtime() {
        let nice = (nice as i32).clamp(-20, 19) as i8;
        if nice < task.sched.nice() && !cx.process().creds().can(cap::SYS_NICE) {
            return Err(Errno::EPERM.into());
        }
        task.sched.set_nice(nice);
        cx.kernel().sched_changed(&task);
    }
    Ok(0)
}

/// sched_setaffinity(2). CPUs of other kernels: `EOPNOTSUPP` as long as tasks cannot migrate.
pub fn sched_setaffinity(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [pid, size, at, ..] = args;
    let size = size.min(1024) as usize;
    let mut mask = vec![0_u8; size];
    cx.user(|u| u.read(at, &mut mask))?;
    let task = thread(cx, pid)?;
    check_owner(cx, &task)?;
    let wants = |global: u32| mask.get(global as usize / 8).is_some_and(|b| b & 1 << (global % 8) != 0);
    let mut slots = 0;
    for slot in 0..hal::cpu::count() {
        if wants(hal::cpu::global_id(slot)) {
            slots |= 1 << slot;
        }
    }
    if slots & cx.kernel().sched.online() == 0 {
        let elsewhere = cx.kernel().cluster().cpus().iter().any(|c| c.online && wants(c.global));
        return Err(if elsewhere { Error::new(Errno::EOPNOTSUPP, "those CPUs belong to another kernel") } else { BAD });
    }
    task.sched.set_affinity(slots);
    cx.kernel().sched_changed(&task);
    Ok(0)
}

/// sched_getaffinity(2): the CPUs that the task can run on now, which are of this kernel.
pub fn sched_getaffinity(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [pid, size, at, ..] = args;
    let highest = cx.kernel().cluster().cpus().iter().map(|c| c.global).max().unwrap_or(0);
    // In whole words of 64 bits that hold all CPUs of the machine.
    let need = (highest as usize / 64 + 1) * 8;
    if (size as usize) < need || size % 8 != 0 {
        return Err(BAD);
    }
    let task = thread(cx, pid)?;
    let allowed = task.sched.affinity() & cx.kernel().sched.online();
    let mut mask: Vec<u8> = vec![0; need];
    for slot in (0..hal::cpu::count()).filter(|slot| allowed & 1 << slot != 0) {
        let global = hal::cpu::global_id(slot);
        if let Some(byte) = mask.get_mut(global as usize / 8) {
            *byte |= 1 << (global % 8);
        }
    }
    cx.user(|u| u.write(at, &mask))?;
    Ok(need as u64)
}

/// getcpu(2): the CPU and its node, which is the kernel.
pub fn getcpu(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let cpu = hal::cpu::global_id(hal::cpu::slot());
    let node = u32::from(cx.kernel().id().index);
    cx.user(|u| {
        for (at, value) in [(args[0], cpu), (args[1], node)] {
            if at != 0 {
                u.write(at, &value.to_le_bytes())?;
            }
        }
        Ok(())
    })?;
    Ok(0)
}

const PRIO_PROCESS: u64 = 0;
const PRIO_PGRP: u64 = 1;
const PRIO_USER: u64 = 2;

/// The processes that getpriority(2) and setpriority(2) are about.
fn chosen(cx: &Cx, which: u64, who: u64) -> Result<Vec<Pid>> {
    let who = who as u32;
    let pids: Vec<Pid> = match which {
        PRIO_PROCESS => vec![if who == 0 { cx.process().pid() } else { Pid(who) }],
        PRIO_PGRP => {
            let pgid = if who == 0 { cx.process().pgid() } else { Pid(who) };
            cx.kernel().table.members(pgid).iter().map(|p| p.pid()).collect()
        }
        PRIO_USER => {
            let uid = if who == 0 { cx.process().creds().uid } else { who };
            cx.kernel().table.processes().iter().filter(|p| p.creds().uid == uid).map(|p| p.pid()).collect()
        }
        _ => return Err(BAD),
    };
    if pids.is_empty() { Err(Errno::ESRCH.into()) } else { Ok(pids) }
}

/// getpriority(2): 20 - nice, the highest of those asked for.
pub fn getpriority(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let mut best = 0;
    for pid in chosen(cx, args[0], args[1])? {
        let process = cx.settle(cx.kernel().find(pid), Interrupted::Killed)?;
        if let ProcessReply::Nice(nice) = cx.settle(process.request(ProcessRequest::Nice), Interrupted::Killed)? {
            best = best.max(nice);
        }
    }
    Ok(best.into())
}

/// setpriority(2).
pub fn setpriority(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let nice = (args[2] as i32).clamp(-20, 19) as i8;
    let creds = cx.process().creds();
    let from = Sender {
        privileged: creds.can(cap::SYS_NICE),
        ..creds.sender(cx.process().pid(), cx.process().session().sid())
    };
    for pid in chosen(cx, args[0], args[1])? {
        let process = cx.settle(cx.kernel().find(pid), Interrupted::Killed)?;
        cx.settle(process.request(ProcessRequest::SetNice { nice, from }), Interrupted::Killed)?;
    }
    Ok(0)
}
