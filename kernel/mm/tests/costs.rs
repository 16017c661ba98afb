//! What the operations that every program lives on cost, in instructions of the host: run with
//! `valgrind --tool=callgrind --toggle-collect='*cost_*'`. A plain run only checks that they work.

use std::sync::Arc;

use base::{KernelId, id::ObjectIds};
use hal::{addr::UserAddr, testing::with_machine, usermode::Access};
use mm::{Fault, Label, MapRequest, Memory, Place, Prot, Space, VmaFlags, What};

const PAGE: u64 = hal::addr::PAGE_SIZE as u64;
const ROUNDS: u64 = 100;

fn request(at: Place, pages: u64) -> MapRequest {
    MapRequest {
        place: at,
        len: pages * PAGE,
        prot: Prot::READ | Prot::WRITE,
        max: Prot::all(),
        flags: VmaFlags::empty(),
        what: What::Anonymous,
        label: Label::None,
    }
}

#[inline(never)]
fn cost_faults(space: &Space, at: u64) {
    for page in 0..ROUNDS {
        assert!(matches!(space.fault(UserAddr(at + page * PAGE), Access::Write), Ok(Fault::Resolved)));
    }
}

#[inline(never)]
fn cost_cow(space: &Space, at: u64) {
    for page in 0..ROUNDS {
        assert!(matches!(space.fault(UserAddr(at + page * PAGE), Access::Write), Ok(Fault::Resolved)));
    }
}

#[inline(never)]
fn cost_map_unmap(space: &Space) {
    for _ in 0..ROUNDS {
        let at = space.map(request(Place::Hint(0), 16)).unwrap();
        space.unmap(at, 16 * PAGE).unwrap();
    }
}

#[inline(never)]
fn cost_fork(space: &Space) -> Vec<Arc<Space>> {
    (0..10).map(|_| space.fork().unwrap()).collect()
}

#[inline(never)]
fn cost_exit(spaces: Vec<Arc<Space>>) {
    drop(spaces);
}

#[test]
fn costs() {
    with_machine(1, 64 << 20, |_| {
        let memory = Memory::new(Arc::new(ObjectIds::new(KernelId { index: 0, incarnation: 1 }))).unwrap();
        let space = Space::new(&memory).unwrap();
        space.set_layout(0x7000_0000_0000, 0x5000_0000);
        // Eight mappings, a hundred resident pages.
        for i in 0..7 {
            space.map(request(Place::Fixed(0x40_0000 + i * 0x20_0000), 8)).unwrap();
            space.populate_mapped(0x40_0000 + i * 0x20_0000..0x40_0000 + i * 0x20_0000 + 2 * PAGE);
        }
        let at = space.map(request(Place::Hint(0), ROUNDS)).unwrap();
        cost_faults(&space, at);
        cost_map_unmap(&space);
        let children = cost_fork(&space);
        cost_cow(&children[0], at);
        cost_exit(children);
        assert!(space.resident_pages() > 100);
    });
}
