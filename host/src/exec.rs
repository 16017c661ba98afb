//! `cob exec`: one command in a fresh machine.

use std::io::{stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Boot;
use crate::machine::{Command, Ended, Input, Machine, Output, Session, Vm};
use crate::root::Root;

/// The exit status of a command that took too long, as `timeout(1)` has it.
pub const TIMED_OUT: u8 = 124;
/// How long a machine may take to switch off.
pub const OFF_TIME: Duration = Duration::from_secs(10);

/// Boots, runs, passes everything through, switches off.
pub fn exec(root: &Root, boot: &Boot, timeout: Option<f64>, line: &str) -> Result<ExitCode> {
    let timeout = timeout.map(Duration::try_from_secs_f64).transpose()?;
    let machine = Machine::prepare(root, &with_mode(boot))?;
    let stdin = stdin();
    run_line(root, &machine, timeout, line, Input::Fd(Vec::new(), stdin.as_fd()))
}

/// The same settings, for a machine that nobody sits at.
pub fn with_mode(boot: &Boot) -> Boot {
    let mut boot = boot.clone();
    boot.kernel_arg.push(String::from("cob.mode=exec"));
    boot
}

/// Boots a prepared machine for one command on this process's stdout and stderr.
pub fn run_line(
    root: &Root,
    machine: &Machine,
    timeout: Option<Duration>,
    line: &str,
    input: Input<'_>,
) -> Result<ExitCode> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut session = Session::new(Vm::start(root, machine)?)?;
    let (out, err) = (stdout(), stderr());
    let ended = session.run(Command {
        line,
        input,
        stdout: Output::Fd(out.as_fd()),
        stderr: Output::Fd(err.as_fd()),
        deadline,
    })?;
    let code = match ended {
        Ended::Status(status) => status,
        Ended::PoweredOff => return Ok(ExitCode::SUCCESS),
        Ended::TimedOut => {
            eprintln!(
                "cob: the command took longer than {} s; logs: {}",
                shown(timeout),
                session.vm.folder().display()
            );
            return Ok(ExitCode::from(TIMED_OUT));
        }
        Ended::Lost => {
            eprintln!("cob: the command was lost with the kernel that it was started on; others go on");
            crate::SYSTEM_DIED
        }
        Ended::Interrupted(signal) => return Ok(ExitCode::from(128 + signal as u8)),
    };
    // The command has ended, whatever happens now; but a system that cannot switch off is worth a word.
    if let Err(error) = session.power_off(OFF_TIME) {
        eprintln!("cob: after the command {error:#}");
    }
    for panic in session.vm.panics.iter().flatten() {
        eprintln!("cob: {panic}; logs: {}", session.vm.folder().display());
    }
    Ok(ExitCode::from(code))
}

fn shown(timeout: Option<Duration>) -> f64 {
    timeout.unwrap_or_default().as_secs_f64()
}
