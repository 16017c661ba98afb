extern crate alloc;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::{Buddy, Link, NotTaken, ORDERS};

fn buddy(units: usize) -> Buddy<Vec<Link>> {
    Buddy::new(vec![Link::TAKEN; units])
}

#[test]
fn an_empty_allocator_gives_nothing() {
    let mut b = buddy(100);
    assert_eq!(b.take(0), None);
    assert_eq!(b.take(ORDERS + 40), None);
    assert_eq!(b.largest(), None);
}

#[test]
fn everything_given_back_is_one_block_again() {
    let mut b = buddy(2048);
    b.add(0, 2048).unwrap();
    assert_eq!(b.largest(), Some(11));
    let taken: Vec<u32> = core::iter::from_fn(|| b.take(0)).collect();
    assert_eq!(taken.len(), 2048);
    for at in taken {
        b.give(at, 0).unwrap();
    }
    assert_eq!((b.largest(), b.free_units()), (Some(11), 2048));
}

#[test]
fn what_is_free_cannot_be_given_back() {
    let mut b = buddy(64);
    b.add(0, 64).unwrap();
    let at = b.take(3).unwrap();
    b.give(at, 3).unwrap();
    assert_eq!(b.give(at, 3), Err(NotTaken));
    assert_eq!(b.give(at, 0), Err(NotTaken));
    assert_eq!(b.give(64, 0), Err(NotTaken));
    assert_eq!(b.give(1, 1), Err(NotTaken));
    assert_eq!(b.free_units(), 64);
}

#[derive(Clone, Debug)]
enum Op {
    Take(usize),
    Give(usize),
}

fn op() -> impl Strategy<Value = Op> {
    (any::<bool>(), 0usize..7, any::<usize>()).prop_map(
        |(take, order, which)| {
            if take { Op::Take(order) } else { Op::Give(which) }
        },
    )
}

proptest! {
    #[test]
    fn blocks_never_overlap_and_nothing_is_lost(
        units in 1usize..3000,
        holes in proptest::collection::vec(0usize..3000, 0..6),
        ops in proptest::collection::vec(op(), 0..300),
    ) {
        let mut b = buddy(units);
        let mut own = vec![true; units];
        for h in holes {
            if h < units { own[h] = false; }
        }
        let mut at = 0;
        while at < units {
            let end = (at..units).find(|&i| !own[i]).unwrap_or(units);
            b.add(at as u32, end as u32).unwrap();
            at = end + 1;
        }
        let all = own.iter().filter(|&&o| o).count();
        let mut taken: BTreeMap<u32, usize> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Take(order) => if let Some(at) = b.take(order) {
                    prop_assert_eq!(at % (1 << order), 0);
                    prop_assert!((at..at + (1 << order)).all(|u| own[u as usize]));
                    for u in at..at + (1 << order) {
                        let before = taken.range(..=u).next_back();
                        prop_assert!(before.is_none_or(|(&s, &o)| s + (1 << o) <= u), "unit {u} taken twice");
                    }
                    taken.insert(at, order);
                },
                Op::Give(which) => if !taken.is_empty() {
                    let (&at, &order) = taken.iter().nth(which % taken.len()).unwrap();
                    taken.remove(&at);
                    prop_assert_eq!(b.give(at, order), Ok(()));
                },
            }
            let out: usize = taken.values().map(|o| 1usize << o).sum();
            prop_assert_eq!(b.free_units() + out, all);
        }
    }
}
