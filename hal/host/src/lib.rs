//! A kernel as a value inside a host process: [`Machine`] holds the memory, the clock and the CPUs of several kernels; whatever runs on a
//! simulated CPU finds it through a thread-local, so that many machines fit in one process.
//!
//! Kernel threads and scripted user programs are threads that pass a baton: of one simulated CPU exactly one runs. Two ways to run: *free*
//! ([`Machine::enter`]): the calling thread is the CPU, interrupts come when it breathes or idles, and the others are OS threads; *simulated*
//! ([`Machine::simulate`]): one CPU of the whole machine runs at a time, a seed decides which is next at every point where it lets go, and all
//! threads are fibers of the calling thread.
#![cfg(not(target_os = "none"))]

mod chance;
mod coroutine;
mod cpu;
mod fiber;
mod machine;
mod platform;
mod script;
mod walk;

pub use cpu::preemption_point;
pub use machine::{Fault, KernelConfig, Machine, MachineConfig, Outcome, program_here};
pub use platform::Host;
pub use script::{HostUser, Program, UserCpu};
