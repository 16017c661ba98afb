//! The page cache against a plain vector of bytes, with and without a source, while clean pages are taken away at random.

use alloc::{sync::Arc, vec, vec::Vec};

use base::{
    Errno, KernelId, Try, TryResult,
    id::ObjectIds,
    io::VecSink,
    wait::{Op, done},
};
use hal::{addr::PAGE_SIZE, frame::Frame, testing::on_kernel, usermode::Access};
use proptest::prelude::*;

use crate::{
    cache::{PageCache, PageSource, Seals, SourcePage},
    memory::{Memory, Reclaim},
    object::{MappedPage, MemoryObject},
};

/// Bytes that say where they are.
struct Pattern(usize);

impl Pattern {
    fn byte(at: usize) -> u8 {
        (at / 100) as u8 ^ 0x5a
    }

    fn page(&self, index: u64) -> SourcePage {
        let start = index as usize * PAGE_SIZE;
        if start >= self.0 {
            return SourcePage::Hole;
        }
        let frame = Frame::alloc(true).unwrap();
        let bytes: Vec<u8> = (start..self.0.min(start + PAGE_SIZE)).map(Self::byte).collect();
        frame.write(0, &bytes);
        SourcePage::Filled(frame)
    }
}

impl PageSource for Pattern {
    fn page(&self, index: u64) -> TryResult<SourcePage> {
        done(Self::page(self, index))
    }
}

fn memory() -> Arc<Memory> {
    Memory::new(Arc::new(ObjectIds::new(KernelId { index: 0, incarnation: 1 }))).unwrap()
}

fn read(cache: &PageCache, offset: u64, len: usize) -> Vec<u8> {
    let mut sink = VecSink::new(len);
    assert!(matches!(cache.read(offset, &mut sink), Ok(Try::Done(n)) if n == sink.bytes.len()));
    sink.bytes
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: usize, len: usize, byte: u8 },
    Resize(usize),
    Punch { at: usize, len: usize },
    Reclaim(usize),
    Touch { page: u64, write: bool },
}

const SIZE: usize = 6 * PAGE_SIZE + 123;

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..SIZE + PAGE_SIZE;
    prop_oneof![
        (at(), 0..9000_usize, 1..255_u8).prop_map(|(at, len, byte)| Step::Write { at, len, byte }),
        at().prop_map(Step::Resize),
        (at(), 1..9000_usize).prop_map(|(at, len)| Step::Punch { at, len }),
        (0..5_usize).prop_map(Step::Reclaim),
        (0..8_u64, any::<bool>()).prop_map(|(page, write)| Step::Touch { page, write }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_vector(source in any::<bool>(), plain in any::<bool>(), steps in proptest::collection::vec(step(), 1..40)) {
        on_kernel(|| {
            let memory = memory();
            let before = hal::frame::stats().free;
            let (cache, mut model) = if source {
                let bytes: Vec<u8> = (0..SIZE).map(Pattern::byte).collect();
                let from: Arc<dyn PageSource> =
                    if plain { Arc::new(Plain(bytes.clone())) } else { Arc::new(Pattern(SIZE)) };
                (PageCache::of_source(&memory, from, SIZE as u64), bytes)
            } else {
                (PageCache::new(&memory, SIZE as u64), vec![0; SIZE])
            };
            for step in steps {
                match step {
                    Step::Write { at, len, byte } => {
                        let bytes = vec![byte; len];
                        let written = cache.write(at as u64, &mut &bytes[..]);
                        assert!(matches!(written, Ok(Try::Done(n)) if n == len));
                        if len > 0 && model.len() < at + len {
                            model.resize(at + len, 0);
                        }
                        if len > 0 {
                            model[at..at + len].fill(byte);
                        }
                    }
                    Step::Resize(size) => {
                        cache.resize(size as u64).unwrap();
                        model.resize(size, 0);
                    }
                    Step::Punch { at, len } => {
                        cache.punch(at as u64..(at + len) as u64).unwrap();
                        let end = (at + len).min(model.len());
                        if at < end {
                            model[at..end].fill(0);
                        }
                    }
                    Step::Reclaim(pages) => {
                        cache.reclaim(pages);
                    }
                    Step::Touch { page, write } => {
                        let access = if write { Access::Write } else { Access::Read };
                        let there = cache.page(page, access).is_ok();
                        assert_eq!(there, (page as usize) < model.len().div_ceil(PAGE_SIZE));
                    }
                }
                assert_eq!(cache.size(), model.len() as u64);
                assert!(read(&cache, 0, model.len() + 1) == model);
            }
            drop(cache);
            assert_eq!(hal::frame::stats().free, before);
            assert_eq!(memory.info().cached, 0);
        });
    }
}

#[test]
fn clean_pages_can_be_had_again_and_changed_ones_stay() {
    on_kernel(|| {
        let memory = memory();
        let cache = PageCache::of_source(&memory, Arc::new(Pattern(SIZE)), SIZE as u64);
        read(&cache, 0, SIZE);
        cache.write(5, &mut &b"changed"[..]).unwrap();
        // One page is mapped by somebody.
        let mapped = cache.page(3, Access::Read).unwrap();
        assert_eq!(memory.info().cached, 7);
        assert_eq!(memory.reclaim(100), 5);
        assert_eq!(memory.info().cached, 2);
        assert_eq!(read(&cache, 5, 7), b"changed");
        assert_eq!(read(&cache, 2 * PAGE_SIZE as u64, 1), [Pattern::byte(2 * PAGE_SIZE)]);
        let Try::Done(MappedPage { writable, .. }) = mapped else { panic!("must be there") };
        assert!(!writable, "the first store must be noticed");
    });
}

#[test]
fn seals() {
    on_kernel(|| {
        let cache = PageCache::new(&memory(), 100);
        cache.add_seals(Seals::GROW | Seals::SHRINK).unwrap();
        assert_eq!(cache.resize(99).unwrap_err(), Errno::EPERM);
        assert_eq!(cache.resize(101).unwrap_err(), Errno::EPERM);
        assert!(matches!(cache.write(90, &mut &[1; 20][..]), Ok(Try::Done(10))));
        assert_eq!(cache.write(100, &mut &[1; 20][..]).unwrap_err(), Errno::EPERM);
        cache.add_seals(Seals::WRITE | Seals::SEAL).unwrap();
        assert_eq!(cache.write(0, &mut &[1; 20][..]).unwrap_err(), Errno::EPERM);
        assert_eq!(cache.page(0, Access::Write).unwrap_err(), Errno::EPERM);
        assert_eq!(cache.add_seals(Seals::GROW).unwrap_err(), Errno::EPERM);
    });
}

/// A source whose pages take their time.
struct Slow;

struct Arrival(u64);

impl Op<SourcePage> for Arrival {
    fn notify(&mut self, waker: Arc<dyn base::Wake>) {
        waker.wake(base::Ready::IN);
    }
    fn take(&mut self) -> Option<TryResult<SourcePage>> {
        Some(done(Pattern(SIZE).page(self.0)))
    }
}

impl PageSource for Slow {
    fn page(&self, index: u64) -> TryResult<SourcePage> {
        Ok(Try::Started(alloc::boxed::Box::new(Arrival(index))))
    }
}

#[test]
fn a_page_that_takes_its_time_is_started_and_then_there() {
    on_kernel(|| {
        let cache = PageCache::of_source(&memory(), Arc::new(Slow), SIZE as u64);
        let Try::Started(mut op) = cache.page(1, Access::Read).unwrap() else { panic!("it cannot be there") };
        // The page itself comes with the next try.
        assert!(matches!(op.take(), Some(Ok(Try::WouldBlock))));
        assert!(matches!(cache.page(1, Access::Read), Ok(Try::Done(_))));
        let mut sink = VecSink::new(10);
        assert!(matches!(cache.read(PAGE_SIZE as u64, &mut sink), Ok(Try::Done(10))));
        assert!(matches!(cache.read(0, &mut sink), Ok(Try::Done(0))), "a full sink takes nothing");
        assert!(matches!(cache.read(0, &mut VecSink::new(10)), Ok(Try::Started(_))));
        // A hole that arrives is there as well: nobody asks for it for ever.
        let sparse = PageCache::of_source(&memory(), Arc::new(Slow), 1 << 30);
        let Try::Started(mut op) = sparse.page(100, Access::Read).unwrap() else { panic!("it cannot be there") };
        assert!(matches!(op.take(), Some(Ok(Try::WouldBlock))));
        let Try::Done(page) = sparse.page(100, Access::Read).unwrap() else { panic!("it is asked for again") };
        let hal::frame::MapFrame::Own(frame) = page.frame else { panic!("a frame of another kernel") };
        let mut first = [1; 8];
        frame.read(0, &mut first);
        assert_eq!(first, [0; 8]);
    });
}

/// A source whose bytes lie in memory as they are.
struct Plain(Vec<u8>);

impl PageSource for Plain {
    fn page(&self, index: u64) -> TryResult<SourcePage> {
        done(Pattern(self.0.len()).page(index))
    }

    fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.0.get(start..start.checked_add(len)?)
    }
}

#[test]
fn bytes_that_lie_in_memory_are_read_without_a_page() {
    on_kernel(|| {
        let memory = memory();
        let plain = Plain((0..SIZE).map(Pattern::byte).collect());
        let all = plain.0.clone();
        let cache = PageCache::of_source(&memory, Arc::new(plain), SIZE as u64);
        let pages = |cache: &PageCache| {
            let mut count = 0;
            cache.resident(0..100, &mut |_, _| {
                count += 1;
                true
            });
            count
        };
        assert_eq!(read(&cache, 0, SIZE + 100), all);
        assert_eq!(read(&cache, 4000, 5000), all[4000..9000]);
        assert_eq!(pages(&cache), 0);
        // What is changed is read from the page that it made, the rest as before.
        assert!(matches!(cache.write(5000, &mut &b"new"[..]), Ok(Try::Done(3))));
        assert_eq!(pages(&cache), 1);
        let mut changed = all;
        changed[5000..5003].copy_from_slice(b"new");
        assert_eq!(read(&cache, 0, SIZE), changed);
        assert_eq!(pages(&cache), 1);
    });
}
