//! `cob bench life`: how long kernels take to come up again and to be missed, what they cost when nothing runs. All times are the system's own, from
//! `/proc/cob/{boots,deaths,usage}` (`docs/proc-cob.md`).

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::bench::{Judged, idle};
use crate::machine::Asked;
use crate::root::Root;

/// How often a secondary is started for the median.
const STARTS: usize = 9;

/// What was measured, in the unit of its bar.
struct Row {
    /// For verdicts.
    name: &'static str,
    what: &'static str,
    value: f64,
    bar: f64,
    unit: &'static str,
}

/// A column of a table of a kernel, by its name, in all rows; `-` is left out.
fn column(machine: &mut Asked, kernel: usize, file: &str, column: &str) -> Result<Vec<f64>> {
    let text = machine.ask(&format!("kctl run -k {kernel} cat /proc/cob/{file}"))?;
    numbers(&text, column).with_context(|| format!("/proc/cob/{file} has no column {column}"))
}

fn numbers(table: &str, column: &str) -> Option<Vec<f64>> {
    let mut lines = table.lines();
    let at = lines.next()?.split_whitespace().position(|name| name == column)?;
    Some(lines.filter_map(|line| line.split_whitespace().nth(at)?.parse().ok()).collect())
}

fn largest(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

/// Milliseconds from the moment at which a stopped kernel is known to be off, when `kctl boot` starts, to its next membership: the median.
fn started(machine: &mut Asked) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        machine.ask("kctl stop 1 && kctl boot 1")?;
        let off = largest(&column(machine, 0, "deaths", "told_ns")?).context("nobody stopped")?;
        let up = largest(&column(machine, 0, "boots", "member_ns")?).context("nobody started")?;
        times.push((up - off) / 1e6);
    }
    times.sort_by(f64::total_cmp);
    times.get(STARTS / 2).copied().context("no times")
}

/// MiB that each kernel of a machine has taken of its memory before a program runs; the most.
fn memory(machine: &mut Asked, kernels: usize) -> Result<f64> {
    let mut most = 0.0;
    for kernel in 1..kernels {
        let all =
            machine.ask(&format!("kctl kernels --json | grep memory_bytes | sed -n {}p | tr -dc 0-9", kernel + 1))?;
        let all: f64 = all.trim().parse().context("memory of a kernel")?;
        let free = column(machine, kernel, "usage", "frames_free")?.first().copied().context("no free frames")?;
        most = f64::max(most, (all - free * 4096.0) / f64::from(1 << 20));
    }
    Ok(most)
}

/// Wake-ups per second and kernel of a machine in which nothing runs; the most. A shell on each kernel looks before, between and after a short and a long
/// sleep: what looking and sleeping cost (questions to another kernel) is in both. Where a span begins and ends between two wake-ups is worth one in each.
fn wakeups(machine: &mut Asked, kernels: usize) -> Result<f64> {
    const SHORT: f64 = 2.0;
    const LONG: f64 = 62.0;
    machine.ask(
        "cat >/tmp/wakeups <<'X'
look() { awk 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == \"wakeups\") at = i } NR == 2 { print $at }' /proc/cob/usage; }
a=$(look); sleep $1; b=$(look); sleep $2; c=$(look); echo $((c - b - (b - a)))
X",
    )?;
    let text = machine.ask(&format!(
        "k=0; while [ $k -lt {kernels} ]; do kctl run -k $k sh /tmp/wakeups {SHORT} {LONG} & k=$((k+1)); done; wait"
    ))?;
    let counts: Vec<f64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    anyhow::ensure!(counts.len() == kernels, "not all kernels counted: {text}");
    Ok((largest(&counts).context("no kernels")? - 2.0) / (LONG - SHORT))
}

/// Milliseconds from the end of a kernel to the moment when the last service of the last survivor had been told.
fn missed(machine: &mut Asked, kernels: usize, how: &str, victim: usize) -> Result<f64> {
    machine.ask(&format!(
        "kctl {how} {victim} --yes; until kctl kernels | grep -q '^ *{victim} .* dead '; do sleep 0.05; done"
    ))?;
    let mut most = 0.0;
    for survivor in (0..kernels).filter(|k| *k != victim) {
        let took = column(machine, survivor, "deaths", "took_ns")?;
        most = f64::max(most, took.last().copied().context("a survivor did not notice")? / 1e6);
    }
    machine.ask(&format!("kctl boot {victim}"))?;
    Ok(most)
}

/// How much longer a command takes that goes on at kernel 1 than the same on the kernel of its shell: the median of pairs in turns.
fn run_elsewhere(machine: &mut Asked) -> Result<f64> {
    const TIMES: usize = 100;
    let mut took = |kernel: usize| -> Result<f64> {
        let text = machine.ask(&format!(
            "read a b </proc/uptime; i=0; while [ $i -lt {TIMES} ]; do kctl run -k {kernel} true; i=$((i+1)); done; read c d </proc/uptime; echo $a $c"
        ))?;
        let times: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        Ok(times.last().context("no time")? - times.first().context("no time")?)
    };
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let (here, there) = (took(0)?, took(1)?);
        ratios.push(there / here);
    }
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().context("no ratios")
}

/// What the emulators of a machine take of a core of the host while nothing runs in it, in hundredths.
fn at_rest(machine: &mut Asked) -> Result<f64> {
    const LONG: f64 = 20.0;
    // What begins with the last command has ended.
    machine.ask("sleep 2")?;
    let (before, begun) = (machine.0.vm.cpu_seconds()?, Instant::now());
    machine.ask(&format!("sleep {LONG}"))?;
    Ok((machine.0.vm.cpu_seconds()? - before) * 100.0 / begun.elapsed().as_secs_f64())
}

/// Measures, prints a table, fails if a bar is missed and the host had time.
pub fn life(root: &Root) -> Result<ExitCode> {
    let (quiet, verdicts) = measure(root)?;
    Ok(Judged::new(quiet, verdicts.iter().all(|(_, verdict)| verdict.is_ok())).end())
}

/// Measures and prints a table. Whether the host had time, and the rows that have a bar.
pub fn measure(root: &Root) -> Result<(bool, Vec<(&'static str, Result<(), String>)>)> {
    let mut quiet = idle(1, 3)?;
    let mut rows = Vec::new();
    let mut row = |name, what, value, bar, unit| rows.push(Row { name, what, value, bar, unit });
    let mut duo = Asked::boot(root, "duo", false)?;
    row("start", "secondary up after kctl boot", started(&mut duo)?, 100.0, "ms");
    row("idle", "idle wake-ups per second and kernel", wakeups(&mut duo, 2)?, 1.0, "/s");
    row("crash", "kctl crash to the last service told, duo", missed(&mut duo, 2, "crash", 1)?, 20.0, "ms");
    row("hang", "silent hang to the last service told, duo", missed(&mut duo, 2, "hang", 1)?, 3000.0, "ms");
    row("run-elsewhere", "kctl run -k 1 true / kctl run -k 0 true", run_elsewhere(&mut duo)?, 2.0, "");
    drop(duo);
    quiet &= idle(2, 3)?;
    let mut octo = Asked::boot(root, "octo", false)?;
    // Who is missing is said, should it never come.
    octo.ask(
        "i=0; until [ \"$(kctl kernels --json | grep -c '\"state\": \"up\"')\" = 8 ]; do
           i=$((i+1)); [ $i -lt 600 ] || { kctl kernels >&2; exit 1; }; sleep 0.1
         done",
    )?;
    row("memory", "memory of a kernel before programs, octo", memory(&mut octo, 8)?, 8.0, "MiB");
    // Code that runs for the first time since boot: the emulator translates it for seven kernels at once, which is what is measured then.
    row("first-death", "octo, the first death since boot", missed(&mut octo, 8, "crash", 5)?, f64::INFINITY, "ms");
    let mut later = [0.0; 5];
    for (victim, took) in [3, 6, 2, 7, 4].into_iter().zip(&mut later) {
        *took = missed(&mut octo, 8, "crash", victim)?;
    }
    later.sort_by(f64::total_cmp);
    row("later-deaths", "octo, later deaths, median", later[later.len() / 2], 20.0, "ms");
    drop(octo);
    quiet &= idle(3, 3)?;
    let machine = Asked::prepare(root, "trio", false)?;
    // Looking for what is to be built takes longer than the machine does.
    let begun = Instant::now();
    let mut trio = Asked::start(root, &machine)?;
    trio.ask("until [ \"$(kctl kernels --json | grep -c '\"up\"')\" = 3 ]; do sleep 0.01; done")?;
    row("trio-joined", "trio, three ISAs joined after the start", begun.elapsed().as_secs_f64(), 3.0, "s");
    row("trio-idle", "trio, part of a host's core when idle", at_rest(&mut trio)?, 3.0, "%");
    let mut verdicts = Vec::new();
    println!("{:<44} {:>10} {:>10}", "", "measured", "bar");
    for Row { name, what, value, bar, unit } in rows {
        let mark = if value > bar { "  missed" } else { "" };
        if bar.is_finite() {
            let verdict =
                if value <= bar { Ok(()) } else { Err(format!("{what}: {value:.2} {unit}, the bar is {bar}")) };
            verdicts.push((name, verdict));
        }
        let bar = if bar.is_finite() { format!("{bar:.0} {unit}").trim_end().to_owned() } else { String::from("-") };
        println!("{what:<44} {:>10} {bar:>10}{mark}", format!("{value:.2} {unit}").trim_end());
    }
    Ok((quiet, verdicts))
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn columns_are_found_and_dashes_left_out() {
        let table = "id took_ns x\n1 20 a\n2 - b\n3 7 c\n";
        assert_eq!(numbers(table, "took_ns"), Some(vec![20.0, 7.0]));
        assert_eq!(numbers(table, "none"), None);
    }
}
