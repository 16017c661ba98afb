//! Tests that run in the kernel, in checked images: `/proc/cob/selftest` (`docs/testing.md`). Reading it lists them; writing a name runs that one on the
//! kernel that serves the file. A test either comes back with a verdict, or its kernel must die of what it does, with words that say of what.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};

use base::wait::{TryResult, done};
use base::{Errno, Error};
use hal::addr::UserAddr;
use hal::frame::{Frame, FrameRun, MapFrame};
use hal::space::{AddressSpace, Prot};
use hal::user::{CopyResult, StrResult};
use hal::usermode::{Access, Exit, Fault, FaultKind, UserContext};
use machine::probe;
use procfs::entry::Entry;
use task::Kernel;
use vfs::Caller;

use crate::facts::Facts;

type Verdict = Result<(), String>;

/// What a test is.
#[derive(Clone, Copy)]
enum Test {
    /// It comes back.
    Checks(fn() -> Verdict),
    /// The kernel dies of it.
    Dies(fn(&Facts)),
}

const TESTS: [(&str, Test); 17] = [
    ("features", Test::Checks(features)),
    ("pages", Test::Checks(pages)),
    ("user-copies", Test::Checks(user_copies)),
    ("user-faults", Test::Checks(user_faults)),
    ("umip", Test::Checks(umip)),
    ("frames", Test::Checks(frames)),
    ("touch-peer", Test::Dies(|facts| read(probe::linear(peer(facts))))),
    ("touch-peer-window", Test::Dies(|facts| probe::write(probe::window(peer(facts))))),
    ("stack-guard", Test::Dies(|_| log::info!("{}", probe::exhaust_stack()))),
    ("write-code", Test::Dies(|_| probe::write(probe::code()))),
    ("run-data", Test::Dies(|_| run_data())),
    ("run-image", Test::Dies(|_| probe::call(probe::RETURN.as_ptr() as u64))),
    ("run-user", Test::Dies(|_| with_user_page(|| probe::call(PAGE.0)))),
    ("read-user", Test::Dies(|_| with_user_page(|| read(PAGE.0)))),
    ("null", Test::Dies(|_| read(0))),
    ("panic", Test::Dies(|_| panic!("as the test says"))),
    ("lock-order", Test::Dies(|_| lock_order())),
];

/// Where the tests' user pages are.
const PAGE: UserAddr = UserAddr(0x40_0000);
const DATA: UserAddr = UserAddr(0x50_0000);
const SIZE: u64 = 0x1000;

/// `/proc/cob/selftest`.
pub struct SelfTest {
    /// The kernel that is tested.
    pub kernel: Arc<Kernel>,
    /// What it is.
    pub facts: Arc<Facts>,
}

impl Entry for SelfTest {
    fn read(&self, _: &Caller) -> TryResult<Vec<u8>> {
        let kind = |test: &Test| match test {
            Test::Checks(_) => "checks",
            Test::Dies(_) => "dies",
        };
        let lines: Vec<String> = TESTS.iter().map(|(name, test)| format!("{name} {}\n", kind(test))).collect();
        done(lines.concat().into_bytes())
    }

    fn write(&self, caller: &Caller, bytes: &[u8]) -> TryResult<()> {
        if caller.uid != 0 {
            return Err(Errno::EPERM.into());
        }
        let name = core::str::from_utf8(bytes).unwrap_or_default().trim();
        let (name, test) = *TESTS.iter().find(|(n, _)| *n == name).ok_or(Error::new(Errno::EINVAL, "no such test"))?;
        let (call, completer) = objects::call();
        let facts = self.facts.clone();
        // In a thread: it has no address space of its own.
        self.kernel.start_thread("selftest", move |_| {
            let verdict = match test {
                Test::Checks(check) => check(),
                Test::Dies(act) => {
                    act(&facts);
                    Err("the kernel lives".to_string())
                }
            };
            hal::space::deactivate();
            let result = verdict.map_err(|why| {
                log::error!("selftest {name}: {why}");
                Error::new(Errno::EIO, "the test failed")
            });
            // Nobody waits any more: the log has the verdict.
            drop(completer.complete(result.map(base::Try::Done)));
        })?;
        call.into_try()
    }

    fn mode(&self) -> u32 {
        0o600
    }
}

fn ensure(good: bool, what: impl FnOnce() -> String) -> Verdict {
    if good { Ok(()) } else { Err(what()) }
}

fn equal<T: PartialEq + core::fmt::Debug>(what: &str, is: T, wanted: T) -> Verdict {
    ensure(is == wanted, || format!("{what}: {is:x?}, not {wanted:x?}"))
}

fn no_memory<T: core::fmt::Debug>(why: T) -> String {
    format!("no memory: {why:?}")
}

/// Some private memory of another kernel: behind its porch, boot block and image.
fn peer(facts: &Facts) -> u64 {
    let peer = facts.plan.kernels.iter().find(|kernel| kernel.index != facts.info.index);
    peer.map_or(0, |kernel| kernel.base() + 0x100_0000)
}

fn read(at: u64) {
    log::info!("{:#x}", probe::read(at));
}

fn features() -> Verdict {
    probe::missing().map_or(Ok(()), |name| Err(format!("the CPU has {name}, which is off")))
}

/// Pages are zeroed and copied whole, and nothing beyond them.
fn pages() -> Verdict {
    let run = FrameRun::alloc(2).map_err(no_memory)?;
    run.write(0, &vec![0xa5; 4 * SIZE as usize]);
    let frames: Vec<Frame> = run.into_frames().collect();
    let [first, zeroed, copied, last] = &frames[..] else { return Err("a run of four has not four frames".into()) };
    let bytes = |frame: &Frame| {
        let mut bytes = vec![0; SIZE as usize];
        frame.read(0, &mut bytes);
        bytes
    };
    zeroed.zero();
    let duplicate = copied.duplicate().map_err(no_memory)?;
    zeroed.write(7, b"x");
    copied.copy_from(zeroed);
    for (what, frame) in [("before", first), ("behind", last), ("the duplicate", &duplicate)] {
        ensure(bytes(frame).iter().all(|b| *b == 0xa5), || format!("{what}: changed"))?;
    }
    let wanted = |i: usize| if i == 7 { b'x' } else { 0 };
    ensure(bytes(copied).iter().enumerate().all(|(i, b)| *b == wanted(i)), || "the copy differs".into())
}

/// Taking and giving back leaves as many frames.
fn frames() -> Verdict {
    let before = hal::frame::stats().free;
    for order in 0..6 {
        let runs: Vec<FrameRun> = (0..8).filter_map(|_| FrameRun::alloc(order).ok()).collect();
        equal("runs", runs.len(), 8)?;
    }
    equal("free frames", hal::frame::stats().free, before)
}

/// A space with `code` at [`PAGE`], active on this CPU.
fn program(code: &[u8]) -> Result<AddressSpace, String> {
    let space = AddressSpace::new().map_err(no_memory)?;
    let frame = Frame::alloc(true).map_err(no_memory)?;
    frame.write(0, code);
    space.map(PAGE, MapFrame::Own(frame), Prot::READ | Prot::EXEC).map_err(no_memory)?;
    space.activate();
    Ok(space)
}

fn add_data(space: &AddressSpace) -> Verdict {
    let frame = Frame::alloc(true).map_err(no_memory)?;
    space.map(DATA, MapFrame::Own(frame), Prot::READ | Prot::WRITE).map_err(no_memory)
}

/// Copies stop where the page ends, and say where; nothing faults the kernel.
fn user_copies() -> Verdict {
    use hal::user;
    let space = program(probe::RETURN)?;
    add_data(&space)?;
    let end = DATA + SIZE;
    let part = |done: usize, fault: UserAddr| CopyResult { done, fault: Some(fault) };
    let mut buf = [0x11; 16];
    equal("a whole copy", user::copy_out(DATA, &buf), CopyResult { done: 16, fault: None })?;
    equal("a copy over the end", user::copy_out(end + -7i64 as u64, &buf), part(7, end))?;
    equal("zeros over the end", user::zero_out(DATA + 1, 2 * SIZE as usize), part(SIZE as usize - 1, end))?;
    equal("a copy from nowhere", user::copy_in(&mut buf, end), part(0, end))?;
    equal(
        "a copy from the kernel",
        user::copy_in(&mut buf, UserAddr(probe::code())),
        part(0, UserAddr(probe::code())),
    )?;
    equal("a write to code", user::copy_out(PAGE, &buf), part(0, PAGE))?;
    equal("a string in nothing", user::read_cstr(&mut buf, end), StrResult::Fault { done: 0, fault: end })?;
    let at = end + -4i64 as u64;
    equal("four letters", user::copy_out(at, b"abcd").all(), Ok(()))?;
    equal("without an end", user::read_cstr(&mut buf, at), StrResult::Fault { done: 4, fault: end })?;
    equal("and with one", user::copy_out(end + -1i64 as u64, b"\0").all(), Ok(()))?;
    equal("three letters", user::read_cstr(&mut buf, at), StrResult::Found(3))?;
    equal("a word beyond", user::load_u32(end), Err(end))?;
    equal("a swap in code", user::compare_exchange_u32(PAGE, 1, 2), Err(PAGE))
}

/// Runs a program until it is back in the kernel for something else than an interrupt.
fn run(context: &mut UserContext) -> Exit {
    loop {
        match context.run() {
            Exit::Irq => {}
            exit => return exit,
        }
    }
}

fn fault(exit: Exit) -> Result<Fault, String> {
    match exit {
        Exit::Fault(fault) => Ok(fault),
        other => Err(format!("no fault: {other:?}")),
    }
}

/// What programs do wrong comes to the kernel as what it is.
fn user_faults() -> Verdict {
    let space = program(probe::FAULTS)?;
    let mut context = UserContext::new(PAGE, DATA + 0x800);
    equal("a system call", run(&mut context), Exit::Syscall)?;
    let page = fault(run(&mut context))?;
    equal("a store to nothing", (page.kind, page.addr), (FaultKind::Page(Access::Write), DATA))?;
    add_data(&space)?;
    let illegal = fault(run(&mut context))?;
    equal("an undefined instruction", (illegal.kind, illegal.addr), (FaultKind::Illegal, PAGE + probe::UNDEFINED_AT))?;
    equal("its stack pointer", hal::user::read_u64(DATA), Ok(DATA.0 + 0x800))?;
    context.set_ip(DATA);
    let data = fault(run(&mut context))?;
    equal("data that is run", (data.kind, data.addr), (FaultKind::Page(Access::Execute), DATA))?;
    context.set_ip(UserAddr(probe::code()));
    let kernel = fault(run(&mut context))?;
    ensure(matches!(kernel.kind, FaultKind::Page(_) | FaultKind::Protection), || format!("kernel code: {kernel:?}"))
}

/// A program does not learn where the kernel's tables are.
fn umip() -> Verdict {
    let (code, wanted) = probe::SECRET;
    let space = program(code)?;
    add_data(&space)?;
    let mut context = UserContext::new(PAGE, DATA + 0x800);
    let asked = fault(run(&mut context))?;
    equal("the question", asked.kind, wanted)
}

fn with_user_page(act: impl FnOnce()) {
    match program(probe::RETURN) {
        Ok(_space) => act(),
        Err(why) => log::error!("{why}"),
    }
}

fn run_data() {
    // Not from the heap: some of that lies in the image.
    match Frame::alloc(true) {
        Ok(frame) => {
            frame.write(0, probe::RETURN);
            probe::call(probe::linear(frame.phys().0));
        }
        Err(why) => log::error!("{why:?}"),
    }
}

/// Two locks in the wrong order: the checks find it.
fn lock_order() {
    use hal::sync::{SpinLock, rank};
    let (inner, outer) = (SpinLock::new(rank::LOG, ()), SpinLock::new(rank::REGISTRY, ()));
    let _inner = inner.lock();
    let _outer = outer.lock();
}
