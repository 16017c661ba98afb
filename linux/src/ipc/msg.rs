//! msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use alloc::{vec, vec::Vec};

use base::{Errno, Error, Result};
use task::{
    Cx,
    creds::cap,
    ipc::{
        Perm,
        msg::{BYTES, MESSAGE_MAX, Message, QUEUES_MAX, Queue, Wanted},
    },
};

use super::{IPC_64, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, NOWAIT, get, invalid, now, perm, read_perm};

const MSG_STAT: u64 = 11;
const MSG_INFO: u64 = 12;
const MSG_STAT_ANY: u64 = 13;
const MSG_NOERROR: u64 = 0o10000;
const MSG_EXCEPT: u64 = 0o20000;
const MSG_COPY: u64 = 0o40000;

/// msgget(2).
pub fn msgget(cx: &Cx, [key, flags, ..]: [u64; 6]) -> Result<u64> {
    let creds = cx.process().creds();
    let make = || Ok(Queue::new(Perm::new(key as i32, flags as u32, &creds), now(cx)));
    cx.kernel().ipc.queues.get(get(key, flags), &creds, |_| Ok(()), make).map(|id| id as u64)
}

/// msgsnd(2).
pub fn msgsnd(cx: &Cx, [id, at, size, flags, ..]: [u64; 6]) -> Result<u64> {
    let size = usize::try_from(size).ok().filter(|n| *n <= MESSAGE_MAX).ok_or(invalid("size of a message"))?;
    let kind: i64 = cx.user(|u| u.read_struct(at))?;
    if kind < 1 {
        return Err(invalid("type of a message"));
    }
    let mut text = vec![0; size];
    cx.user(|u| u.read(at + 8, &mut text))?;
    let queue = cx.kernel().ipc.queues.find(id as i32)?;
    queue.look(|q| q.perm).allows(&cx.process().creds(), 2)?;
    cx.send_message(&queue, Message { kind, text: text.into() }, flags & NOWAIT != 0).map(|()| 0)
}

/// msgrcv(2), without `MSG_COPY`.
pub fn msgrcv(cx: &Cx, [id, at, size, kind, flags, _]: [u64; 6]) -> Result<u64> {
    if flags & MSG_COPY != 0 {
        return Err(Error::new(Errno::ENOSYS, "MSG_COPY"));
    }
    let size = usize::try_from(size as i64).map_err(|_| invalid("size of a message"))?;
    let wanted = match kind as i64 {
        0 => Wanted::Any,
        kind if kind < 0 => Wanted::UpTo(kind.checked_neg().unwrap_or(i64::MAX)),
        kind if flags & MSG_EXCEPT != 0 => Wanted::Except(kind),
        kind => Wanted::Kind(kind),
    };
    let queue = cx.kernel().ipc.queues.find(id as i32)?;
    queue.look(|q| q.perm).allows(&cx.process().creds(), 4)?;
    let (now, cut) = (flags & NOWAIT != 0, flags & MSG_NOERROR != 0);
    let message = cx.receive_message(&queue, wanted, size, cut, now).map_err(|e| match e.errno() {
        Errno::EAGAIN => Error::new(Errno::ENOMSG, "no such message"),
        _ => e,
    })?;
    let text = message.text.get(..size).unwrap_or(&message.text);
    cx.user(|u| {
        u.write_struct(at, &message.kind)?;
        u.write(at + 8, text)
    })?;
    Ok(text.len() as u64)
}

/// `struct msqid64_ds`, the same on all three ISAs.
fn encode(queue: &Queue) -> Vec<u8> {
    let mut out = Vec::with_capacity(120);
    queue.look(|q| {
        perm(&q.perm, &mut out);
        let (sent, received, changed) = (q.sent as u64, q.received as u64, q.changed as u64);
        for word in [sent, received, changed, q.bytes, q.messages.len() as u64, q.most] {
            out.extend(word.to_le_bytes());
        }
        for word in [q.sender, q.receiver, 0, 0, 0, 0] {
            out.extend(word.to_le_bytes());
        }
    });
    out
}

/// `struct msginfo`.
fn info(cx: &Cx, at: u64, used: bool) -> Result<u64> {
    let all = cx.kernel().ipc.queues.list();
    let sum = |f: fn(&Queue) -> usize| all.iter().map(|(_, q)| f(q)).sum::<usize>();
    let (pool, map, tql) = if used {
        (all.len(), sum(|q| q.look(|q| q.messages.len())), sum(|q| q.look(|q| q.bytes as usize)))
    } else {
        (QUEUES_MAX * BYTES as usize / 1024, BYTES as usize, BYTES as usize)
    };
    // pool, map, max, mnb, mni, ssz, tql, and a short for the segments.
    let words = [pool, map, MESSAGE_MAX, BYTES as usize, QUEUES_MAX, 16, tql, 0xffff];
    let bytes: Vec<u8> = words.iter().flat_map(|word| (*word as u32).to_le_bytes()).collect();
    cx.user(|u| u.write(at, &bytes))?;
    Ok(all.len().saturating_sub(1) as u64)
}

/// msgctl(2).
pub fn msgctl(cx: &Cx, [id, command, arg, ..]: [u64; 6]) -> Result<u64> {
    let command = command as u32 as u64 & !IPC_64;
    let table = &cx.kernel().ipc.queues;
    let creds = cx.process().creds();
    match command {
        IPC_INFO => return info(cx, arg, false),
        MSG_INFO => return info(cx, arg, true),
        MSG_STAT | MSG_STAT_ANY => {
            let all = table.list();
            let at = usize::try_from(id as i32).ok();
            let (id, queue) = at.and_then(|at| all.get(at)).ok_or(invalid("no such index"))?;
            if command == MSG_STAT {
                queue.look(|q| q.perm).allows(&creds, 4)?;
            }
            cx.user(|u| u.write(arg, &encode(queue)))?;
            return Ok(*id as u64);
        }
        _ => {}
    }
    let queue = table.find(id as i32)?;
    match command {
        IPC_RMID => {
            queue.look(|q| q.perm).owned_by(&creds)?;
            table.remove(id as i32)?.removed();
            Ok(0)
        }
        IPC_SET => {
            let ([uid, gid, mode], rest) = read_perm::<48>(cx, arg)?;
            queue.look(|q| q.perm).owned_by(&creds)?;
            let most = rest.last_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            if most > BYTES && !creds.can(cap::SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            queue.set(uid, gid, mode, most, now(cx));
            Ok(0)
        }
        IPC_STAT => {
            queue.look(|q| q.perm).allows(&creds, 4)?;
            cx.user(|u| u.write(arg, &encode(&queue))).map(|()| 0)
        }
        _ => Err(invalid("unknown command")),
    }
}
