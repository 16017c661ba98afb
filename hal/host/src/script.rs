//! User programs of the simulator: Rust closures that make system calls.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use hal_api::{Access, Exit, Fault, FaultKind, Prot, SignalFrame, UserAddr, UserRegs};

use crate::coroutine::{Coroutine, End, Gate, my_gate};
use crate::cpu::{Identity, current, deliver, set_current, with};
use crate::machine::{Shared, lock, register};
use crate::walk::pieces;

/// A program: what it does, given its CPU. When it returns `status`, it calls `exit_group(status)`.
pub type Program = Arc<dyn Fn(&mut UserCpu) -> i32 + Send + Sync>;

/// `exit_group` and `rt_sigreturn` of x86-64, whose ABI the simulated programs have.
const EXIT_GROUP: u64 = 231;
const SIGRETURN: u64 = 15;

#[derive(Clone, Copy, Default, Debug)]
struct Regs {
    nr: u64,
    args: [u64; 6],
    result: i64,
    ip: u64,
    sp: u64,
    tls: u64,
    tls2: u64,
    /// Where a clone goes on.
    clone_ip: u64,
    /// Signal number, for a handler.
    signo: u64,
}

/// The registers of a scripted program.
pub struct HostUser {
    regs: Regs,
    script: Option<Script>,
}

struct Script {
    talk: Arc<Talk>,
    co: Coroutine,
}

/// What a script and its kernel tell each other. Only the one with the baton touches it.
struct Talk {
    state: Mutex<(Regs, Exit)>,
    /// Where the kernel side waits while the script runs.
    kernel: Mutex<Option<Arc<Gate>>>,
}

/// The CPU as a script sees it.
pub struct UserCpu {
    talk: Arc<Talk>,
    machine: Arc<Shared>,
}

impl UserCpu {
    /// Writes a line into the machine's trace.
    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        with(|c| c.machine.trace.line(c.machine.clock.load(SeqCst), c.kernel, c.slot, what));
    }

    /// Which kernel the program runs on.
    pub fn kernel(&self) -> usize {
        with(|c| c.kernel)
    }

    /// Goes into the kernel and comes back.
    fn exit(&mut self, exit: Exit) {
        lock(&self.talk.state).1 = exit;
        let gate = lock(&self.talk.kernel).take();
        let me = current();
        set_current(None);
        if let Some(gate) = gate {
            gate.open(me);
        }
        my_gate().wait();
    }

    /// Makes a system call; a negative result is an errno. Signal handlers run before it returns.
    pub fn syscall(&mut self, nr: u64, args: [u64; 6]) -> i64 {
        let at = {
            let mut s = lock(&self.talk.state);
            s.0.nr = nr;
            s.0.args = args;
            // The program's address moves on, so that a handler's return can be told from a handler's call.
            s.0.ip
        };
        loop {
            self.exit(Exit::Syscall);
            let regs = lock(&self.talk.state).0;
            if regs.ip == at {
                return regs.result;
            }
            if regs.ip == at.wrapping_sub(1) {
                // Rewound: the same call again.
                let mut s = lock(&self.talk.state);
                s.0.ip = at;
                continue;
            }
            self.handlers(at);
            let mut s = lock(&self.talk.state);
            if s.0.ip == at.wrapping_sub(1) {
                s.0.ip = at;
                continue;
            }
            return s.0.result;
        }
    }

    /// Runs signal handlers until the program is back at `at` (or just before it, to make the call again).
    fn handlers(&mut self, at: u64) {
        loop {
            let regs = lock(&self.talk.state).0;
            if regs.ip == at || regs.ip == at.wrapping_sub(1) {
                return;
            }
            let handler = lock(&self.machine.programs).get(&regs.ip).cloned();
            match handler {
                Some(handler) => {
                    handler(self);
                    let mut s = lock(&self.talk.state);
                    s.0.nr = SIGRETURN;
                    s.0.args = [0; 6];
                    drop(s);
                    self.exit(Exit::Syscall);
                }
                None => self.exit(fault(UserAddr(regs.ip), FaultKind::Page(Access::Execute))),
            }
        }
    }

    /// Makes a `fork`-like call: the child runs `child`, this program goes on with the result.
    pub fn fork(&mut self, nr: u64, args: [u64; 6], child: Program) -> i64 {
        let at = register(&self.machine, child);
        lock(&self.talk.state).0.clone_ip = at;
        let result = self.syscall(nr, args);
        lock(&self.talk.state).0.clone_ip = 0;
        result
    }

    /// Registers a function as a signal handler or thread body and returns its address.
    pub fn function(&mut self, f: Program) -> u64 {
        register(&self.machine, f)
    }

    /// The number of the signal whose handler runs.
    pub fn signo(&self) -> u64 {
        lock(&self.talk.state).0.signo
    }

    /// The stack pointer.
    pub fn sp(&self) -> u64 {
        lock(&self.talk.state).0.sp
    }

    /// Lets interrupts in, as computing for a while does.
    pub fn compute(&mut self) {
        self.interrupted(Exit::Irq);
    }

    /// Goes into the kernel for something else than a call, and goes on where it was; signal handlers run in between.
    fn interrupted(&mut self, exit: Exit) {
        let at = lock(&self.talk.state).0.ip;
        self.exit(exit);
        self.handlers(at);
    }

    /// Reads its memory; faults go to the kernel until it lets the access through (or ends the program).
    pub fn load(&mut self, at: u64, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let rest = &mut buf[done..];
            done += with(|c| {
                pieces(c, UserAddr(at + done as u64), rest.len(), Prot::READ, |p, off, n| {
                    // SAFETY: `p` is valid for `n` bytes of the arena, `rest` has them.
                    unsafe { rest.as_mut_ptr().add(off).copy_from(p, n) }
                })
            });
            if done < buf.len() {
                self.interrupted(fault(UserAddr(at + done as u64), FaultKind::Page(Access::Read)));
            }
        }
    }

    /// Writes its memory.
    pub fn store(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            done += with(|c| {
                pieces(c, UserAddr(at + done as u64), rest.len(), Prot::WRITE, |p, off, n| {
                    // SAFETY: `p` is valid for `n` bytes of the arena, `rest` has them.
                    unsafe { p.copy_from(rest.as_ptr().add(off), n) }
                })
            });
            if done < bytes.len() {
                self.interrupted(fault(UserAddr(at + done as u64), FaultKind::Page(Access::Write)));
            }
        }
    }
}

fn fault(addr: UserAddr, kind: FaultKind) -> Exit {
    let code = match kind {
        FaultKind::Page(Access::Write) => 6,
        FaultKind::Page(Access::Execute) => 20,
        _ => 4,
    };
    Exit::Fault(Fault { kind, addr, trap: 14, code })
}

impl HostUser {
    fn start(machine: &Arc<Shared>, program: Program) -> Script {
        let talk = Arc::new(Talk { state: Mutex::new((Regs::default(), Exit::Irq)), kernel: Mutex::new(None) });
        let mut cpu = UserCpu { talk: talk.clone(), machine: machine.clone() };
        let body = Box::new(move || {
            let status = program(&mut cpu);
            loop {
                cpu.syscall(EXIT_GROUP, [status as u64, 0, 0, 0, 0, 0]);
            }
        });
        let co = Coroutine::new(machine, End::Unwound, body);
        machine.watch(co.gate());
        Script { talk, co }
    }
}

impl Clone for HostUser {
    fn clone(&self) -> Self {
        let mut regs = self.regs;
        if regs.clone_ip != 0 {
            regs.ip = regs.clone_ip;
            regs.clone_ip = 0;
        }
        Self { regs, script: None }
    }
}

// SAFETY: a script can do nothing to the kernel but what its calls do.
unsafe impl UserRegs for HostUser {
    const SIGNAL_FRAME_MAX: usize = 256;

    fn new(ip: UserAddr, sp: UserAddr) -> Self {
        Self { regs: Regs { ip: ip.0, sp: sp.0, ..Regs::default() }, script: None }
    }

    fn run(&mut self) -> Exit {
        let Some(me) = current() else { return Exit::Irq };
        // What is pending comes first, as on hardware.
        if deliver(&me) {
            return Exit::Irq;
        }
        if me.machine.driver.is_some() {
            crate::cpu::let_go();
        }
        let me: Identity = match current() {
            Some(c) => c,
            None => return Exit::Irq,
        };
        let script = match &mut self.script {
            Some(s) => s,
            None => {
                let Some(program) = lock(&me.machine.programs).get(&self.regs.ip).cloned() else {
                    return fault(UserAddr(self.regs.ip), FaultKind::Page(Access::Execute));
                };
                self.script.insert(Self::start(&me.machine, program))
            }
        };
        lock(&script.talk.state).0 = self.regs;
        *lock(&script.talk.kernel) = Some(my_gate());
        set_current(None);
        script.co.resume(Some(me));
        my_gate().wait();
        let (regs, exit) = *lock(&script.talk.state);
        self.regs = regs;
        exit
    }

    fn syscall_nr(&self) -> u64 {
        self.regs.nr
    }
    fn syscall_args(&self) -> [u64; 6] {
        self.regs.args
    }
    fn set_result(&mut self, value: i64) {
        self.regs.result = value;
    }
    fn result(&self) -> i64 {
        self.regs.result
    }
    fn rewind_syscall(&mut self, nr: u64) {
        self.regs.nr = nr;
        self.regs.ip = self.regs.ip.wrapping_sub(1);
    }
    fn ip(&self) -> UserAddr {
        UserAddr(self.regs.ip)
    }
    fn set_ip(&mut self, at: UserAddr) {
        self.regs.ip = at.0;
    }
    fn sp(&self) -> UserAddr {
        UserAddr(self.regs.sp)
    }
    fn set_sp(&mut self, at: UserAddr) {
        self.regs.sp = at.0;
    }
    fn tls(&self) -> u64 {
        self.regs.tls
    }
    fn set_tls(&mut self, value: u64) {
        self.regs.tls = value;
    }
    fn tls2(&self) -> u64 {
        self.regs.tls2
    }
    fn set_tls2(&mut self, value: u64) -> bool {
        self.regs.tls2 = value;
        true
    }
    fn fpu_save(&mut self) {}
    fn fpu_restore(&mut self) {}

    fn push_signal(&mut self, frame: &SignalFrame<'_>, buf: &mut [u8]) -> Option<(UserAddr, usize)> {
        let words = [
            self.regs.nr,
            self.regs.result as u64,
            self.regs.ip,
            self.regs.sp,
            frame.old_mask,
            self.regs.signo,
            self.regs.args[0],
            self.regs.args[1],
            self.regs.args[2],
            self.regs.args[3],
            self.regs.args[4],
            self.regs.args[5],
        ];
        let n = words.len() * 8 + 128;
        let top = frame.stack_top.map_or(self.regs.sp.checked_sub(128)?, |t| t.0);
        let at = top.checked_sub(n as u64)? & !15;
        for (to, word) in buf.get_mut(..n)?.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        buf[words.len() * 8..n].copy_from_slice(frame.siginfo);
        self.regs.sp = at;
        self.regs.ip = frame.handler.0;
        self.regs.signo = u64::from(frame.signo);
        Some((UserAddr(at), n))
    }

    fn signal_frame_at(&self) -> (UserAddr, usize) {
        (UserAddr(self.regs.sp), 96)
    }

    fn pop_signal(&mut self, frame: &[u8]) -> Option<u64> {
        let mut words = [0u64; 12];
        for (word, bytes) in words.iter_mut().zip(frame.get(..96)?.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        self.regs.nr = words[0];
        self.regs.result = words[1] as i64;
        self.regs.ip = words[2];
        self.regs.sp = words[3];
        self.regs.signo = words[5];
        self.regs.args.copy_from_slice(&words[6..]);
        Some(words[4])
    }

    fn dump(&self, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        writeln!(out, "{:x?}", self.regs)
    }
}
