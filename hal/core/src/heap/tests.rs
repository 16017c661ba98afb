use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};

use proptest::prelude::{any, prop_assert, proptest};

use super::Heap;
use crate::testing::on_kernel;

fn heap() -> Box<Heap> {
    // Built in place: it is big.
    // SAFETY: a heap of zeros is what `new` makes, but for the locks' ranks, which are written.
    unsafe {
        let mut heap = Box::<Heap>::new_uninit();
        heap.as_mut_ptr().write(Heap::new());
        heap.assume_init()
    }
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(48))]

    #[test]
    fn objects_never_overlap(ops in proptest::collection::vec((any::<bool>(), 1usize..9000, 0u32..9, any::<usize>()), 1..300), early in any::<bool>()) {
        let heap = heap();
        let run = || {
            let mut live: Vec<(usize, Layout, u8)> = Vec::new();
            for (take, size, align, which) in ops {
                if take || live.is_empty() {
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    let mark = which as u8;
                    // SAFETY: the layout is not empty; what was allocated is written within its size.
                    let at = unsafe {
                        let at = heap.alloc(layout);
                        if at.is_null() { continue; }
                        at.write_bytes(mark, size);
                        at as usize
                    };
                    prop_assert!(at.is_multiple_of(layout.align()));
                    for (other, l, _) in &live {
                        prop_assert!(at + size <= *other || other + l.size() <= at, "overlap");
                    }
                    live.push((at, layout, mark));
                } else if which.is_multiple_of(3) {
                    let i = which % live.len();
                    let (at, layout, mark) = live[i];
                    // SAFETY: a live object of that layout.
                    let new = unsafe { heap.realloc(at as *mut u8, layout, size) };
                    if new.is_null() { continue; }
                    let keep = layout.size().min(size);
                    // SAFETY: live, `size` bytes, the first `keep` initialised.
                    unsafe {
                        prop_assert!(core::slice::from_raw_parts(new, keep).iter().all(|b| *b == mark));
                        new.write_bytes(mark, size);
                    }
                    live[i] = (new as usize, Layout::from_size_align(size, layout.align()).unwrap(), mark);
                } else {
                    let (at, layout, mark) = live.swap_remove(which % live.len());
                    // SAFETY: live and initialised; freed once.
                    unsafe {
                        let bytes = core::slice::from_raw_parts(at as *const u8, layout.size());
                        prop_assert!(bytes.iter().all(|b| *b == mark), "somebody else wrote it");
                        heap.dealloc(at as *mut u8, layout);
                    }
                }
            }
            Ok(())
        };
        if early { run()? } else { on_kernel(run)? }
    }
}

#[test]
fn big_pieces_come_back() {
    on_kernel(|| {
        let heap = heap();
        let free = crate::frame::stats().free;
        let layout = Layout::from_size_align(300_000, 4096).unwrap();
        for _ in 0..200 {
            // SAFETY: allocated and freed with the same layout.
            unsafe {
                let at = heap.alloc(layout);
                assert!(!at.is_null() && (at as usize).is_multiple_of(4096));
                heap.dealloc(at, layout);
            }
        }
        assert_eq!((crate::frame::stats().free, heap.pages()), (free, 0));
        // SAFETY: the layout is not empty.
        assert!(unsafe { heap.alloc(Layout::from_size_align(1 << 30, 8).unwrap()) }.is_null());
    });
}
