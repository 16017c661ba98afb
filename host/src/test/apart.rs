//! Boards that share nothing but a network: what their emulators are started with, and what becomes of the machine when the network loses frames or is cut.
//! That everything else works there too is shown by the suites that run on this machine (`apart-*`).

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Report;
use crate::machine::{Asked, Weather};
use crate::root::Root;

const MACHINE: &str = "apart";
/// Kernels of the first board, as bits.
const FIRST_BOARD: u64 = 1 << 0 | 1 << 2;

const NOTHING: &str = "apart/boards-share-nothing";
const ETHER: &str = "apart/ethernet-between-boards-memory-on-them";
const LOSSES: &str = "apart/lost-frames-are-not-noticed";
const DEATH: &str = "apart/a-kernel-is-stopped-by-its-own-board";
const CUT: &str = "apart/of-two-halves-the-first-goes-on";
const ANEW: &str = "apart/the-other-half-comes-back";

/// Waits until kernel `$1` says that so many kernels are up.
const UP: &str =
    "up() { until [ $(kctl run -k $1 grep -c ' up ' /proc/cob/kernels) = $2 ]; do usleep 100000; done; }\n";

/// Runs all cases, in one boot.
pub fn all(root: &Root, report: &mut Report) {
    if ![NOTHING, ETHER, LOSSES, DEATH, CUT, ANEW].iter().any(|name| report.wants(name)) {
        return;
    }
    let booted = Asked::boot(root, MACHINE, true).and_then(|mut apart| {
        apart.ask(&format!("{UP} up 0 4"))?;
        Ok(apart)
    });
    let mut apart = match booted {
        Ok(apart) => apart,
        Err(error) => return report.record("apart", Err(format!("{error:#}")), Duration::ZERO),
    };
    let cases: [(&str, fn(&mut Asked) -> Result<()>); 6] = [
        (NOTHING, shares_nothing),
        (ETHER, carriers),
        (LOSSES, losses),
        (DEATH, death),
        // Half of the machine is gone then, until the last one.
        (CUT, cut),
        (ANEW, anew),
    ];
    for (name, case) in cases {
        report.run(name, || case(&mut apart).map_err(|error| format!("{error:#}")));
    }
}

fn weather(apart: &Asked) -> Result<&Weather> {
    Ok(&apart.0.vm.network.as_ref().context("the machine has a network")?.weather)
}

/// No emulator has memory, bells or files in common with another one.
fn shares_nothing(apart: &mut Asked) -> Result<()> {
    let folder = apart.0.vm.folder();
    let lines = ["qemu.cmd", "qemu1.cmd"].map(|name| std::fs::read_to_string(folder.join(name)));
    for line in lines {
        let line = line.context("an emulator's command line")?;
        for word in ["memory-backend", "share=on", "mem-path", "ivshmem", "memdev", "pmem", "vhost"] {
            ensure!(!line.contains(word), "an emulator is started with {word}:\n{line}");
        }
        ensure!(line.matches("virtio-net-pci").count() == 2, "a board has not two network cards:\n{line}");
    }
    Ok(())
}

fn carriers(apart: &mut Asked) -> Result<()> {
    let said =
        apart.ask("for k in 1 2 3; do kctl run -k $k true; done; awk 'NR>1 {print $2,$3}' /proc/cob/links | sort")?;
    ensure!(said == "1 ether\n2 shm+ipi\n3 ether\n", "kernel 0 has the links\n{said}");
    Ok(())
}

/// One frame in twenty is lost, and programs do not notice. The wire does, and so does who counts.
fn losses(apart: &mut Asked) -> Result<()> {
    weather(apart)?.lost.store(50, Relaxed);
    let said = apart.ask(
        "head -c 600000 /dev/urandom >/tmp/a; sum=$(md5sum </tmp/a); \
         [ \"$(kctl run -k 1 md5sum </tmp/a)\" = \"$sum\" ] && [ \"$(kctl run -k 1 cat /tmp/a | kctl run -k 3 md5sum)\" = \"$sum\" ] && \
         for i in 1 2 3 4 5 6 7 8 9 10; do kctl run -k 1 sh -c 'kctl run -k 0 echo $$ >/dev/null && kill -0 1' || exit 1; done; echo $?; \
         awk '$2 == \"pieces_resent\" { print ($3 > 0) }' /proc/cob/wire; grep -c ' up ' /proc/cob/kernels",
    );
    let weather = weather(apart)?;
    weather.lost.store(0, Relaxed);
    let (carried, dropped) = (weather.carried.load(Relaxed), weather.dropped.load(Relaxed));
    ensure!(said? == "0\n1\n4\n", "programs noticed");
    ensure!(dropped * 100 > carried, "of {carried} frames {dropped} were lost: that is no test");
    Ok(())
}

/// A kernel hangs that only the other kernel of its board can stop: it is stopped, and started again there.
fn death(apart: &mut Asked) -> Result<()> {
    let said = apart.ask(&format!(
        "{UP} kctl hang 1 --yes; up 0 3; until kctl boot 1 2>/dev/null; do usleep 100000; done; up 0 4; up 3 4; \
         tail -n 1 /proc/cob/deaths | cut -d ' ' -f 1-4; kctl run -k 1 echo again"
    ))?;
    ensure!(said == "1 1 0 fenced\nagain\n", "it said {said:?}");
    Ok(())
}

/// Of two halves the one goes on that has the first kernel; the other parks itself, so that nothing happens twice.
fn cut(apart: &mut Asked) -> Result<()> {
    weather(apart)?.cut.store(FIRST_BOARD, Relaxed);
    let said = apart.ask(&format!(
        "{UP} up 0 2; up 2 2; until [ $(grep -c lost /proc/cob/deaths) = 2 ]; do usleep 100000; done; \
         kctl run -k 2 echo goes on"
    ))?;
    ensure!(said == "goes on\n", "it said {said:?}");
    // The others come to it by themselves, as soon as their own clocks say so.
    for _ in 0..100 {
        apart.0.vm.read_logs();
        let parked = |line: &&String| line.contains("the smaller side of a split");
        if apart.0.vm.panics.iter().flatten().filter(parked).count() == 2 {
            return Ok(());
        }
        apart.ask("usleep 200000")?;
    }
    bail!("the other board did not park itself: {:?}", apart.0.vm.panics)
}

/// What parked itself on the other side of a cut, and what nobody could stop, is there again when its board was switched off and on.
fn anew(apart: &mut Asked) -> Result<()> {
    weather(apart)?.cut.store(0, Relaxed);
    let said = apart.ask(&format!(
        "{UP} kctl boot 1 2>/dev/null; echo $?; kctl boot 3 && kctl boot 1 && up 0 4 && up 1 4; \
         kctl run -k 3 sh -c 'kctl run -k 1 echo here' | kctl run -k 2 cat; uname -n >/tmp/b; kctl run -k 1 cmp /tmp/b /tmp/b; echo $?"
    ))?;
    ensure!(said == "1\nhere\n0\n", "it said {said:?}");
    Ok(())
}
