use ::alloc::collections::BTreeMap;
use ::alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use hal_api::{Aarch64, Leaf, LeafKind, PAGE_SIZE, PageFormat, PhysAddr, Prot, Sv39, Sv48, UserAddr, X86_64};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::table::Tables;
use super::{AddressSpace, MapError};
use crate::frame::{Frame, MapFrame, StaticFrame, stats};
use crate::testing::{on_kernel, with_machine};

const A: UserAddr = UserAddr(0x40_0000);

fn own() -> MapFrame {
    MapFrame::Own(Frame::alloc(true).unwrap())
}

fn page(i: u64) -> UserAddr {
    A + i * PAGE_SIZE as u64
}

fn prot() -> impl Strategy<Value = Prot> {
    (0u8..8).prop_map(Prot::from_bits_truncate)
}

fn leaf() -> impl Strategy<Value = Leaf> {
    (0u64..1 << 28, prot(), 1u8..4, any::<bool>(), any::<bool>()).prop_map(|(n, prot, kind, accessed, dirty)| Leaf {
        at: PhysAddr(n << 12),
        prot: prot.normal(),
        kind: [LeafKind::Own, LeafKind::Static, LeafKind::Peer][kind as usize - 1],
        accessed,
        dirty,
    })
}

fn round_trip<F: PageFormat>(l: Leaf) {
    let e = F::leaf(l);
    assert_eq!(F::as_leaf(e), Some(l));
    assert_eq!(F::leaf_at(e), l.at);
    assert_eq!(F::is_own(e), l.kind == LeafKind::Own);
    let ro = F::as_leaf(F::without_write(e)).unwrap();
    assert_eq!(ro, Leaf { prot: l.prot - Prot::WRITE, ..l });
    assert!(!F::allows(F::without_write(e), Prot::WRITE));
    for need in [Prot::READ, Prot::READ | Prot::WRITE, Prot::READ | Prot::EXEC] {
        if F::allows(e, need) {
            assert!(l.prot.contains(need), "more is allowed than was asked");
        }
        if l.accessed && l.dirty {
            assert_eq!(F::allows(e, need), l.prot.contains(need));
        }
    }
    let table = F::table(l.at);
    assert_eq!(F::as_table(table), Some(l.at));
    assert_eq!(F::as_table(0), None);
    assert_eq!(F::as_leaf(0), None);
}

#[derive(Clone, Debug)]
enum Op {
    Map(u64, Prot),
    Clear(u64),
}

fn op() -> impl Strategy<Value = Op> {
    // Pages close together, far apart, and at the very top.
    let number = (any::<u64>(), 0u8..3).prop_map(|(n, how)| match how {
        0 => n % 1100,
        1 => (n % 8) << 25,
        _ => (1 << 26) - 2 - n % 3,
    });
    (number, prot(), any::<bool>()).prop_map(|(n, p, map)| if map { Op::Map(n, p) } else { Op::Clear(n) })
}

/// Page numbers fit into every format's user half (38 bits for Sv39).
fn against_a_map<F: PageFormat>(ops: &[Op]) {
    on_kernel(|| {
        let free = stats().free;
        {
            let mut tables = Tables::<F>::new(None).unwrap();
            let mut model: BTreeMap<u64, Leaf> = BTreeMap::new();
            for op in ops {
                match *op {
                    Op::Map(n, prot) => {
                        let va = UserAddr(n << 12);
                        if va.0 >= F::user_top() {
                            continue;
                        }
                        let leaf = Leaf {
                            at: PhysAddr(n << 12),
                            prot: prot.normal(),
                            kind: LeafKind::Static,
                            accessed: true,
                            dirty: false,
                        };
                        let table = tables.leaf_table(va).unwrap();
                        if table.slot(va).swap(F::leaf(leaf), Ordering::Relaxed) == 0 {
                            table.added(va);
                        }
                        model.insert(n, leaf);
                    }
                    Op::Clear(n) => {
                        let va = UserAddr(n << 12);
                        if let Some(table) = tables.find(va)
                            && table.slot(va).swap(0, Ordering::Relaxed) != 0
                        {
                            table.removed(1);
                        }
                        model.remove(&n);
                    }
                }
            }
            let found =
                |n: &u64| tables.find(UserAddr(n << 12)).map(|t| t.slot(UserAddr(n << 12)).load(Ordering::Relaxed));
            for (n, leaf) in &model {
                assert_eq!(found(n).and_then(F::as_leaf), Some(*leaf));
            }
            // The walk finds exactly what the model has.
            let mut all = Vec::new();
            let mut at = 0;
            while let Some((table, first)) = tables.next_leaf_table(at, F::user_top()) {
                let last = first | (super::table::LEAF_SPAN - 1);
                for va in (first & !0xfff..=last).step_by(PAGE_SIZE) {
                    if table.slot(UserAddr(va)).load(Ordering::Relaxed) != 0 {
                        all.push(va >> 12);
                    }
                }
                at = last + 1;
            }
            assert_eq!(all, model.keys().copied().collect::<Vec<_>>());
        }
        assert_eq!(stats().free, free, "tables are given back");
    });
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    #[test]
    fn entries_say_what_was_put_in(l in leaf()) {
        round_trip::<X86_64>(l);
        round_trip::<Aarch64>(l);
        round_trip::<Sv39>(l);
        round_trip::<Sv48>(l);
    }

    #[test]
    fn tables_agree_with_a_map(ops in proptest::collection::vec(op(), 0..60)) {
        against_a_map::<X86_64>(&ops);
        against_a_map::<Aarch64>(&ops);
        against_a_map::<Sv39>(&ops);
        against_a_map::<Sv48>(&ops);
    }

    #[test]
    fn spaces_agree_with_a_map(ops in proptest::collection::vec((0u8..5, 0u64..600, 1u64..80, prot()), 1..50)) {
        let outcome = on_kernel(|| -> Result<(), proptest::test_runner::TestCaseError> {
            let free = stats().free;
            {
                let space = AddressSpace::new().unwrap();
                let child = AddressSpace::new().unwrap();
                let mut model: BTreeMap<u64, (PhysAddr, Prot)> = BTreeMap::new();
                for (what, n, len, prot) in ops {
                    let range = page(n)..page(n + len);
                    let mut batch = space.batch();
                    match what {
                        0 | 1 => {
                            let f = own();
                            let at = f.phys();
                            match space.map(page(n), f, prot) {
                                Ok(()) => prop_assert!(model.insert(n, (at, prot.normal())).is_none()),
                                Err(e) => {
                                    prop_assert!(matches!(e, MapError::Occupied(_)));
                                    prop_assert!(model.contains_key(&n));
                                }
                            }
                        }
                        2 => {
                            let n_model = model.range(n..n + len).count();
                            prop_assert_eq!(space.unmap(range, &mut batch), n_model);
                            model.retain(|k, _| *k < n || *k >= n + len);
                        }
                        3 => {
                            space.protect(range, prot, &mut batch);
                            for (_, (_, p)) in model.range_mut(n..n + len) { *p = prot.normal(); }
                        }
                        _ => {
                            space.copy_cow(&child, range.clone(), &mut batch).unwrap();
                            for (k, (at, p)) in model.range_mut(n..n + len) {
                                *p -= Prot::WRITE;
                                prop_assert_eq!(child.query(page(*k)).map(|m| m.phys), Some(*at));
                            }
                            let mut batch = child.batch();
                            child.unmap(range, &mut batch);
                        }
                    }
                }
                prop_assert_eq!(space.pages(), model.len());
                for (n, (at, prot)) in &model {
                    let m = space.query(page(*n)).unwrap();
                    prop_assert_eq!((m.phys, m.prot), (*at, *prot));
                }
            }
            prop_assert_eq!(stats().free, free);
            Ok(())
        });
        outcome?;
    }
}

#[test]
fn a_mapping_is_a_reference() {
    on_kernel(|| {
        let free = stats().free;
        let frame = Frame::alloc(true).unwrap();
        let space = AddressSpace::new().unwrap();
        space.map(A, MapFrame::Own(frame.clone()), Prot::READ).unwrap();
        assert_eq!(frame.ref_count(), 2);
        let mut batch = space.batch();
        space.unmap(A..page(1), &mut batch);
        assert_eq!(frame.ref_count(), 2, "the batch holds it until it is flushed");
        drop(batch);
        assert_eq!(frame.ref_count(), 1);
        drop((frame, space));
        assert_eq!(stats().free, free);
    });
}

#[test]
fn refusals_give_the_frame_back() {
    on_kernel(|| {
        let space = AddressSpace::new().unwrap();
        space.map(A, own(), Prot::READ).unwrap();
        let frame = own();
        let at = frame.phys();
        match space.map(A, frame, Prot::READ) {
            Err(MapError::Occupied(f)) => assert_eq!(f.phys(), at),
            other => panic!("{other:?}"),
        }
        assert!(matches!(space.map(A + 1, own(), Prot::READ), Err(MapError::BadAddress(_))));
        assert!(matches!(
            space.map(UserAddr(crate::addr::user_top()), own(), Prot::READ),
            Err(MapError::BadAddress(_))
        ));
        assert!(matches!(space.map(UserAddr(!0xfff), own(), Prot::READ), Err(MapError::BadAddress(_))));
    });
}

#[test]
fn copy_on_write_is_reclaimed_by_the_last_owner() {
    on_kernel(|| {
        let (parent, child) = (AddressSpace::new().unwrap(), AddressSpace::new().unwrap());
        parent.activate();
        parent.map(A, own(), Prot::READ | Prot::WRITE).unwrap();
        crate::user::write_u32(A, 7).unwrap();
        parent.copy_cow(&child, A..page(10), &mut parent.batch()).unwrap();
        assert_eq!(crate::user::write_u32(A, 8), Err(A));
        assert!(!parent.reclaim_cow(A, Prot::READ | Prot::WRITE), "the child has it too");
        child.unmap(A..page(1), &mut child.batch());
        assert!(parent.reclaim_cow(A, Prot::READ | Prot::WRITE));
        crate::user::write_u32(A, 8).unwrap();
        assert_eq!(crate::user::read_u32(A), Ok(8));
        super::deactivate();
    });
}

#[test]
fn dirty_is_seen_and_cleared() {
    on_kernel(|| {
        let space = AddressSpace::new().unwrap();
        space.activate();
        space.map(A, own(), Prot::READ | Prot::WRITE).unwrap();
        assert!(!space.query(A).unwrap().dirty);
        crate::user::write_u32(A, 1).unwrap();
        assert!(space.query(A).unwrap().dirty);
        let mut batch = space.batch();
        let mut cursor = space.cursor(A..page(1));
        let mut p = cursor.next().unwrap();
        assert!(p.clear_dirty(&mut batch) && !p.clear_dirty(&mut batch));
        drop(cursor);
        assert!(!space.query(A).unwrap().dirty);
        super::deactivate();
    });
}

#[test]
fn protections_are_kept_by_pages_that_nobody_may_touch() {
    on_kernel(|| {
        let space = AddressSpace::new().unwrap();
        space.activate();
        space.map(A, own(), Prot::READ | Prot::WRITE).unwrap();
        crate::user::write_u32(A, 5).unwrap();
        space.protect(A..page(1), Prot::empty(), &mut space.batch());
        assert_eq!(crate::user::read_u32(A), Err(A));
        assert!(space.query(A).is_some() && !space.touch(A, Prot::READ));
        space.protect(A..page(1), Prot::READ, &mut space.batch());
        assert_eq!(crate::user::read_u32(A), Ok(5));
        super::deactivate();
    });
}

#[test]
fn a_replaced_frame_is_given_up_after_the_flush() {
    on_kernel(|| {
        let space = AddressSpace::new().unwrap();
        let old = Frame::alloc(true).unwrap();
        space.map(A, MapFrame::Own(old.clone()), Prot::READ).unwrap();
        let mut batch = space.batch();
        space.replace(A, own(), Prot::READ | Prot::WRITE, &mut batch).unwrap();
        assert_eq!((old.ref_count(), space.pages()), (2, 1));
        batch.flush();
        assert_eq!(old.ref_count(), 1);
        assert!(StaticFrame::archive(0).is_none(), "this machine has no archive");
    });
}

#[test]
fn other_cpus_flush_before_frames_are_given_up() {
    with_machine(2, 32 << 20, |machine| {
        let space = AddressSpace::new().unwrap();
        let frame = Frame::alloc(true).unwrap();
        space.map(A, MapFrame::Own(frame.clone()), Prot::READ).unwrap();
        let (ready, done) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|s| {
            s.spawn(|| {
                machine.enter(0, 1, || {
                    space.activate();
                    ready.store(1, Ordering::SeqCst);
                    // Breathing serves the request; the other CPU waits for it.
                    while done.load(Ordering::SeqCst) == 0 {
                        crate::cpu::breathe();
                    }
                    super::deactivate();
                });
            });
            while ready.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            space.unmap(A..page(1), &mut space.batch());
            assert_eq!(frame.ref_count(), 1);
            done.store(1, Ordering::SeqCst);
        });
    });
}

#[test]
fn a_space_outlives_its_owner_on_a_cpu() {
    on_kernel(|| {
        let free = stats().free;
        let space = AddressSpace::new().unwrap();
        space.map(A, own(), Prot::READ).unwrap();
        space.activate();
        drop(space);
        assert!(stats().free < free);
        assert_eq!(crate::user::read_u32(A), Ok(0));
        super::deactivate();
        assert_eq!(stats().free, free);
    });
}

#[test]
fn an_idle_cpu_is_not_woken_to_flush() {
    with_machine(2, 32 << 20, |machine| {
        let space = AddressSpace::new().unwrap();
        let frame = Frame::alloc(true).unwrap();
        space.map(A, MapFrame::Own(frame.clone()), Prot::READ).unwrap();
        let state = AtomicU64::new(0);
        std::thread::scope(|s| {
            s.spawn(|| {
                machine.enter(0, 1, || {
                    space.activate();
                    state.store(1, Ordering::SeqCst);
                    crate::cpu::idle_wait();
                    assert_eq!(state.load(Ordering::SeqCst), 2, "nothing but the kick wakes it");
                    super::deactivate();
                });
            });
            let idles = || crate::instance::instance().cpu(1).idle.load(Ordering::SeqCst) != 0;
            while state.load(Ordering::SeqCst) == 0 || !idles() {
                std::thread::yield_now();
            }
            space.unmap(A..page(1), &mut space.batch());
            assert_eq!(frame.ref_count(), 1);
            state.store(2, Ordering::SeqCst);
            crate::cpu::kick(1);
        });
    });
}

#[test]
fn static_frames_are_never_writable() {
    on_kernel(|| {
        let space = AddressSpace::new().unwrap();
        let page = MapFrame::Static(StaticFrame::leak(Frame::alloc(true).unwrap()));
        let Err(MapError::ReadOnly(page)) = space.map(A, page, Prot::READ | Prot::WRITE) else { panic!("mapped") };
        space.map(A, page, Prot::READ).unwrap();
        space.protect(A..A + 1, Prot::READ | Prot::WRITE, &mut space.batch());
        assert_eq!(space.query(A).unwrap().prot, Prot::READ);
    });
}
