//! The assembler. `machine` is the ISA that this is compiled for.

use alloc::sync::Arc;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use hal::boot::{PhysRange, RawBoot};

use cluster::tree;
use task::exec::Strings;

use crate::devices::Devices;
use crate::far::Boards;
use crate::managed::Managed;
use crate::{facts, member, peers};

/// The first program.
const INIT: &str = "/sbin/init";

machine::entry!(start);

/// The first safe code of a kernel, on its first CPU, with interrupts off.
fn start(raw: &'static RawBoot) -> ! {
    let entered = machine::clock::ticks();
    hal::console::start_log(log::LevelFilter::Info);
    hal::console::set_death(death);
    hal::console::set_announcer(member::announce_death);
    let facts = match facts::read(raw, machine::boot::early_bytes) {
        Ok(facts) => Arc::new(facts),
        Err(why) => panic!("{why}"),
    };
    if let Err(why) = hal::boot::init(facts.info) {
        panic!("{why}");
    }
    HAS_PEERS.store(facts.plan.kernels.len() > 1, Ordering::Relaxed);
    let archive = hal::window::archive().unwrap_or_default();
    if let Some(table) = facts::file(archive, facts::symbols(facts::ISA)) {
        machine::panic::set_symbols(table);
        hal::console::set_symbols(machine::panic::symbol);
    }
    let epoch =
        facts.epoch.unwrap_or_else(|| machine::clock::wall_clock().saturating_sub(hal::time::now() / 1_000_000_000));
    log::info!(
        "{}: kernel {} at {:#x}, {} CPUs, {} MiB, {}, entered at {} us",
        facts.plan.name,
        facts.info.index,
        raw.image.start,
        facts.info.n_cpus,
        facts.info.owned().iter().map(|r| r.len).sum::<u64>() >> 20,
        machine::board::about(),
        machine::clock::entered() / 1000,
    );
    // What it had in a former life is others' now.
    let is_first = facts.info.incarnation == 1;
    let devices = Arc::new(Devices::new(machine::board::pci(), facts.cards(), &facts.command_line));
    if let Some(kernel) = facts.plan.kernel(facts.info.index).filter(|_| is_first) {
        devices.find(&kernel.devices);
    }
    let kernel = match crate::kernel::make(&facts, epoch, devices.clone(), &linux::Linux) {
        Ok(kernel) => kernel,
        Err(why) => panic!("{why}"),
    };
    let boards = match Boards::find(&facts, machine::board::pci()) {
        Ok(boards) => boards,
        Err(why) => panic!("{why}"),
    };
    devices.set_boards(boards.clone());
    know_peers(&facts, boards.as_deref());
    let managed = devices.find_card(facts.info.index).map(|card| Managed::new(card, kernel.id()));
    let far = boards.clone().map(|boards| boards as Arc<dyn cluster::Far>);
    let joined = member::join(&facts, &kernel, far, managed.clone().map(|card| card as Arc<dyn link::ether::Nic>));
    match &joined {
        Ok(cluster) => {
            cluster.set_hardware(devices.clone());
            cluster.set_starter(Arc::new(peers::Images { facts: facts.clone(), epoch, boards, managed }));
        }
        Err(why) => log::error!("no peers: {why}"),
    }
    let processes = joined.as_ref().ok().map(|cluster| cluster.processes.clone() as Arc<dyn procfs::ProcessView>);
    let own = match tree::make(&kernel, processes, archive, &*devices, &facts.command_line) {
        Ok(own) => own,
        Err(why) => panic!("the file tree: {why:?}"),
    };
    if let Ok(cluster) = joined {
        let entered = machine::clock::time_of(entered);
        crate::cobfiles::install(&facts, &kernel, &cluster, entered, &own.trees);
        if facts.starter.is_some() {
            kernel.hold_doors();
        }
        cluster.share(&kernel, own);
        cluster::life::begin(&facts.plan, kernel.id(), &cluster.life);
        cluster.enter();
    }
    if facts.starter.is_none() {
        first_program(&kernel, &facts.command_line);
    }
    crate::kernel::run(&kernel)
}

/// Whose the memory of others is, for who touches it by mistake.
fn know_peers(facts: &facts::Facts, boards: Option<&Boards>) {
    let own = facts.plan.kernel(facts.info.index).map_or(0, |kernel| kernel.board);
    for kernel in facts.plan.kernels.iter().filter(|k| k.index != facts.info.index) {
        for r in &kernel.memory {
            let range = PhysRange::new(r.start, r.size);
            let seen =
                if kernel.board == own { Some(range) } else { boards.and_then(|b| b.locate(kernel.board, range)) };
            if let Some(range) = seen {
                machine::paging::know_peer(kernel.index, range);
            }
        }
    }
}

/// Starts process 1: what `init=` names, as on Linux.
pub fn first_program(kernel: &Arc<task::Kernel>, command_line: &str) {
    let path = command_line.split_whitespace().find_map(|word| word.strip_prefix("init=")).unwrap_or(INIT).as_bytes();
    let mut argv = Strings::new();
    let mut envp = Strings::new();
    let started = argv
        .push(path)
        .and_then(|()| envp.push(b"TERM=vt100"))
        .and_then(|()| kernel.start_init(path, argv, envp, tree::console(kernel)));
    if let Err(why) = started {
        panic!("process 1: {why:?}");
    }
}

/// Other kernels go on when this one dies.
static HAS_PEERS: AtomicBool = AtomicBool::new(false);

/// After the last words: the only kernel of a machine takes the machine with it.
fn death() -> ! {
    if HAS_PEERS.load(Ordering::Relaxed) {
        machine::exit::halt()
    }
    hal::cpu::power_off(false)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let frame = machine::panic::frame_pointer();
    // On one line, which is what people see of a log first.
    match info.location() {
        Some(place) => hal::console::last_words(format_args!("{} ({place})", info.message()), frame),
        None => hal::console::last_words(format_args!("{}", info.message()), frame),
    }
    hal::console::die()
}
