//! Checks of membership and links on the real thing: `peers=WORDS` on the command line of an image built with the feature `selftest`.
//! Words: `echo`, `crash=K` or `hang=K` (four seconds after all have joined).

use alloc::sync::Arc;

use hal::time::now;
use task::Kernel;

use crate::facts::Facts;
use crate::member::Peers;

const MS: u64 = 1_000_000;

/// Which kernel a word names.
fn target(line: &str, word: &str) -> Option<u16> {
    let rest = line.split(word).nth(1)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Starts the checks; `false` if the command line names none.
pub fn start(facts: &Facts, kernel: &Arc<Kernel>, peers: &Arc<Peers>) -> bool {
    let line = facts.command_line.clone();
    if !line.contains("peers=") {
        return false;
    }
    let (count, me) = (facts.plan.kernels.len(), facts.info.index);
    let peers = peers.clone();
    let started = kernel.start_thread("peertest", move |task| {
        while peers.view().members.len() < count {
            task.park_until(now() + MS);
        }
        let all = now();
        log::info!("peertest: all {count} joined at {} ms", all / MS);
        if line.contains("echo") && me == 1 {
            link::echo::serve(peers.links(), now, all + 2000 * MS);
        }
        if line.contains("echo") && me == 0 {
            echo(&peers);
        }
        task.park_until(all + 4000 * MS);
        if target(&line, "crash=") == Some(me) {
            panic!("as the command line says");
        }
        if target(&line, "hang=") == Some(me) {
            log::info!("peertest: hanging at {} ms", now() / MS);
            loop {
                core::hint::spin_loop();
            }
        }
        if !line.contains("crash=") && !line.contains("hang=") {
            return;
        }
        while peers.view().members.len() == count {
            task.park_until(now() + MS);
        }
        log::info!("peertest: {:?} at {} ms", peers.view().members, now() / MS);
        if peers.view().members.first().is_some_and(|k| k.index == me) {
            task.park_until(now() + 1000 * MS);
            hal::cpu::power_off(true);
        }
    });
    if let Err(why) = started {
        log::error!("peertest: {why}");
    }
    true
}

fn echo(peers: &Peers) {
    let Some(peer) = peers.view().members.get(1).copied() else { return };
    let peer = objects::to_wire(peer);
    let (mut least, mut total, mut n) = (u64::MAX, 0, 0);
    let ran = link::echo::round_trips(peers.links(), peer, 5000, &[], now, |ns| {
        least = least.min(ns);
        total += ns;
        n += 1;
    });
    let rung = peers.links().peer(peer).map_or(0, |p| p.counters.doorbells.load(core::sync::atomic::Ordering::Relaxed));
    log::info!("peertest: {n} round trips, {} ns each, best {least} ns, {rung} doorbells: {ran:?}", total / n.max(1));
}
