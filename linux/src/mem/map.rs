//! `mmap(2)`, `munmap(2)`, `mprotect(2)`, `mremap(2)`, `brk(2)`.

use alloc::sync::Arc;

use base::{Errno, Error, Result, Try};
use linux_abi::flags::{Map, Prot as AbiProt};
use mm::{FileLabel, Label, MapRequest, Place, Prot, RemapRequest, VmaFlags, What};
use task::{Cx, Interrupted};
use vfs::{OpenFile, place::MountFlags, types::OpenFlags};

use super::{PAGE, invalid, whole_pages};

/// The low bits of the flags of `mmap`: how stores are shared.
const TYPE: u32 = 0xf;
const PRIVATE: u32 = 2;
const SHARED: u32 = 1;
const SHARED_VALIDATE: u32 = 3;

fn prot(bits: u64) -> Prot {
    Prot::from_bits_truncate((bits & 7) as u8)
}

/// Flags that a kernel from before their time would ignore, and that this one ignores as well, as Linux does without `MAP_SHARED_VALIDATE`.
fn place(flags: Map, addr: u64) -> Place {
    if flags.contains(Map::FIXED_NOREPLACE) {
        Place::Free(addr)
    } else if flags.contains(Map::FIXED) {
        Place::Fixed(addr)
    } else {
        Place::Hint(addr)
    }
}

/// What a mapping of an open file is, and what it may ever allow.
fn file_content(
    cx: &Cx,
    file: &Arc<dyn OpenFile>,
    offset: u64,
    shared: bool,
    want: Prot,
) -> Result<(What, Prot, Label)> {
    let denied = || Error::new(Errno::EACCES, "the file was not opened for that");
    let mode = file.flags();
    if mode.contains(OpenFlags::PATH) {
        return Err(Error::new(Errno::EBADF, "only a place in the tree"));
    }
    if !mode.contains(OpenFlags::READ) {
        return Err(denied());
    }
    let mut max = Prot::all();
    if file.place().is_some_and(|place| place.mount.flags().contains(MountFlags::NOEXEC)) {
        if want.contains(Prot::EXEC) {
            return Err(Error::new(Errno::EPERM, "mounted noexec"));
        }
        max -= Prot::EXEC;
    }
    if shared && !mode.contains(OpenFlags::WRITE) {
        if want.contains(Prot::WRITE) {
            return Err(denied());
        }
        max -= Prot::WRITE;
    }
    let object =
        if shared { cx.settle(file.share(max.contains(Prot::WRITE)), Interrupted::Killed)? } else { file.memory()? };
    if !object.is_executable() {
        if want.contains(Prot::EXEC) {
            return Err(Error::new(Errno::EPERM, "memory of another board is not executed"));
        }
        max -= Prot::EXEC;
    }
    let (device, inode) = match file.stat()? {
        Try::Done(stat) => (u64::from(stat.device.major) << 32 | u64::from(stat.device.minor), stat.inode),
        // A name for /proc/PID/maps is not worth waiting for a peer.
        _ => (0, 0),
    };
    let label = Label::File(Arc::new(FileLabel { path: file.describe().into_bytes(), device, inode }));
    Ok((What::Object(object, offset), max, label))
}

/// `mmap(addr, length, prot, flags, fd, offset)`.
///
/// # Errors
/// See mmap(2).
pub fn mmap(cx: &Cx, [addr, len, want, flags, fd, offset]: [u64; 6]) -> Result<u64> {
    let bits = flags as u32;
    let shared = match bits & TYPE {
        SHARED | SHARED_VALIDATE => true,
        PRIVATE => false,
        _ => return Err(invalid("neither shared nor private")),
    };
    let flags = Map::from_bits_truncate(bits & !TYPE);
    if bits & TYPE == SHARED_VALIDATE && Map::from_bits(bits & !TYPE).is_none_or(|known| known.contains(Map::SYNC)) {
        return Err(Error::new(Errno::EOPNOTSUPP, "unknown mapping flags"));
    }
    if !offset.is_multiple_of(PAGE) {
        return Err(invalid("offset is not at a page border"));
    }
    if flags.contains(Map::HUGETLB) {
        return Err(Error::new(Errno::ENOMEM, "no huge pages are set aside"));
    }
    let prot = prot(want);
    let (what, max, label) = if flags.contains(Map::ANONYMOUS) {
        (What::Anonymous, Prot::all(), Label::None)
    } else {
        let file = cx.task().files().get(fd)?;
        if len == 0 {
            return Err(invalid("nothing to map"));
        }
        file_content(cx, &file, offset, shared, prot)?
    };
    let mut vma_flags = VmaFlags::empty();
    vma_flags.set(VmaFlags::SHARED, shared);
    vma_flags.set(VmaFlags::LOCKED, flags.contains(Map::LOCKED));
    vma_flags.set(VmaFlags::NO_RESERVE, flags.contains(Map::NORESERVE));
    if flags.contains(Map::GROWSDOWN) {
        if shared || !flags.contains(Map::ANONYMOUS) {
            return Err(invalid("only private anonymous memory grows down"));
        }
        vma_flags |= VmaFlags::GROWS_DOWN;
    }
    let space = cx.space();
    let request = MapRequest { place: place(flags, addr), len, prot, max, flags: vma_flags, what, label };
    let at = space.map(request)?;
    let populate = flags.contains(Map::POPULATE) && !flags.contains(Map::NONBLOCK);
    if populate || flags.contains(Map::LOCKED) {
        space.populate_mapped(at..at + whole_pages(len).unwrap_or(len));
    }
    Ok(at)
}

/// `munmap(addr, length)`.
///
/// # Errors
/// See munmap(2).
pub fn munmap(cx: &Cx, [addr, len, ..]: [u64; 6]) -> Result<u64> {
    cx.space().unmap(addr, len).map(|()| 0)
}

/// `mprotect(addr, length, prot)`.
///
/// # Errors
/// See mprotect(2).
pub fn mprotect(cx: &Cx, [addr, len, want, ..]: [u64; 6]) -> Result<u64> {
    let known = AbiProt::READ | AbiProt::WRITE | AbiProt::EXEC | AbiProt::GROWSDOWN | AbiProt::GROWSUP;
    let Some(bits) = u32::try_from(want).ok().and_then(AbiProt::from_bits).filter(|bits| known.contains(*bits)) else {
        return Err(invalid("unknown protection"));
    };
    let whole = whole_pages(len).ok_or(Error::new(Errno::ENOMEM, "too long"))?;
    if !addr.is_multiple_of(PAGE) {
        return Err(invalid("not at a page border"));
    }
    if bits.contains(AbiProt::GROWSUP) {
        return Err(invalid("no stack grows up here"));
    }
    if addr.checked_add(whole).is_none_or(|end| end > hal::addr::user_top()) {
        return Err(Error::new(Errno::ENOMEM, "beyond the address space"));
    }
    let space = cx.space();
    let mut start = addr;
    if bits.contains(AbiProt::GROWSDOWN) {
        // The change reaches down to the start of a stack.
        let map = space.mappings().into_iter().find(|map| map.start <= addr && addr < map.end);
        start = map
            .filter(|map| map.flags.contains(VmaFlags::GROWS_DOWN))
            .map(|map| map.start)
            .ok_or(invalid("no stack that grows down"))?;
    }
    space.protect(start, whole + (addr - start), prot(want)).map(|()| 0)
}

/// `mremap(old_address, old_size, new_size, flags, new_address)`.
///
/// # Errors
/// See mremap(2).
pub fn mremap(cx: &Cx, [old, old_len, new_len, flags, to, _]: [u64; 6]) -> Result<u64> {
    const MAY_MOVE: u64 = 1;
    const FIXED: u64 = 2;
    const DONT_UNMAP: u64 = 4;
    if flags & !(MAY_MOVE | FIXED | DONT_UNMAP) != 0 {
        return Err(invalid("unknown flags"));
    }
    cx.space().remap(RemapRequest {
        old,
        old_len,
        new_len,
        may_move: flags & MAY_MOVE != 0,
        to: (flags & FIXED != 0).then_some(to),
        keep_old: flags & DONT_UNMAP != 0,
    })
}

/// `brk(addr)`: the end of the heap as it is afterwards.
///
/// # Errors
/// None: a program sees from the result whether it worked.
pub fn brk(cx: &Cx, [to, ..]: [u64; 6]) -> Result<u64> {
    Ok(cx.space().set_brk(to))
}
