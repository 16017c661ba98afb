//! `cob trace`: what the kernels did while a command ran, as a picture for Perfetto or `chrome://tracing`.

mod picture;

use std::fs::File;
use std::io::{BufWriter, Write, stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::picture::{Notes, Picture};
use crate::Boot;
use crate::exec::{OFF_TIME, TIMED_OUT, with_mode};
use crate::machine::{Asked, Command, Ended, Input, Machine, Output, Session, Vm};
use crate::root::Root;

/// How long all kernels of the machine may take to come up; then those that are there are traced.
const TOGETHER: Duration = Duration::from_secs(60);

/// Which kernels are up, by index.
const UP: &str = "awk 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == \"state\") at = i } NR > 1 && $at == \"up\" { print $1 }' /proc/cob/kernels";

/// Boots, waits until the kernels are together, runs the command with everything noted, writes the picture.
pub fn trace(
    root: &Root,
    boot: &Boot,
    timeout: Option<f64>,
    records: u32,
    file: &Path,
    line: &str,
) -> Result<ExitCode> {
    let timeout = timeout.map(Duration::try_from_secs_f64).transpose()?;
    // Before anything runs: what was traced is not to be lost for want of a place.
    let out = File::create(file).with_context(|| format!("creating {}", file.display()))?;
    let machine = Machine::prepare(root, &with_mode(boot))?;
    let mut session = Session::new(Vm::start(root, &machine)?)?;
    session.wait_ready(TOGETHER)?;
    let mut asked = Asked(session);
    let expected = machine.plan.kernels.iter().filter(|kernel| kernel.boot != plan::Boot::Manual).count();
    let tries = TOGETHER.as_secs() * 10;
    asked.ask(&format!(
        "i=0; until [ \"$({UP} | wc -l)\" -ge {expected} ] || [ $((i += 1)) -gt {tries} ]; do sleep 0.1; done"
    ))?;
    let everywhere =
        |what: &str| format!("for k in $({UP}); do kctl run -k $k sh -c 'echo {what} >/proc/cob/trace'; done");
    asked.ask(&everywhere(&format!("on {records}")))?;
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    let ended = asked.0.run(Command {
        line,
        input: Input::Fd(Vec::new(), stdin.as_fd()),
        stdout: Output::Fd(stdout.as_fd()),
        stderr: Output::Fd(stderr.as_fd()),
        deadline: timeout.map(|timeout| Instant::now() + timeout),
    })?;
    let code = match ended {
        Ended::Status(status) => status,
        Ended::TimedOut => {
            asked.0.abandon(OFF_TIME)?;
            TIMED_OUT
        }
        Ended::PoweredOff => anyhow::bail!("the command switched the machine off: what was noted went with it"),
        Ended::Lost => crate::SYSTEM_DIED,
        Ended::Interrupted(signal) => return Ok(ExitCode::from(128 + signal as u8)),
    };
    asked.ask(&everywhere("off"))?;
    let picture = draw(&mut asked, &machine)?;
    let mut out = BufWriter::new(out);
    serde_json::to_writer(&mut out, &picture.json())?;
    out.flush().with_context(|| format!("writing {}", file.display()))?;
    eprintln!("cob: {}: {}", file.display(), picture.summary());
    if let Err(error) = asked.0.power_off(OFF_TIME) {
        eprintln!("cob: after the command {error:#}");
    }
    Ok(ExitCode::from(code))
}

/// Gets what the kernels that are up have noted.
fn draw(asked: &mut Asked, machine: &Machine) -> Result<Picture> {
    let up: Vec<u16> = asked.ask(UP)?.lines().filter_map(|line| line.parse().ok()).collect();
    let mut notes = Vec::new();
    for kernel in machine.plan.kernels.iter().filter(|kernel| up.contains(&kernel.index)) {
        let bytes = asked.ask_bytes(&format!("kctl run -k {} cat /proc/cob/trace", kernel.index))?;
        notes.push(Notes { kernel: kernel.index, isa: kernel.isa, bytes });
    }
    ensure!(!notes.is_empty(), "no kernel is up any more");
    Picture::draw(&notes)
}
