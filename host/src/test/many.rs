//! What must not grow with the number of kernels: forty-eight of them are one machine, they miss one that dies, and an operation on another kernel takes as
//! many messages as between two.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Report;
use crate::machine::Asked;
use crate::root::Root;

/// The machine with the most kernels, and how many.
const MANY: (&str, usize) = ("flock", 48);
/// What it is compared with.
const FEWER: [&str; 2] = ["duo", "octo"];

const ONE: &str = "many/kernels-are-one-machine";
const DEATH: &str = "many/one-dies-and-comes-again";
const MESSAGES: &str = "many/messages-do-not-grow";
const GROUP: &str = "many/one-speaks-to-all";

/// Waits until so many kernels are up as kernel `$1` sees it.
const UP: &str =
    "up() { until [ $(kctl run -k $1 grep -c ' up ' /proc/cob/kernels) = $2 ]; do usleep 100000; done; }\n";

/// Counts the messages of operations that a program on kernel 1 does with what kernel 0 has: all that both send and get, whomever it goes to (each is counted by both), the mean in whole
/// messages: a busy host makes kernels ask each other now and then whether they are there. What is only done once (a program goes there, lanes are opened) is in the first count too.
const COUNT: &str = r#"
total() { awk 'NR>1 {n+=$4+$6} END {print n}' /proc/cob/lanes; }
both() { echo $(( $(kctl run -k 1 awk 'NR>1 {n+=$4+$6} END {print n}' /proc/cob/lanes) + $(total) )); }
loop() { echo "i=0; while [ \$i -lt $1 ]; do $2; i=\$((i+1)); done"; }
count() { a=$(both); eval "$1"; b=$(both); echo $((b-a)); }
n=50
mean() { echo "$1 $(( ($3-$2 + n) / (2*n) ))"; }
there() { mean "$1" $(count "kctl run -k 1 sh -c '$(loop 0 "$2")'") $(count "kctl run -k 1 sh -c '$(loop $n "$2")'"); }
echo hello >/tmp/f
sleep 1000 & pid=$!
both >/dev/null; both >/dev/null
there open ': </tmp/f'
there read 'read x </tmp/f'
there stat '[ -e /tmp/f ]'
there kill "kill -0 $pid"
mean exec-and-wait $(count :) $(count "$(loop $n 'kctl run -k 1 true')")
kill $pid
"#;

/// Runs all cases, on one boot of each machine.
pub fn all(root: &Root, report: &mut Report) {
    if ![ONE, DEATH, MESSAGES, GROUP].iter().any(|name| report.wants(name)) {
        return;
    }
    let mut flock = match Asked::boot(root, MANY.0, true) {
        Ok(flock) => flock,
        Err(error) => return report.record("many", Err(format!("{error:#}")), Duration::ZERO),
    };
    report.run(ONE, || one_machine(&mut flock).map_err(|error| format!("{error:#}")));
    let mut said = String::new();
    report.run(MESSAGES, || match messages(root, &mut flock) {
        Ok(rows) => {
            said = rows;
            Ok(())
        }
        Err(error) => Err(format!("{error:#}")),
    });
    if !said.is_empty() {
        report.note(MESSAGES, &format!("messages of both kernels: {said}"));
    }
    report.run(GROUP, || group(&mut flock).map_err(|error| format!("{error:#}")));
    report.run(DEATH, || death(&mut flock).map_err(|error| format!("{error:#}")));
}

fn one_machine(flock: &mut Asked) -> Result<()> {
    let (kernels, last) = (MANY.1, MANY.1 - 1);
    flock.ask(&format!("{UP} up 0 {kernels}; up {last} {kernels}"))?;
    let line = format!("kctl run -k {last} sh -c 'grep CobKernel /proc/self/status; grep -c ^processor /proc/cpuinfo'");
    let said = flock.ask(&line)?;
    ensure!(said == format!("CobKernel:\t{last}\n{kernels}\n"), "kernel {last} said {said:?}");
    // A pipeline over kernels that are far apart in the boot tree.
    let said = flock.ask(&format!(
        "echo abc | kctl run -k 7 tr a b | kctl run -k {last} tr b c | kctl run -k 23 tr c d | kctl run -k 40 cat"
    ))?;
    ensure!(said == "ddd\n", "the pipeline said {said:?}");
    Ok(())
}

fn messages(root: &Root, flock: &mut Asked) -> Result<String> {
    flock.ask(&format!("{UP} up 0 {}", MANY.1))?;
    let many = flock.ask(COUNT)?;
    for name in FEWER {
        let fewer = Asked::boot(root, name, true)?.ask(COUNT).with_context(|| name.to_owned())?;
        ensure!(fewer == many, "{} says\n{many}and {name}\n{fewer}", MANY.0);
    }
    Ok(many.trim_end().replace('\n', ", "))
}

/// Two thousand messages, each written once, that forty-seven kernels compare with what was said.
fn group(flock: &mut Asked) -> Result<()> {
    let (kernels, last) = (MANY.1, MANY.1 - 1);
    let said = flock.ask(&format!(
        "{UP} up 0 {kernels}; echo 1 group 2000 >/proc/cob/measure && grep listeners /proc/cob/measure"
    ))?;
    ensure!(said == format!("row listeners {last}.00 {last}\n"), "it said {said:?}");
    // And one that is nobody's starter.
    let line = format!(
        "kctl run -k {last} sh -c 'echo 0 group 200 >/proc/cob/measure && grep -c listeners /proc/cob/measure'"
    );
    ensure!(flock.ask(&line)? == "1\n", "kernel {last} did not speak to all");
    Ok(())
}

fn death(flock: &mut Asked) -> Result<()> {
    let (kernels, last) = (MANY.1, MANY.1 - 1);
    // It has started nobody, and its starter and its neighbours are elsewhere than who asks.
    let victim = 33;
    flock
        .ask(&format!("{UP} up 0 {kernels}; kctl crash {victim} --yes; up 0 {last}; up {last} {last}; up 12 {last}"))?;
    let said = flock.ask(&format!("kctl run -k {victim} true; echo $?"))?;
    ensure!(said == "126\n", "kctl run on the dead kernel said {said:?}");
    flock.ask(&format!("{UP} kctl boot {victim}; up 0 {kernels}; up {last} {kernels}; up {victim} {kernels}"))?;
    Ok(())
}
