//! The kernel half of the address space (ARCHITECTURE.md C5): linear map of own memory, windows, kernel stacks, image.
//!
//! Own memory is mapped with large pages, without execution, and without the image's code and constants: nothing is writable
//! and executable, at any address. The entries of the root for it never change, for the roots of programs copy them. The tables come from a small
//! pool in the image until the frame allocator is up.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use hal_api::{MAX_RANGES, PhysAddr, PhysRange, Refused, WindowAttr};

use crate::entry::{IMAGE, SV39, SV48};
use crate::lock::Spin;
use crate::trap;

/// Where own memory is mapped: `LINEAR + phys`. All of the kernel half lies in the 256 GiB that three levels have.
pub const LINEAR: u64 = 0xffff_ffc0_0000_0000;
/// Where foreign memory and devices are mapped: `WINDOW + phys`.
pub const WINDOW: u64 = 0xffff_ffe0_0000_0000;
/// Windows, and own memory, reach physical addresses below this.
const WINDOW_END: u64 = 32 << 30;
/// Where kernel stacks lie, each in the upper half of a slot of twice its size.
const STACKS: u64 = 0xffff_fff0_0000_0000;
const STACKS_END: u64 = STACKS + (1 << 30);
/// Bytes of a kernel stack.
pub const STACK_SIZE: usize = 0x8000;

/// Valid; may be read, written, executed.
const VALID: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXEC: u64 = 1 << 3;
const GLOBAL: u64 = 1 << 5;
/// Accessed and dirty: nobody wants to know of the kernel's pages.
const USED: u64 = 1 << 6 | 1 << 7;
/// What makes an entry a page and not a table.
const ANY: u64 = READ | WRITE | EXEC;

const PAGE: u64 = 0x1000;
const BIG: u64 = 0x20_0000;
const HUGE: u64 = 0x4000_0000;

const POOL: usize = 64;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u64; 512]; POOL]>);
// SAFETY: handed out page by page, each once.
unsafe impl Sync for Pool {}

static POOL_PAGES: Pool = Pool(UnsafeCell::new([[0; 512]; POOL]));
static POOL_USED: AtomicUsize = AtomicUsize::new(0);
static IMAGE_PHYS: AtomicU64 = AtomicU64::new(0);
static ROOT: AtomicU64 = AtomicU64::new(0);
/// Levels of the tables that are used.
static LEVELS: AtomicU32 = AtomicU32::new(4);

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
    static boot_stack_guard: u8;
}

/// What one kernel may know about another one's memory: for the message when it is touched.
struct Peers {
    ranges: [(u16, PhysRange); 4 * MAX_RANGES],
    count: usize,
}

static PEERS: Spin<Peers> = Spin::new(Peers { ranges: [(0, PhysRange::new(0, 0)); 4 * MAX_RANGES], count: 0 });

/// Bytes of the image in memory, page-aligned.
pub fn image_len() -> u64 {
    (&raw const __image_end) as u64 - IMAGE
}

/// Tells the fault handler which kernel owns `range`.
pub fn know_peer(kernel: u16, range: PhysRange) {
    let mut p = PEERS.lock();
    let n = p.count;
    if let Some(slot) = p.ranges.get_mut(n) {
        *slot = (kernel, range);
        p.count += 1;
    }
}

/// If `at` is where a peer's memory would be mapped: its physical address and owner.
pub fn peer_at(at: u64) -> Option<(u64, u16)> {
    let phys = match at {
        LINEAR..WINDOW => at - LINEAR,
        WINDOW..STACKS => at - WINDOW,
        _ => return None,
    };
    let p = PEERS.lock();
    let found = p.ranges[..p.count].iter().find(|(_, r)| r.contains(PhysAddr(phys)));
    found.map(|(k, _)| (phys, *k))
}

/// Whether an address lies in the unmapped page below a kernel stack.
pub fn is_stack_guard(at: u64) -> bool {
    let guard = (&raw const boot_stack_guard) as u64;
    (guard..guard + PAGE).contains(&at)
        || ((STACKS..STACKS_END).contains(&at) && (at - STACKS) % (2 * STACK_SIZE as u64) < STACK_SIZE as u64)
}

/// Where the image is; before any table is made.
pub fn set_image(phys: u64) {
    IMAGE_PHYS.store(phys, Ordering::Relaxed);
}

/// The physical address of something in the image.
pub fn image_phys<T>(at: *const T) -> u64 {
    at as u64 - IMAGE + IMAGE_PHYS.load(Ordering::Relaxed)
}

/// A table that entries point to.
fn table(phys: u64) -> *mut [u64; 512] {
    let image = IMAGE_PHYS.load(Ordering::Relaxed);
    let at = if phys >= image && phys - image < image_len() { phys - image + IMAGE } else { phys + LINEAR };
    at as *mut [u64; 512]
}

/// A zeroed page for a table: its physical address.
fn table_page() -> Option<u64> {
    let n = POOL_USED.load(Ordering::Relaxed);
    if n < POOL {
        POOL_USED.store(n + 1, Ordering::Relaxed);
        // SAFETY: in the array.
        return Some(image_phys(unsafe { POOL_PAGES.0.get().cast::<[u64; 512]>().add(n) }));
    }
    Some(trap::upcalls()?.frame_alloc()?.0)
}

/// Level of an entry that maps `size`.
const fn level_of(size: u64) -> u32 {
    match size {
        PAGE => 0,
        BIG => 1,
        _ => 2,
    }
}

/// An entry that maps memory.
const fn leaf(phys: u64, rights: u64) -> u64 {
    (phys >> 2) | VALID | GLOBAL | USED | rights
}

/// An entry that points to a table.
const fn pointer(table: u64) -> u64 {
    (table >> 2) | VALID
}

/// Where an entry points.
const fn target(entry: u64) -> u64 {
    (entry & 0x003f_ffff_ffff_fc00) << 2
}

/// Levels of the tables that this kernel and its programs have: four (Sv48) or three (Sv39).
#[inline]
pub fn levels() -> u32 {
    LEVELS.load(Ordering::Relaxed)
}

/// Makes entries that were just written visible to the table walks of all CPUs: they may remember that there was nothing.
fn publish() {
    forget_everywhere();
}

/// The entry for `at` at `level`, making tables on the way if `make`. Stops early at a large page: (entry, its level).
fn entry(at: u64, level: u32, make: bool) -> Option<(*mut u64, u32)> {
    let mut t = table(ROOT.load(Ordering::Relaxed));
    let mut l = levels() - 1;
    loop {
        let i = (at >> (12 + 9 * l) & 511) as usize;
        // SAFETY: `t` is a table of ours and `i` in it; the caller holds the lock or is alone.
        let e = unsafe { &raw mut (*t)[i] };
        // SAFETY: as above.
        let v = unsafe { *e };
        if l == level || v & ANY != 0 {
            return Some((e, l));
        }
        if v & VALID == 0 {
            if !make {
                return None;
            }
            let page = table_page()?;
            // SAFETY: as above.
            unsafe { *e = pointer(page) };
        }
        // SAFETY: as above; the entry is a table now.
        t = table(target(unsafe { *e }));
        l -= 1;
    }
}

/// Maps one page of `size`. `false`: no memory for tables, or something larger is there.
fn map(at: u64, phys: u64, size: u64, flags: u64) -> bool {
    let Some((e, l)) = entry(at, level_of(size), true) else { return false };
    if l != level_of(size) {
        return false;
    }
    // SAFETY: an entry of ours, see `entry`.
    unsafe { *e = leaf(phys, flags) };
    true
}

/// Maps a range with the largest pages that fit.
fn map_range(mut at: u64, mut phys: u64, mut len: u64, flags: u64, largest: u64) -> bool {
    while len > 0 {
        let fits = |s: u64| s <= largest && (at | phys).is_multiple_of(s) && len >= s;
        let size = if fits(HUGE) {
            HUGE
        } else if fits(BIG) {
            BIG
        } else {
            PAGE
        };
        if !map(at, phys, size, flags) {
            return false;
        }
        at += size;
        phys += size;
        len -= size;
    }
    true
}

/// Builds the kernel half and switches to it; the boot mappings are gone afterwards.
///
/// All of the kernel half is in the last entry of a root of four levels. The table there is the root of three levels, for CPUs that have no
/// more, or if `three` is wanted.
///
/// # Safety
/// Once, on the boot CPU; `owned` is this kernel's memory.
pub unsafe fn init(owned: &[PhysRange], three: bool) -> Result<(), Refused> {
    let root = table_page().ok_or(Refused("no page for the root table"))?;
    ROOT.store(root, Ordering::Release);
    let image = IMAGE_PHYS.load(Ordering::Relaxed);
    let part = |from: *const u8, to: *const u8, flags: u64| {
        let (from, to) = (from as u64, to as u64);
        map_range(from, from - IMAGE + image, to - from, flags, PAGE)
    };
    let mut ok = part(&raw const __image_start, &raw const __text_end, READ | EXEC);
    ok &= part(&raw const __text_end, &raw const __rodata_end, READ);
    ok &= part(&raw const __rodata_end, &raw const boot_stack_guard, READ | WRITE);
    ok &= part((&raw const boot_stack_guard).wrapping_add(PAGE as usize), &raw const __image_end, READ | WRITE);
    // Code and constants of the image are mapped at their place only.
    let hole = (image, image + ((&raw const __rodata_end) as u64 - IMAGE));
    for r in owned {
        let (start, end) = (r.start.page_up().0, r.end().page().0);
        if end > WINDOW_END {
            return Err(Refused("the memory of this kernel lies too high"));
        }
        let linear = |from: u64, to: u64| from >= to || map_range(LINEAR + from, from, to - from, READ | WRITE, HUGE);
        ok &= linear(start, end.min(hole.0)) & linear(start.max(hole.1), end);
    }
    // Entries of the root never change once user roots copy them.
    for at in (0..WINDOW_END).step_by(HUGE as usize).map(|o| WINDOW + o).chain([STACKS]) {
        ok &= entry(at, 1, true).is_some();
    }
    if !ok {
        return Err(Refused("the memory of this kernel does not fit the early page tables"));
    }
    if !three && load() {
        return Ok(());
    }
    // SAFETY: the boot CPU is alone; the entry points to a table, for what was mapped above is there.
    let last = unsafe { (*table(root))[511] };
    ROOT.store(target(last), Ordering::Release);
    LEVELS.store(3, Ordering::Release);
    if load() { Ok(()) } else { Err(Refused("the CPU has page tables of neither four levels (Sv48) nor three (Sv39)")) }
}

/// Makes the kernel's root this CPU's. `false`: the CPU has no such tables, and nothing has changed.
fn load() -> bool {
    let wanted = satp();
    // SAFETY: the new tables map the running code, its data and stack where they are; those before are used no more. A mode that the CPU does not
    // have leaves the register as it was (privileged architecture, "satp").
    unsafe { asm!("csrw satp, {}", "sfence.vma", in(reg) wanted, options(nostack, preserves_flags)) };
    crate::cpu::register!("satp") == wanted
}

/// The kernel's root table.
pub fn root() -> u64 {
    ROOT.load(Ordering::Acquire)
}

/// What `satp` has for a root.
fn satp_of(root: u64) -> u64 {
    let mode = if levels() == 4 { SV48 } else { SV39 };
    mode | root >> 12
}

/// What `satp` has for the kernel's root.
pub fn satp() -> u64 {
    satp_of(root())
}

/// What `satp` has for the boot tables.
pub fn boot_satp(tables: u64) -> u64 {
    SV39 | tables >> 12
}

/// Makes `to` (nothing if `None`) the user half of this CPU and forgets translations of the last one. All programs have address-space number 0.
#[inline]
pub fn activate(to: Option<PhysAddr>) {
    let value = satp_of(to.map_or_else(root, |p| p.0));
    // SAFETY: a root that the caller keeps, whose kernel half is ours. Global entries stay.
    unsafe {
        asm!("csrw satp, {}", "sfence.vma x0, {}", in(reg) value, in(reg) 0u64, options(nostack, preserves_flags))
    };
}

/// Forgets user translations of a page on this CPU.
#[inline]
pub fn forget_user(at: u64, pages: usize) {
    for i in 0..pages as u64 {
        // SAFETY: dropping translations is always allowed.
        unsafe { asm!("sfence.vma {}, {}", in(reg) at + i * PAGE, in(reg) 0u64, options(nostack, preserves_flags)) };
    }
}

/// Forgets all user translations of this CPU.
#[inline]
pub fn forget_users() {
    // SAFETY: as above.
    unsafe { asm!("sfence.vma x0, {}", in(reg) 0u64, options(nostack, preserves_flags)) };
}

/// Forgets all translations on all CPUs of this kernel.
fn forget_everywhere() {
    // SAFETY: as above.
    unsafe { asm!("sfence.vma", options(nostack, preserves_flags)) };
    if let Some(others) = crate::smp::others() {
        // The firmware refuses only harts that it does not know; those translate nothing.
        let _ = sbi_rt::remote_sfence_vma(others, 0, usize::MAX);
    }
}

const WINDOWS: usize = 512;

/// What is mapped by [`map_window`], and how often.
struct Windows {
    all: [(PhysRange, WindowAttr, u32); WINDOWS],
    count: usize,
}

static WINDOW_TABLE: Spin<Windows> =
    Spin::new(Windows { all: [(PhysRange::new(0, 0), WindowAttr::Memory, 0); WINDOWS], count: 0 });

fn pages(r: PhysRange) -> (u64, u64) {
    (r.start.page().0, r.end().page_up().0)
}

/// Maps foreign memory. The same range may be mapped several times, ranges may overlap; each call needs its [`unmap_window`].
pub fn map_window(range: PhysRange, attr: WindowAttr) -> Result<NonNull<u8>, Refused> {
    let (start, end) = pages(range);
    if range.len == 0 || end > WINDOW_END || end <= start {
        return Err(Refused("outside the windows"));
    }
    let address = NonNull::new((WINDOW + range.start.0) as *mut u8).ok_or(Refused("outside the windows"))?;
    let mut w = WINDOW_TABLE.lock();
    let n = w.count;
    if let Some(i) = w.all[..n].iter().position(|(r, a, _)| *r == range && *a == attr) {
        w.all[i].2 += 1;
        return Ok(address);
    }
    if n == WINDOWS {
        return Err(Refused("too many windows"));
    }
    // What is memory and what are registers, the board's attributes say (PMA).
    let flags = match attr {
        WindowAttr::Memory | WindowAttr::Device => READ | WRITE,
        WindowAttr::ReadOnly => READ,
    };
    let mut at = start;
    while at < end {
        let (e, level) = match entry(WINDOW + at, if at % BIG == 0 && end - at >= BIG { 1 } else { 0 }, true) {
            Some(found) => found,
            None => return Err(Refused("no memory for page tables")),
        };
        // SAFETY: an entry of ours; the lock is held.
        let old = unsafe { *e };
        if old & VALID == 0 {
            // SAFETY: as above.
            unsafe { *e = leaf(at, flags) };
            at += PAGE << (9 * level);
        } else if old & ANY == 0 {
            // There are small pages in it already.
            let step = map_small(at, (at + BIG).min(end), flags)?;
            at = step;
        } else {
            // Mapped by another window: the stronger right wins.
            // SAFETY: as above.
            unsafe { *e = old | flags };
            at = (at & !((PAGE << (9 * level)) - 1)) + (PAGE << (9 * level));
        }
    }
    publish();
    w.all[n] = (range, attr, 1);
    w.count += 1;
    Ok(address)
}

fn map_small(mut at: u64, end: u64, flags: u64) -> Result<u64, Refused> {
    while at < end {
        let (e, _) = entry(WINDOW + at, 0, true).ok_or(Refused("no memory for page tables"))?;
        // SAFETY: an entry of ours; the caller holds the lock.
        unsafe {
            if *e & VALID == 0 {
                *e = leaf(at, flags);
            } else {
                *e |= flags;
            }
        }
        at += PAGE;
    }
    Ok(at)
}

/// Splits the large page that `e` is, so that part of it can go. Whoever uses the rest meanwhile may use the old entry or the new ones.
fn split(e: *mut u64) -> bool {
    let Some(page) = table_page() else { return false };
    // SAFETY: an entry of ours; the caller holds the lock; the new table is nobody else's.
    unsafe {
        let (at, rights) = (target(*e), *e & ANY);
        for (i, small) in (*table(page)).iter_mut().enumerate() {
            *small = leaf(at + i as u64 * PAGE, rights);
        }
        // The new table is complete for whoever finds it.
        asm!("fence w, w", options(nostack, preserves_flags));
        *e = pointer(page);
    }
    true
}

/// Takes a mapping back everywhere; pages that another window still covers stay.
pub fn unmap_window(range: PhysRange) {
    let mut w = WINDOW_TABLE.lock();
    let n = w.count;
    let Some(i) = w.all[..n].iter().position(|(r, _, _)| *r == range) else { return };
    w.all[i].2 -= 1;
    if w.all[i].2 > 0 {
        return;
    }
    w.all[i] = w.all[n - 1];
    w.count -= 1;
    let covered = |from: u64, to: u64| {
        w.all[..w.count].iter().any(|(r, _, _)| {
            let (s, e) = pages(*r);
            s < to && from < e
        })
    };
    let (mut at, end) = pages(range);
    while at < end {
        let Some((e, level)) = entry(WINDOW + at, 0, false) else {
            at += PAGE;
            continue;
        };
        let size = PAGE << (9 * level);
        let page = at & !(size - 1);
        if level > 0 && (covered(page, page + size) || page < at || page + size > end) {
            if !split(e) {
                at = page + size; // no memory: it stays mapped, which harms nobody but the fault message
            }
            continue;
        }
        if !covered(page, page + size) {
            // SAFETY: an entry of ours; the lock is held.
            unsafe { *e = 0 };
        }
        at = page + size;
    }
    drop(w);
    forget_everywhere();
}

/// How many windows are mapped.
pub fn windows() -> usize {
    WINDOW_TABLE.lock().count
}

/// Free kernel stacks. They stay mapped: the next thread gets a warm one and no CPU needs to forget anything.
struct Stacks {
    free: [u32; 4096],
    count: usize,
    made: u32,
}

static STACK_TABLE: Spin<Stacks> = Spin::new(Stacks { free: [0; 4096], count: 0, made: 0 });

/// A kernel stack: the address of its end.
pub fn stack_alloc() -> Option<usize> {
    let mut s = STACK_TABLE.lock();
    let slot = 2 * STACK_SIZE as u64;
    if s.count > 0 {
        s.count -= 1;
        return Some((STACKS + (u64::from(s.free[s.count]) + 1) * slot) as usize);
    }
    let up = trap::upcalls()?;
    let top = STACKS + (u64::from(s.made) + 1) * slot;
    if top > STACKS_END || s.made as usize >= s.free.len() {
        return None;
    }
    for page in (top - STACK_SIZE as u64..top).step_by(PAGE as usize) {
        let (e, _) = entry(page, 0, true)?;
        // SAFETY: an entry of ours; the lock is held.
        unsafe {
            if *e & VALID == 0 {
                *e = leaf(up.frame_alloc()?.0, READ | WRITE);
            }
        }
    }
    publish();
    s.made += 1;
    Some(top as usize)
}

/// Gives a stack back.
pub fn stack_free(top: usize) {
    let mut s = STACK_TABLE.lock();
    let i = (top as u64 - STACKS) / (2 * STACK_SIZE as u64) - 1;
    let n = s.count;
    if let Some(f) = s.free.get_mut(n) {
        *f = i as u32;
        s.count += 1;
    }
}
