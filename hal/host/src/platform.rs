//! The host as a platform.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use hal_api::{
    BootInfo, Fenced, Ipi, NotMapped, PAGE_SIZE, PhysAddr, PhysRange, Platform, Prot, Refused, Upcalls, UserAddr,
    WindowAttr, X86_64,
};

use crate::coroutine::{Coroutine, End, my_gate};
use crate::cpu::{self, current, deliver, with};
use crate::machine::{lock, start_cpu, start_kernel};
use crate::script::HostUser;
use crate::walk::{pieces, translate};

/// The platform of a host process.
#[derive(Debug)]
pub struct Host;

/// A suspended kernel thread: an OS thread at its gate.
pub struct HostContext(Coroutine);

// SAFETY: memory comes from the machine's arena, checked at each use; everything else is plain safe code with the promised effects.
unsafe impl Platform for Host {
    type Format = X86_64;
    type User = HostUser;
    type Context = HostContext;

    const COHERENT: bool = true;
    const BROADCAST_TLBI: bool = false;
    const ELF_MACHINE: u16 = 62;
    const STACK_SIZE: usize = 64 << 10;

    unsafe fn init(_info: &BootInfo, up: &'static dyn Upcalls) {
        with(|c| {
            let _ = c.kernel().up.set(up);
        });
    }

    fn start_slot(slot: usize, entry: fn(usize) -> !) -> Result<(), Refused> {
        with(|c| {
            if slot >= c.kernel().cpus.len() {
                return Err(Refused("no such CPU"));
            }
            if c.machine.driver.is_none() {
                return Err(Refused("CPUs of a free machine are entered, not started"));
            }
            let id = cpu::Identity { slot, ..c.clone() };
            start_cpu(&id, Box::new(move || entry(slot)));
            Ok(())
        })
    }

    fn instance() -> *const () {
        cpu::anchor()
    }

    fn set_instance(anchor: *const ()) {
        with(|c| c.kernel().instance.store(anchor.cast_mut(), SeqCst));
    }

    fn slot() -> usize {
        cpu::slot()
    }

    fn breathe() {
        if let Some(c) = current() {
            deliver(&c);
            if c.machine.driver.is_some() {
                cpu::let_go();
            }
        }
    }

    fn idle_wait() {
        cpu::idle();
    }

    fn interrupts_off() -> bool {
        true
    }

    fn send_ipi(slot: usize, kind: Ipi) {
        let bit = match kind {
            Ipi::Kick => cpu::KICK,
            Ipi::Shootdown => cpu::SHOOTDOWN,
            Ipi::Stop => cpu::STOP,
        };
        with(|c| c.kernel().cpus[slot].pending.fetch_or(bit, SeqCst));
    }

    fn relax() {
        cpu::let_go();
    }

    fn entropy() -> u64 {
        with(|c| c.machine.chance.entropy())
    }

    fn halt() -> ! {
        with(|c| c.kernel().stopped.store(true, SeqCst));
        cpu::stop_for_good()
    }

    fn power_off(clean: bool) -> ! {
        with(|c| *lock(&c.machine.off) = Some(clean));
        cpu::stop_for_good()
    }

    fn reset() -> ! {
        Self::power_off(false)
    }

    fn now() -> u64 {
        with(|c| c.machine.now())
    }

    fn set_deadline(at: Option<u64>) {
        with(|c| c.cpu().deadline.store(at.unwrap_or(u64::MAX), SeqCst));
    }

    fn counter_scale() -> u64 {
        1 << 32
    }

    fn vdso_image() -> &'static [u8] {
        &[]
    }

    fn log_write(bytes: &[u8]) {
        if let Some(c) = current() {
            lock(&c.kernel().log).extend_from_slice(bytes);
            c.machine.trace.bytes(bytes);
            if c.machine.trace.prints() {
                print!("{}", String::from_utf8_lossy(bytes));
            }
        }
    }

    fn image_address(_: *const u8) -> Option<PhysAddr> {
        None
    }

    fn linear(at: PhysAddr) -> NonNull<u8> {
        with(|c| {
            assert!(c.kernel().range.contains(at), "{at:?} is not this kernel's memory");
            c.machine.at(at, 1)
        })
    }

    unsafe fn map_window(range: PhysRange, _attr: WindowAttr) -> Result<NonNull<u8>, Refused> {
        Ok(with(|c| c.machine.at(range.start, range.len as usize)))
    }

    unsafe fn unmap_window(_range: PhysRange) {}

    fn windows() -> usize {
        // They are pieces of one arena, which nobody maps.
        0
    }

    unsafe fn zero_page(page: NonNull<u8>) {
        // SAFETY: a whole page, by the contract.
        unsafe { page.as_ptr().write_bytes(0, PAGE_SIZE) };
    }

    unsafe fn copy_page(to: NonNull<u8>, from: NonNull<u8>) {
        // SAFETY: whole pages, by the contract.
        unsafe { to.as_ptr().copy_from(from.as_ptr(), PAGE_SIZE) };
    }

    fn kernel_root() -> Option<PhysAddr> {
        None
    }

    unsafe fn activate(root: Option<PhysAddr>) {
        with(|c| c.cpu().root.store(root.map_or(0, |r| r.0), SeqCst));
    }

    fn flush(_from: UserAddr, _pages: usize) {}
    fn flush_all() {}
    fn sync_code(_at: NonNull<u8>, _len: usize) {}

    unsafe fn user_read(to: *mut u8, at: UserAddr, len: usize) -> usize {
        cpu::preemption_point();
        with(|c| {
            // SAFETY: `p` is valid for `n` bytes of the arena, `to` for `len`.
            pieces(c, at, len, Prot::READ, |p, off, n| unsafe { to.add(off).copy_from(p, n) })
        })
    }

    unsafe fn user_write(at: UserAddr, from: *const u8, len: usize) -> usize {
        cpu::preemption_point();
        with(|c| {
            // SAFETY: `p` is valid for `n` bytes of the arena, `from` for `len`.
            pieces(c, at, len, Prot::WRITE, |p, off, n| unsafe { p.copy_from(from.add(off), n) })
        })
    }

    fn user_zero(at: UserAddr, len: usize) -> usize {
        cpu::preemption_point();
        with(|c| {
            // SAFETY: `p` is valid for `n` bytes of the arena.
            pieces(c, at, len, Prot::WRITE, |p, _, n| unsafe { p.write_bytes(0, n) })
        })
    }

    fn user_load_u32(at: UserAddr) -> Result<u32, NotMapped> {
        cpu::preemption_point();
        let p = with(|c| translate(c, at, Prot::READ)).ok_or(NotMapped)?;
        // SAFETY: an aligned word of the arena.
        Ok(unsafe { &*p.cast::<AtomicU32>() }.load(SeqCst))
    }

    fn user_cas_u32(at: UserAddr, expected: u32, new: u32) -> Result<u32, NotMapped> {
        cpu::preemption_point();
        let p = with(|c| translate(c, at, Prot::WRITE)).ok_or(NotMapped)?;
        // SAFETY: an aligned word of the arena.
        let word = unsafe { &*p.cast::<AtomicU32>() };
        Ok(word.compare_exchange(expected, new, SeqCst, SeqCst).unwrap_or_else(|found| found))
    }

    unsafe fn user_read_str(to: *mut u8, at: UserAddr, len: usize) -> Result<Option<usize>, usize> {
        let mut end = None;
        let done = with(|c| {
            pieces(c, at, len, Prot::READ, |p, off, n| {
                if end.is_none() {
                    // SAFETY: `p` is valid for `n` bytes of the arena, `to` for `len`.
                    let bytes = unsafe {
                        to.add(off).copy_from(p, n);
                        std::slice::from_raw_parts(to.add(off), n)
                    };
                    end = bytes.iter().position(|&b| b == 0).map(|i| off + i);
                }
            })
        });
        match end {
            Some(n) => Ok(Some(n)),
            None if done == len => Ok(None),
            None => Err(done),
        }
    }

    fn stack_alloc() -> Option<usize> {
        Some(with(|c| c.machine.new_stack()))
    }

    unsafe fn stack_free(_top: usize) {}

    unsafe fn context_new(_stack_top: usize, entry: fn(usize) -> !, arg: usize) -> HostContext {
        let thread = with(|c| {
            let thread = Coroutine::new(&c.machine, End::Forgotten, Box::new(move || entry(arg)));
            c.machine.watch(thread.gate());
            thread
        });
        HostContext(thread)
    }

    fn context_current() -> HostContext {
        HostContext(Coroutine::current())
    }

    unsafe fn switch(from: *mut HostContext, to: *mut HostContext) {
        // SAFETY: both live, by the contract; each is touched by one CPU at a time.
        let (from, to) = unsafe { (&mut *from, &mut *to) };
        from.0.adopt_current();
        let identity = current();
        cpu::set_current(None);
        to.0.resume(identity);
        my_gate().wait();
    }

    fn doorbell(hardware: u32) {
        with(|c| {
            for k in &c.machine.kernels {
                if let Some(cpu) = hardware.checked_sub(k.first_cpu).and_then(|s| k.cpus.get(s as usize)) {
                    if c.machine.driver.is_some() {
                        let at = c.machine.clock.load(SeqCst) + c.machine.chance.bell();
                        cpu.bell.fetch_min(at, SeqCst);
                    } else {
                        cpu.pending.fetch_or(cpu::DOORBELL, SeqCst);
                    }
                    return;
                }
            }
        });
    }

    unsafe fn start_peer(hardware: u32, _page: PhysAddr, _arg: u64) -> Result<(), Refused> {
        with(|c| {
            let kernel = c.machine.kernel_of(hardware).ok_or(Refused("no such CPU"))?;
            start_kernel(&c.machine, kernel, c.kernel).map_err(Refused)
        })
    }

    unsafe fn fence_peer(hardware: u32) -> Fenced {
        with(|c| match c.machine.kernel_of(hardware) {
            Some(k) => {
                c.machine.kernels[k].stopped.store(true, SeqCst);
                Fenced::Reset
            }
            None => Fenced::Lost,
        })
    }

    unsafe fn port_read(_port: u16, size: u8) -> u32 {
        match size {
            1 => 0xff,
            2 => 0xffff,
            _ => u32::MAX,
        }
    }

    unsafe fn port_write(_port: u16, _size: u8, _value: u32) {}

    fn irq_enable(_line: u32) -> Result<(), Refused> {
        Ok(())
    }

    fn irq_disable(_line: u32) {}

    fn msi_alloc(_slot: usize, _device: u32) -> Result<(u32, u64, u32), Refused> {
        Err(Refused("the host has no message-signalled interrupts"))
    }

    fn msi_free(_line: u32) {}

    fn hwcap() -> [u64; 2] {
        [0; 2]
    }

    fn describe_cpu(out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        out.write_str("model name\t: simulated\nflags\t\t: fpu\n")
    }
}
