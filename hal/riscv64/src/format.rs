//! Page tables of programs: three levels or four, as the kernel's own ([`paging::levels`]). Entries are the same in both.

use hal_api::{Leaf, PageFormat, PhysAddr, Prot, Sv39, Sv48};

use crate::paging;

/// Sv39 or Sv48, whichever this kernel has switched on.
#[derive(Debug)]
pub struct Sv;

impl PageFormat for Sv {
    const USER_ROOT_ENTRIES: usize = Sv48::USER_ROOT_ENTRIES;
    const HARDWARE_AD: bool = Sv48::HARDWARE_AD;

    #[inline]
    fn levels() -> u32 {
        paging::levels()
    }

    #[inline]
    fn user_top() -> u64 {
        if paging::levels() == Sv48::levels() { Sv48::user_top() } else { Sv39::user_top() }
    }

    #[inline]
    fn table(at: PhysAddr) -> u64 {
        Sv48::table(at)
    }

    #[inline]
    fn as_table(entry: u64) -> Option<PhysAddr> {
        Sv48::as_table(entry)
    }

    #[inline]
    fn leaf(leaf: Leaf) -> u64 {
        Sv48::leaf(leaf)
    }

    #[inline]
    fn as_leaf(entry: u64) -> Option<Leaf> {
        Sv48::as_leaf(entry)
    }

    #[inline]
    fn leaf_at(entry: u64) -> PhysAddr {
        Sv48::leaf_at(entry)
    }

    #[inline]
    fn without_write(entry: u64) -> u64 {
        Sv48::without_write(entry)
    }

    #[inline]
    fn is_own(entry: u64) -> bool {
        Sv48::is_own(entry)
    }

    #[inline]
    fn allows(entry: u64, need: Prot) -> bool {
        Sv48::allows(entry, need)
    }
}
