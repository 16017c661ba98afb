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
kernels=$(kctl kernels --json | grep -o '"id": *[0-9]*' | grep -o '[0-9]*$')
i=0; until [ "$(kctl kernels --json | grep -c '"up"')" = $(echo $kernels | wc -w) ] || [ $i = 100 ]; do i=$((i+1)); sleep 0.1; done
echo "$(uname -srm), up $(cut -d' ' -f1 /proc/uptime) s: $(nproc --all) CPUs under $(echo $kernels | wc -w) kernels that look like one machine."
kctl kernels
for k in $kernels; do kctl run -k $k sh -c 'echo "Process $$ runs on kernel $(grep Cob /proc/self/status | grep -o "[0-9]*$"), $(uname -m), and sees $(ls -d /proc/[0-9]* | wc -l) processes."'; done
echo "A pipe from one to another: $(kctl run -k 0 echo message | kctl run -k $(echo $kernels | tail -c 2) tr a-z A-Z)"
free -m | head -n 2
echo "Try './cob run' in a terminal, or './cob exec COMMAND'."
"#;

/// The machine that a visitor is shown.
const SHOWN: &str = "trio";

/// Boots and gives the console; without a terminal runs stdin as a script.
pub fn run(root: &Root, boot: &Boot) -> Result<ExitCode> {
    let mut boot = boot.clone();
    if !boot.icount {
        boot.machine.get_or_insert_with(|| SHOWN.to_owned());
    }
    let boot = &boot;
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
