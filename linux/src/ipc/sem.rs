//! semget(2), semop(2), semtimedop(2), semctl(2).

use alloc::{sync::Arc, vec, vec::Vec};

use base::{Errno, Error, Result};
use linux_abi::Isa;
use task::{
    Cx, Timeout,
    ipc::{
        Perm,
        sem::{OPERATIONS_MAX, Operation, SET_SIZE_MAX, SETS_MAX, Set, VALUE_MAX},
    },
};

use super::{IPC_64, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, NOWAIT, get, invalid, now, perm, read_perm};
use crate::time::timespec;

const GETPID: u64 = 11;
const GETVAL: u64 = 12;
const GETALL: u64 = 13;
const GETNCNT: u64 = 14;
const GETZCNT: u64 = 15;
const SETVAL: u64 = 16;
const SETALL: u64 = 17;
const SEM_STAT: u64 = 18;
const SEM_INFO: u64 = 19;
const SEM_STAT_ANY: u64 = 20;
/// `SEM_UNDO`.
const UNDO: u16 = 0x1000;

/// semget(2).
pub fn semget(cx: &Cx, [key, size, flags, ..]: [u64; 6]) -> Result<u64> {
    let size = usize::try_from(size as i32).ok().filter(|n| *n <= SET_SIZE_MAX).ok_or(invalid("size of a set"))?;
    let creds = cx.process().creds();
    let fits = |set: &Set| if size > set.size() { Err(invalid("larger than the set")) } else { Ok(()) };
    let make = || {
        if size == 0 {
            return Err(invalid("an empty set"));
        }
        Ok(Set::new(Perm::new(key as i32, flags as u32, &creds), size, now(cx)))
    };
    cx.kernel().ipc.semaphores.get(get(key, flags), &creds, fits, make).map(|id| id as u64)
}

fn operate(cx: &Cx, id: u64, at: u64, count: u64, timeout: Timeout) -> Result<u64> {
    if count == 0 {
        return Err(invalid("no operations"));
    }
    if count > OPERATIONS_MAX as u64 {
        return Err(Errno::E2BIG.into());
    }
    let raw: Vec<[u16; 3]> = cx.user(|u| u.read_structs(at, count as usize, OPERATIONS_MAX))?;
    let operations: Vec<Operation> = raw
        .into_iter()
        .map(|[number, change, flags]| Operation {
            number,
            change: change as i16,
            now: u64::from(flags) & NOWAIT != 0,
            undo: flags & UNDO != 0,
        })
        .collect();
    let set = cx.kernel().ipc.semaphores.find(id as i32)?;
    let size = set.size();
    if operations.iter().any(|op| usize::from(op.number) >= size) {
        return Err(Error::new(Errno::EFBIG, "no such semaphore"));
    }
    let want = if operations.iter().any(|op| op.change != 0) { 2 } else { 4 };
    set.look(|s| s.perm).allows(&cx.process().creds(), want)?;
    cx.semaphore_operations(&set, &operations, timeout).map(|()| 0)
}

/// semop(2).
pub fn semop(cx: &Cx, [id, at, count, ..]: [u64; 6]) -> Result<u64> {
    operate(cx, id, at, count, Timeout::Never)
}

/// semtimedop(2).
pub fn semtimedop(cx: &Cx, [id, at, count, time, ..]: [u64; 6]) -> Result<u64> {
    let timeout = if time == 0 { Timeout::Never } else { Timeout::after(timespec(cx, time)?) };
    operate(cx, id, at, count, timeout)
}

/// `struct semid64_ds`: x86-64 has room for the upper halves of times that it does not need.
fn encode(cx: &Cx, set: &Set) -> Vec<u8> {
    let mut out = Vec::with_capacity(104);
    set.look(|s| {
        perm(&s.perm, &mut out);
        let (operated, changed, size) = (s.operated as u64, s.changed as u64, s.all.len() as u64);
        let words = match cx.task().isa {
            Isa::X86_64 => vec![operated, 0, changed, 0, size, 0, 0],
            Isa::Aarch64 | Isa::Riscv64 => vec![operated, changed, size, 0, 0],
        };
        words.into_iter().for_each(|word| out.extend(word.to_le_bytes()));
    });
    out
}

/// `struct seminfo`.
fn info(cx: &Cx, at: u64, used: bool) -> Result<u64> {
    let all = cx.kernel().ipc.semaphores.list();
    let total: usize = all.iter().map(|(_, set)| set.size()).sum();
    let (sets, semaphores) = if used { (all.len(), total) } else { (20, SETS_MAX) };
    let words = [
        SETS_MAX,
        SETS_MAX,
        SETS_MAX,
        SETS_MAX,
        SET_SIZE_MAX,
        OPERATIONS_MAX,
        OPERATIONS_MAX,
        sets,
        VALUE_MAX as usize,
        semaphores,
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|word| (*word as u32).to_le_bytes()).collect();
    cx.user(|u| u.write(at, &bytes))?;
    Ok(all.len().saturating_sub(1) as u64)
}

/// semctl(2).
pub fn semctl(cx: &Cx, [id, number, command, arg, ..]: [u64; 6]) -> Result<u64> {
    let command = command as u32 as u64 & !IPC_64;
    let table = &cx.kernel().ipc.semaphores;
    let (creds, pid) = (cx.process().creds(), cx.process().pid());
    match command {
        IPC_INFO => return info(cx, arg, false),
        SEM_INFO => return info(cx, arg, true),
        SEM_STAT | SEM_STAT_ANY => {
            let all = table.list();
            let at = usize::try_from(id as i32).ok();
            let (id, set) = at.and_then(|at| all.get(at)).ok_or(invalid("no such index"))?;
            if command == SEM_STAT {
                set.look(|s| s.perm).allows(&creds, 4)?;
            }
            cx.user(|u| u.write(arg, &encode(cx, set)))?;
            return Ok(*id as u64);
        }
        _ => {}
    }
    let set: Arc<Set> = table.find(id as i32)?;
    let allows = |want: u32| set.look(|s| s.perm).allows(&creds, want);
    let one = || {
        allows(4)?;
        let at = usize::try_from(number as i32).map_err(|_| invalid("no such semaphore"))?;
        set.look(|s| s.all.get(at).copied()).ok_or(invalid("no such semaphore"))
    };
    match command {
        IPC_RMID => {
            set.look(|s| s.perm).owned_by(&creds)?;
            table.remove(id as i32)?.removed();
            Ok(0)
        }
        IPC_SET => {
            let ([uid, gid, mode], []) = read_perm::<0>(cx, arg)?;
            set.look(|s| s.perm).owned_by(&creds)?;
            set.set_perm(uid, gid, mode, now(cx));
            Ok(0)
        }
        IPC_STAT => {
            allows(4)?;
            cx.user(|u| u.write(arg, &encode(cx, &set))).map(|()| 0)
        }
        GETPID => one().map(|s| s.pid.into()),
        GETVAL => one().map(|s| s.value as u64),
        GETNCNT => one().map(|s| s.growing.into()),
        GETZCNT => one().map(|s| s.zero.into()),
        GETALL => {
            allows(4)?;
            let bytes: Vec<u8> = set.look(|s| s.all.iter().flat_map(|s| (s.value as u16).to_le_bytes()).collect());
            cx.user(|u| u.write(arg, &bytes)).map(|()| 0)
        }
        SETVAL => {
            allows(2)?;
            let at = usize::try_from(number as i32).map_err(|_| invalid("no such semaphore"))?;
            set.set_values(at, &[arg as i32], pid, now(cx)).map(|()| 0)
        }
        SETALL => {
            allows(2)?;
            let raw: Vec<u16> = cx.user(|u| u.read_structs(arg, set.size(), SET_SIZE_MAX))?;
            let values: Vec<i32> = raw.into_iter().map(i32::from).collect();
            set.set_values(0, &values, pid, now(cx)).map(|()| 0)
        }
        _ => Err(invalid("unknown command")),
    }
}
