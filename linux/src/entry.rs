//! From a number to a handler: one table per ISA, made at compile time from the rows of `linux_abi`.

use base::{Errno, Error, Result};
use linux_abi::{Call, Isa, call::ROWS};
use task::{Abi, Cx};

use crate::{fs, futex, ipc, mem, misc, process, sched, signal, time};

/// Serves one call: the six arguments as the program gave them; the result, or why not.
pub type Handler = fn(&Cx, [u64; 6]) -> Result<u64>;

/// One more than the highest number that any ISA uses.
const NUMBERS: usize = 512;

/// `ENOSYS`.
fn none(_: &Cx, _: [u64; 6]) -> Result<u64> {
    Err(Error::new(Errno::ENOSYS, "no such call"))
}

/// The handler of each call. Those of files and memory are with their families.
const fn handler(call: Call) -> Handler {
    if let Some(handler) = fs::handler(call) {
        return handler;
    }
    if let Some(handler) = mem::handler(call) {
        return handler;
    }
    match call {
        // process
        Call::Clone => process::clone,
        Call::Fork => process::fork,
        Call::Vfork => process::vfork,
        Call::Execve => process::execve,
        Call::Execveat => process::execveat,
        Call::Exit => process::exit,
        Call::ExitGroup => process::exit_group,
        Call::Wait4 => process::wait4,
        Call::Waitid => process::waitid,
        Call::Clone3 => process::clone3,
        Call::PidfdOpen => process::pidfd_open,
        Call::PidfdSendSignal => process::pidfd_send_signal,
        Call::PidfdGetfd => process::pidfd_getfd,
        Call::SetTidAddress => process::set_tid_address,
        Call::Gettid => process::gettid,
        Call::Getpid => process::getpid,
        Call::Getppid => process::getppid,
        Call::Getpgid => process::getpgid,
        Call::Getpgrp => process::getpgrp,
        Call::Setpgid => process::setpgid,
        Call::Getsid => process::getsid,
        Call::Setsid => process::setsid,
        Call::Unshare => process::unshare,
        Call::Prctl => process::prctl,
        Call::ArchPrctl => process::arch_prctl,
        Call::Personality => process::personality,
        Call::Rseq => process::rseq,
        Call::SetRobustList => process::set_robust_list,
        Call::GetRobustList => process::get_robust_list,
        Call::Getuid => process::getuid,
        Call::Geteuid => process::geteuid,
        Call::Getgid => process::getgid,
        Call::Getegid => process::getegid,
        Call::Setuid => process::setuid,
        Call::Setgid => process::setgid,
        Call::Setreuid => process::setreuid,
        Call::Setregid => process::setregid,
        Call::Setresuid => process::setresuid,
        Call::Setresgid => process::setresgid,
        Call::Getresuid => process::getresuid,
        Call::Getresgid => process::getresgid,
        Call::Setfsuid => process::setfsuid,
        Call::Setfsgid => process::setfsgid,
        Call::Getgroups => process::getgroups,
        Call::Setgroups => process::setgroups,
        Call::Capget => process::capget,
        Call::Capset => process::capset,
        Call::Getrlimit => process::getrlimit,
        Call::Setrlimit => process::setrlimit,
        Call::Prlimit64 => process::prlimit64,
        Call::Getrusage => process::getrusage,
        Call::Times => process::times,
        // signal
        Call::RtSigaction => signal::rt_sigaction,
        Call::RtSigprocmask => signal::rt_sigprocmask,
        Call::RtSigreturn => signal::rt_sigreturn,
        Call::RtSigpending => signal::rt_sigpending,
        Call::RtSigtimedwait => signal::rt_sigtimedwait,
        Call::RtSigqueueinfo => signal::rt_sigqueueinfo,
        Call::RtTgsigqueueinfo => signal::rt_tgsigqueueinfo,
        Call::RtSigsuspend => signal::rt_sigsuspend,
        Call::Sigaltstack => signal::sigaltstack,
        Call::Pause => signal::pause,
        Call::Kill => signal::kill,
        Call::Tkill => signal::tkill,
        Call::Tgkill => signal::tgkill,
        Call::RestartSyscall => signal::restart_syscall,
        // time
        Call::Nanosleep => time::nanosleep,
        Call::ClockNanosleep => time::clock_nanosleep,
        Call::ClockGettime => time::clock_gettime,
        Call::ClockSettime => time::clock_settime,
        Call::ClockGetres => time::clock_getres,
        Call::Gettimeofday => time::gettimeofday,
        Call::Settimeofday => time::settimeofday,
        Call::Time => time::time,
        Call::Getitimer => time::getitimer,
        Call::Setitimer => time::setitimer,
        Call::Alarm => time::alarm,
        Call::TimerCreate => time::timer_create,
        Call::TimerSettime => time::timer_settime,
        Call::TimerGettime => time::timer_gettime,
        Call::TimerGetoverrun => time::timer_getoverrun,
        Call::TimerDelete => time::timer_delete,
        // futex
        Call::Futex => futex::futex,
        // ipc
        Call::Semget => ipc::semget,
        Call::Semop => ipc::semop,
        Call::Semtimedop => ipc::semtimedop,
        Call::Semctl => ipc::semctl,
        Call::Msgget => ipc::msgget,
        Call::Msgsnd => ipc::msgsnd,
        Call::Msgrcv => ipc::msgrcv,
        Call::Msgctl => ipc::msgctl,
        // sched
        Call::SchedYield => sched::sched_yield,
        Call::SchedSetparam => sched::sched_setparam,
        Call::SchedGetparam => sched::sched_getparam,
        Call::SchedSetscheduler => sched::sched_setscheduler,
        Call::SchedGetscheduler => sched::sched_getscheduler,
        Call::SchedGetPriorityMax => sched::sched_get_priority_max,
        Call::SchedGetPriorityMin => sched::sched_get_priority_min,
        Call::SchedRrGetInterval => sched::sched_rr_get_interval,
        Call::SchedSetaffinity => sched::sched_setaffinity,
        Call::SchedGetaffinity => sched::sched_getaffinity,
        Call::SchedSetattr => sched::sched_setattr,
        Call::SchedGetattr => sched::sched_getattr,
        Call::Getpriority => sched::getpriority,
        Call::Setpriority => sched::setpriority,
        Call::Getcpu => sched::getcpu,
        // misc
        Call::Uname => misc::uname,
        Call::Sethostname => misc::sethostname,
        Call::Setdomainname => misc::setdomainname,
        Call::Sysinfo => misc::sysinfo,
        Call::Getrandom => misc::getrandom,
        Call::Reboot => misc::reboot,
        Call::Seccomp => misc::seccomp,
        _ => none,
    }
}

static TABLES: [[Handler; NUMBERS]; Isa::COUNT] = tables();

const fn tables() -> [[Handler; NUMBERS]; Isa::COUNT] {
    let mut tables = [[none as Handler; NUMBERS]; Isa::COUNT];
    let mut row = 0;
    while row < ROWS.len() {
        let mut isa = 0;
        while isa < Isa::COUNT {
            if let Some(nr) = ROWS[row].numbers[isa] {
                tables[isa][nr as usize] = handler(ROWS[row].call);
            }
            isa += 1;
        }
        row += 1;
    }
    tables
}

/// Whether there is a handler for a call: without one it says `ENOSYS`.
pub fn is_served(call: Call) -> bool {
    !core::ptr::fn_addr_eq(handler(call), none as Handler)
}

/// The system-call layer of a kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linux;

impl Abi for Linux {
    #[inline]
    fn syscall(&self, cx: &Cx, nr: u64, args: [u64; 6]) -> i64 {
        let isa = cx.task().isa;
        let handler = match TABLES[isa.index()].get(nr as u32 as usize) {
            Some(handler) => *handler,
            None => none,
        };
        match handler(cx, args) {
            Ok(value) => value as i64,
            Err(error) => -i64::from(error.errno().number()),
        }
    }

    fn restart_nr(&self, isa: Isa) -> u64 {
        // Every ISA has it.
        Call::RestartSyscall.number(isa).map_or(u64::MAX, u64::from)
    }
}

/// Runs the handler of a call by its number, as restart_syscall(2) does.
pub(crate) fn again(cx: &Cx, nr: u64, args: [u64; 6]) -> Result<u64> {
    match TABLES[cx.task().isa.index()].get(nr as usize) {
        Some(handler) => handler(cx, args),
        None => none(cx, args),
    }
}
