//! The boundary between `hal/core` and an ISA (or the host).

use core::ptr::NonNull;

use crate::addr::{PhysAddr, PhysRange, UserAddr};
use crate::boot::BootInfo;
use crate::page::PageFormat;
use crate::user::UserRegs;

/// Interrupts between CPUs of one kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ipi {
    /// Look at your run queue.
    Kick,
    /// Serve TLB shootdowns.
    Shootdown,
    /// Stop for good (power off, panic of the kernel).
    Stop,
}

/// What became of a fenced CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fenced {
    /// It is in reset and executes nothing.
    Reset,
    /// It acknowledged from its parking stub.
    Parked,
    /// It did not answer; its memory and devices must be quarantined.
    Lost,
}

/// How a window is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowAttr {
    /// Normal cacheable memory, read and write.
    Memory,
    /// Normal cacheable memory, read only.
    ReadOnly,
    /// Device registers: uncached, strongly ordered.
    Device,
}

/// The address is not mapped, or not for this access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotMapped;

/// The platform cannot do this (no such CPU, no such line, no address space left).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused(pub &'static str);

/// How a platform calls up. `hal/core` hands its implementation to [`Platform::init`]. All are called with interrupts off on the
/// CPU concerned, at a point where that CPU holds no lock (contract C1), after the interrupt controller was told (EOI).
pub trait Upcalls: Sync {
    /// The deadline of this CPU has passed.
    fn timer(&self);
    /// An IPI of this kernel.
    fn ipi(&self, kind: Ipi);
    /// A peer kernel rang.
    fn doorbell(&self);
    /// A device line or message-signalled vector, numbered as [`Platform::irq_enable`] and [`Platform::msi_alloc`] did.
    fn irq(&self, line: u32);
    /// A zeroed frame for the platform's own page tables and stacks (windows, kernel stacks); not before [`Platform::init`] returned.
    fn frame_alloc(&self) -> Option<PhysAddr>;
    /// Gives back a frame from `frame_alloc`.
    fn frame_free(&self, at: PhysAddr);
    /// A fault in kernel mode outside user copies, with a sentence about it. Must not return.
    fn kernel_fault(&self, what: core::fmt::Arguments<'_>, ip: u64, frame_pointer: u64) -> !;
}

/// What an ISA or the host provides. One type per build implements it; all functions are associated ones, because the context
/// (which kernel, which CPU) is found by the platform itself (GS base, TPIDR_EL1, `sscratch`, a thread-local).
///
/// Unless a function says otherwise it is called with interrupts off and is *not* called before [`Platform::init`].
///
/// # Safety
/// `hal/core` relies on every sentence below for memory safety.
pub unsafe trait Platform: Sized + 'static {
    /// The page-table format of the user half.
    type Format: PageFormat;
    /// The registers of a user thread.
    type User: UserRegs;
    /// A kernel thread's saved state. Its address does not change while it is suspended.
    type Context: Send + 'static;

    /// Whether shared memory of peers needs `publish`/`refresh` (false on x86-64).
    const COHERENT: bool;
    /// Whether a local TLB invalidation reaches all CPUs of this kernel by hardware (aarch64), so that no IPI is needed.
    const BROADCAST_TLBI: bool;
    /// The ELF machine number of the programs that run here (`EM_*`).
    const ELF_MACHINE: u16;
    /// Bytes that a kernel stack needs, a power of two, guard page not counted.
    const STACK_SIZE: usize;
    /// Where the pair of saved frame pointer and return address is: so many bytes before where a frame pointer points (riscv64), or right there.
    const FRAME_RECORD: usize = 0;

    // ---- Instance and CPUs ----

    /// Once per kernel on its boot CPU, after the early heap works and before anything else here: per-CPU block, descriptor
    /// tables, interrupt controller, clock, linear map of `info.owned`, own page-table root. Handlers run only after
    /// interrupts were let in ([`Platform::breathe`], [`Platform::idle_wait`] or user mode).
    ///
    /// # Safety
    /// Called once per kernel; `info` tells the truth about what memory is ours and unused.
    unsafe fn init(info: &BootInfo, up: &'static dyn Upcalls);
    /// Starts the CPU of `slot` of this kernel; it calls `entry(slot)` on a stack of its own, with interrupts off. May be called at any time
    /// after `init`. Returns when the request was sent.
    fn start_slot(slot: usize, entry: fn(usize) -> !) -> Result<(), Refused>;
    /// This kernel's anchor, as set by [`Platform::set_instance`]; null before.
    fn instance() -> *const ();
    /// Stores the anchor of this kernel (one per kernel, not per CPU).
    fn set_instance(anchor: *const ());
    /// The index of this CPU in this kernel, `0..n_cpus`. 0 before `init`. As cheap as one load.
    fn slot() -> usize;
    /// Lets pending interrupts in: enable, at least one instruction, disable.
    fn breathe();
    /// Enables interrupts and halts until one has been handled; returns with interrupts off. An interrupt that became pending before
    /// the call ends the wait at once (no lost wake-up).
    fn idle_wait();
    /// Whether interrupts are off now.
    fn interrupts_off() -> bool;
    /// Sends `kind` to another CPU of this kernel: physical destination, one target.
    fn send_ipi(slot: usize, kind: Ipi);
    /// One turn of a spin loop (x86: `nop`; see the emulator notes). On the host: lets another simulated CPU run.
    fn relax();
    /// 64 unpredictable bits; the quality of the best hardware source there is (RDSEED, RDRAND, RNDR, jitter).
    fn entropy() -> u64;
    /// Stops this CPU for good.
    fn halt() -> !;
    /// Switches the machine off: clean or as a failure.
    fn power_off(clean: bool) -> !;
    /// Resets the machine.
    fn reset() -> !;

    // ---- Time ----

    /// Nanoseconds since the machine was switched on, the same for all its kernels up to a measured skew; never goes back on one CPU.
    fn now() -> u64;
    /// Asks for [`Upcalls::timer`] on this CPU at `at` (in time of [`Platform::now`]), replacing the last request; `None` cancels. A time in
    /// the past fires at once.
    fn set_deadline(at: Option<u64>);

    /// Nanoseconds per tick of the counter that programs can read, times 2^32.
    fn counter_scale() -> u64;
    /// The image of the vDSO, whole pages; empty if there is none. It finds the clock's page right in front of itself.
    fn vdso_image() -> &'static [u8];
    /// From its begin to the code that signal handlers of programs without a restorer of their own return to.
    fn vdso_sigreturn() -> Option<u64> {
        None
    }

    // ---- Early console and log ----

    /// Writes bytes to this kernel's log sink. Callable at any time, in any context, even before `init`.
    fn log_write(bytes: &[u8]);

    // ---- Memory ----

    /// Where own memory is reached. Only called for addresses inside `info.owned`. Inline arithmetic.
    fn linear(at: PhysAddr) -> NonNull<u8>;
    /// Where a byte of the image's data is in physical memory, which the linear map has too; `None` where an image is a part of a process.
    fn image_address(at: *const u8) -> Option<PhysAddr>;
    /// Maps `range` (peer memory, archive, device registers; never own memory handed out as frames) and returns where. Page-aligned. A
    /// range that is mapped already (same attributes) gives the same address.
    ///
    /// # Safety
    /// The caller makes sure that the range is this kernel's to reach.
    unsafe fn map_window(range: PhysRange, attr: WindowAttr) -> Result<NonNull<u8>, Refused>;
    /// Takes the mapping back, on all CPUs of this kernel before it returns.
    ///
    /// # Safety
    /// Nobody uses the address any more.
    unsafe fn unmap_window(range: PhysRange);
    /// How many windows are mapped.
    fn windows() -> usize;
    /// Fills a page with zeros.
    ///
    /// # Safety
    /// `page` is a whole writable page that nobody else reads or writes.
    unsafe fn zero_page(page: NonNull<u8>);
    /// Copies a page.
    ///
    /// # Safety
    /// Both are whole pages in the linear map or a window; `to` is nobody else's.
    unsafe fn copy_page(to: NonNull<u8>, from: NonNull<u8>);

    // ---- Address spaces ----

    /// The root table whose kernel half every user root shares; `None` where the kernel half has its own root register (aarch64) or there is none
    /// (host). Its top-level entries never change after `init`.
    fn kernel_root() -> Option<PhysAddr>;
    /// Makes `root` the user address space of this CPU and drops what its TLB knew of the last one. `None`: no user half.
    ///
    /// # Safety
    /// `root` stays a valid table until another one is active here.
    unsafe fn activate(root: Option<PhysAddr>);
    /// Drops TLB entries of the active user address space for `pages` pages from `from`, on this CPU (on all with `BROADCAST_TLBI`).
    fn flush(from: UserAddr, pages: usize);
    /// Drops all user TLB entries of this CPU.
    fn flush_all();
    /// Makes new instructions visible after code was written to `range` of the linear map (no-op on x86-64).
    fn sync_code(at: NonNull<u8>, len: usize);

    // ---- User memory: in the active address space, `[at, at + len)` inside the user half (checked by the caller) ----

    /// Copies from user memory; the number of bytes copied before the first page that is not readable. `len` may be 0.
    ///
    /// # Safety
    /// `to` is writable for `len` bytes.
    unsafe fn user_read(to: *mut u8, at: UserAddr, len: usize) -> usize;
    /// Copies to user memory; the number of bytes copied before the first page that is not writable.
    ///
    /// # Safety
    /// `from` is readable for `len` bytes.
    unsafe fn user_write(at: UserAddr, from: *const u8, len: usize) -> usize;
    /// Fills user memory with zeros; the number of bytes filled.
    fn user_zero(at: UserAddr, len: usize) -> usize;
    /// Atomic load of an aligned word.
    fn user_load_u32(at: UserAddr) -> Result<u32, NotMapped>;
    /// Atomic compare-exchange of an aligned word; the value found.
    fn user_cas_u32(at: UserAddr, expected: u32, new: u32) -> Result<u32, NotMapped>;
    /// Length of the string at `at` (without its NUL) copied to `to`: `Ok(Some(n))` found NUL at `n`; `Ok(None)`: `len` bytes without one;
    /// `Err(n)`: `n` bytes, then a page that is not readable.
    ///
    /// # Safety
    /// `to` is writable for `len` bytes.
    unsafe fn user_read_str(to: *mut u8, at: UserAddr, len: usize) -> Result<Option<usize>, usize>;

    // ---- Kernel threads ----

    /// A kernel stack of [`Platform::STACK_SIZE`] bytes with an unmapped page below: the address of its top. The host, whose threads have stacks of
    /// their own, returns a number that is only a name.
    fn stack_alloc() -> Option<usize>;
    /// Gives it back.
    ///
    /// # Safety
    /// From [`Platform::stack_alloc`], and no context uses it any more.
    unsafe fn stack_free(top: usize);
    /// A context that will call `entry(arg)` on the stack ending at `stack_top` when first switched to.
    ///
    /// # Safety
    /// The stack stays until the context is dropped.
    unsafe fn context_new(stack_top: usize, entry: fn(usize) -> !, arg: usize) -> Self::Context;
    /// An empty context for the code that runs now, to be filled by the first switch away from it.
    fn context_current() -> Self::Context;
    /// Saves the running code into `from` and continues `to`. Returns when somebody switches back to `from`, maybe on another CPU.
    /// Also makes the stack of `to` the one that entries from user mode use.
    ///
    /// # Safety
    /// `from` is the context of the running code, `to` is suspended, both outlive their use.
    unsafe fn switch(from: *mut Self::Context, to: *mut Self::Context);

    // ---- CPUs of peers ----

    /// Rings the doorbell of a CPU of a peer kernel, by hardware id.
    fn doorbell(hardware: u32);
    /// Starts a CPU of a peer at the trampoline page `page` (below 1 MiB on x86) / physical entry `page` (others) with `arg`.
    ///
    /// # Safety
    /// The plan gives that CPU to the target, the caller holds its boot token, the page holds a trampoline.
    unsafe fn start_peer(hardware: u32, page: PhysAddr, arg: u64) -> Result<(), Refused>;
    /// Stops a CPU of a peer.
    ///
    /// # Safety
    /// The caller holds the fence token of that CPU.
    unsafe fn fence_peer(hardware: u32) -> Fenced;

    // ---- Devices ----

    /// Reads a port of 1, 2 or 4 bytes; all ones where there are no ports.
    ///
    /// # Safety
    /// Reading that port has no effect on memory safety (it is not a DMA engine's doorbell).
    unsafe fn port_read(port: u16, size: u8) -> u32;
    /// Writes a port of 1, 2 or 4 bytes.
    ///
    /// # Safety
    /// As for `port_read`.
    unsafe fn port_write(port: u16, size: u8, value: u32);
    /// Routes a wired line to this CPU's kernel and unmasks it.
    fn irq_enable(line: u32) -> Result<(), Refused>;
    /// Masks a wired line.
    fn irq_disable(line: u32);
    /// A message-signalled vector to the CPU of `slot`: `(line number for Upcalls::irq, address, data)`. `device` is who will send it, as PCI names
    /// requesters: bus, device and function in 8, 5 and 3 bits.
    fn msi_alloc(slot: usize, device: u32) -> Result<(u32, u64, u32), Refused>;
    /// Gives it back.
    fn msi_free(line: u32);

    /// What `AT_HWCAP` and `AT_HWCAP2` tell programs about this CPU.
    fn hwcap() -> [u64; 2];
    /// The names of the features of this CPU as `/proc/cpuinfo` shows them and the model name.
    fn describe_cpu(out: &mut dyn core::fmt::Write) -> core::fmt::Result;
}
