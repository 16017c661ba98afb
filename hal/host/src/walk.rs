//! User memory by a software walk of real x86-64 page tables.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use hal_api::{PAGE_SHIFT, PAGE_SIZE, PageFormat, PhysAddr, Prot, UserAddr, X86_64};

use crate::cpu::Identity;

/// The bytes of user memory from `at` to the end of its page, if `need` is allowed there.
pub(crate) fn translate(c: &Identity, at: UserAddr, need: Prot) -> Option<*mut u8> {
    let root = c.cpu().root.load(SeqCst);
    if root == 0 || at.0 >= X86_64::user_top() {
        return None;
    }
    let mut table = PhysAddr(root);
    let mut level = X86_64::levels() - 1;
    loop {
        let index = (at.0 >> (PAGE_SHIFT + 9 * level)) as usize % 512;
        let slot = c.machine.at(table, PAGE_SIZE).cast::<[AtomicU64; 512]>();
        // SAFETY: a whole page of the machine's memory that the kernel uses as a table, entries accessed atomically.
        let slot = unsafe { &slot.as_ref()[index] };
        let entry = slot.load(SeqCst);
        if level > 0 {
            table = X86_64::as_table(entry)?;
            level -= 1;
            continue;
        }
        if !X86_64::allows(entry, need.normal()) {
            return None;
        }
        let leaf = X86_64::as_leaf(entry)?;
        // As the hardware does: accessed and dirty.
        slot.fetch_or((1 << 5) | if need.contains(Prot::WRITE) { 1 << 6 } else { 0 }, SeqCst);
        return Some(c.machine.at(leaf.at, PAGE_SIZE).as_ptr().wrapping_add(at.offset()));
    }
}

/// Calls `f(pointer, offset in the whole, length)` for each piece of a range; how many bytes were reached.
pub(crate) fn pieces(
    c: &Identity,
    at: UserAddr,
    len: usize,
    need: Prot,
    mut f: impl FnMut(*mut u8, usize, usize),
) -> usize {
    let mut done = 0;
    while done < len {
        let here = at + done as u64;
        let n = (PAGE_SIZE - here.offset()).min(len - done);
        let Some(p) = translate(c, here, need) else { break };
        f(p, done, n);
        done += n;
    }
    done
}
