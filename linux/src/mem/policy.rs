//! NUMA policies. Each kernel is a node; the frames of a process come from the kernel it runs on, so the default policy is the one that is
//! always in force and no other can be granted.

use alloc::vec;

use base::{Errno, Error, Result};
use task::Cx;

use super::invalid;

const DEFAULT: u64 = 0;
const PREFERRED: u64 = 1;
const BIND: u64 = 2;
const INTERLEAVE: u64 = 3;
const LOCAL: u64 = 4;
/// `MPOL_F_STATIC_NODES`, `MPOL_F_RELATIVE_NODES`, `MPOL_F_NUMA_BALANCING`.
const MODE_FLAGS: u64 = 0xe000;
/// Most bits of a node mask that a program may give.
const NODES_MAX: u64 = 4096 * 8;

/// The nodes in a mask of a program: whether it is empty, and whether it holds this kernel's node and no other.
fn nodes(cx: &Cx, mask: u64, max: u64) -> Result<(bool, bool)> {
    // As Linux: the last bit does not count.
    let bits = max.saturating_sub(1);
    if mask == 0 || bits == 0 {
        return Ok((true, false));
    }
    if bits > NODES_MAX {
        return Err(invalid("too many nodes"));
    }
    let mut bytes = vec![0; (bits as usize).div_ceil(64) * 8];
    cx.user(|user| user.read(mask, &mut bytes))?;
    let own = usize::from(cx.kernel().id().index);
    let set = |bit: usize| bit < bits as usize && bytes.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 != 0);
    let count = (0..bytes.len() * 8).filter(|bit| set(*bit)).count();
    Ok((count == 0, count == 1 && set(own)))
}

/// Whether a policy is what happens anyway.
fn accept(cx: &Cx, mode: u64, mask: u64, max: u64) -> Result<u64> {
    let (empty, own) = nodes(cx, mask, max)?;
    match mode & !MODE_FLAGS {
        DEFAULT | LOCAL if empty => Ok(0),
        PREFERRED if empty || own => Ok(0),
        BIND | INTERLEAVE if own => Ok(0),
        DEFAULT | LOCAL | PREFERRED | BIND | INTERLEAVE => {
            Err(invalid("memory comes from the kernel that the process runs on"))
        }
        _ => Err(invalid("unknown policy")),
    }
}

/// `set_mempolicy(mode, nodemask, maxnode)`.
///
/// # Errors
/// See set_mempolicy(2).
pub fn set_mempolicy(cx: &Cx, [mode, mask, max, ..]: [u64; 6]) -> Result<u64> {
    accept(cx, mode, mask, max)
}

/// `mbind(addr, len, mode, nodemask, maxnode, flags)`.
///
/// # Errors
/// See mbind(2).
pub fn mbind(cx: &Cx, [addr, len, mode, mask, max, flags]: [u64; 6]) -> Result<u64> {
    if !addr.is_multiple_of(super::PAGE) || flags & !7 != 0 {
        return Err(invalid("not at a page border, or unknown flags"));
    }
    let end = addr.checked_add(len).ok_or(invalid("wraps around"))?;
    if end > addr && !cx.space().covers(addr, end) {
        return Err(Error::new(Errno::EFAULT, "a hole in the range"));
    }
    accept(cx, mode, mask, max)
}

/// `get_mempolicy(mode, nodemask, maxnode, addr, flags)`.
///
/// # Errors
/// See get_mempolicy(2).
pub fn get_mempolicy(cx: &Cx, [mode, mask, max, addr, flags, _]: [u64; 6]) -> Result<u64> {
    const NODE: u64 = 1;
    const ADDR: u64 = 2;
    const MEMS_ALLOWED: u64 = 4;
    if flags & !(NODE | ADDR | MEMS_ALLOWED) != 0 || (flags & MEMS_ALLOWED != 0 && flags & (NODE | ADDR) != 0) {
        return Err(invalid("unknown flags"));
    }
    let own = u32::from(cx.kernel().id().index);
    if mask != 0 {
        if max <= u64::from(own) || max > NODES_MAX {
            return Err(invalid("the mask is too small"));
        }
        let mut bytes = vec![0_u8; (max as usize).div_ceil(64) * 8];
        if flags & MEMS_ALLOWED != 0
            && let Some(byte) = bytes.get_mut(own as usize / 8)
        {
            *byte |= 1 << (own % 8);
        }
        cx.user(|user| user.write(mask, &bytes))?;
    }
    if flags & ADDR != 0 {
        if !cx.space().covers(addr, addr.saturating_add(1)) {
            return Err(Error::new(Errno::EFAULT, "nothing is mapped there"));
        }
    } else if addr != 0 {
        return Err(invalid("an address without MPOL_F_ADDR"));
    }
    if mode != 0 {
        // With MPOL_F_NODE the node of the page at the address; else the default policy.
        let value = if flags & NODE != 0 && flags & ADDR != 0 { own } else { DEFAULT as u32 };
        cx.user(|user| user.write(mode, &value.to_le_bytes()))?;
    }
    Ok(0)
}
