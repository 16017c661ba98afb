//! Kernel-mode checks of the hardware layer on the real thing: `selftest=NAME` on the command line of an image built with the
//! feature `selftest`.

extern crate alloc;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicUsize, Ordering};

struct H;
static TIMERS: AtomicUsize = AtomicUsize::new(0);
static KICKS: AtomicUsize = AtomicUsize::new(0);
static UP: AtomicUsize = AtomicUsize::new(0);
impl hal::boot::Handlers for H {
    fn timer(&self) {
        TIMERS.fetch_add(1, Ordering::Relaxed);
        hal::time::set_deadline(Some(hal::time::now() + 1_000_000));
    }
    fn kick(&self) {
        KICKS.fetch_add(1, Ordering::Relaxed);
    }
    fn doorbell(&self) {}
    fn irq(&self, _: u32) {}
}

fn second(slot: usize) -> ! {
    log::info!("cpu {slot} up");
    UP.fetch_add(1, Ordering::Relaxed);
    loop {
        look();
        hal::cpu::idle_wait();
    }
}

/// Runs the checks that the command line names.
pub fn run(facts: &crate::facts::Facts, epoch: u64, archive: &[u8]) {
    let command_line = &facts.command_line;
    hal::boot::install(Box::new(H));
    hal::time::set_deadline(Some(hal::time::now() + 1_000_000));
    while TIMERS.load(Ordering::Relaxed) < 10 {
        hal::cpu::idle_wait();
    }
    log::info!("10 timers");
    if command_line.contains("smp") {
        let t = hal::time::now();
        log::info!("start {:?}", hal::cpu::start(1, second));
        while UP.load(Ordering::Relaxed) == 0 {
            core::hint::spin_loop();
        }
        log::info!("up after {} us", (hal::time::now() - t) / 1000);
        for _ in 0..10 {
            let k = KICKS.load(Ordering::Relaxed);
            hal::cpu::kick(1);
            while KICKS.load(Ordering::Relaxed) == k {
                core::hint::spin_loop();
            }
        }
        log::info!("kicked");
        shootdowns();
    }
    if command_line.contains("touch") && facts.info.index == 0 {
        let base = facts.plan.kernels[1].base() + 0x100_0000;
        let p = (0xffff_8880_0000_0000 + base) as *const u8;
        // SAFETY: not at all; it must fault.
        log::info!("{}", unsafe { p.read_volatile() });
    }
    if command_line.contains("phoenix") && facts.info.index == 1 && facts.info.incarnation == 1 {
        use hal::cpuref::{CpuRef, FenceToken};
        let image = crate::facts::file(archive, crate::facts::IMAGE).unwrap_or_default();
        let t = hal::time::now();
        let cpu = CpuRef::new(0).unwrap();
        let fenced = cpu.fence(&FenceToken::for_fence());
        log::info!("fence of kernel 0: {fenced:?} {} us", (hal::time::now() - t) / 1000);
        let r = crate::peers::start(facts, 0, 2, epoch, image);
        log::info!("start {r:?}");
    }
    if command_line.contains("phoenix") && facts.info.index == 0 && facts.info.incarnation == 1 {
        hal_x86_64::exit::halt();
    }
    if command_line.contains("restart") && facts.info.index == 0 {
        use hal::cpuref::{CpuRef, FenceToken};
        let image = crate::facts::file(archive, crate::facts::IMAGE).unwrap_or_default();
        let before = hal::frame::stats();
        for n in 2..22 {
            let t = hal::time::now();
            let cpu = CpuRef::new(facts.plan.kernels[1].cpus[0].hardware).unwrap();
            let fenced = cpu.fence(&FenceToken::for_fence());
            let mid = hal::time::now();
            let r = crate::peers::start(facts, 1, n, epoch, image);
            let end = hal::time::now();
            log::info!("fence {fenced:?} {} us, start {r:?} {} us", (mid - t) / 1000, (end - mid) / 1000);
            hal_x86_64::clock::spin_for(30_000_000);
        }
        log::info!("frames {before:?} -> {:?}", hal::frame::stats());
    }
    if command_line.contains("user") {
        pages();
        user();
    }
    if command_line.contains("over") {
        let t = hal::thread::Thread::new(Box::new(|| {
            log::info!("{}", deep(1));
        }));
        let t = t.unwrap();
        let me = hal::thread::Thread::current();
        hal::thread::switch(&me, &t);
    }
}

/// Pages are zeroed and copied whole, and nothing beyond them.
fn pages() {
    let run = hal::frame::FrameRun::alloc(2).unwrap();
    run.write(0, &alloc::vec![0xa5; 0x4000]);
    let frames: alloc::vec::Vec<_> = run.into_frames().collect();
    let at = |f: &hal::frame::Frame| {
        let mut b = alloc::vec![0; 0x1000];
        f.read(0, &mut b);
        b
    };
    frames[1].zero();
    let copy = frames[2].duplicate().unwrap();
    frames[1].write(7, b"x");
    frames[2].copy_from(&frames[1]);
    assert!(at(&frames[0]).iter().all(|&b| b == 0xa5) && at(&frames[3]).iter().all(|&b| b == 0xa5));
    assert!(at(&copy).iter().all(|&b| b == 0xa5));
    assert!(at(&frames[2]).iter().enumerate().all(|(i, &b)| b == if i == 7 { b'x' } else { 0 }));
    log::info!("pages");
}

static SHARED: hal::sync::Once<hal::space::AddressSpace> = hal::sync::Once::new();
static ROUND: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);
const PAGE: hal::addr::UserAddr = hal::addr::UserAddr(0x60_0000);

/// The other CPU reads a page through its TLB while this one maps another frame there, a thousand times.
fn shootdowns() {
    use hal::frame::{Frame, MapFrame};
    use hal::space::Prot;
    let space = SHARED.get_or_init(|| hal::space::AddressSpace::new().unwrap());
    let map = |n: usize| {
        let f = Frame::alloc(true).unwrap();
        f.write(0, &(n as u32).to_le_bytes());
        space.unmap(PAGE..PAGE + 4096, &mut space.batch());
        space.map(PAGE, MapFrame::Own(f), Prot::READ).unwrap();
    };
    let free = hal::frame::stats().free;
    hal::cpu::kick(1);
    let t = hal::time::now();
    for n in 1..=1000 {
        map(n);
        ROUND.store(n, Ordering::Release);
        let mut turn = 0;
        while SEEN.load(Ordering::Acquire) != n {
            hal::cpu::relax(&mut turn);
        }
    }
    ROUND.store(usize::MAX, Ordering::Release);
    space.unmap(PAGE..PAGE + 4096, &mut space.batch());
    log::info!("1000 shootdowns, {} ns each", (hal::time::now() - t) / 1000);
    assert!(free - hal::frame::stats().free < 8, "frames are lost");
}

/// The other side of [`shootdowns`].
fn look() {
    let Some(space) = SHARED.get() else { return };
    space.activate();
    let mut done = 0;
    loop {
        let round = ROUND.load(Ordering::Acquire);
        if round == usize::MAX {
            hal::space::deactivate();
            return;
        }
        if round != done {
            assert_eq!(hal::user::load_u32(PAGE), Ok(round as u32), "a stale translation");
            done = round;
            SEEN.store(round, Ordering::Release);
        }
        hal::cpu::breathe();
    }
}

fn user() {
    use hal::addr::UserAddr;
    use hal::frame::{Frame, MapFrame};
    use hal::space::Prot;
    use hal::usermode::{Exit, UserContext};
    // loop: syscall; jmp loop    at 0x400100: mov rax,[0x500000]; ud2
    let code = [0x0f, 0x05, 0xeb, 0xfc];
    let code2 = [0xf3u8, 0x0f, 0x58, 0xc1, 0x48, 0x89, 0x24, 0x25, 0, 0, 0x50, 0, 0x0f, 0x0b];
    let space = hal::space::AddressSpace::new().unwrap();
    let f = Frame::alloc(true).unwrap();
    f.write(0, &code);
    f.write(0x100, &code2);
    f.write(0x200, &[0xeb, 0xfe]);
    space.map(UserAddr(0x400000), MapFrame::Own(f), Prot::READ | Prot::EXEC).unwrap();
    space.activate();
    let mut c = UserContext::new(UserAddr(0x400000), UserAddr(0x7fff_0000));
    log::info!("run {:?}", c.run());
    let t = hal::time::now();
    for _ in 0..1_000_000 {
        while c.run() == Exit::Irq {}
        c.set_result(0);
    }
    log::info!("null syscall {} ps", (hal::time::now() - t) / 1000);
    // the clock, read by the program: call __vdso_clock_gettime(1, 0x500000), then a system call
    let (data, image) = hal::vdso::make().unwrap().unwrap();
    space.map(UserAddr(0x60_0000), MapFrame::Static(data), Prot::READ).unwrap();
    space.map(UserAddr(0x60_1000), MapFrame::Static(image[0]), Prot::READ | Prot::EXEC).unwrap();
    let f = Frame::alloc(true).unwrap();
    space.map(UserAddr(0x50_0000), MapFrame::Own(f), Prot::READ | Prot::WRITE).unwrap();
    let f = Frame::alloc(true).unwrap();
    // mov edi,1; mov esi,0x500000; mov eax,ENTRY; call rax; syscall
    let mut elf = [0; 4096];
    elf.copy_from_slice(hal_x86_64::vdso_image());
    let entry = elf.windows(8).position(|w| w == [0xb8, 0x21, 0, 0, 0, 0xba, 0xd2, 0]).unwrap() as u32 + 0x60_1000;
    let mut code = alloc::vec![0xbfu8, 1, 0, 0, 0, 0xbe, 0, 0, 0x50, 0, 0xb8];
    code.extend_from_slice(&entry.to_le_bytes());
    code.extend_from_slice(&[0xff, 0xd0, 0x0f, 0x05]);
    f.write(0, &code);
    space.map(UserAddr(0x41_0000), MapFrame::Own(f), Prot::READ | Prot::EXEC).unwrap();
    let mut t = UserContext::new(UserAddr(0x41_0000), UserAddr(0x50_1000));
    let before = hal::time::now();
    while t.run() == Exit::Irq {}
    let (s, ns) = (hal::user::read_u64(UserAddr(0x50_0000)), hal::user::read_u64(UserAddr(0x50_0008)));
    let seen = s.unwrap() * 1_000_000_000 + ns.unwrap();
    assert!(before <= seen && seen <= hal::time::now(), "{before} {seen}");
    log::info!("vdso: {before} <= {seen}");
    space.unmap(UserAddr(0x50_0000)..UserAddr(0x50_1000), &mut space.batch());
    c.set_ip(UserAddr(0x400100));
    log::info!("fault {:x?}", c.run());
    let f = Frame::alloc(true).unwrap();
    space.map(UserAddr(0x500000), MapFrame::Own(f), Prot::READ | Prot::WRITE).unwrap();
    log::info!("ud {:x?}", c.run());
    let mut b = [0u8; 16];
    log::info!("copy {:?} {:x?}", hal::user::copy_in(&mut b, UserAddr(0x500000)), b);
    log::info!("copy {:?}", hal::user::copy_out(UserAddr(0x500ff9), &b));
    log::info!("copy {:?}", hal::user::copy_out(UserAddr(0x500ff3), &b));
    log::info!("copy {:?}", hal::user::zero_out(UserAddr(0x500001), 0x2000));
    log::info!("str {:?}", hal::user::read_cstr(&mut b, UserAddr(0x500ffc)));
    hal::user::copy_out(UserAddr(0x500ffc), b"abcd").all().unwrap();
    log::info!("str {:?}", hal::user::read_cstr(&mut b, UserAddr(0x500ffc)));
    log::info!("word {:?} {:?}", hal::user::load_u32(UserAddr(0x500ffc)), hal::user::load_u32(UserAddr(0x501000)));
    let _ = hal::user::compare_exchange_u32(UserAddr(0x400000), 1, 2).map_err(|e| log::info!("cas {e:?}"));
    c.set_ip(UserAddr(0x400200));
    log::info!("irq {:?} {}", c.run(), TIMERS.load(Ordering::Relaxed));
    let mut buf = [0u8; hal::usermode::SIGNAL_FRAME_MAX];
    let frame = hal::usermode::SignalFrame {
        signo: 11,
        siginfo: &[7; 128],
        handler: UserAddr(0x400000),
        restorer: UserAddr(0x400300),
        siginfo_wanted: true,
        old_mask: 5,
        altstack: (0, 0, 2),
        stack_top: None,
        fault: None,
    };
    c.set_sp(UserAddr(0x500800));
    let x = c.clone();
    let (at, n) = c.push_signal(&frame, &mut buf).unwrap();
    log::info!("frame {at:?} {n} of {}", buf.len());
    c.set_sp(at + 8);
    assert_eq!(c.signal_frame_at().0, at);
    log::info!("mask {:?}", c.pop_signal(&buf));
    assert_eq!(c.sp(), x.sp());
    assert_eq!(c.ip(), x.ip());
    log::info!("irq {:?} {}", c.run(), TIMERS.load(Ordering::Relaxed));
}

#[inline(never)]
fn deep(n: u64) -> u64 {
    let a = core::hint::black_box([n; 64]);
    deep(n + 1) + core::hint::black_box(a)[3]
}
