//! `cob run`: a machine for a person, or for a script on stdin.

use std::io::{Read, stdin};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Result;

use crate::Boot;
use crate::exec::{run_line, with_mode};
use crate::machine::{Input, Leave, Machine, Vm};
use crate::root::Root;
use crate::terminal::RawTerminal;

/// What a visitor without a terminal sees: about ten lines of a live system.
const TOUR: &str = r#"
echo "This is $(uname -srm), up $(cut -d' ' -f1 /proc/uptime) s, with $(nproc --all) CPU(s) under these kernels:"
kctl kernels
echo "A process of each kernel, seen from here:"
for k in $(seq 0 $(($(kctl kernels --json | grep -c '"id"') - 1))); do kctl run -k "$k" sh -c 'sleep 1 & ps -o pid,comm | tail -n 1'; done
free -m | head -n 2
echo "Try ./cob run in a terminal, or ./cob exec 'COMMAND'."
"#;

/// Boots and gives the console; without a terminal runs stdin as a script.
pub fn run(root: &Root, boot: &Boot) -> Result<ExitCode> {
    if !RawTerminal::is_there() {
        return script(root, boot);
    }
    let machine = Machine::prepare(root, boot)?;
    eprintln!("{}; Ctrl-A x leaves", machine.describe());
    let mut vm = Vm::start(root, &machine)?;
    match vm.attend()? {
        Leave::Ended(status) => {
            vm.read_logs();
            vm.verdict(status)?;
            Ok(ExitCode::SUCCESS)
        }
        Leave::Escape => {
            eprintln!("\ncob: left; logs: {}", vm.folder().display());
            Ok(ExitCode::SUCCESS)
        }
        Leave::Signal(signal) => Ok(ExitCode::from(128 + signal as u8)),
    }
}

/// The commands on stdin; a tour if there are none.
fn script(root: &Root, boot: &Boot) -> Result<ExitCode> {
    let machine = Machine::prepare(root, &with_mode(boot))?;
    eprintln!("{}", machine.describe());
    let mut first = vec![0; 4096];
    let n = stdin().read(&mut first)?;
    first.truncate(n);
    if first.is_empty() {
        return run_line(root, &machine, None, "sh -s", Input::Memory(TOUR.as_bytes()));
    }
    let stdin = stdin();
    run_line(root, &machine, None, "sh -s", Input::Fd(first, stdin.as_fd()))
}
