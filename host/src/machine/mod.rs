//! Machines: their plans, and the emulator that runs them.

mod accel;
mod asked;
mod boards;
mod console;
mod logs;
mod network;
mod power;
mod qemu;
mod session;
mod vm;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use plan::{Isa, Plan};

pub use accel::Accel;
pub use asked::Asked;
pub use console::Leave;
pub use network::Weather;
pub use session::{Command, Ended, Input, Output, Session};
pub use vm::Vm;

use crate::root::Root;
use crate::{Boot, build};

/// The machine that is meant if none is named.
const DEFAULT: &str = "duo";
/// The machine that is meant with `--icount`.
const DEFAULT_ICOUNT: &str = "uni";

/// The system died, or never lived.
#[derive(Debug)]
pub struct Died {
    /// What happened.
    pub reason: String,
    /// Where the logs are.
    pub folder: PathBuf,
}

impl fmt::Display for Died {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the system died: {}; logs: {}/k*.log", self.reason, self.folder.display())
    }
}

impl std::error::Error for Died {}

/// A host path for the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// On the host.
    pub from: PathBuf,
    /// In the tree.
    pub to: String,
}

impl FromStr for Put {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = match text.split_once(':') {
            Some((from, to)) => (PathBuf::from(from), to.to_owned()),
            None => (PathBuf::from(text), String::from("/root/")),
        };
        let name = from.canonicalize().map_err(|error| format!("{}: {error}", from.display()))?;
        let name = name.file_name().and_then(|name| name.to_str()).ok_or("a path without a name")?.to_owned();
        let to = if to.ends_with('/') { to + &name } else { to };
        if !to.starts_with('/') || to.split('/').any(|part| part == "..") {
            return Err(format!("{to:?} is not an absolute path in the tree"));
        }
        Ok(Self { from, to })
    }
}

/// A machine that can be started.
pub struct Machine {
    /// Its description.
    pub plan: Plan,
    /// The description's text.
    pub text: String,
    /// How the emulator executes.
    pub accel: Accel,
    /// The kernel images, per ISA.
    pub kernels: BTreeMap<plan::Isa, PathBuf>,
    /// What the emulator loads of it, per ISA.
    pub images: BTreeMap<plan::Isa, PathBuf>,
    /// What the boards of a mixed machine wait with, per ISA.
    pub stubs: BTreeMap<plan::Isa, PathBuf>,
    /// The base tree.
    pub archive: PathBuf,
    /// What is put into the tree.
    pub put: Vec<Put>,
    /// More for QEMU.
    pub qemu_args: Vec<String>,
    /// More for the kernels' command line.
    pub kernel_args: Vec<String>,
}

impl Machine {
    /// Reads the plan, refuses a bad one, builds what is missing.
    pub fn prepare(root: &Root, boot: &Boot) -> Result<Self> {
        let name = boot.machine.as_deref().unwrap_or(if boot.icount { DEFAULT_ICOUNT } else { DEFAULT });
        let (plan, text) = load(root, name)?;
        if plan.boards.len() > 1 && boot.icount {
            bail!("{name} has {} boards: several emulators cannot count instructions together", plan.boards.len());
        }
        let isas = isas(&plan);
        let isa = *isas.first().context("a plan without boards")?;
        let built = build::everything(root, &isas, boot.checked)?;
        let mut machine = Self {
            plan,
            text,
            accel: if boot.icount { Accel::Counted } else { Accel::Kvm },
            kernels: built.kernels,
            images: built.images,
            stubs: built.stubs,
            archive: built.archive,
            put: Vec::new(),
            qemu_args: Vec::new(),
            kernel_args: vec![String::from("cob.mode=exec")],
        };
        // Emulators that share memory must all be of a kind.
        if !boot.icount && (machine.plan.is_mixed() || isa.name() != std::env::consts::ARCH) {
            machine.accel = Accel::Tcg;
        } else if !boot.icount {
            machine.accel = Accel::find(root, || machine.comes_up(root));
        }
        (machine.put, machine.qemu_args) = (boot.put.clone(), boot.qemu_arg.clone());
        machine.kernel_args = boot.kernel_arg.clone();
        Ok(machine)
    }

    /// Whether it boots as far as its agent.
    fn comes_up(&self, root: &Root) -> Result<()> {
        const TIME: Duration = Duration::from_secs(5);
        let mut session = Session::new(Vm::start(root, self)?)?;
        session.wait_ready(TIME)
    }

    /// One sentence about it.
    pub fn describe(&self) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let cpus = count(self.plan.cpu_count() as usize, "CPU");
        let kernels = count(self.plan.kernels.len(), "kernel");
        format!("{}: {kernels}, {cpus}, {}", self.plan.name, self.accel.describe())
    }
}

/// What a file of the run's folder is called for a board: those of the first have the plain names.
pub fn of_board(name: &str, board: usize) -> String {
    let (stem, extension) = name.split_at(name.find('.').unwrap_or(name.len()));
    if board == 0 { name.to_owned() } else { format!("{stem}{board}{extension}") }
}

/// The ISAs of a machine, as its images are built: that of the first board, whose programs have the plain names, and the others.
pub fn isas(plan: &Plan) -> Vec<Isa> {
    let mut isas: Vec<_> = plan.boards.iter().map(|board| board.model.isa).collect();
    if let Some((first, others)) = isas.split_first_mut() {
        let first = *first;
        others.sort_by_key(|isa| (*isa != first, *isa));
        isas.dedup();
    }
    isas
}

/// The plan with this name or path.
pub fn load(root: &Root, name: &str) -> Result<(Plan, String)> {
    let path = if name.contains('/') || name.ends_with(".toml") {
        PathBuf::from(name)
    } else {
        root.join("machines").join(name).with_extension("toml")
    };
    let text = fs::read_to_string(&path).with_context(|| {
        let known = names(root).join(", ");
        format!("no machine {name} ({}); there are {known}, or give the path of a description", path.display())
    })?;
    match plan::parse(&text) {
        Ok(plan) => Ok((plan, text)),
        Err(errors) => bail!("{} is refused\n{}", path.display(), explain(&path, &errors)),
    }
}

/// One line per error: where, what, what to change.
pub fn explain(path: &Path, errors: &[plan::PlanError]) -> String {
    let line = |error: &plan::PlanError| format!("{}:{}: {}; {}", path.display(), error.line, error.what, error.hint);
    errors.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The machines that come with the system.
pub fn names(root: &Root) -> Vec<String> {
    let entries = fs::read_dir(root.join("machines")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned)).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::Put;

    #[test]
    fn put_has_a_default_place() {
        let put = |text: &str| text.parse::<Put>().map(|put| put.to);
        assert_eq!(put("/etc"), Ok("/root/etc".into()));
        assert_eq!(put("/etc:/srv/"), Ok("/srv/etc".into()));
        assert_eq!(put("/etc:/srv/conf"), Ok("/srv/conf".into()));
        assert!(put("/etc:srv").is_err() && put("/etc:/a/../b").is_err() && put("/nowhere").is_err());
    }
}
