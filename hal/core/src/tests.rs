//! Tests of locks, threads, user copies and windows on the host.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::Mutex;

use hal_host::{KernelConfig, Machine, MachineConfig, Outcome};

use crate::addr::{PAGE_SIZE, UserAddr, user_top};
use crate::boot::Handlers;
use crate::frame::{Frame, FrameRun, MapFrame};
use crate::space::{AddressSpace, Prot};
use crate::sync::{Once, Rank, RwSpinLock, SpinLock};
use crate::testing::{on_kernel, with_machine};
use crate::thread::{Thread, switch};
use crate::usermode::{Exit, UserContext};
use crate::window::{SharedWindow, WindowToken};

const LOW: Rank = Rank::new(10, "low");
const HIGH: Rank = Rank::new(20, "high");

#[test]
fn locks_in_order() {
    on_kernel(|| {
        let (a, b) = (SpinLock::new(LOW, 1), SpinLock::new(HIGH, 2));
        let ga = a.lock();
        let gb = b.lock();
        assert_eq!((*ga + *gb, crate::sync::held()), (3, 2));
        // Released in any order.
        drop(ga);
        drop(gb);
        assert_eq!(crate::sync::held(), 0);
    });
}

#[test]
#[should_panic(expected = "lock order")]
fn locks_out_of_order() {
    on_kernel(|| {
        let (a, b) = (SpinLock::new(LOW, 1), RwSpinLock::new(HIGH, 2));
        let _b = b.read();
        let _a = a.lock();
    });
}

#[test]
#[should_panic(expected = "lock order")]
fn one_rank_twice() {
    on_kernel(|| {
        let (a, b) = (SpinLock::new(LOW, 1), SpinLock::new(LOW, 2));
        let _a = a.lock();
        let _b = b.lock();
    });
}

#[test]
fn one_rank_twice_by_address() {
    on_kernel(|| {
        let (a, b) = (SpinLock::new(LOW, 1), SpinLock::new(LOW, 2));
        let (ga, gb) = SpinLock::lock_both(&b, &a);
        assert_eq!((*ga, *gb), (2, 1));
    });
}

#[test]
#[should_panic(expected = "breathe while 1 lock(s)")]
fn no_breath_under_a_lock() {
    on_kernel(|| {
        let a = SpinLock::new(LOW, 1);
        let _a = a.lock();
        crate::cpu::breathe();
    });
}

#[test]
fn locks_exclude() {
    with_machine(3, 8 << 20, |machine| {
        let spin = SpinLock::new(LOW, 0u64);
        let rw = RwSpinLock::new(HIGH, (0u64, 0u64));
        std::thread::scope(|s| {
            for slot in 0..3 {
                let (spin, rw) = (&spin, &rw);
                s.spawn(move || {
                    machine.enter(0, slot, || {
                        for _ in 0..2000 {
                            *spin.lock() += 1;
                            {
                                let mut both = rw.write();
                                both.0 += 1;
                                both.1 += 1;
                            }
                            let both = rw.read();
                            assert_eq!(both.0, both.1);
                        }
                    });
                });
            }
        });
        assert_eq!((*spin.lock(), *rw.read()), (6000, (6000, 6000)));
    });
}

#[test]
fn once_is_set_once() {
    let once = Once::new();
    assert!(once.get().is_none());
    assert_eq!((once.set(1), once.set(2), once.get()), (Ok(()), Err(2), Some(&1)));
    assert_eq!(*Once::new().get_or_init(|| 5), 5);
}

fn space_with(pages: &[u64], prot: Prot) -> AddressSpace {
    let space = AddressSpace::new().unwrap();
    for &p in pages {
        space.map(UserAddr(p * PAGE_SIZE as u64), MapFrame::Own(Frame::alloc(true).unwrap()), prot).unwrap();
    }
    space.activate();
    space
}

#[test]
fn user_copies_stop_where_memory_stops() {
    use crate::user::{StrResult, copy_in, copy_out, read_cstr, zero_out};
    on_kernel(|| {
        let space = space_with(&[1, 2, 3, 5], Prot::READ | Prot::WRITE);
        let page = PAGE_SIZE as u64;
        let data: Vec<u8> = (0..3 * PAGE_SIZE).map(|i| i as u8 | 1).collect();
        // Over two page borders.
        assert_eq!(copy_out(UserAddr(page + 100), &data[..8000]).all(), Ok(()));
        let mut back = alloc::vec![0; 8000];
        assert_eq!(copy_in(&mut back, UserAddr(page + 100)).all(), Ok(()));
        assert_eq!(back, data[..8000]);
        // Into the hole at page 4.
        let r = copy_out(UserAddr(3 * page + 96), &data[..5000]);
        assert_eq!((r.done, r.fault), (4000, Some(UserAddr(4 * page))));
        let r = zero_out(UserAddr(4 * page - 1), 2);
        assert_eq!((r.done, r.fault), (1, Some(UserAddr(4 * page))));
        // Nothing at all.
        assert_eq!(copy_in(&mut [], UserAddr(0)).all(), Ok(()));
        assert_eq!(copy_in(&mut [0], UserAddr(0)).fault, Some(UserAddr(0)));
        // Beyond the user half, and around the end of everything.
        assert_eq!(copy_in(&mut [0; 8], UserAddr(user_top())).fault, Some(UserAddr(user_top())));
        assert_eq!(copy_in(&mut [0; 8], UserAddr(u64::MAX - 3)).fault, Some(UserAddr(u64::MAX - 3)));
        assert_eq!(copy_out(UserAddr(0xffff_8880_0000_0000), b"x").done, 0);
        // Strings.
        let _ = copy_out(UserAddr(2 * page - 3), b"hello\0");
        let mut buf = [0; 16];
        assert_eq!(read_cstr(&mut buf, UserAddr(2 * page - 3)), StrResult::Found(5));
        assert_eq!(&buf[..5], b"hello");
        assert_eq!(read_cstr(&mut buf[..5], UserAddr(2 * page - 3)), StrResult::TooLong);
        let _ = copy_out(UserAddr(4 * page - 4), b"abcd");
        let fault = StrResult::Fault { done: 4, fault: UserAddr(4 * page) };
        assert_eq!(read_cstr(&mut buf, UserAddr(4 * page - 4)), fault);
        // Words.
        assert_eq!(crate::user::load_u32(UserAddr(page + 2)), Err(UserAddr(page + 2)));
        assert_eq!(crate::user::write_u32(UserAddr(page), 5), Ok(()));
        assert_eq!(crate::user::compare_exchange_u32(UserAddr(page), 5, 6), Ok(5));
        assert_eq!(crate::user::compare_exchange_u32(UserAddr(page), 5, 7), Ok(6));
        assert_eq!(crate::user::fetch_update_u32(UserAddr(page), |v| v | 1), Ok(6));
        assert_eq!(crate::user::load_u32(UserAddr(page)), Ok(7));
        // Reading does not need WRITE; writing does.
        space.protect(UserAddr(page)..UserAddr(2 * page), Prot::READ, &mut space.batch());
        assert_eq!(crate::user::load_u32(UserAddr(page)), Ok(7));
        assert_eq!(crate::user::compare_exchange_u32(UserAddr(page), 7, 1), Err(UserAddr(page)));
        assert_eq!(crate::user::write_u64(UserAddr(page), 5), Err(UserAddr(page)));
        crate::space::deactivate();
    });
}

#[test]
fn threads_take_turns() {
    on_kernel(|| {
        let main = Arc::new(Thread::current());
        let log = Arc::new(Mutex::new(Vec::new()));
        let slot: Arc<Once<Arc<Thread>>> = Arc::new(Once::new());
        let thread: Arc<Thread> = {
            let (main, log, slot) = (main.clone(), log.clone(), slot.clone());
            let body = move || {
                let me = slot.get().unwrap().clone();
                for i in 0..3 {
                    log.lock().unwrap().push(i * 2);
                    switch(&me, &main);
                }
                loop {
                    switch(&me, &main);
                }
            };
            Arc::from(Thread::new(Box::new(body)).unwrap())
        };
        assert!(slot.set(thread.clone()).is_ok());
        for i in 0..3 {
            assert!(!thread.is_running());
            switch(&main, &thread);
            log.lock().unwrap().push(i * 2 + 1);
        }
        assert_eq!(*log.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_thread_that_never_ran_drops_what_it_would_have_done() {
    on_kernel(|| {
        let held = Arc::new(());
        let other = held.clone();
        let thread = Thread::new(Box::new(move || drop(other))).unwrap();
        assert_eq!(Arc::strong_count(&held), 2);
        // A parked thread may move.
        drop(Arc::<Thread>::from(thread));
        assert_eq!(Arc::strong_count(&held), 1);
    });
}

#[test]
#[should_panic(expected = "does not run here")]
fn only_the_running_thread_can_be_left() {
    on_kernel(|| {
        let main = Arc::new(Thread::current());
        let (back, slot) = (main.clone(), Arc::new(Once::<Arc<Thread>>::new()));
        let me = slot.clone();
        let thread = Arc::<Thread>::from(
            Thread::new(Box::new(move || {
                loop {
                    switch(me.get().unwrap(), &back);
                }
            }))
            .unwrap(),
        );
        assert!(slot.set(thread.clone()).is_ok());
        switch(&main, &thread);
        let third = Thread::new(Box::new(|| {})).unwrap();
        switch(&thread, &third);
    });
}

#[test]
#[should_panic(expected = "switch while 1 lock(s)")]
fn no_sleep_under_a_lock() {
    on_kernel(|| {
        let main = Thread::current();
        let thread = Thread::new(Box::new(|| {})).unwrap();
        let lock = SpinLock::new(LOW, ());
        let _g = lock.lock();
        switch(&main, &thread);
    });
}

#[test]
fn windows_are_shared_memory() {
    let kernel = KernelConfig { cpus: 1, memory: 4 << 20 };
    let config =
        MachineConfig { kernels: alloc::vec![kernel; 2], archive: b"cpio".to_vec(), ..MachineConfig::default() };
    let machine = Machine::new(&config);
    for k in 0..2 {
        machine.enter(k, 0, || crate::boot::init(machine.boot_info(k)).unwrap());
    }
    let offered = machine.enter(1, 0, || SharedWindow::offer(FrameRun::alloc(1).unwrap()));
    let range = crate::addr::PhysRange { start: offered.phys(), len: offered.len() as u64 };
    machine.enter(0, 0, || {
        let window = SharedWindow::open(WindowToken::new(range).unwrap()).unwrap();
        window.write(100, b"hello");
        let long: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
        window.write(1000, &long);
        let mut other = long.clone();
        other[2500] ^= 1;
        window.update(1000, &other);
        let mut there = alloc::vec![0; 3000];
        window.read(1000, &mut there);
        assert!(there == other, "it is what was to be copied in, wherever that differs");
        window.publish(100, 5);
        window.atomic_u32(0).store(1, SeqCst);
        assert!(!window.is_own());
        assert_eq!(crate::window::archive().unwrap(), b"cpio");
        let own = crate::boot::info().owned()[0];
        assert!(SharedWindow::reserved(crate::addr::PhysRange { len: 4096, ..own }).is_ok());
        assert!(SharedWindow::reserved(crate::boot::info().free()[0]).is_err());
        assert!(crate::cpuref::CpuRef::new(0).is_err());
        crate::cpuref::CpuRef::new(1).unwrap().doorbell();
    });
    machine.enter(1, 0, || {
        let mut buf = [0; 5];
        assert_eq!(offered.atomic_u32(0).load(SeqCst), 1);
        offered.refresh(100, 5);
        offered.read(100, &mut buf);
        assert_eq!(&buf, b"hello");
        drop(offered);
    });
}

struct Count {
    timers: AtomicU64,
    kicks: AtomicU64,
}

impl Handlers for Arc<Count> {
    fn timer(&self) {
        self.timers.fetch_add(1, SeqCst);
    }
    fn kick(&self) {
        self.kicks.fetch_add(1, SeqCst);
    }
    fn doorbell(&self) {}
    fn irq(&self, _line: u32) {}
}

#[test]
fn time_passes_for_an_idle_cpu() {
    on_kernel(|| {
        let count = Arc::new(Count { timers: AtomicU64::new(0), kicks: AtomicU64::new(0) });
        assert!(crate::boot::install(Box::new(count.clone())));
        let start = crate::time::now();
        crate::time::set_deadline(Some(start + 1_000_000));
        crate::cpu::breathe();
        assert_eq!(count.timers.load(SeqCst), 0);
        crate::cpu::idle_wait();
        assert_eq!(count.timers.load(SeqCst), 1);
        assert!(crate::time::now() >= start + 1_000_000);
        let ahead = crate::time::now() + 5_000_000;
        assert!(crate::time::step_forward(ahead) > 0);
        assert!(crate::time::now() >= ahead && crate::time::step_forward(start) == 0);
        // From before the step, and less than it: it has passed, and is not for ever away.
        crate::time::set_deadline(Some(1));
        crate::cpu::breathe();
        assert_eq!(count.timers.load(SeqCst), 2);
        crate::cpu::kick(0);
        crate::cpu::breathe();
        assert_eq!(count.kicks.load(SeqCst), 1);
    });
}

#[test]
fn a_script_is_a_user_program() {
    on_kernel(|| {
        let machine = with_here();
        let space = space_with(&[1], Prot::READ | Prot::WRITE);
        let at = machine(Arc::new(|cpu| {
            let got = cpu.syscall(1, [10, 20, 0, 0, 0, 0]);
            cpu.store(0x1000, &got.to_le_bytes());
            // A page that is not there.
            cpu.store(0x5000, b"x");
            let mut buf = [0; 8];
            cpu.load(0x1000, &mut buf);
            i64::from_le_bytes(buf) as i32 + 1
        }));
        let mut user = UserContext::new(at, UserAddr(0x2000));
        assert_eq!(user.run(), Exit::Syscall);
        assert_eq!((user.syscall_nr(), user.syscall_args()[1]), (1, 20));
        user.set_result(41);
        match user.run() {
            Exit::Fault(f) => assert_eq!(f.addr, UserAddr(0x5000)),
            other => panic!("{other:?}"),
        }
        space.map(UserAddr(0x5000), MapFrame::Own(Frame::alloc(true).unwrap()), Prot::READ | Prot::WRITE).unwrap();
        assert_eq!(user.run(), Exit::Syscall);
        assert_eq!((user.syscall_nr(), user.syscall_args()[0]), (231, 42));
        crate::space::deactivate();
    });
}

/// Registers programs on the machine of this thread.
fn with_here() -> impl Fn(hal_host::Program) -> UserAddr {
    hal_host::program_here
}

#[test]
fn a_simulation_repeats_by_seed() {
    fn run(seed: u64) -> (Outcome, Vec<usize>) {
        let kernel = KernelConfig { cpus: 1, memory: 1 << 20 };
        let config =
            MachineConfig { kernels: alloc::vec![kernel; 3], archive: Vec::new(), seed, ..MachineConfig::default() };
        let machine = Arc::new(Machine::simulated(&config));
        let infos: Vec<_> = (0..3).map(|k| machine.boot_info(k)).collect();
        let order = Arc::new(Mutex::new(Vec::new()));
        let left = Arc::new(AtomicUsize::new(3));
        let log = order.clone();
        let outcome = machine.simulate(10_000, move |k| {
            crate::boot::init(infos[k]).unwrap();
            for _ in 0..10 {
                log.lock().unwrap().push(k);
                crate::cpu::breathe();
            }
            if left.fetch_sub(1, SeqCst) == 1 {
                crate::cpu::power_off(true);
            }
            loop {
                crate::cpu::idle_wait();
            }
        });
        let order = order.lock().unwrap().clone();
        (outcome, order)
    }
    let (a, b, c) = (run(1), run(1), run(2));
    assert_eq!(a, b);
    assert_eq!(a.0, Outcome::PoweredOff(true));
    assert_eq!(a.1.len(), 30);
    assert_ne!(a.1, c.1);
}

#[test]
#[should_panic(expected = "on purpose")]
fn a_panic_on_a_simulated_cpu_reaches_the_test() {
    let machine = Machine::simulated(&MachineConfig::default());
    machine.simulate(100, |_| panic!("on purpose"));
}

#[test]
fn a_kernel_is_fenced_and_started_again() {
    use crate::cpuref::{BootToken, CpuRef, FenceToken, Fenced};
    let kernel = KernelConfig { cpus: 1, memory: 1 << 20 };
    let machine = Arc::new(Machine::simulated(&MachineConfig {
        kernels: alloc::vec![kernel; 2],
        archive: Vec::new(),
        seed: 3,
        ..MachineConfig::default()
    }));
    machine.hold(1);
    let starts = Arc::new(Mutex::new(Vec::new()));
    let (log, here) = (starts.clone(), Arc::downgrade(&machine));
    let outcome = machine.simulate(100_000, move |k| {
        let info = here.upgrade().unwrap().boot_info(k);
        crate::boot::init(info).unwrap();
        log.lock().unwrap().push((k, info.incarnation));
        if k == 1 {
            loop {
                crate::cpu::breathe();
            }
        }
        let peer = CpuRef::new(1).unwrap();
        for n in 1..=3 {
            peer.start(&BootToken::for_boot(), crate::addr::PhysAddr(0), 0).unwrap();
            assert!(peer.start(&BootToken::for_boot(), crate::addr::PhysAddr(0), 0).is_err(), "it runs");
            while log.lock().unwrap().last() != Some(&(1, n)) {
                crate::cpu::breathe();
            }
            assert_eq!(peer.fence(&FenceToken::for_fence()), Fenced::Reset);
        }
        crate::cpu::power_off(true);
    });
    assert_eq!(outcome, Outcome::PoweredOff(true));
    assert_eq!(*starts.lock().unwrap(), [(0, 1), (1, 1), (1, 2), (1, 3)]);
}

#[test]
fn simulated_cpus_interleave_at_locks() {
    let config = MachineConfig {
        kernels: alloc::vec![KernelConfig { cpus: 3, memory: 1 << 20 }],
        archive: Vec::new(),
        seed: 4,
        ..MachineConfig::default()
    };
    let machine = Arc::new(Machine::simulated(&config));
    let info = machine.boot_info(0);
    static ORDER: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    static LOCK: SpinLock<usize> = SpinLock::new(HIGH, 0);
    fn work(slot: usize) -> ! {
        for _ in 0..20 {
            let mut n = LOCK.lock();
            *n += 1;
            ORDER.lock().unwrap().push(slot);
            let all = *n == 60;
            drop(n);
            if all {
                crate::cpu::power_off(true);
            }
        }
        loop {
            crate::cpu::idle_wait();
        }
    }
    let outcome = machine.simulate(100_000, move |_| {
        crate::boot::init(info).unwrap();
        for slot in 1..3 {
            crate::cpu::start(slot, work).unwrap();
        }
        work(0);
    });
    assert_eq!(outcome, Outcome::PoweredOff(true));
    let order = ORDER.lock().unwrap();
    let changes = order.windows(2).filter(|w| w[0] != w[1]).count();
    assert!(order.len() == 60 && changes > 3, "{changes} changes in {order:?}");
}
