//! The `cob` command as a script uses it: bytes, statuses, files that are put, scripts on stdin.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Report;
use crate::build;
use crate::root::Root;

/// What is passed through: more than all buffers on the way together.
const MUCH: usize = 64 << 20;

/// A test with its name in the report.
type Case = (&'static str, fn(&Bench<'_>) -> Result<()>);

const CASES: &[Case] = &[
    ("command/much-data", much_data),
    ("command/streams-and-status", streams_and_status),
    ("command/time-out", time_out),
    ("command/a-dead-system", dead_system),
    ("command/files-that-are-put", put),
    ("command/deterministic-clock", icount),
    ("command/script-on-stdin", script),
    ("command/trace", trace),
    ("command/tour", tour),
    ("command/bad-plan", bad_plan),
];

/// Runs all cases.
pub fn all(root: &Root, report: &mut Report) {
    if !CASES.iter().any(|(name, _)| report.wants(name)) {
        return;
    }
    if let Err(error) = build::everything(root, &[plan::Isa::X86_64], true) {
        return report.record("command", Err(format!("{error:#}")), Duration::ZERO);
    }
    let folder = root.target().join(format!("tmp/command-{}", std::process::id()));
    let bench = Bench { root, folder };
    for (name, case) in CASES {
        report.run(name, || bench.fresh().and_then(|()| case(&bench)).map_err(|error| format!("{error:#}")));
    }
    // It may never have been made.
    let _ = fs::remove_dir_all(&bench.folder);
}

struct Bench<'a> {
    root: &'a Root,
    /// For files of the case that runs.
    folder: PathBuf,
}

impl Bench<'_> {
    fn fresh(&self) -> Result<()> {
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(&self.folder).with_context(|| format!("creating {}", self.folder.display()))
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<File> {
        let path = self.folder.join(name);
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.write_all(bytes).with_context(|| format!("writing {}", path.display()))?;
        file.rewind()?;
        Ok(file)
    }

    /// Runs this program with `args`.
    fn cob<S: AsRef<OsStr>>(&self, args: &[S], stdin: Stdio) -> Result<Output> {
        Command::new(std::env::current_exe()?)
            .args(args)
            .env("COB_ROOT", self.root.path())
            .current_dir(&self.folder)
            .stdin(stdin)
            .output()
            .context("starting cob")
    }

    fn exec(&self, more: &[&str], line: &str, stdin: Stdio) -> Result<Output> {
        self.cob(&[&["exec", "--checked", "--timeout", "300"], more, &[line]].concat(), stdin)
    }
}

/// Bytes without a pattern (xorshift64*, Vigna 2016), the same every time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn status(output: &Output, expected: i32) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(expected), "{} instead of {expected}: {said}", output.status);
    Ok(())
}

fn text(output: &Output, expected: &str) -> Result<()> {
    let got = String::from_utf8_lossy(&output.stdout);
    ensure!(got == expected, "printed {got:?} instead of {expected:?}");
    Ok(())
}

fn complains(output: &Output, of: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains(of), "did not say {of:?} but {said:?}");
    Ok(())
}

fn much_data(bench: &Bench<'_>) -> Result<()> {
    let bytes = noise(MUCH);
    let output = bench.exec(&[], "cat", bench.file("much", &bytes)?.into())?;
    status(&output, 0)?;
    let wrong = output.stdout.iter().zip(&bytes).position(|(got, want)| got != want);
    ensure!(wrong.is_none() && output.stdout.len() == bytes.len(), "{} bytes, wrong at {wrong:?}", output.stdout.len());
    Ok(())
}

fn streams_and_status(bench: &Bench<'_>) -> Result<()> {
    let output = bench.exec(
        &[],
        r"printf 'a\0b\377'; printf 'e\n' >&2; read x; echo $x; exit 7",
        bench.file("in", b"line\n")?.into(),
    )?;
    status(&output, 7)?;
    ensure!(output.stdout == b"a\0b\xffline\n", "printed {:?}", output.stdout.escape_ascii().to_string());
    // Before it stands what machine this is.
    ensure!(output.stderr.ends_with(b"e\n"), "complained {:?}", output.stderr.escape_ascii().to_string());
    let output = bench.exec(&[], "kill -TERM $$", Stdio::null())?;
    status(&output, 128 + 15)
}

fn time_out(bench: &Bench<'_>) -> Result<()> {
    // The machine needs longer to boot than this: what is given up on does not matter.
    let output = bench.cob(&["exec", "--checked", "--timeout", "0.3", "sleep 1000"], Stdio::null())?;
    status(&output, 124)?;
    complains(&output, "took longer than 0.3 s; logs: ")
}

fn dead_system(bench: &Bench<'_>) -> Result<()> {
    let output = bench.exec(&["-m", "uni"], "kctl crash 0 --yes", Stdio::null())?;
    status(&output, 125)?;
    complains(&output, "ordered to crash")
}

/// A program that goes on at kernel 1 and reads a file of kernel 0 there: the picture shows its calls on both, and arrows from each message's sending to its handling.
fn trace(bench: &Bench<'_>) -> Result<()> {
    let line = "kctl run -k 1 sh -c 'cat /proc/self/status >/tmp/there; exit 3'";
    let output = bench.cob(&["trace", "--checked", "--timeout", "300", "-o", "picture", line], Stdio::null())?;
    status(&output, 3)?;
    complains(&output, "picture: ")?;
    let picture: serde_json::Value = serde_json::from_slice(&fs::read(bench.folder.join("picture"))?)?;
    let events = picture["traceEvents"].as_array().context("no events")?;
    let ends = |phase: &str, name: Option<&str>| -> BTreeMap<String, u64> {
        let chosen =
            events.iter().filter(|event| event["ph"] == phase && name.is_none_or(|name| event["name"] == name));
        chosen.filter_map(|event| Some((event["id"].as_str()?.to_owned(), event["pid"].as_u64()?))).collect()
    };
    let (begun, ended) = (ends("s", None), ends("f", None));
    let pairs: Vec<_> = ended.iter().filter_map(|(id, to)| Some((*begun.get(id)?, *to))).collect();
    for pair in [(1, 2), (2, 1)] {
        ensure!(pairs.contains(&pair), "no arrow from track group {} to {}", pair.0, pair.1);
    }
    ensure!(pairs.iter().all(|(from, to)| from != to), "a message to its sender");
    let moves = (ends("s", Some("move")), ends("f", Some("move")));
    ensure!(moves.1.keys().all(|id| moves.0.contains_key(id)) && !moves.1.is_empty(), "no process moved: {moves:?}");
    for kernel in [0, 1] {
        let calls = events.iter().filter(|event| event["cat"] == "call" && event["args"]["kernel"] == kernel);
        ensure!(calls.count() > 0, "no system call on kernel {kernel}");
    }
    for name in ["execve", "openat", "exit_group", "page fault"] {
        ensure!(events.iter().any(|event| event["name"] == name), "no {name}");
    }
    let output = bench.cob(&["trace", "--checked", "--timeout", "1", "-o", "late", "sleep 1000"], Stdio::null())?;
    status(&output, 124)?;
    let late: serde_json::Value = serde_json::from_slice(&fs::read(bench.folder.join("late"))?)?;
    ensure!(late["traceEvents"].as_array().is_some_and(|events| !events.is_empty()), "nothing was drawn in the end");
    let output = bench.cob(&["trace", "-o", "absent/picture", "true"], Stdio::null())?;
    status(&output, 1)?;
    complains(&output, "absent/picture")
}

fn put(bench: &Bench<'_>) -> Result<()> {
    bench.file("one", b"1")?;
    fs::create_dir_all(bench.folder.join("dir/sub"))?;
    bench.file("dir/script", b"#!/bin/sh\necho run\n")?;
    bench.file("dir/sub/secret", b"s")?;
    for (name, mode) in [("one", 0o644), ("dir/script", 0o755), ("dir/sub/secret", 0o600), ("dir/sub", 0o711)] {
        fs::set_permissions(bench.folder.join(name), Permissions::from_mode(mode))?;
    }
    let output = bench.exec(
        &["--put", "one", "--put", "dir:/opt/there", "--put", "one:/etc/"],
        "cat /root/one /etc/one; /opt/there/script; cd /opt/there; stat -c '%a %n' script sub sub/secret",
        Stdio::null(),
    )?;
    status(&output, 0)?;
    text(&output, "11run\n755 script\n711 sub\n600 sub/secret\n")?;
    let output = bench.exec(&["--put", "absent"], "true", Stdio::null())?;
    ensure!(!output.status.success(), "a file that is not there was put");
    complains(&output, "absent")
}

fn icount(bench: &Bench<'_>) -> Result<()> {
    // When the command comes is the host's affair; how long it takes is not. /proc/uptime tells hundredths of a second, so the span may differ by one.
    const SPAN: &str =
        "read a x </proc/uptime; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; read b x </proc/uptime; echo $a $b";
    let run = || -> Result<i64> {
        let output = bench.exec(&["--icount", "-m", "uni"], SPAN, Stdio::null())?;
        status(&output, 0)?;
        let said = String::from_utf8_lossy(&output.stdout).replace('.', "");
        let times: Vec<i64> = said.split_whitespace().filter_map(|time| time.parse().ok()).collect();
        ensure!(times.len() == 2, "no two times in {said:?}");
        Ok(times[1] - times[0])
    };
    let (first, second) = (run()?, run()?);
    ensure!(first > 5 && (first - second).abs() <= 1, "the same took {first} and {second} hundredths of a second");
    Ok(())
}

fn script(bench: &Bench<'_>) -> Result<()> {
    let output =
        bench.cob(&["run", "--checked"], bench.file("in", b"echo one\nfalse || echo two\n(exit 5)\n")?.into())?;
    status(&output, 5)?;
    text(&output, "one\ntwo\n")
}

fn tour(bench: &Bench<'_>) -> Result<()> {
    let output = bench.cob(&["run", "--checked"], Stdio::null())?;
    status(&output, 0)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["kernel 0, x86_64", "kernel 1, aarch64", "kernel 2, riscv64", "MESSAGE", "Mem:"] {
        ensure!(said.contains(part), "nothing of {part:?} in {said:?}");
    }
    Ok(())
}

fn bad_plan(bench: &Bench<'_>) -> Result<()> {
    bench.file("bad.toml", b"name = \"bad\"\n[[board]]\nisa = \"x86_64\"\nmodel = \"q35\"\nmemory = \"100 KiB\"\n")?;
    for args in [&["plan", "check", "bad.toml"][..], &["exec", "-m", "./bad.toml", "true"], &["run", "-m", "nothing"]] {
        let output = bench.cob(args, Stdio::null())?;
        status(&output, 1)?;
        complains(&output, if args.contains(&"nothing") { "nothing" } else { "bad.toml:" })?;
    }
    Ok(())
}
