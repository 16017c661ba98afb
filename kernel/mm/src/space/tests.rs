//! Spaces against a model that knows every page of every process for itself, on the simulated kernel.

use alloc::{boxed::Box, collections::BTreeMap, rc::Rc, sync::Arc, vec, vec::Vec};
use core::cell::Cell;

use base::{Errno, Error, KernelId, Result, id::ObjectIds, wait::Op};
use hal::{addr::UserAddr, testing::on_kernel, usermode::Access};
use proptest::prelude::*;

use super::{Fault, LOWEST, MapRequest, PAGE, Place, RemapRequest, STACK_GAP, Space, Violation, What};
use crate::{
    cache::PageCache,
    memory::Memory,
    object::{MappedPage, MemoryObject},
    user::{PageWait, User, UserRange},
    vma::{Label, Prot, VmaFlags},
};

const RW: Prot = Prot::READ.union(Prot::WRITE);
const BASE: u64 = 0x10_0000;
const PAGES: u64 = 24;

pub(super) struct NoWait;

impl PageWait for NoWait {
    fn wait(&self, _op: Box<dyn Op<MappedPage>>) -> Result<()> {
        Err(Error::new(Errno::EINTR, "nobody to wait for in a test"))
    }
    fn no_memory(&self) -> Result<()> {
        Err(Error::new(Errno::ENOMEM, "out of memory in a test"))
    }
}

fn memory() -> Arc<Memory> {
    Memory::new(Arc::new(ObjectIds::new(KernelId { index: 0, incarnation: 1 }))).unwrap()
}

fn space(memory: &Arc<Memory>) -> Arc<Space> {
    let space = Space::new(memory).unwrap();
    space.set_layout(0x7000_0000_0000, 0x5000_0000);
    space
}

fn anonymous(at: u64, pages: u64, prot: Prot, shared: bool) -> MapRequest {
    MapRequest {
        place: Place::Fixed(at),
        len: pages * PAGE,
        prot,
        max: Prot::all(),
        flags: if shared { VmaFlags::SHARED } else { VmaFlags::empty() },
        what: What::Anonymous,
        label: Label::None,
    }
}

fn object(at: u64, pages: u64, prot: Prot, shared: bool, object: &Arc<PageCache>, offset: u64) -> MapRequest {
    MapRequest { what: What::Object(object.clone(), offset), ..anonymous(at, pages, prot, shared) }
}

/// A store of the program.
fn store(space: &Space, at: u64, byte: u8) -> core::result::Result<(), Violation> {
    space.activate();
    loop {
        match hal::user::copy_out(UserAddr(at), &[byte]).fault {
            None => return Ok(()),
            Some(fault) => assert!(matches!(space.fault(fault, Access::Write)?, Fault::Resolved)),
        }
    }
}

/// A load of the program.
fn load(space: &Space, at: u64) -> core::result::Result<u8, Violation> {
    space.activate();
    let mut byte = [0];
    loop {
        match hal::user::copy_in(&mut byte, UserAddr(at)).fault {
            None => return Ok(byte[0]),
            Some(fault) => assert!(matches!(space.fault(fault, Access::Read)?, Fault::Resolved)),
        }
    }
}

#[derive(Clone, Debug)]
enum Op1 {
    Map { at: u64, len: u64, prot: u8, shared: bool },
    File { at: u64, len: u64, prot: u8, shared: bool, from: u64 },
    Unmap { at: u64, len: u64 },
    Protect { at: u64, len: u64, prot: u8 },
    Remap { at: u64, len: u64, to: u64 },
    Drop { at: u64, len: u64 },
    Store { at: u64, byte: u8 },
    WriteFile { page: u64, byte: u8 },
    Truncate { pages: u64 },
    Fork,
    Switch(usize),
    Exit(usize),
}

fn op() -> impl Strategy<Value = Op1> {
    let range = || (0..PAGES - 8, 1..8_u64);
    prop_oneof![
        2 => (range(), 0..4_u8, any::<bool>()).prop_map(|((at, len), prot, shared)| Op1::Map { at, len, prot, shared }),
        2 => (range(), 0..4_u8, any::<bool>(), 0..4_u64)
            .prop_map(|((at, len), prot, shared, from)| Op1::File { at, len, prot, shared, from }),
        1 => range().prop_map(|(at, len)| Op1::Unmap { at, len }),
        2 => (range(), 0..4_u8).prop_map(|((at, len), prot)| Op1::Protect { at, len, prot }),
        1 => (range(), 0..PAGES - 8).prop_map(|((at, len), to)| Op1::Remap { at, len, to }),
        1 => range().prop_map(|(at, len)| Op1::Drop { at, len }),
        8 => (0..PAGES, 1..255_u8).prop_map(|(at, byte)| Op1::Store { at, byte }),
        2 => (0..8_u64, 1..255_u8).prop_map(|(page, byte)| Op1::WriteFile { page, byte }),
        1 => (0..9_u64).prop_map(|pages| Op1::Truncate { pages }),
        2 => Just(Op1::Fork),
        2 => (0..4_usize).prop_map(Op1::Switch),
        1 => (0..4_usize).prop_map(Op1::Exit),
    ]
}

#[derive(Clone)]
enum Content {
    Private(u8),
    Shared(Rc<Cell<u8>>),
    /// A page of the file; a private one may have broken off its own.
    File {
        page: u64,
        private: bool,
        own: Option<u8>,
    },
}

#[derive(Clone)]
struct Page {
    prot: u8,
    content: Content,
}

type Model = BTreeMap<u64, Page>;
type File = Vec<Option<u8>>;

fn expect(page: Option<&Page>, file: &File) -> core::result::Result<u8, Violation> {
    let page = page.ok_or(Violation::NotMapped)?;
    if page.prot == 0 {
        return Err(Violation::NotAllowed);
    }
    match &page.content {
        Content::Private(byte) => Ok(*byte),
        Content::Shared(byte) => Ok(byte.get()),
        Content::File { own: Some(byte), .. } => Ok(*byte),
        Content::File { page, .. } => file.get(*page as usize).copied().flatten().ok_or(Violation::NoPage),
    }
}

fn run(ops: Vec<Op1>) {
    on_kernel(|| {
        let memory = memory();
        // Page tables and caches of the first use are not leaks.
        drop(space(&memory));
        let before = hal::frame::stats().free;
        {
            let file = PageCache::new(&memory, 8 * PAGE);
            let mut file_model: File = vec![Some(0); 8];
            let mut spaces = vec![(space(&memory), Model::new())];
            let mut current = 0;
            for op in ops {
                let (space, model) = &mut spaces[current];
                let addr = |page: u64| BASE + page * PAGE;
                match op {
                    Op1::Map { at, len, prot, shared } => {
                        space.map(anonymous(addr(at), len, Prot::from_bits_truncate(prot), shared)).unwrap();
                        for page in at..at + len {
                            let content = if shared { Content::Shared(Rc::default()) } else { Content::Private(0) };
                            model.insert(page, Page { prot, content });
                        }
                    }
                    Op1::File { at, len, prot, shared, from } => {
                        let request = object(addr(at), len, Prot::from_bits_truncate(prot), shared, &file, from * PAGE);
                        space.map(request).unwrap();
                        for i in 0..len {
                            let content = Content::File { page: from + i, private: !shared, own: None };
                            model.insert(at + i, Page { prot, content });
                        }
                    }
                    Op1::Unmap { at, len } => {
                        space.unmap(addr(at), len * PAGE).unwrap();
                        model.retain(|page, _| *page < at || *page >= at + len);
                    }
                    Op1::Protect { at, len, prot } => {
                        let whole = (at..at + len).all(|page| model.contains_key(&page));
                        let result = space.protect(addr(at), len * PAGE, Prot::from_bits_truncate(prot));
                        assert_eq!(result.is_ok(), whole);
                        for page in at..at + len {
                            let Some(page) = model.get_mut(&page) else { break };
                            page.prot = prot;
                        }
                    }
                    Op1::Remap { at, len, to } => {
                        let request = RemapRequest {
                            old: addr(at),
                            old_len: len * PAGE,
                            new_len: len * PAGE,
                            may_move: true,
                            to: Some(addr(to)),
                            keep_old: false,
                        };
                        if space.remap(request).is_ok() {
                            for i in 0..len {
                                if let Some(page) = model.remove(&(at + i)) {
                                    model.insert(to + i, page);
                                }
                            }
                        } else if to + len <= at || at + len <= to {
                            // Refused only if it is not one mapping; then the target may be gone or not, so look.
                            for page in to..to + len {
                                if load(space, addr(page)) == Err(Violation::NotMapped) {
                                    model.remove(&page);
                                }
                            }
                        }
                    }
                    Op1::Drop { at, len } => {
                        let _ = space.advise(addr(at), len * PAGE, super::Advice::DontNeed);
                        for (_, page) in model.range_mut(at..at + len) {
                            match &mut page.content {
                                Content::Private(byte) => *byte = 0,
                                Content::File { own, .. } => *own = None,
                                Content::Shared(_) => {}
                            }
                        }
                    }
                    Op1::Store { at, byte } => {
                        let result = store(space, addr(at) + 7, byte);
                        let page = model.get_mut(&at);
                        let readable = expect(page.as_deref(), &file_model);
                        match page {
                            Some(page) if page.prot & 2 != 0 && readable != Err(Violation::NoPage) => {
                                assert_eq!(result, Ok(()));
                                match &mut page.content {
                                    Content::Private(old) => *old = byte,
                                    Content::Shared(old) => old.set(byte),
                                    Content::File { private: true, own, .. } => *own = Some(byte),
                                    Content::File { page, .. } => file_model[*page as usize] = Some(byte),
                                }
                            }
                            Some(page) if page.prot & 2 == 0 => assert_eq!(result, Err(Violation::NotAllowed)),
                            Some(_) => assert_eq!(result, Err(Violation::NoPage)),
                            None => assert_eq!(result, Err(Violation::NotMapped)),
                        }
                    }
                    Op1::WriteFile { page, byte } => {
                        if file_model.get(page as usize).copied().flatten().is_some() {
                            file.write(page * PAGE + 7, &mut &[byte][..]).unwrap();
                            file_model[page as usize] = Some(byte);
                        }
                    }
                    Op1::Truncate { pages } => {
                        file.resize(pages * PAGE).unwrap();
                        for page in 0..file_model.len().max(pages as usize) {
                            if page >= file_model.len() {
                                file_model.push(None);
                            }
                            if page as u64 >= pages {
                                file_model[page] = None;
                            } else if file_model[page].is_none() {
                                file_model[page] = Some(0);
                            }
                        }
                        for (_, model) in &mut spaces {
                            for content in model.values_mut().map(|page| &mut page.content) {
                                if let Content::File { page, own, .. } = content
                                    && *page >= pages
                                {
                                    *own = None;
                                }
                            }
                        }
                    }
                    Op1::Fork => {
                        if spaces.len() < 4 {
                            let child = spaces[current].0.fork().unwrap();
                            let model = spaces[current].1.clone();
                            spaces.push((child, model));
                        }
                    }
                    Op1::Switch(to) => current = to % spaces.len(),
                    Op1::Exit(which) => {
                        if spaces.len() > 1 {
                            spaces.swap_remove(which % spaces.len());
                            current = 0;
                        }
                    }
                }
                for (space, model) in &spaces {
                    for page in 0..PAGES {
                        assert_eq!(
                            load(space, BASE + page * PAGE + 7),
                            expect(model.get(&page), &file_model),
                            "page {page}"
                        );
                    }
                }
            }
            hal::space::deactivate();
        }
        assert_eq!(hal::frame::stats().free, before, "frames leaked");
        let info = memory.info();
        assert_eq!((info.cached, info.committed), (0, 0), "counters leaked");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_page_by_page_model(ops in proptest::collection::vec(op(), 1..80)) {
        run(ops);
    }
}

#[test]
fn a_stack_grows_down_to_its_limit_and_keeps_its_gap() {
    on_kernel(|| {
        let memory = memory();
        let space = space(&memory);
        let top = 0x7f00_0000_0000;
        let stack = MapRequest { flags: VmaFlags::GROWS_DOWN, ..anonymous(top - 4 * PAGE, 4, RW, false) };
        space.map(stack).unwrap();
        assert_eq!(store(&space, top - 100 * PAGE, 1), Ok(()));
        assert_eq!(store(&space, top - (8 << 20), 1), Ok(()));
        assert_eq!(store(&space, top - (8 << 20) - 1, 1), Err(Violation::NotMapped));
        // Something close below stops it.
        let other = 0x7e00_0000_0000;
        let stack = MapRequest { flags: VmaFlags::GROWS_DOWN, ..anonymous(other, 4, RW, false) };
        space.map(stack).unwrap();
        space.map(anonymous(other - STACK_GAP - 8 * PAGE, 4, RW, false)).unwrap();
        assert_eq!(store(&space, other - 4 * PAGE, 1), Ok(()));
        assert_eq!(store(&space, other - 5 * PAGE, 1), Err(Violation::NotMapped));
    });
}

#[test]
fn brk_moves_the_heap() {
    on_kernel(|| {
        let memory = memory();
        let space = space(&memory);
        let start = space.set_brk(0);
        assert_eq!(start, 0x5000_0000);
        assert_eq!(space.set_brk(start + 5000), start + 5000);
        assert_eq!(store(&space, start + 8191, 9), Ok(()));
        assert_eq!(space.set_brk(start + 100), start + 100);
        assert_eq!(load(&space, start + 4095), Ok(0));
        assert_eq!(load(&space, start + 4096), Err(Violation::NotMapped));
        assert_eq!(space.set_brk(start - 1), start + 100);
        space.map(anonymous(start + 16 * PAGE, 1, RW, false)).unwrap();
        assert_eq!(space.set_brk(start + 16 * PAGE), start + 100);
        assert_eq!(space.set_brk(start + 15 * PAGE), start + 15 * PAGE);
    });
}

#[test]
fn limits_and_places() {
    on_kernel(|| {
        let memory = memory();
        let space = space(&memory);
        let errno = |result: Result<u64>| result.unwrap_err().errno();
        assert_eq!(errno(space.map(anonymous(LOWEST - PAGE, 1, RW, false))), Errno::EPERM);
        assert_eq!(errno(space.map(anonymous(BASE + 1, 1, RW, false))), Errno::EINVAL);
        assert_eq!(errno(space.map(anonymous(hal::addr::user_top() - PAGE, 2, RW, false))), Errno::ENOMEM);
        assert_eq!(errno(space.map(anonymous(BASE, 0, RW, false))), Errno::EINVAL);
        space.map(anonymous(BASE, 2, RW, false)).unwrap();
        let again = MapRequest { place: Place::Free(BASE + PAGE), ..anonymous(0, 1, RW, false) };
        assert_eq!(errno(space.map(again)), Errno::EEXIST);
        // Top down, next to each other.
        let anywhere = || MapRequest { place: Place::Hint(0), ..anonymous(0, 3, RW, false) };
        let first = space.map(anywhere()).unwrap();
        assert_eq!(first, 0x7000_0000_0000 - 3 * PAGE);
        assert_eq!(space.map(anywhere()).unwrap(), first - 3 * PAGE);
        let hint = MapRequest { place: Place::Hint(BASE + 8 * PAGE + 5), ..anonymous(0, 1, RW, false) };
        assert_eq!(space.map(hint).unwrap(), BASE + 8 * PAGE);
        // Limits.
        space.set_limits(super::Limits { address_space: 20 * PAGE, ..super::Limits::default() });
        assert_eq!(errno(space.map(anonymous(BASE + 32 * PAGE, 12, RW, false))), Errno::ENOMEM);
        space.map(anonymous(BASE + 32 * PAGE, 11, RW, false)).unwrap();
        // More than there is.
        space.set_limits(super::Limits::default());
        assert_eq!(errno(space.map(anonymous(BASE, 1 << 30, RW, false))), Errno::ENOMEM);
    });
}

#[test]
fn a_range_goes_on_after_what_was_used() {
    let vecs = [(100, 4), (200, 4), (300, 4)].map(|(base, len)| crate::user::IoVec { base, len });
    let mut range = UserRange::list(vecs.to_vec());
    let start = range.mark();
    range.used(start, 6);
    assert_eq!((range.remaining(), base::io::Source::user_span(&mut range)), (6, Some((202, 2))));
    let mark = range.mark();
    base::io::Source::advance(&mut range, 2, false);
    base::io::Source::advance(&mut range, 0, true);
    range.used(mark, 2);
    assert_eq!(range.remaining(), 4);
    range.rewind(mark);
    assert_eq!((range.remaining(), base::io::Source::user_span(&mut range)), (6, Some((202, 2))));
    range.used(mark, 6);
    assert_eq!((range.remaining(), base::io::Source::user_span(&mut range)), (0, None));
}

#[test]
fn user_ranges_stall_and_go_on() {
    on_kernel(|| {
        let memory = memory();
        let space = space(&memory);
        space.activate();
        let user = User::new(&space, &NoWait);
        space.map(anonymous(BASE, 4, RW, false)).unwrap();
        let file = PageCache::new(&memory, 0);
        let text: Vec<u8> = (0..10_000_u32).map(|i| i as u8).collect();
        user.write(BASE, &text).unwrap();
        // Into the file from absent and present pages, and out of it into absent ones.
        let mut from = UserRange::new(BASE, text.len()).unwrap();
        let mut done = 0;
        loop {
            let base::Try::Done(n) = file.write(done as u64, &mut from).unwrap() else { panic!("nothing to wait for") };
            done += n;
            if !from.resolve(&user, Access::Read).unwrap() {
                break;
            }
        }
        assert_eq!((done, file.size()), (10_000, 10_000));
        space.map(anonymous(BASE + 8 * PAGE, 4, RW, false)).unwrap();
        let vecs = vec![
            crate::IoVec { base: BASE + 8 * PAGE + 10, len: 4090 },
            crate::IoVec { base: BASE, len: 0 },
            crate::IoVec { base: BASE + 9 * PAGE + 100, len: 20_000 },
        ];
        let mut to = UserRange::list(vecs);
        let mut done = 0;
        loop {
            let base::Try::Done(n) = file.read(done as u64, &mut to).unwrap() else { panic!("nothing to wait for") };
            done += n;
            if !to.resolve(&user, Access::Write).unwrap() {
                break;
            }
        }
        assert_eq!(done, 10_000);
        let mut back = vec![0; 10_000];
        user.read(BASE + 8 * PAGE + 10, &mut back[..4090]).unwrap();
        user.read(BASE + 9 * PAGE + 100, &mut back[4090..]).unwrap();
        assert!(back == text);
        assert_eq!(user.write(BASE + 12 * PAGE, b"x").unwrap_err(), Errno::EFAULT);
        user.write(BASE + PAGE - 2, b"ab\0").unwrap();
        assert_eq!(user.path(BASE + PAGE - 2).unwrap(), b"ab");
        assert_eq!(space.peek(UserAddr(BASE + 16), &mut back[..16]).done, 16);
        assert_eq!(back[..16], text[16..32]);
        hal::space::deactivate();
    });
}

#[test]
fn memory_runs_out_for_the_program_and_not_for_the_kernel() {
    on_kernel(|| {
        let memory = memory();
        let space = space(&memory);
        space.map(anonymous(BASE, 8000, RW, false)).unwrap();
        space.activate();
        let pages = (0..8000)
            .take_while(|page| matches!(space.fault(UserAddr(BASE + page * PAGE), Access::Write), Ok(Fault::Resolved)))
            .count();
        assert!(pages > 6000 && pages < 8000, "{pages}");
        assert!(hal::frame::stats().free >= 60);
        space.unmap(BASE, 8000 * PAGE).unwrap();
        assert_eq!(space.resident_pages(), 0);
        hal::space::deactivate();
    });
}

#[test]
fn sealed_objects_are_mapped_read_only() {
    use crate::cache::Seals;
    on_kernel(|| {
        let memory = memory();
        let space = space(&memory);
        let file = PageCache::new(&memory, 4 * PAGE);
        space.map(object(BASE, 4, RW, true, &file, 0)).unwrap();
        assert_eq!(store(&space, BASE, 7), Ok(()));
        assert_eq!(file.add_seals(Seals::WRITE).unwrap_err(), Errno::EBUSY);
        file.add_seals(Seals::FUTURE_WRITE).unwrap();
        // What is mapped already goes on, over fork too; what is new cannot be written.
        let child = space.fork().unwrap();
        assert_eq!(store(&child, BASE + PAGE, 8), Ok(()));
        assert_eq!(space.map(object(BASE + 8 * PAGE, 4, RW, true, &file, 0)).unwrap_err(), Errno::EPERM);
        space.map(object(BASE + 8 * PAGE, 4, Prot::READ, true, &file, 0)).unwrap();
        assert_eq!(load(&space, BASE + 9 * PAGE), Ok(8));
        assert_eq!(space.protect(BASE + 8 * PAGE, PAGE, RW).unwrap_err(), Errno::EACCES);
        space.map(object(BASE + 16 * PAGE, 4, RW, false, &file, 0)).unwrap();
        assert_eq!(store(&space, BASE + 16 * PAGE, 9), Ok(()));
        assert_eq!(load(&space, BASE), Ok(7));
        hal::space::deactivate();
    });
}
