//! System tests: many cases in one boot of a machine, each judged by output, exit status and the kernels' logs.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::abi::Program;
use super::cases::{self, Case, Placement, Suite};
use super::{Depth, Report, Verdict};
use crate::Boot;
use crate::exec::{OFF_TIME, with_mode};
use crate::machine::{Command, Ended, Input, Machine, Output, Session, Vm};
use crate::root::Root;

/// How long a killed command may take to be gone.
const KILL_TIME: Duration = Duration::from_secs(3);

/// What a kernel says that `kctl crash` kills.
const ORDERED: &str = "PANIC ordered to crash by /proc/cob/control";

/// One thing to run in a machine.
struct Job {
    name: String,
    case: Case,
    placement: Placement,
    /// What Linux made of it.
    linux: Option<(Vec<u8>, u8)>,
}

/// Runs all suites and the ABI programs.
pub fn all(root: &Root, report: &mut Report, depth: Depth, programs: &[Program]) {
    let suites = match cases::read(root) {
        Ok(suites) => suites,
        Err(error) => return report.record("suites", Err(format!("{error:#}")), Duration::ZERO),
    };
    for suite in &suites {
        let jobs = jobs_of(root, suite, depth, report);
        run(root, report, suite, jobs);
    }
    // The other placements take three times as long: quick runs leave them out, and runs that are not long those of the other ISAs, unless somebody names them.
    let all = depth != Depth::Quick || report.is_filtered();
    let others = depth == Depth::Long || report.is_filtered();
    let local = &[Placement::Local][..];
    // Between ISAs the first kernel is tried by `abi` already.
    let apart = &[Placement::Remote, Placement::Crossed][..];
    let placements = |all| if all { &Placement::ALL[..] } else { local };
    for (machine, name, placements) in [
        ("duo", "abi", placements(all)),
        // On the other ISAs locally: what crosses kernels is the same code.
        ("duo-aarch64", "aarch64-abi", placements(others)),
        ("duo-riscv64", "riscv64-abi", placements(others)),
        ("pair-arm", "pair-arm-abi", apart),
        ("pair-riscv", "pair-riscv-abi", apart),
        ("apart", "apart-abi", apart),
    ] {
        let mixed = machine.starts_with("pair");
        let first = mixed || machine == "apart";
        if machine != "duo" && depth == Depth::Quick && !others || first && !others {
            continue;
        }
        let jobs = programs.iter().flat_map(|program| {
            placements.iter().map(move |placement| {
                let name = format!("{}@{}", program.name, placement.name());
                let mut case = program.case();
                if mixed {
                    // The one of the ISA on which the shell runs.
                    case.run = case.run.replace("/usr/lib/cob/tests/", "/usr/$(uname -m)-linux-gnu/lib/cob/tests/");
                }
                Job { name, case, placement: *placement, linux: None }
            })
        });
        let jobs: Vec<Job> = jobs.filter(|job| report.wants(&format!("{name}/{}", job.name))).collect();
        let suite = Suite { machine: String::from(machine), name: String::from(name), ..Suite::default() };
        run(root, report, &suite, jobs);
    }
}

/// What of a suite is to be run now, with what Linux makes of it where that is asked.
fn jobs_of(root: &Root, suite: &Suite, depth: Depth, report: &mut Report) -> Vec<Job> {
    let mut jobs = Vec::new();
    for case in &suite.cases {
        let wanted = match depth {
            Depth::Quick => case.quick,
            Depth::Normal => !case.long,
            Depth::Long => true,
        };
        if !wanted {
            continue;
        }
        let mut linux = None;
        for placement in &case.placements {
            let name = format!("{}@{}", case.name, placement.name());
            if !report.wants(&format!("{}/{name}", suite.name)) {
                continue;
            }
            if case.linux && linux.is_none() {
                match on_linux(root, case) {
                    Ok(result) => linux = Some(result),
                    Err(error) => {
                        let name = format!("{}/{}@linux", suite.name, case.name);
                        report.record(&name, Err(format!("{error:#}")), Duration::ZERO);
                        break;
                    }
                }
            }
            jobs.push(Job { name, case: case.clone(), placement: *placement, linux: linux.clone() });
        }
    }
    jobs
}

/// Boots as often as needed: once, and again after a case that ended a machine.
fn run(root: &Root, report: &mut Report, suite: &Suite, jobs: Vec<Job>) {
    if jobs.is_empty() {
        return;
    }
    let prepared = crate::build::debian::programs(root, &suite.debian).and_then(|put| {
        let boot = Boot {
            machine: Some(suite.machine.clone()),
            checked: true,
            kernel_arg: suite.kernel_args.clone(),
            qemu_arg: suite.qemu_args.clone(),
            put,
            ..Boot::default()
        };
        Machine::prepare(root, &with_mode(&boot))
    });
    let machine = match prepared {
        Ok(machine) => machine,
        Err(error) => {
            let why = format!("{error:#}");
            return jobs.iter().for_each(|job| {
                report.record(&format!("{}/{}", suite.name, job.name), Err(why.clone()), Duration::ZERO);
            });
        }
    };
    let _load = Load::new(suite.load);
    let mut session: Option<Session> = None;
    for job in jobs {
        let name = format!("{}/{}", suite.name, job.name);
        report.progress(&name);
        let start = Instant::now();
        let (verdict, again) = match live(root, &machine, &mut session) {
            Ok(session) => one(session, &job),
            Err(error) => (Err(format!("{error:#}")), true),
        };
        report.record(&name, verdict, start.elapsed());
        if again {
            session = None;
        }
    }
    if let Some(mut session) = session {
        report.run(&format!("{}/power-off", suite.name), || {
            session.power_off(OFF_TIME).map_err(|error| format!("{error:#}"))?;
            clean(&mut session, &[])
        });
    }
}

/// Threads that take this host's CPUs, until it is dropped.
struct Load {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn new(threads: usize) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let spin = |ends: Arc<AtomicBool>| while !ends.load(Ordering::Relaxed) {};
        let thread = |_| {
            let ends = ends.clone();
            std::thread::spawn(move || spin(ends))
        };
        Self { threads: (0..threads).map(thread).collect(), ends }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It has nothing to panic about.
            let _ = thread.join();
        }
    }
}

/// The running machine, or a fresh one.
fn live<'s>(root: &Root, machine: &Machine, session: &'s mut Option<Session>) -> Result<&'s mut Session> {
    if session.is_none() {
        let mut fresh = Session::new(Vm::start(root, machine)?)?;
        fresh.wait_ready(Duration::from_secs(60))?;
        if machine.plan.boards.len() > 1 {
            all_up(&mut fresh, machine)?;
        }
        *session = Some(fresh);
    }
    session.as_mut().context("no machine")
}

/// Waits until every kernel that starts by itself is there: those of other boards are later than the agent.
fn all_up(session: &mut Session, machine: &Machine) -> Result<()> {
    let kernels = machine.plan.kernels.iter().filter(|kernel| kernel.boot != plan::Boot::Manual).count();
    let line = format!("until [ $(kctl kernels --json | grep -c '\"up\"') -ge {kernels} ]; do sleep 0.05; done");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = session.run(Command {
        line: &line,
        input: Input::Memory(&[]),
        stdout: Output::Memory(&mut stdout),
        stderr: Output::Memory(&mut stderr),
        deadline: Some(Instant::now() + Duration::from_secs(60)),
    })?;
    ensure!(ended == Ended::Status(0), "not all kernels came up");
    Ok(())
}

/// Runs one job; the second value says that the machine cannot be used any more.
fn one(session: &mut Session, job: &Job) -> (Verdict, bool) {
    let case = &job.case;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs_f64(case.timeout);
    let ended = session.run(Command {
        line: &job.placement.place(&case.run),
        input: Input::Memory(case.stdin.as_bytes()),
        stdout: Output::Memory(&mut stdout),
        stderr: Output::Memory(&mut stderr),
        deadline: Some(deadline),
    });
    let logs = session.vm.folder().display().to_string();
    let mut wrong = Vec::new();
    let mut again = !case.kills.is_empty() && !case.goes_on;
    match ended {
        Ok(Ended::Lost) if case.lost => {}
        Ok(Ended::Lost) => {
            wrong.push("the kernel that has the agent died".into());
            again = true;
        }
        Ok(Ended::Status(status)) if case.lost => {
            wrong.push(format!("exit status {status}, but the kernel that has the agent should have died"));
        }
        Ok(Ended::Status(status)) => wrong.extend(judge(job, &stdout, &stderr, status)),
        Ok(Ended::TimedOut) => {
            wrong.push(format!("took longer than {} s", case.timeout));
            wrong.push(format!("stdout so far: {:?}", String::from_utf8_lossy(&stdout)));
            again |= !session.abandon(KILL_TIME).unwrap_or(false);
        }
        Ok(Ended::PoweredOff) => {
            wrong.push("the machine was switched off".into());
            again = true;
        }
        Ok(Ended::Interrupted(signal)) => {
            // A person wants to stop: no report makes sense any more.
            std::process::exit(128 + signal);
        }
        Err(error) => {
            wrong.push(format!("{error:#}"));
            again = true;
        }
    }
    // What a kernel logs may come later than what the case does.
    let mut said: Vec<String> = Vec::new();
    let missing = loop {
        session.vm.read_logs();
        said.append(&mut session.vm.said);
        let missing = |text: &&String| !said.iter().any(|line| line.contains(text.as_str()));
        let missing: Vec<&String> = case.logs.iter().filter(missing).collect();
        if missing.is_empty() || !wrong.is_empty() || Instant::now() > deadline {
            break missing;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    wrong.extend(missing.into_iter().map(|text| format!("no kernel logged {text:?}")));
    let died: Vec<(usize, String)> = case.kills.iter().flat_map(|kernel| panics(session, *kernel)).collect();
    wrong.extend(died.iter().filter(|(_, line)| !is_meant(line, &case.logs)).map(|(kernel, line)| {
        format!("kernel {kernel} died of something that the case does not name in `logs`: {line}")
    }));
    if let Err(why) = clean(session, &case.warnings) {
        wrong.push(why);
    }
    if wrong.is_empty() {
        return (Ok(()), again);
    }
    if job.linux.is_none() && case.stdout.is_none() && !stdout.is_empty() {
        wrong.push(format!("stdout: {}", String::from_utf8_lossy(&stdout)));
    }
    if !stderr.is_empty() {
        wrong.push(format!("stderr: {}", String::from_utf8_lossy(&stderr)));
    }
    for kernel in &case.kills {
        let lines: Vec<&str> = died.iter().filter(|(of, _)| of == kernel).map(|(_, line)| line.as_str()).collect();
        wrong.push(format!(
            "kernel {kernel} panicked: {}",
            if lines.is_empty() { String::from("no") } else { lines.join("; ") }
        ));
    }
    session.vm.keep();
    wrong.push(format!("logs: {logs}"));
    (Err(wrong.join("\n")), again)
}

/// Compares with what was expected.
fn judge(job: &Job, stdout: &[u8], stderr: &[u8], status: u8) -> Vec<String> {
    let case = &job.case;
    let mut wrong = Vec::new();
    let (wanted, wanted_status) = match &job.linux {
        Some((stdout, status)) => (Some(stdout.as_slice()), *status),
        None => (case.stdout.as_ref().map(String::as_bytes), case.status),
    };
    if status != wanted_status {
        wrong.push(format!("exit status {status}, expected {wanted_status}"));
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != stdout) {
        wrong.push(format!("stdout   {:?}", String::from_utf8_lossy(stdout)));
        wrong.push(format!("expected {:?}", String::from_utf8_lossy(wanted)));
    }
    let text = String::from_utf8_lossy(stdout);
    for part in case.has.iter().filter(|part| !text.contains(part.as_str())) {
        wrong.push(format!("stdout {text:?} lacks {part:?}"));
    }
    if let Some(wanted) = case.stderr.as_ref().filter(|wanted| wanted.as_bytes() != stderr) {
        wrong.push(format!("stderr is not {wanted:?}"));
    }
    wrong
}

/// What a kernel that is killed on purpose panicked with. Forgets it.
fn panics(session: &mut Session, kernel: usize) -> Vec<(usize, String)> {
    let lines = session.vm.panics.get_mut(kernel).map(std::mem::take).unwrap_or_default();
    lines.into_iter().map(|line| (kernel, line)).collect()
}

/// Whether a case meant its kernel to die with these words: it names them, or has it killed by `kctl crash`.
fn is_meant(panic: &str, named: &[String]) -> bool {
    panic.contains(ORDERED) || named.iter().any(|text| panic.contains(text.as_str()))
}

/// Whether the kernels have logged nothing that they should not. Forgets what it has seen.
fn clean(session: &mut Session, allowed: &[String]) -> Verdict {
    session.vm.read_logs();
    let mut wrong: Vec<String> = std::mem::take(&mut session.vm.warnings);
    wrong.retain(|line| !allowed.iter().any(|part| line.contains(part.as_str())));
    wrong.extend(session.vm.panics.iter_mut().flat_map(std::mem::take));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// What the same script makes of the same busybox under this host's kernel.
fn on_linux(root: &Root, case: &Case) -> Result<(Vec<u8>, u8)> {
    let busybox = crate::build::debian::busybox(root, plan::Isa::X86_64)?;
    let bin = applets(root, &busybox)?;
    let home = root.target().join("linux-home");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home)?;
    let mut child = Process::new("timeout")
        .args([case.timeout.to_string().as_str(), bin.join("sh").to_string_lossy().as_ref(), "-c", &case.run])
        .env_clear()
        .env("PATH", &bin)
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .current_dir(&home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting busybox here")?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    let input = case.stdin.clone().into_bytes();
    // The script may write before it has read everything, or not read at all.
    let feeder = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut stdin, &input);
    });
    let output = child.wait_with_output()?;
    let _ = feeder.join();
    let status = std::os::unix::process::ExitStatusExt::signal(&output.status).map(|signal| 128 + signal);
    let status = status.or(output.status.code()).unwrap_or(255);
    Ok((output.stdout, status as u8))
}

/// A folder with a link per applet.
pub(super) fn applets(root: &Root, busybox: &Path) -> Result<PathBuf> {
    let bin = root.target().join("debian/applets");
    if !bin.join("sh").exists() {
        // Links of a checkout that was moved lead nowhere.
        let _ = std::fs::remove_dir_all(&bin);
        std::fs::create_dir_all(&bin)?;
        let status = Process::new(busybox).args(["--install", "-s"]).arg(&bin).status()?;
        anyhow::ensure!(status.success(), "busybox --install failed");
    }
    Ok(bin)
}
