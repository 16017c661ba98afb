//! The `cob` command: builds the system, runs it, looks into it and tests it. `./cob` (a shell script) makes sure of the tools,
//! builds this and hands over; `README.md` and `docs/machines.md` describe what it does for people.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod doctor;
mod exec;
mod inspect;
mod lint;
mod machine;
mod mutants;
mod root;
mod run;
mod signals;
mod terminal;
mod test;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::machine::Put;
use crate::root::Root;

/// The command did not do what was asked because the *system* died; no program in it can exit with this and a reason on stderr.
pub const SYSTEM_DIED: u8 = 125;

/// Cob: many kernels, one system.
#[derive(Parser)]
#[command(name = "cob", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// An ISA by its name.
fn isa(name: &str) -> Result<plan::Isa, String> {
    let known = plan::Isa::ALL.map(plan::Isa::name).join(", ");
    plan::Isa::from_name(name).ok_or_else(|| format!("no such ISA; there are {known}"))
}

#[derive(Subcommand)]
enum Command {
    /// Build, boot, and give a console; Ctrl-A x leaves. Without a terminal: run the commands on stdin.
    Run(Boot),
    /// Boot, run a shell command, pass stdin, stdout, stderr and the exit status.
    Exec {
        #[command(flatten)]
        boot: Boot,
        /// Give up after this many seconds (exit status 124).
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<f64>,
        /// The command, for `sh -c`.
        command: String,
    },
    /// Boot, run a shell command, and draw what all kernels did meanwhile: a file for Perfetto or chrome://tracing.
    Trace {
        #[command(flatten)]
        boot: Boot,
        /// Give up after this many seconds (exit status 124); what was noted by then is drawn.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<f64>,
        /// How many records each CPU keeps; older ones are lost.
        #[arg(long, default_value_t = 1 << 16, value_parser = clap::value_parser!(u32).range(64..=1 << 18))]
        records: u32,
        /// The file.
        #[arg(short, long, default_value = "trace.json")]
        output: PathBuf,
        /// The command, for `sh -c`.
        command: String,
    },
    /// Build everything that a machine needs and say where it is.
    Build {
        /// Build the kernel with its checks on.
        #[arg(long)]
        checked: bool,
    },
    /// Attach gdb, with symbols, to the newest running machine. While gdb holds it, no kernel counts as dead.
    Gdb {
        /// The board, as the machine's plan counts them; while gdb holds one, all boards are stopped.
        #[arg(long, default_value_t = 0)]
        board: usize,
        /// A run as `cob log --list` names it; the newest if absent.
        #[arg(long)]
        run: Option<String>,
        /// Arguments for gdb.
        #[arg(trailing_var_arg = true)]
        args: Vec<String>,
    },
    /// Print the logs of all kernels of a run, merged by time.
    Log {
        /// A run as `--list` names it; the newest if absent.
        run: Option<String>,
        /// Name the runs that are kept.
        #[arg(long)]
        list: bool,
    },
    /// Test everything that must hold; the last line counts.
    Test {
        /// What takes two minutes.
        #[arg(long, conflicts_with = "long")]
        quick: bool,
        /// What takes a night.
        #[arg(long)]
        long: bool,
        /// Only tests whose STAGE/NAME contains this.
        filter: Option<String>,
    },
    /// Measure against Debian's Linux in the same emulator.
    Bench {
        #[command(subcommand)]
        what: BenchWhat,
    },
    /// Run the protocol simulator, or with `--system` first the system simulator; `docs/simulator.md` tells their options.
    #[command(disable_help_flag = true)]
    Sim {
        /// For the simulator.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Change links and state machines in one place after another, and look whether a test notices. Takes a night.
    Mutants {
        /// Of these crates; of all that are looked at if none is named.
        crates: Vec<String>,
        /// Only the K-th of N parts of them, from 0.
        #[arg(long, value_name = "K/N")]
        shard: Option<String>,
        /// The page that is written.
        #[arg(short, long, default_value = "docs/mutants.md")]
        output: PathBuf,
    },
    /// Check the house rules that the compiler does not hold.
    Lint,
    /// Show which tools were found and what is missing.
    Doctor,
    /// Work with machine descriptions.
    Plan {
        #[command(subcommand)]
        action: PlanAction,
    },
}

#[derive(Subcommand)]
enum BenchWhat {
    /// How long kernels take to come up again and to be missed; what they cost when nothing runs.
    Life,
    /// Single operations: system calls, faults, processes.
    Micro {
        /// Which ISA the kernels are of: x86_64, aarch64 or riscv64.
        #[arg(long, default_value = "x86_64", value_parser = isa)]
        isa: plan::Isa,
        /// Wall clock, interleaved pairs of runs (7 if no number is given), instead of counted instructions.
        #[arg(long, value_name = "PAIRS", num_args = 0..=1, require_equals = true, default_missing_value = "7")]
        wall: Option<usize>,
        /// Only these rows.
        rows: Vec<String>,
    },
    /// What it costs that a kernel notes what it does (`cob trace`).
    Trace,
    /// The time to a prompt, and to eight joined kernels, against Linux with eight CPUs.
    Boot {
        /// How many interleaved pairs of boots; the medians count.
        #[arg(long, default_value_t = 7)]
        pairs: usize,
        /// Only until the kernels of this machine have joined, against Linux with as many CPUs.
        #[arg(short, long)]
        machine: Option<String>,
    },
    /// Messages between two kernels, against what lies under them.
    Link {
        /// The machine whose kernels 0 and 1 talk.
        #[arg(short, long, default_value = "duo")]
        machine: String,
        /// How many runs; the medians count.
        #[arg(long, default_value_t = 3)]
        runs: usize,
    },
}

#[derive(Subcommand)]
enum PlanAction {
    /// Check machine descriptions; says for every error the line and what to change.
    Check {
        /// The TOML files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// What `run` and `exec` have in common.
#[derive(Args, Clone, Default)]
pub struct Boot {
    /// A machine of `machines/`, or the path of a description (default: `trio` for `run`, `duo` for `exec`).
    #[arg(short, long, value_name = "MACHINE")]
    machine: Option<String>,
    /// Put a host file or directory into the tree, with its modes (default: `/root/NAME`).
    #[arg(long, value_name = "HOSTPATH[:PATH]")]
    put: Vec<Put>,
    /// Use the emulator's deterministic clock: one instruction, one nanosecond (default machine: uni).
    #[arg(long)]
    icount: bool,
    /// Build the kernel with its checks on.
    #[arg(long)]
    checked: bool,
    /// One more argument for QEMU.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<String>,
    /// One more word for the kernels' command line.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    kernel_arg: Vec<String>,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cob: {error:#}");
            match error.downcast_ref::<machine::Died>() {
                Some(_) => ExitCode::from(SYSTEM_DIED),
                None => ExitCode::FAILURE,
            }
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    let root = Root::find()?;
    match command {
        Command::Run(boot) => run::run(&root, &boot),
        Command::Exec { boot, timeout, command } => exec::exec(&root, &boot, timeout, &command),
        Command::Build { checked } => {
            let built = build::everything(&root, &[plan::Isa::X86_64], checked)?;
            for kernel in built.kernels.values() {
                println!("kernel   {}", kernel.display());
            }
            println!("archive  {}", built.archive.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Trace { boot, timeout, records, output, command } => {
            trace::trace(&root, &boot, timeout, records, &output, &command)
        }
        Command::Gdb { board, run, args } => inspect::gdb(&root, board, run.as_deref(), &args),
        Command::Log { run, list } => inspect::log(&root, run.as_deref(), list),
        Command::Test { quick, long, filter } => {
            let depth = match (quick, long) {
                (true, _) => test::Depth::Quick,
                (_, true) => test::Depth::Long,
                _ => test::Depth::Normal,
            };
            test::test(&root, depth, filter)
        }
        Command::Bench { what: BenchWhat::Life } => bench::life::life(&root),
        Command::Bench { what: BenchWhat::Trace } => bench::micro::traced(&root),
        Command::Bench { what: BenchWhat::Micro { isa, wall, rows } } => bench::micro::micro(&root, isa, wall, &rows),
        Command::Bench { what: BenchWhat::Boot { pairs, machine: None } } => bench::boot::boot(&root, pairs.max(1)),
        Command::Bench { what: BenchWhat::Boot { pairs, machine: Some(name) } } => {
            bench::boot::joining(&root, &name, pairs.max(1))
        }
        Command::Bench { what: BenchWhat::Link { machine, runs } } => bench::link::link(&root, &machine, runs.max(1)),
        Command::Sim { args } => inspect::sim(&root, &args),
        Command::Mutants { crates, shard, output } => mutants::mutants(&root, &crates, shard.as_deref(), &output),
        Command::Lint => lint::lint(&root),
        Command::Doctor => doctor::doctor(&root),
        Command::Plan { action: PlanAction::Check { files } } => inspect::check_plans(&files),
    }
}
