//! What `hal` gets.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};

use hal_api::{
    Aarch64, BootInfo, Fenced, Ipi, NotMapped, PhysAddr, PhysRange, Platform, Refused, Upcalls, UserAddr, WindowAttr,
};

use crate::context::{self, Context};
use crate::user::User;
use crate::{clock, console, copy, cpu, exit, gic, paging, percpu, smp, trap};

/// A real (or emulated) aarch64 machine.
#[derive(Debug)]
pub struct Machine;

static INSTANCE: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

// SAFETY: see the modules; each function does what the trait's sentence says.
unsafe impl Platform for Machine {
    type Format = Aarch64;
    type User = User;
    type Context = Context;

    const COHERENT: bool = true;
    const BROADCAST_TLBI: bool = true;
    const ELF_MACHINE: u16 = 183;
    const STACK_SIZE: usize = paging::STACK_SIZE;

    unsafe fn init(info: &BootInfo, up: &'static dyn Upcalls) {
        // SAFETY: once, before other CPUs run and interrupts are let in.
        unsafe { trap::set_upcalls(up) };
        if let Err(why) = crate::boot::init(info) {
            panic!("{}", why.0);
        }
    }

    fn start_slot(slot: usize, entry: fn(usize) -> !) -> Result<(), Refused> {
        smp::start_own(slot, entry)
    }

    #[inline]
    fn instance() -> *const () {
        INSTANCE.load(Ordering::Acquire)
    }

    fn set_instance(anchor: *const ()) {
        INSTANCE.store(anchor.cast_mut(), Ordering::Release);
    }

    #[inline]
    fn slot() -> usize {
        percpu::slot()
    }

    #[inline]
    fn breathe() {
        // SAFETY: pending interrupts come in after the barrier; the caller holds no lock (C1).
        unsafe { core::arch::asm!("msr daifclr, #2", "isb", "msr daifset, #2", options(nostack)) };
    }

    fn idle_wait() {
        // SAFETY: a pending interrupt ends `wfi` also while it is masked; it is let in after that.
        unsafe { core::arch::asm!("dsb sy", "wfi", "msr daifclr, #2", "isb", "msr daifset, #2", options(nostack)) };
    }

    #[inline]
    fn interrupts_off() -> bool {
        cpu::register!("daif") & 1 << 7 != 0
    }

    fn send_ipi(slot: usize, kind: Ipi) {
        let Some(cpu) = percpu::of(slot) else { return };
        if !cpu.online.load(Ordering::Acquire) {
            return;
        }
        let id = match kind {
            Ipi::Kick => gic::KICK,
            Ipi::Shootdown => gic::SHOOTDOWN,
            Ipi::Stop => gic::STOP,
        };
        gic::send(cpu.hardware.load(Ordering::Relaxed) as u32, id);
    }

    #[inline]
    fn relax() {
        crate::relax();
    }

    fn entropy() -> u64 {
        cpu::entropy()
    }

    fn halt() -> ! {
        exit::halt()
    }

    fn power_off(clean: bool) -> ! {
        exit::exit(if clean { 33 } else { 1 })
    }

    fn reset() -> ! {
        exit::reset()
    }

    #[inline]
    fn now() -> u64 {
        clock::now()
    }

    fn set_deadline(at: Option<u64>) {
        clock::set_deadline(at);
    }

    fn counter_scale() -> u64 {
        clock::scale()
    }

    fn vdso_image() -> &'static [u8] {
        crate::vdso::image()
    }

    fn vdso_sigreturn() -> Option<u64> {
        Some(crate::vdso::sigreturn())
    }

    fn log_write(bytes: &[u8]) {
        console::write(bytes);
    }

    fn image_address(at: *const u8) -> Option<PhysAddr> {
        Some(PhysAddr(paging::image_phys(at)))
    }

    #[inline]
    fn linear(at: PhysAddr) -> NonNull<u8> {
        // SAFETY: the linear map does not begin at 0.
        unsafe { NonNull::new_unchecked((paging::LINEAR + at.0) as *mut u8) }
    }

    unsafe fn map_window(range: PhysRange, attr: WindowAttr) -> Result<NonNull<u8>, Refused> {
        paging::map_window(range, attr)
    }

    unsafe fn unmap_window(range: PhysRange) {
        paging::unmap_window(range);
    }

    fn windows() -> usize {
        paging::windows()
    }

    #[inline]
    unsafe fn zero_page(page: NonNull<u8>) {
        // SAFETY: a whole page of the caller's.
        unsafe { crate::page::zero(page.as_ptr()) };
    }

    #[inline]
    unsafe fn copy_page(to: NonNull<u8>, from: NonNull<u8>) {
        // SAFETY: whole pages, `to` is the caller's.
        unsafe { crate::page::copy(to.as_ptr(), from.as_ptr()) };
    }

    fn kernel_root() -> Option<PhysAddr> {
        None
    }

    #[inline]
    unsafe fn activate(root: Option<PhysAddr>) {
        paging::activate(root);
    }

    #[inline]
    fn flush(from: UserAddr, pages: usize) {
        if pages > 32 {
            return Self::flush_all();
        }
        paging::forget_user(from.0, pages);
    }

    #[inline]
    fn flush_all() {
        paging::forget_users();
    }

    #[inline]
    fn sync_code(at: NonNull<u8>, len: usize) {
        crate::page::sync_code(at.as_ptr(), len);
    }

    #[inline]
    unsafe fn user_read(to: *mut u8, at: UserAddr, len: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { copy::read(to, at.0, len) }
    }

    #[inline]
    unsafe fn user_write(at: UserAddr, from: *const u8, len: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { copy::write(at.0, from, len) }
    }

    fn user_zero(at: UserAddr, len: usize) -> usize {
        copy::zero(at.0, len)
    }

    fn user_load_u32(at: UserAddr) -> Result<u32, NotMapped> {
        copy::load_u32(at.0).ok_or(NotMapped)
    }

    fn user_cas_u32(at: UserAddr, expected: u32, new: u32) -> Result<u32, NotMapped> {
        copy::cas_u32(at.0, expected, new).ok_or(NotMapped)
    }

    unsafe fn user_read_str(to: *mut u8, at: UserAddr, len: usize) -> Result<Option<usize>, usize> {
        // SAFETY: the caller's promise.
        unsafe { copy::read_str(to, at.0, len) }
    }

    fn stack_alloc() -> Option<usize> {
        paging::stack_alloc()
    }

    unsafe fn stack_free(top: usize) {
        paging::stack_free(top);
    }

    unsafe fn context_new(stack_top: usize, entry: fn(usize) -> !, arg: usize) -> Context {
        // SAFETY: the caller's promise.
        unsafe { Context::new(stack_top, entry, arg) }
    }

    fn context_current() -> Context {
        Context::current()
    }

    #[inline]
    unsafe fn switch(from: *mut Context, to: *mut Context) {
        // SAFETY: the caller's promise.
        unsafe { context::switch(from, to) };
    }

    fn doorbell(hardware: u32) {
        gic::send(hardware, gic::DOORBELL);
    }

    unsafe fn start_peer(hardware: u32, page: PhysAddr, arg: u64) -> Result<(), Refused> {
        // SAFETY: the caller's promise.
        unsafe { smp::start_peer(hardware, page, arg) }
    }

    unsafe fn fence_peer(hardware: u32) -> Fenced {
        // SAFETY: the caller's promise.
        unsafe { smp::fence_peer(hardware) }
    }

    unsafe fn port_read(_port: u16, size: u8) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
    }

    unsafe fn port_write(_port: u16, _size: u8, _value: u32) {}

    fn irq_enable(line: u32) -> Result<(), Refused> {
        gic::enable_line(line)
    }

    fn irq_disable(line: u32) {
        gic::disable_line(line);
    }

    fn msi_alloc(slot: usize, device: u32) -> Result<(u32, u64, u32), Refused> {
        gic::msi_alloc(slot, device)
    }

    fn msi_free(line: u32) {
        gic::msi_free(line);
    }

    fn hwcap() -> [u64; 2] {
        [cpu::hwcap(), 0]
    }

    fn describe_cpu(out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        cpu::describe(out)
    }
}
