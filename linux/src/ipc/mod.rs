//! System V semaphores and message queues.

mod msg;
mod sem;

use alloc::vec::Vec;

use base::{Errno, Error, Result};
use task::{
    Cx,
    ipc::{Get, Perm},
};

pub use msg::{msgctl, msgget, msgrcv, msgsnd};
pub use sem::{semctl, semget, semop, semtimedop};

const CREATE: u64 = 0o1000;
const EXCLUSIVE: u64 = 0o2000;
/// `IPC_NOWAIT`.
const NOWAIT: u64 = 0o4000;
const IPC_RMID: u64 = 0;
const IPC_SET: u64 = 1;
const IPC_STAT: u64 = 2;
const IPC_INFO: u64 = 3;
/// 64-bit programs of all ISAs may say so, and it changes nothing.
const IPC_64: u64 = 0x100;

fn invalid(why: &'static str) -> Error {
    Error::new(Errno::EINVAL, why)
}

/// Seconds since 1970.
fn now(cx: &Cx) -> i64 {
    cx.kernel().clocks.realtime() / 1_000_000_000
}

fn get(key: u64, flags: u64) -> Get {
    Get { key: key as i32, create: flags & CREATE != 0, exclusive: flags & EXCLUSIVE != 0, mode: flags as u32 & 0o777 }
}

/// `struct ipc64_perm`, the same on all three ISAs.
fn perm(perm: &Perm, out: &mut Vec<u8>) {
    for word in [perm.key as u32, perm.uid, perm.gid, perm.cuid, perm.cgid, perm.mode, 0, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend([0; 16]);
}

/// Owner, group and mode of a `struct ipc64_perm` that a program gives, and what follows it.
fn read_perm<const N: usize>(cx: &Cx, at: u64) -> Result<([u32; 3], [u8; N])> {
    let mut head = [0_u8; 48];
    let mut rest = [0_u8; N];
    cx.user(|u| {
        u.read(at, &mut head)?;
        u.read(at + 48, &mut rest)
    })?;
    let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    Ok(([word(4), word(8), word(20)], rest))
}
