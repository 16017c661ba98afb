//! System V shared memory: `shmget(2)`, `shmat(2)`, `shmdt(2)`, `shmctl(2)`.

use alloc::{format, sync::Arc, vec::Vec};

use base::{Errno, Error, Result};
use mm::{
    FileLabel, Label, MapRequest, Place, Prot, VmaFlags, What,
    sysv::{Info, PRIVATE, SEGMENTS_MAX, View},
};
use task::{Cx, creds::cap};

use super::{PAGE, invalid};

const CREATE: u64 = 0o1000;
const EXCLUSIVE: u64 = 0o2000;
const HUGE: u64 = 0o4000;
/// Largest segment (`SHMMAX`).
const SIZE_MAX: u64 = u64::MAX - (1 << 24);

/// Seconds since 1970.
fn now(cx: &Cx) -> i64 {
    cx.kernel().clocks.realtime() / 1_000_000_000
}

/// Whether the caller has the permission bits `want` (of one class) on a segment.
fn may(cx: &Cx, info: &Info, want: u32) -> Result<()> {
    let creds = cx.process().creds();
    let class = if creds.euid == info.uid || creds.euid == info.cuid {
        info.mode >> 6
    } else if creds.in_group(info.gid) || creds.in_group(info.cgid) {
        info.mode >> 3
    } else {
        info.mode
    };
    if class & want == want || creds.can(cap::IPC_OWNER) {
        return Ok(());
    }
    Err(Error::new(Errno::EACCES, "the segment does not allow that"))
}

/// Whether the caller owns a segment.
fn owns(cx: &Cx, info: &Info) -> Result<()> {
    let creds = cx.process().creds();
    if creds.euid == info.uid || creds.euid == info.cuid || creds.can(cap::SYS_ADMIN) {
        return Ok(());
    }
    Err(Error::new(Errno::EPERM, "not the owner of the segment"))
}

/// `shmget(key, size, shmflg)`.
///
/// # Errors
/// See shmget(2).
pub fn shmget(cx: &Cx, [key, size, flags, ..]: [u64; 6]) -> Result<u64> {
    let key = key as i32;
    let segments = cx.kernel().memory.segments();
    if flags & HUGE != 0 {
        return Err(Error::new(Errno::ENOMEM, "no huge pages are set aside"));
    }
    loop {
        if let Some(view) = segments.find(key) {
            if flags & CREATE != 0 && flags & EXCLUSIVE != 0 {
                return Err(Error::new(Errno::EEXIST, "the key is taken"));
            }
            if size > view.info.size {
                return Err(invalid("larger than the segment"));
            }
            let want = (flags as u32 >> 6 | flags as u32 >> 3 | flags as u32) & 7;
            may(cx, &view.info, want)?;
            return Ok(view.id as u64);
        }
        if key != PRIVATE && flags & CREATE == 0 {
            return Err(Error::new(Errno::ENOENT, "no segment with that key"));
        }
        if size == 0 || size > SIZE_MAX {
            return Err(invalid("bad size"));
        }
        let pages = size.div_ceil(PAGE);
        if pages > cx.kernel().memory.info().total as u64 {
            return Err(Error::new(Errno::ENOMEM, "larger than the memory"));
        }
        let creds = cx.process().creds();
        let info = Info {
            key,
            uid: creds.euid,
            gid: creds.egid,
            cuid: creds.euid,
            cgid: creds.egid,
            mode: flags as u32 & 0o777,
            size,
            changed: now(cx),
            creator: cx.process().pid().0,
            ..Info::default()
        };
        match segments.create(&cx.kernel().memory, info) {
            // Somebody was faster: then it is found.
            Err(error) if error == Errno::EEXIST => {}
            other => return other.map(|id| id as u64),
        }
    }
}

/// `shmat(shmid, shmaddr, shmflg)`.
///
/// # Errors
/// See shmat(2).
pub fn shmat(cx: &Cx, [id, addr, flags, ..]: [u64; 6]) -> Result<u64> {
    const READ_ONLY: u64 = 0o10000;
    const ROUND: u64 = 0o20000;
    const REMAP: u64 = 0o40000;
    const EXEC: u64 = 0o100_000;
    let segments = cx.kernel().memory.segments();
    let view = segments.get(id as i32)?;
    let mut prot = Prot::READ;
    prot.set(Prot::WRITE, flags & READ_ONLY == 0);
    prot.set(Prot::EXEC, flags & EXEC != 0);
    let want = prot.contains(Prot::EXEC);
    may(cx, &view.info, if prot.contains(Prot::WRITE) { 6 } else { 4 } | u32::from(want))?;
    let at = if flags & ROUND != 0 { addr & !(PAGE - 1) } else { addr };
    if !at.is_multiple_of(PAGE) || (addr == 0 && flags & REMAP != 0) {
        return Err(invalid("bad address"));
    }
    let place = match (addr, flags & REMAP != 0) {
        (0, _) => Place::Hint(0),
        (_, true) => Place::Fixed(at),
        (_, false) => Place::Free(at),
    };
    let path = format!("/SYSV{:08x}", view.info.key).into_bytes();
    let label = FileLabel { path, device: 1, inode: view.id as u64 };
    let request = MapRequest {
        place,
        len: view.info.size,
        prot,
        max: if flags & READ_ONLY == 0 { Prot::all() } else { Prot::READ | Prot::EXEC },
        flags: VmaFlags::SHARED | VmaFlags::SYSV,
        what: What::Object(view.object.clone(), 0),
        label: Label::File(Arc::new(label)),
    };
    // Something in the way is EINVAL here, unlike mmap.
    let mapped = cx.space().map(request).map_err(|e| if e == Errno::EEXIST { invalid(e.why()) } else { e })?;
    let (time, pid) = (now(cx), cx.process().pid().0);
    segments.change(id as i32, |info| (info.attached, info.last) = (time, pid))?;
    Ok(mapped)
}

/// `shmdt(shmaddr)`.
///
/// # Errors
/// See shmdt(2).
pub fn shmdt(cx: &Cx, [addr, ..]: [u64; 6]) -> Result<u64> {
    let object = cx.space().detach_segment(addr)?;
    let segments = cx.kernel().memory.segments();
    if let Some(id) = segments.of_object(object) {
        let (time, pid) = (now(cx), cx.process().pid().0);
        segments.change(id, |info| (info.detached, info.last) = (time, pid))?;
    }
    Ok(0)
}

/// `struct shmid64_ds`, the same on all three ISAs.
fn encode(view: &View) -> Vec<u8> {
    const DEST: u32 = 0o1000;
    let info = &view.info;
    let mut out = Vec::with_capacity(112);
    let mode = info.mode | if info.removed { DEST } else { 0 };
    for word in [info.key as u32, info.uid, info.gid, info.cuid, info.cgid, mode, 0, 0] {
        out.extend(word.to_le_bytes());
    }
    let times = [info.attached as u64, info.detached as u64, info.changed as u64];
    for word in [0, 0, info.size].into_iter().chain(times) {
        out.extend(word.to_le_bytes());
    }
    for word in [info.creator, info.last] {
        out.extend(word.to_le_bytes());
    }
    for word in [view.mappings() as u64, 0, 0] {
        out.extend(word.to_le_bytes());
    }
    out
}

/// `shmctl(shmid, cmd, buf)`.
///
/// # Errors
/// See shmctl(2).
pub fn shmctl(cx: &Cx, [id, command, buf, ..]: [u64; 6]) -> Result<u64> {
    let segments = cx.kernel().memory.segments();
    let id = id as i32;
    match command {
        // IPC_RMID
        0 => {
            owns(cx, &segments.get(id)?.info)?;
            segments.remove(id).map(|()| 0)
        }
        // IPC_SET
        1 => {
            let mut bytes = [0; 48];
            cx.user(|user| user.read(buf, &mut bytes))?;
            owns(cx, &segments.get(id)?.info)?;
            let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
            let time = now(cx);
            segments.change(id, |info| {
                (info.uid, info.gid, info.changed) = (word(4), word(8), time);
                info.mode = word(20) & 0o777;
            })?;
            Ok(0)
        }
        // IPC_STAT
        2 => {
            let view = segments.get(id)?;
            may(cx, &view.info, 4)?;
            cx.user(|user| user.write(buf, &encode(&view))).map(|()| 0)
        }
        // SHM_STAT, SHM_STAT_ANY: the id is an index into the list.
        13 | 15 => {
            let all = segments.list();
            let view = usize::try_from(id).ok().and_then(|at| all.get(at)).ok_or(invalid("no such index"))?;
            if command == 13 {
                may(cx, &view.info, 4)?;
            }
            cx.user(|user| user.write(buf, &encode(view))).map(|()| view.id as u64)
        }
        // IPC_INFO
        3 => {
            let words = [SIZE_MAX, 1, SEGMENTS_MAX as u64, SEGMENTS_MAX as u64, SIZE_MAX / PAGE, 0, 0, 0, 0];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            cx.user(|user| user.write(buf, &bytes))?;
            Ok(segments.list().len().saturating_sub(1) as u64)
        }
        // SHM_INFO
        14 => {
            let all = segments.list();
            let total: u64 = all.iter().map(|view| view.info.size.div_ceil(PAGE)).sum();
            let held: u64 = all.iter().map(|view| mm::MemoryObject::held(&*view.object) / PAGE).sum();
            let words = [all.len() as u64, total, held, 0, 0, 0];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            cx.user(|user| user.write(buf, &bytes))?;
            Ok(all.len().saturating_sub(1) as u64)
        }
        // SHM_LOCK, SHM_UNLOCK: nothing is ever paged out.
        11 | 12 => owns(cx, &segments.get(id)?.info).map(|()| 0),
        _ => Err(invalid("unknown command")),
    }
}
