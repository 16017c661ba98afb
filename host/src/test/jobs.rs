//! A person at the console of two kernels: line editing and job control, on the shell of kernel 0 with jobs on kernel 1, and then the
//! other way round. The same person sits at a terminal of this host's Linux first, and sees the same there.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Report;
use super::person::{Person, SIZE};
use super::system::applets;
use crate::build;
use crate::root::Root;

/// What stands for `kctl run -k K COMMAND...` where there is one kernel.
const ONE_KERNEL: &str = "#!/bin/sh\nshift 3\nexec \"$@\"\n";

/// `on K PROCESS` says whether a process is on a kernel, and there is but one.
const ON_LINUX: &str = "#!/bin/sh\n[ -d /proc/$2 ]\n";
const ON_COB: &str = "echo 'grep -q CobKernel:.$1 /proc/$2/status' >/bin/on; chmod +x /bin/on";

/// The status of the last command is in the prompt, so that reading it is enough. As it is typed, it is not taken for a prompt.
const PROMPT: &[u8] = b"export PS1='[$?]# '\r";

/// Runs both.
pub fn all(root: &Root, report: &mut Report) {
    let name = "console/job-control";
    let linux = format!("{name}@linux");
    if !report.wants(name) && !report.wants(&linux) {
        return;
    }
    // The waiting below is not for a compiler.
    if let Err(error) = build::everything(root, &[plan::Isa::X86_64], true) {
        return report.record(name, Err(format!("{error:#}")), Duration::ZERO);
    }
    report.run(&linux, || on_linux(root).map_err(|error| format!("{error:#}")));
    report.run(name, || on_two_kernels(root).map_err(|error| format!("{error:#}")));
}

fn on_linux(root: &Root) -> Result<()> {
    let busybox = build::debian::busybox(root, plan::Isa::X86_64)?;
    let bin = applets(root, &busybox)?;
    let place = root.target().join("linux-home");
    // It is there if a test ran before.
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place)?;
    for (name, text) in [("kctl", ONE_KERNEL), ("on", ON_LINUX)] {
        std::fs::write(place.join(name), text)?;
        std::fs::set_permissions(place.join(name), std::fs::Permissions::from_mode(0o755))?;
    }
    // The terminal is to be the shell's own, and whoever starts the tests in the background may have had these signals ignored.
    let mut shell = Command::new("/usr/bin/env");
    shell
        .arg("--default-signal=INT,QUIT")
        .arg(&busybox)
        .args(["setsid", "-c"])
        .arg(&busybox)
        .args(["sh", "-i"])
        .env_clear()
        .current_dir(&place);
    shell.env("HOME", &place).env("PATH", format!("{}:{}", place.display(), bin.display()));
    let mut person = Person::with(&mut shell)?;
    person.see("built-in shell")?;
    person.keys(PROMPT)?;
    person.see("[0]# ")?;
    both_shells(&mut person)?;
    person.keys(b"exit 0\r")?;
    person.see_the_end()
}

fn on_two_kernels(root: &Root) -> Result<()> {
    let mut person = Person::at(root, "duo")?;
    person.see("built-in shell")?;
    person.keys(PROMPT)?;
    person.see("[0]# ")?;
    // The size of the person's terminal comes a moment after the machine does.
    line(&mut person, &format!("until [ \"$(stty size)\" = '{SIZE}' ]; do :; done"), &[], 0)?;
    line(&mut person, ON_COB, &[], 0)?;
    both_shells(&mut person)?;
    person.keys(b"poweroff\r")?;
    person.see_the_end()
}

/// On the first shell, and on a shell of kernel 1 with the process number that it was started with.
fn both_shells(person: &mut Person) -> Result<()> {
    line(person, "on 0 $$", &[], 0)?;
    shell(person, 1).context("on the first shell")?;
    line(person, "sh -c 'echo $$ >number; exec kctl run -k 1 sh'", &["built-in shell"], 0)?;
    line(person, "[ $$ = $(cat number) ] && on 1 $$", &[], 0)?;
    shell(person, 0).context("on the shell of kernel 1")?;
    // The shell itself is a job of the first one.
    line(person, "kill -STOP $$", &["Stopped (signal)"], 147)?;
    line(person, "[ $$ = $(cat number) ]", &[], 1)?;
    line(person, "fg", &[], 0)?;
    line(person, "[ $$ = $(cat number) ]", &[], 0)?;
    line(person, "exit 7", &[], 7)
}

/// Types a line at the prompt, sees these texts, and the prompt with this status.
fn line(person: &mut Person, line: &str, texts: &[&str], status: u8) -> Result<()> {
    person.keys(format!("{line}\r").as_bytes())?;
    sees(person, texts, status).with_context(|| format!("after {line:?}"))
}

fn sees(person: &mut Person, texts: &[&str], status: u8) -> Result<()> {
    for text in texts {
        person.see(text)?;
    }
    person.see(&format!("[{status}]# "))
}

/// Starts a command in the foreground which says `=2=` when it has the terminal.
fn start(person: &mut Person, line: &str) -> Result<()> {
    person.keys(format!("{line}\r").as_bytes())?;
    person.see("=2=").with_context(|| format!("after {line:?}"))
}

/// Types a line for a program that answers with another.
fn talk(person: &mut Person, says: &str, answer: &str) -> Result<()> {
    person.keys(format!("{says}\r").as_bytes())?;
    person.see(&format!("{says}\r\n{answer}\r\n"))
}

/// All that a person does at one shell, with jobs on the `other` kernel.
fn shell(person: &mut Person, other: u8) -> Result<()> {
    editing(person).context("line editing")?;
    line(person, "stty size", &[&format!("\r\n{SIZE}\r\n")], 0)?;
    one_job(person, other).context("one job")?;
    in_the_background(person, other).context("in the background")?;
    one_pipeline(person, other).context("a pipeline over both kernels")
}

fn editing(person: &mut Person) -> Result<()> {
    line(person, "echo abX\x7fc-$((1+1))", &["\r\nabc-2\r\n"], 0)?;
    // Ctrl-U draws the prompt anew.
    person.keys(b"echo rubbish\x15")?;
    person.see("rubbish")?;
    line(person, "echo u-$((1+2))", &["\r\nu-3\r\n"], 0)?;
    // Ctrl-B and Ctrl-E: a character back and to the end; Ctrl-W: without a word; Ctrl-P: the line before.
    line(person, "echo 13\x022\x05-$((1+3))", &["\r\n123-4\r\n"], 0)?;
    line(person, "echo w-$((1+4)) x\x17", &["\r\nw-5\r\n"], 0)?;
    line(person, "\x10", &["\r\nw-5\r\n"], 0)?;
    // Ctrl-C gives a line up.
    person.keys(b"exit 99\x03")?;
    sees(person, &[], 130)
}

fn one_job(person: &mut Person, other: u8) -> Result<()> {
    let job = &format!("kctl run -k {other} sh -c 'echo =$((1+1))=; exec cat'");
    line(person, &format!("kctl run -k {other} sh -c 'exit 6'"), &[], 6)?;
    start(person, job)?;
    talk(person, "ab", "ab")?;
    // The terminal's own line editing.
    person.keys(b"rubbish\x15bcX\x7f\r")?;
    person.see("\r\nbc\r\n")?;
    person.keys(b"\x03")?;
    sees(person, &[], 130).context("Ctrl-C")?;
    start(person, job)?;
    person.keys(b"\x04")?;
    sees(person, &[], 0).context("Ctrl-D")?;
    start(person, job)?;
    person.keys(b"\x1a")?;
    sees(person, &["[1]+  Stopped"], 148).context("Ctrl-Z")?;
    line(person, "jobs", &["[1]+  Stopped"], 0)?;
    person.keys(b"fg\r")?;
    person.see("kctl run")?;
    talk(person, "go on", "go on")?;
    person.keys(b"\x1a")?;
    sees(person, &["[1]+  Stopped"], 148).context("Ctrl-Z again")?;
    // It is stopped when the signal comes, and ends when it goes on.
    line(person, "kill %1", &[], 0)?;
    line(person, "fg", &["Terminated"], 143)?;
    line(person, "jobs >list; [ -s list ]", &[], 1)
}

fn in_the_background(person: &mut Person, other: u8) -> Result<()> {
    line(person, "rm -f fifo; mkfifo fifo", &[], 0)?;
    start(person, &format!("kctl run -k {other} sh -c 'echo =$((1+1))=; read a <fifo; echo got-$a-$((2+3)); exit 5'"))?;
    person.keys(b"\x1a")?;
    sees(person, &["[1]+  Stopped"], 148).context("Ctrl-Z")?;
    line(person, "bg", &["[1] kctl"], 0)?;
    line(person, "jobs", &["[1]+  Running"], 0)?;
    line(person, "echo x >fifo; wait %1", &["got-x-5"], 5)?;

    // A shell's new process ignores signals as the shell does, until it is the job's: wait for the job.
    let sleeper = &format!("kctl run -k {other} sh -c 'echo >fifo; exec sleep 1000' & read a <fifo");
    line(person, sleeper, &[], 0)?;
    line(person, &format!("on {other} $! && kill %1; wait %1"), &[], 143)?;

    // Ctrl-C ends the waiting and not the job.
    line(person, sleeper, &[], 0)?;
    start(person, "echo =$((1+1))=; wait")?;
    person.keys(b"\x03")?;
    sees(person, &[], 130).context("Ctrl-C in wait")?;
    line(person, "kill -0 $! && kill $!; wait $!", &[], 143)?;

    // Who reads the terminal in the background is stopped, and reads on in the foreground.
    line(person, &format!("kctl run -k {other} cat &"), &[], 0)?;
    line(person, "until jobs >list; grep tty.input list; do :; done", &["[1]+  Stopped (tty input)"], 0)?;
    person.keys(b"fg\r")?;
    person.see("kctl run")?;
    talk(person, "read on", "read on")?;
    person.keys(b"\x04")?;
    sees(person, &[], 0).context("Ctrl-D")?;

    // So is who writes, where the terminal is set so.
    line(person, "stty tostop", &[], 0)?;
    line(person, &format!("kctl run -k {other} echo $((2+4))-out &"), &[], 0)?;
    line(person, "until jobs >list; grep tty.output list; do :; done", &["[1]+  Stopped (tty output)"], 0)?;
    line(person, "stty -tostop; fg", &["\r\n6-out\r\n"], 0)
}

fn one_pipeline(person: &mut Person, other: u8) -> Result<()> {
    // No cat: under Linux 6.18 its sendfile(2) from a terminal to a pipe may keep a line until the next.
    let pipeline = &format!(
        "kctl run -k {other} tr a-c d-f | tr d-f g-i | kctl run -k {other} sh -c 'echo =$((1+1))=; exec tr g-i A-C'"
    );
    let in_state = |state: &str, count: u8| {
        format!("[ {count} = $(cat /proc/[0-9]*/stat 2>/dev/null | grep -c \") {state} [0-9]* $g \") ]")
    };
    start(person, pipeline)?;
    talk(person, "abc", "ABC")?;
    person.keys(b"\x1a")?;
    sees(person, &["[1]+  Stopped"], 148).context("Ctrl-Z")?;
    line(person, "jobs -p >list; read g <list; [ -n \"$g\" ]", &[], 0)?;
    line(person, &in_state("T", 3), &[], 0)?;
    person.keys(b"fg\r")?;
    person.see("kctl run")?;
    talk(person, "cab", "CAB")?;
    person.keys(b"\x03")?;
    sees(person, &[], 130).context("Ctrl-C")?;
    line(person, "kill -0 -$g", &[], 1)?;

    // Stopped and killed as one; and ended by the end of its input.
    start(person, pipeline)?;
    // All three are there when it answers.
    talk(person, "cba", "CBA")?;
    person.keys(b"\x1a")?;
    sees(person, &["[1]+  Stopped"], 148).context("Ctrl-Z")?;
    line(person, "jobs -p >list; read g <list; [ -n \"$g\" ]", &[], 0)?;
    line(person, &in_state("T", 3), &[], 0)?;
    line(person, "kill %1", &[], 0)?;
    line(person, "fg", &["Terminated"], 143)?;
    line(person, "kill -0 -$g", &[], 1)?;
    start(person, pipeline)?;
    person.keys(b"bca\r\x04")?;
    sees(person, &["\r\nBCA\r\n"], 0).context("Ctrl-D")
}
