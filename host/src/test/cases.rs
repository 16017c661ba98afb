//! Cases of system tests: `tests/system/*.toml`, as `docs/testing.md` describes them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::root::Root;

/// Where a case runs, seen from its shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// On the kernel that has the agent.
    Local,
    /// On kernel 1; its descriptors are the other kernel's.
    Remote,
    /// On the kernel that has the agent, with descriptors of kernel 1.
    Crossed,
}

impl Placement {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Local, Self::Remote, Self::Crossed];

    /// The suffix of a test's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Crossed => "crossed",
        }
    }

    /// The command that runs a script there, for the guest's `sh -c`.
    pub fn place(self, script: &str) -> String {
        let script = quote(script);
        match self {
            Self::Local => format!("exec sh -c {script}"),
            Self::Remote => format!("exec kctl run -k 1 sh -c {script}"),
            Self::Crossed => {
                // Pipes made on kernel 1, on both sides of a command on kernel 0; the status goes round them.
                let inner = format!(
                    "s=$(mktemp); cat | {{ kctl run -k 0 sh -c {script}; echo $? >\"$s\"; }} | cat; \
                     c=$(cat \"$s\"); rm \"$s\"; exit \"$c\""
                );
                format!("exec kctl run -k 1 sh -c {}", quote(&inner))
            }
        }
    }
}

/// Text as one word of a shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A file of cases.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The machine that they run on.
    pub machine: String,
    /// Machines on which they run too, as suites of the names `ISA-NAME`, or `MACHINE-NAME` if the ISA is the same. In what they expect `{isa}` stands for the ISA of kernel 0, and
    /// `{private}` for an address of its memory behind the image.
    #[serde(default)]
    pub also: Vec<String>,
    /// Words for the kernels' command line.
    #[serde(default)]
    pub kernel_args: Vec<String>,
    /// Words for the command line of the first board's emulator.
    #[serde(default)]
    pub qemu_args: Vec<String>,
    /// Packages of Debian whose programs and libraries are put into the tree. All that they need must be named.
    #[serde(default)]
    pub debian: Vec<String>,
    /// How many threads of this host do nothing but run meanwhile: kernels must live with what is left.
    #[serde(default)]
    pub load: usize,
    /// The cases, one behind the other in one boot.
    #[serde(rename = "case", default)]
    pub cases: Vec<Case>,
    /// The file's name.
    #[serde(skip)]
    pub name: String,
}

/// A script and what must come of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// For the shell.
    pub run: String,
    /// Its standard input.
    #[serde(default)]
    pub stdin: String,
    /// All of its standard output; not looked at if absent.
    pub stdout: Option<String>,
    /// What its standard output must contain.
    #[serde(default)]
    pub has: Vec<String>,
    /// All of its standard error; not looked at if absent.
    pub stderr: Option<String>,
    /// Its exit status.
    #[serde(default)]
    pub status: u8,
    /// The seconds that it may take.
    #[serde(default = "ten")]
    pub timeout: f64,
    /// Run it under the same busybox on this host too; output and status must be the same.
    #[serde(default)]
    pub linux: bool,
    /// Where it runs.
    #[serde(default = "local")]
    pub placements: Vec<Placement>,
    /// Kernels that it kills: their panics are no failure, and the machine is booted anew after it.
    #[serde(default)]
    pub kills: Vec<usize>,
    /// The machine is used on although it kills kernels.
    #[serde(default)]
    pub goes_on: bool,
    /// It is lost with the kernel that has the agent, which another kernel then has.
    #[serde(default)]
    pub lost: bool,
    /// Warnings that contain one of these are no failure.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Texts that kernels must have logged meanwhile.
    #[serde(default)]
    pub logs: Vec<String>,
    /// Machines on which it says nothing: what it is about is not there, or not the same.
    #[serde(default)]
    pub except: Vec<String>,
    /// Only with `--long`.
    #[serde(default)]
    pub long: bool,
    /// With `--quick` too.
    #[serde(default)]
    pub quick: bool,
}

fn ten() -> f64 {
    10.0
}

fn local() -> Vec<Placement> {
    vec![Placement::Local]
}

/// Reads all suites, by name.
pub fn read(root: &Root) -> Result<Vec<Suite>> {
    let folder = root.join("tests/system");
    let mut suites = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let suite = read_one(&path)?;
            for machine in std::iter::once(&suite.machine).chain(&suite.also) {
                suites.push(on_machine(root, &suite, machine)?);
            }
        }
    }
    suites.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(suites)
}

/// The suite as it runs on a machine.
fn on_machine(root: &Root, suite: &Suite, machine: &str) -> Result<Suite> {
    let (plan, _) = crate::machine::load(root, machine)?;
    let (own, _) = crate::machine::load(root, &suite.machine)?;
    let kernel = plan.kernels.first().context("a machine without kernels")?;
    let private = format!("{:#x}", kernel.base() + 0x100_0000);
    let fill = |text: &mut String| *text = text.replace("{isa}", kernel.isa.name()).replace("{private}", &private);
    let mut suite = suite.clone();
    if machine != suite.machine {
        let isa = kernel.isa.name();
        let same = own.kernels.first().is_some_and(|own| own.isa == kernel.isa);
        suite.name = format!("{}-{}", if same { machine } else { isa }, suite.name);
        suite.machine = machine.to_owned();
    }
    suite.cases.retain(|case| !case.except.iter().any(|name| name == machine));
    for case in &mut suite.cases {
        case.stdout.iter_mut().chain(&mut case.has).chain(&mut case.logs).for_each(fill);
    }
    Ok(suite)
}

fn read_one(path: &Path) -> Result<Suite> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut suite: Suite = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    suite.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut names: Vec<&str> = suite.cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    ensure!(names.windows(2).all(|pair| pair[0] != pair[1]), "{} has two cases of one name", path.display());
    Ok(suite)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::quote;

    #[test]
    fn quoting_survives_a_shell() {
        let text = "a 'b' \"c\" $d `e` \\ \n f";
        let output = Command::new("sh").args(["-c", &format!("printf %s {}", quote(text))]).output().expect("sh");
        assert_eq!(String::from_utf8_lossy(&output.stdout), text);
    }

    #[test]
    fn the_suites_are_well_formed() {
        super::read(&crate::root::Root::find().expect("the tree")).expect("the suites");
    }
}
