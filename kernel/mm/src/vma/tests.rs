//! The map against a model that knows every page for itself.

use alloc::{collections::BTreeMap, vec::Vec};

use proptest::prelude::*;

use super::{Content, Label, Prot, Vma, VmaFlags, VmaMap};

const PAGE: u64 = hal::addr::PAGE_SIZE as u64;
const PAGES: u64 = 40;

#[derive(Clone, Debug)]
enum Op {
    Map { at: u64, len: u64, prot: u8, locked: bool },
    Unmap { at: u64, len: u64 },
    Protect { at: u64, len: u64, prot: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let range = || (0..PAGES, 1..10_u64);
    prop_oneof![
        (range(), 0..8_u8, any::<bool>()).prop_map(|((at, len), prot, locked)| Op::Map { at, len, prot, locked }),
        range().prop_map(|(at, len)| Op::Unmap { at, len }),
        (range(), 0..8_u8).prop_map(|((at, len), prot)| Op::Protect { at, len, prot }),
    ]
}

fn vma(at: u64, len: u64, prot: u8, locked: bool) -> Vma {
    Vma {
        start: at * PAGE,
        end: (at + len) * PAGE,
        prot: Prot::from_bits_truncate(prot),
        max: Prot::all(),
        flags: if locked { VmaFlags::LOCKED } else { VmaFlags::empty() },
        content: Content::Anonymous,
        label: Label::None,
    }
}

type Model = BTreeMap<u64, (u8, bool)>;

fn check(map: &VmaMap, model: &Model) {
    let mut seen = Model::new();
    let mut last: Option<&Vma> = None;
    for v in map.iter() {
        assert!(v.start < v.end);
        if let Some(last) = last {
            assert!(last.end <= v.start, "overlap");
            assert!(!last.continues(v), "neighbours {last:?} {v:?} were not merged");
        }
        last = Some(v);
        for page in v.start / PAGE..v.end / PAGE {
            seen.insert(page, (v.prot.bits(), v.flags.contains(VmaFlags::LOCKED)));
        }
    }
    assert_eq!(&seen, model);
    let totals = map.totals();
    assert_eq!(totals.size, model.len() as u64 * PAGE);
    assert_eq!(totals.locked, model.values().filter(|(_, locked)| *locked).count() as u64 * PAGE);
    assert_eq!(totals.data, model.values().filter(|(prot, _)| prot & 2 != 0).count() as u64 * PAGE);
    for page in 0..PAGES + 12 {
        assert_eq!(map.find(page * PAGE + 5).is_some(), model.contains_key(&page));
    }
}

fn free(model: &Model, at: u64, len: u64) -> bool {
    (at..at + len).all(|page| !model.contains_key(&page))
}

proptest! {
    #[test]
    fn agrees_with_a_page_by_page_model(ops in proptest::collection::vec(op(), 1..60)) {
        let mut map = VmaMap::new();
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::Map { at, len, prot, locked } => {
                    map.remove(at * PAGE..(at + len) * PAGE, |_| {});
                    map.insert(vma(at, len, prot, locked));
                    model.extend((at..at + len).map(|page| (page, (prot, locked))));
                }
                Op::Unmap { at, len } => {
                    let mut pieces = Vec::new();
                    map.remove(at * PAGE..(at + len) * PAGE, |piece| pieces.push(piece));
                    let gone: u64 = pieces.iter().map(|piece| piece.len() / PAGE).sum();
                    let before = model.len();
                    model.retain(|page, _| *page < at || *page >= at + len);
                    prop_assert_eq!(gone as usize, before - model.len());
                }
                Op::Protect { at, len, prot } => {
                    map.update(at * PAGE..(at + len) * PAGE, |vma| vma.prot = Prot::from_bits_truncate(prot));
                    for (_, value) in model.range_mut(at..at + len) {
                        value.0 = prot;
                    }
                }
            }
            check(&map, &model);
            for len in [1, 3, 9] {
                let down = map.find_free_down(len * PAGE, PAGE, 0, 0..PAGES * PAGE).map(|at| at / PAGE);
                let up = map.find_free_up(len * PAGE, PAGE, 0, 0..PAGES * PAGE).map(|at| at / PAGE);
                prop_assert_eq!(down, (0..=PAGES - len).rev().find(|at| free(&model, *at, len)));
                prop_assert_eq!(up, (0..=PAGES - len).find(|at| free(&model, *at, len)));
                let covered = map.covers(3 * PAGE..(3 + len) * PAGE);
                prop_assert_eq!(covered, (3..3 + len).all(|page| model.contains_key(&page)));
            }
        }
    }
}
