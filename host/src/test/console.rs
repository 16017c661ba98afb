//! A person at the console of a machine whose first kernel dies: the next kernel has the console then, and the person a new shell.

use std::time::Duration;

use anyhow::Result;

use super::Report;
use super::person::{Person, SIZE};
use crate::build;
use crate::root::Root;

/// Runs it.
pub fn all(root: &Root, report: &mut Report) {
    let name = "console/the-first-kernel-dies";
    if !report.wants(name) {
        return;
    }
    // The waiting below is not for a compiler.
    if let Err(error) = build::everything(root, &[plan::Isa::X86_64], true) {
        return report.record(name, Err(format!("{error:#}")), Duration::ZERO);
    }
    report.run(name, || session(root).map_err(|error| format!("{error:#}")));
}

fn session(root: &Root) -> Result<()> {
    let mut person = Person::at(root, "octo")?;
    let size = &format!("while [ \"$(stty size)\" != '{SIZE}' ]; do sleep 0.1; done");
    person.see("built-in shell")?;
    person.command("grep -q 'CobKernel:.0' /proc/self/status", 0)?;
    person.command(size, 0)?;
    person.command("while [ \"$(kctl kernels --json | grep -c '\"up\"')\" != 8 ]; do sleep 0.1; done", 0)?;
    // A live view of all kernels, which leaves the terminal as it was.
    person.keys(b"kctl top\r")?;
    person.see("processes of all kernels")?;
    person.keys(b"k")?;
    person.see("kernel 0, by")?;
    person.keys(b"q")?;
    // What is typed before that is the program's.
    person.see("root@cob:~# ")?;
    person.command("stty -a | grep -q ' icanon'", 0)?;
    // On the terminal, and in a pipe with a process of a kernel that survives.
    person.keys(b"kctl run -k 3 /bin/cat /dev/zero | cat >/dev/null & kctl crash 0 --yes\r")?;
    // Nobody types that: it is what a shell says when it begins.
    person.see("built-in shell")?;
    person.command("grep -q 'CobKernel:.1' /proc/self/status", 0)?;
    person.command("ls / >/dev/null && ps >/dev/null", 0)?;
    person
        .command("[ \"$(kctl kernels --json | grep -c '\"up\"')\" = 7 ] && grep -q 'com1 1 ' /proc/cob/resources", 0)?;
    person.command(size, 0)?;
    person.command("kctl run -k 5 /bin/sh -c 'exit 6'", 6)?;
    person.command("kctl boot 0 && kctl run -k 0 uname && kctl run -k 0 grep -q CobKernel:.0 /proc/self/status", 0)?;
    // Job control works on the terminal that was taken over.
    // Said by the program itself: a key that came between fork and exec would go to a copy of the interactive shell, which takes note of it and executes.
    person.keys(b"sh -c 'echo \"=$((1 + 1)):\"; sleep 1000'\r")?;
    person.see("=2:")?;
    person.keys(b"\x03")?;
    person.command("[ $? = 130 ]", 0)?;
    person.keys(b"poweroff\r")?;
    person.see_the_end()
}
