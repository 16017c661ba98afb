use ::alloc::vec::Vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{Frame, FrameRun, GrantToken, OutOfFrames, PeerFrame, stats};
use crate::testing::{on_kernel, with_machine};
use hal_api::{PAGE_SIZE, PhysRange};

#[test]
fn the_last_reference_frees() {
    on_kernel(|| {
        let before = stats().free;
        let a = Frame::alloc(true).unwrap();
        let b = a.clone();
        assert_eq!((a.ref_count(), stats().free), (2, before - 1));
        drop(a);
        assert_eq!((b.ref_count(), stats().free), (1, before - 1));
        drop(b);
        assert_eq!(stats().free, before);
    });
}

#[test]
fn memory_runs_out_and_comes_back() {
    with_machine(1, 1 << 20, |_| {
        let before = stats().free;
        let mut all = Vec::new();
        let end = loop {
            match Frame::alloc(false) {
                Ok(f) => all.push(f),
                Err(e) => break e,
            }
        };
        assert_eq!(end, OutOfFrames);
        let left = before - all.len();
        assert!((1..=16).contains(&left), "{left} are kept for the kernel");
        let mut at: Vec<u64> = all.iter().map(|f| f.phys().0).collect();
        at.sort_unstable();
        at.dedup();
        assert_eq!(at.len(), all.len(), "no frame twice");
        all.clear();
        assert_eq!(stats().free, before);
        assert!(FrameRun::alloc(3).is_ok(), "frames join again");
    });
}

#[test]
fn a_frame_is_zeroed_when_asked() {
    on_kernel(|| {
        let f = Frame::alloc(false).unwrap();
        f.fill(0, PAGE_SIZE, 0xaa);
        let at = f.phys();
        drop(f);
        let f = Frame::alloc(true).unwrap();
        assert_eq!(f.phys(), at, "the frame that was just freed comes first");
        let mut buf = [1; PAGE_SIZE];
        f.read(0, &mut buf);
        assert!(buf.iter().all(|&b| b == 0));
        f.write(4090, b"abcdef");
        let g = f.duplicate().unwrap();
        g.read(4090, &mut buf[..6]);
        assert_eq!(&buf[..6], b"abcdef");
    });
}

#[test]
#[should_panic(expected = "beyond the frame")]
fn a_copy_stays_in_the_page() {
    on_kernel(|| Frame::alloc(true).unwrap().write(4095, b"ab"));
}

#[test]
fn runs_come_apart() {
    on_kernel(|| {
        let before = stats().free;
        let run = FrameRun::alloc(4).unwrap();
        assert!(run.phys().0.is_multiple_of(PAGE_SIZE as u64));
        let mut frames: Vec<Frame> = run.into_frames().collect();
        assert_eq!((frames.len(), stats().free), (16, before - 16));
        frames.truncate(3);
        assert_eq!(stats().free, before - 3);
        drop(frames);
        assert_eq!(stats().free, before);
        assert!(FrameRun::alloc(40).is_err());
    });
}

#[test]
fn a_grant_is_never_of_own_memory() {
    on_kernel(|| {
        let own = crate::boot::info().owned()[0];
        assert!(GrantToken::new(own).is_err());
        assert!(GrantToken::new(PhysRange::new(own.start.0 - 4096, 8192)).is_err());
        assert!(GrantToken::new(PhysRange::new(own.start.0 - 4096, 100)).is_err());
        assert!(GrantToken::new(PhysRange::new(u64::MAX - 4095, 8192)).is_err());
        let grant = GrantToken::new(PhysRange::new(own.end().0, 8192)).unwrap();
        assert!(PeerFrame::new(&grant, 1).is_some() && PeerFrame::new(&grant, 2).is_none());
        assert!(PeerFrame::new(&grant, usize::MAX).is_none());
    });
}

proptest! {
    #[test]
    fn frames_never_leak(ops in proptest::collection::vec((any::<u8>(), any::<usize>()), 0..200)) {
        with_machine(1, 2 << 20, |_| -> Result<(), proptest::test_runner::TestCaseError> {
            let before = stats().free;
            let mut singles: Vec<Frame> = Vec::new();
            let mut runs: Vec<FrameRun> = Vec::new();
            for (what, which) in ops {
                match what % 5 {
                    0 => singles.extend(Frame::alloc(false).ok()),
                    1 => if !singles.is_empty() { singles.swap_remove(which % singles.len()); },
                    2 => if !singles.is_empty() { singles.push(singles[which % singles.len()].clone()); },
                    3 => runs.extend(FrameRun::alloc(which % 5).ok()),
                    _ => if !runs.is_empty() { runs.swap_remove(which % runs.len()); },
                }
                let mut at: Vec<u64> = singles.iter().map(|f| f.phys().0).collect();
                at.sort_unstable();
                at.dedup();
                let in_runs: usize = runs.iter().map(FrameRun::pages).sum();
                prop_assert_eq!(stats().free + at.len() + in_runs, before);
                for f in &singles {
                    let refs = singles.iter().filter(|g| *g == f).count();
                    prop_assert_eq!(f.ref_count() as usize, refs);
                    prop_assert!(!runs.iter().any(|r| f.phys() >= r.phys() && f.phys().0 < r.phys().0 + r.bytes() as u64));
                }
            }
            drop((singles, runs));
            prop_assert_eq!(stats().free, before);
            Ok(())
        })?;
    }
}

#[test]
fn the_kernel_gets_a_run_when_programs_have_taken_everything() {
    on_kernel(|| {
        let mut taken = ::alloc::vec::Vec::new();
        while let Ok(frame) = Frame::alloc(false) {
            taken.push(frame);
        }
        // Every other one comes back: nothing of that lies together.
        let mut keep = false;
        taken.retain(|_| {
            keep = !keep;
            keep
        });
        let before = stats().free;
        let run = FrameRun::alloc(5).expect("a run that was set aside");
        drop(run);
        assert_eq!(stats().free, before);
        // And programs get nothing of it.
        while let Ok(frame) = Frame::alloc(false) {
            taken.push(frame);
        }
        assert!(FrameRun::alloc(5).is_ok());
    });
}
