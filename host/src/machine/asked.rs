//! A running machine that answers questions.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Command, Ended, Input, Machine, Output, Session, Vm};
use crate::Boot;
use crate::exec::with_mode;
use crate::root::Root;

/// How long the machine may take for one answer; it is the end of one that hangs, not a verdict.
const TIME: Duration = Duration::from_secs(180);

/// See the module.
pub struct Asked(pub Session);

impl Asked {
    /// Boots a machine and waits until it answers.
    pub fn boot(root: &Root, name: &str, checked: bool) -> Result<Self> {
        Self::start(root, &Self::prepare(root, name, checked)?)
    }

    /// Builds what a machine needs.
    pub fn prepare(root: &Root, name: &str, checked: bool) -> Result<Machine> {
        Machine::prepare(root, &with_mode(&Boot { machine: Some(name.to_owned()), checked, ..Boot::default() }))
    }

    /// Boots what is built, and waits until it answers.
    pub fn start(root: &Root, machine: &Machine) -> Result<Self> {
        let mut session = Session::new(Vm::start(root, machine)?)?;
        session.wait_ready(TIME)?;
        Ok(Self(session))
    }

    /// The output of a command that must succeed, as text.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.ask_bytes(line)?).into_owned())
    }

    /// The output of a command that must succeed.
    pub fn ask_bytes(&mut self, line: &str) -> Result<Vec<u8>> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let ended = self.0.run(Command {
            line,
            input: Input::Memory(&[]),
            stdout: Output::Memory(&mut stdout),
            stderr: Output::Memory(&mut stderr),
            deadline: Some(Instant::now() + TIME),
        })?;
        ensure!(ended == Ended::Status(0), "{line}: {ended:?}: {}", String::from_utf8_lossy(&stderr));
        Ok(stdout)
    }
}
