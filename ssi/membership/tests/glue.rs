//! Whole kernels' memberships over links in one process: join, panic, hang, restart.
#[path = "../../../link/tests/common/mod.rs"]
mod common;

use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicU64, Ordering},
};

use base::KernelId;
use common::View as Memory;
use link::{Facts, Shm};
use membership::{Config, Machine, MembershipService, Outcome, Phase, Service, View};

const SECOND: u64 = 1_000_000_000;

fn k(index: u16, incarnation: u32) -> KernelId {
    KernelId { index, incarnation }
}

struct Board {
    hardware: Arc<common::Machine>,
    stopped: Mutex<Vec<KernelId>>,
}

struct Cpu {
    board: Arc<Board>,
    alarm: AtomicU64,
    downs: Mutex<Vec<KernelId>>,
    views: Mutex<Vec<View>>,
}

impl Machine for Cpu {
    fn now(&self) -> u64 {
        self.board.hardware.clock.load(Ordering::Relaxed)
    }
    fn step_forward(&self, _: u64) {}
    fn set_alarm(&self, at: u64) {
        self.alarm.fetch_min(at, Ordering::Relaxed);
    }
    fn facts(&self) -> Facts {
        Facts { isa: 62, cpus: 1, memory: 1 << 20, plan: 1, epoch: 0 }
    }
    fn fence(&self, victim: KernelId) -> Outcome {
        self.board.stopped.lock().unwrap().push(victim);
        Outcome::Fenced
    }
    fn let_go(&self, _: &[(KernelId, Outcome)]) {}
    fn free(&self, _: &[(KernelId, Outcome)]) {}
    fn park(&self, why: &'static str) {
        panic!("parked: {why}");
    }
}

impl Service for Cpu {
    fn peer_down(&self, dead: KernelId) {
        self.downs.lock().unwrap().push(dead);
    }
    fn view(&self, view: &View) {
        self.views.lock().unwrap().push(view.clone());
    }
}

struct Kernel {
    id: KernelId,
    cpu: Arc<Cpu>,
    service: Arc<MembershipService>,
}

fn boot(board: &Arc<Board>, id: KernelId, kernels: u16) -> Kernel {
    let shm = Shm::new(link_id(id), Memory { machine: board.hardware.clone(), me: id.index }).unwrap();
    let cpu = Arc::new(Cpu {
        board: board.clone(),
        alarm: AtomicU64::new(u64::MAX),
        downs: Mutex::default(),
        views: Mutex::default(),
    });
    let service = MembershipService::new(id, kernels, vec![Arc::new(shm)], cpu.clone(), Config::new(), Vec::new());
    service.add(cpu.clone());
    Kernel { id, cpu, service }
}

fn link_id(id: KernelId) -> wire::KernelId {
    wire::KernelId::new(id.index, id.incarnation)
}

/// Bells and alarms of those that run, until `until`; how many alarms went off.
fn run(board: &Board, kernels: &[&Kernel], until: u64) -> u64 {
    let mut alarms = 0;
    loop {
        let mut rang = false;
        for kernel in kernels {
            let bell = &board.hardware.kernels[usize::from(kernel.id.index)].bell;
            if !board.stopped.lock().unwrap().contains(&kernel.id) && bell.swap(false, Ordering::SeqCst) {
                rang = true;
                kernel.service.doorbell();
            }
        }
        if rang {
            continue;
        }
        let Some(next) = kernels
            .iter()
            .filter(|kernel| !board.stopped.lock().unwrap().contains(&kernel.id))
            .min_by_key(|kernel| kernel.cpu.alarm.load(Ordering::Relaxed))
        else {
            return alarms;
        };
        let at = next.cpu.alarm.swap(u64::MAX, Ordering::Relaxed);
        if at > until {
            next.cpu.alarm.store(at, Ordering::Relaxed);
            return alarms;
        }
        alarms += 1;
        board.hardware.clock.fetch_max(at, Ordering::Relaxed);
        next.service.tick();
    }
}

fn machine(n: u16) -> (Arc<Board>, Vec<Kernel>) {
    let board = Arc::new(Board { hardware: common::Machine::new(usize::from(n)), stopped: Mutex::default() });
    let kernels: Vec<Kernel> = (0..n).map(|i| boot(&board, k(i, 1), n)).collect();
    kernels[0].service.found();
    for kernel in &kernels[1..] {
        kernel.service.enter(0);
    }
    run(&board, &kernels.iter().collect::<Vec<_>>(), SECOND / 2);
    (board, kernels)
}

#[test]
fn kernels_join_and_agree() {
    let (_, kernels) = machine(8);
    let view = kernels[0].service.view();
    assert_eq!(view.members, (0..8).map(|i| k(i, 1)).collect::<Vec<_>>());
    for kernel in &kernels {
        assert_eq!(kernel.service.view(), view);
        assert_eq!(kernel.service.phase(), Phase::Member);
        assert_eq!(kernel.service.links().epoch(), view.epoch);
    }
    assert_eq!(kernels[1].service.facts_of(k(0, 1)).unwrap().cpus, 1, "they said hello");
}

#[test]
fn a_panic_is_known_at_once_also_that_of_the_first_kernel() {
    let (board, kernels) = machine(4);
    let before = board.hardware.clock.load(Ordering::Relaxed);
    kernels[0].service.dying("for the test", before);
    board.stopped.lock().unwrap().push(k(0, 1));
    let rest: Vec<&Kernel> = kernels[1..].iter().collect();
    run(&board, &rest, before);
    for kernel in &rest {
        assert_eq!(kernel.service.view().members, [k(1, 1), k(2, 1), k(3, 1)], "{}", kernel.id);
        assert_eq!(*kernel.cpu.downs.lock().unwrap(), [k(0, 1)]);
    }
    // Somebody starts it again.
    board.hardware.kernels[0].bell.store(false, Ordering::SeqCst);
    let again = boot(&board, k(0, 2), 4);
    link::porch::Porch(board.hardware.kernels[0].memory.clone()).clear_fence();
    again.service.enter(1);
    let mut all = rest;
    all.push(&again);
    run(&board, &all, before + SECOND);
    for kernel in &all {
        assert_eq!(kernel.service.view().members, [k(0, 2), k(1, 1), k(2, 1), k(3, 1)], "{}", kernel.id);
    }
}

/// The last word of a kernel may be lost on a network, but not by all.
#[test]
fn a_goodbye_is_known_to_those_who_hear_of_it_by_others() {
    let (board, kernels) = machine(4);
    for (index, orderly) in [(2, 1), (3, 0)] {
        let dead = wire::membership::Dead { kernel: link_id(k(index, 1)), outcome: 1, orderly };
        kernels[1].service.links().send(link_id(k(0, 1)), wire::ObjectId::NONE, &dead, &[]).unwrap();
    }
    board.stopped.lock().unwrap().extend([k(2, 1), k(3, 1)]);
    run(&board, &[&kernels[0], &kernels[1]], board.hardware.clock.load(Ordering::Relaxed) + SECOND / 10);
    let deaths: Vec<_> = kernels[0].service.deaths().iter().map(|death| (death.kernel, death.orderly)).collect();
    assert_eq!(deaths, [(k(2, 1), true), (k(3, 1), false)]);
}

#[test]
fn who_came_in_after_a_death_speaks_with_the_next_incarnation() {
    let board = Arc::new(Board { hardware: common::Machine::new(3), stopped: Mutex::default() });
    let kernels: Vec<Kernel> = (0..3).map(|i| boot(&board, k(i, 1), 3)).collect();
    kernels[0].service.found();
    kernels[1].service.enter(0);
    run(&board, &[&kernels[0], &kernels[1]], SECOND / 2);
    // The third asks the second one to be let in, which dies before anything comes of it.
    kernels[2].service.links().connect(link_id(k(1, 1))).unwrap();
    kernels[1].service.dying("for the test", SECOND / 2);
    board.stopped.lock().unwrap().push(k(1, 1));
    run(&board, &[&kernels[0]], SECOND);
    kernels[2].service.enter(0);
    run(&board, &[&kernels[0], &kernels[2]], 2 * SECOND);
    assert_eq!(kernels[2].service.view().members, [k(0, 1), k(2, 1)]);
    board.hardware.kernels[1].bell.store(false, Ordering::SeqCst);
    let again = boot(&board, k(1, 2), 3);
    link::porch::Porch(board.hardware.kernels[1].memory.clone()).clear_fence();
    again.service.enter(0);
    run(&board, &[&kernels[0], &again, &kernels[2]], 3 * SECOND);
    assert_eq!(kernels[2].service.view().members, [k(0, 1), k(1, 2), k(2, 1)]);
    again.service.links().connect(link_id(k(2, 1))).unwrap();
    kernels[2].service.links().connect(link_id(k(1, 2))).unwrap();
    run(&board, &[&kernels[0], &again, &kernels[2]], 4 * SECOND);
    assert!(again.service.facts_of(k(2, 1)).is_some(), "the third said hello to the new one");
    assert!(kernels[2].service.facts_of(k(1, 2)).is_some(), "and the new one to it");
    assert!(kernels[2].cpu.downs.lock().unwrap().is_empty(), "its services never knew the first one");
}

#[test]
fn a_silent_hang_is_noticed_within_three_seconds() {
    let (board, kernels) = machine(4);
    let rest: Vec<&Kernel> = kernels.iter().filter(|kernel| kernel.id.index != 2).collect();
    let before = board.hardware.clock.load(Ordering::Relaxed);
    run(&board, &rest, before + 3 * SECOND);
    for kernel in &rest {
        assert_eq!(kernel.service.view().members, [k(0, 1), k(1, 1), k(3, 1)], "{}", kernel.id);
    }
    assert_eq!(*board.stopped.lock().unwrap(), [k(2, 1)]);
    assert!(Weak::strong_count(&Arc::downgrade(&board)) > 0);
}

#[test]
fn an_idle_machine_beats_once_a_second_and_sends_nothing() {
    let (board, kernels) = machine(3);
    let all: Vec<&Kernel> = kernels.iter().collect();
    let now = board.hardware.clock.load(Ordering::Relaxed);
    run(&board, &all, now + SECOND);
    let rung = |board: &Board| board.hardware.kernels.iter().map(|x| x.rung.load(Ordering::Relaxed)).sum::<u64>();
    let before = rung(&board);
    let alarms = run(&board, &all, now + 60 * SECOND);
    assert!(alarms <= 3 * 60, "{alarms} wake-ups of three kernels in a minute");
    assert_eq!(rung(&board), before, "nobody rings when all is quiet");
    assert!(kernels.iter().all(|kernel| kernel.service.view().members.len() == 3));
}

#[test]
fn who_breaks_the_rules_is_fenced_though_it_goes_on() {
    let (board, kernels) = machine(2);
    let before = board.hardware.clock.load(Ordering::Relaxed);
    let view = kernels[1].service.view();
    let probe = wire::membership::Probe { nonce: 1, epoch: view.epoch };
    kernels[1].service.links().send(link_id(k(0, 1)), wire::ObjectId::NONE, &probe, &[]).expect("it is sent");
    // That is not what kernel 0 finds, but nonsense in every place where a record can begin.
    use link::memory::Memory as _;
    let block = &board.hardware.kernels[0].memory;
    let ring = link::porch::FIRST_RINGS[0].0 + link::ring::OVERHEAD;
    for at in (8192 + ring..8192 + link::porch::BLOCK_SIZE).step_by(8) {
        block.store64(at, 0x5a5a_5a5a_5a5a_5a5a);
    }
    run(&board, &kernels.iter().collect::<Vec<_>>(), before + SECOND);
    assert_eq!(*board.stopped.lock().unwrap(), [k(1, 1)]);
    assert_eq!(kernels[0].service.view().members, [k(0, 1)]);
    assert_eq!(*kernels[0].cpu.downs.lock().unwrap(), [k(1, 1)]);
}
