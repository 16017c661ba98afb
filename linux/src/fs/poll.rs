//! Waiting for many: poll(2), select(2).

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, Ready, Result, Subscription, Try};
use linux_abi::{
    flags::Poll,
    structs::{FdSet, PollFd, Timespec},
};
use task::{Cx, Interrupted, Timeout};
use vfs::OpenFile;

use super::{fd_limit, invalid};
use crate::{signal::read_set, time};

/// One descriptor that is waited for.
struct Watched {
    file: Arc<dyn OpenFile>,
    mask: Ready,
}

/// From what a program asks to what objects know: `POLLRDNORM` is `POLLIN`, `POLLWRNORM` is `POLLOUT`.
pub(super) fn mask(bits: u32) -> Ready {
    let mut mask = Ready::from_bits_truncate(bits);
    mask.set(Ready::IN, bits & (Poll::IN | Poll::RDNORM).bits() != 0);
    mask.set(Ready::OUT, bits & (Poll::OUT | Poll::WRNORM).bits() != 0);
    mask
}

/// What to tell a program that asked for `bits`.
fn bits(ready: Ready, bits: u32) -> u32 {
    let mut told = ready.bits();
    if ready.contains(Ready::IN) {
        told |= Poll::RDNORM.bits();
    }
    if ready.contains(Ready::OUT) {
        told |= Poll::WRNORM.bits();
    }
    told & (bits | (Ready::ERR | Ready::HUP).bits())
}

/// Waits until `look` counts something, which sees what each of `watched` is ready for.
fn wait(
    cx: &Cx,
    watched: &[Option<Watched>],
    timeout: Timeout,
    look: &mut dyn FnMut(usize, Ready) -> bool,
) -> Result<u64> {
    let caller = cx.caller();
    let mut count = || -> Result<u64> {
        let mut n = 0;
        for (i, w) in watched.iter().enumerate() {
            let Some(w) = w else { continue };
            let ready = match w.file.poll(&caller) {
                Ok(Try::Done(ready)) => ready,
                Ok(tried) => cx.settle(Ok(tried), Interrupted::NoHandler)?,
                Err(_) => Ready::ERR,
            };
            n += u64::from(look(i, ready));
        }
        Ok(n)
    };
    let n = count()?;
    if n > 0 || timeout == Timeout::Now {
        return Ok(n);
    }
    // A look may be a wait itself: what happens meanwhile must not be missed.
    let bell = cx.bell();
    let subscriptions: Vec<Subscription> =
        watched.iter().flatten().map(|w| w.file.subscribe(w.mask, bell.clone())).collect();
    let mut sleep = cx.sleep(timeout, Interrupted::NoHandler);
    let result = loop {
        bell.clear();
        let n = count()?;
        if n > 0 {
            break Ok(n);
        }
        match sleep.until(&bell) {
            Ok(()) => {}
            Err(e) if e == Errno::ETIMEDOUT => break Ok(0),
            Err(e) => break Err(e),
        }
    };
    drop(sleep);
    drop(subscriptions);
    result
}

fn do_poll(cx: &Cx, at: u64, n: u64, timeout: Timeout) -> Result<u64> {
    if n > fd_limit(cx) {
        return Err(invalid("more descriptors than there can be"));
    }
    let count = n as usize;
    let mut fds: Vec<PollFd> = cx.user(|u| u.read_structs(at, count, count))?;
    let files = cx.task().files();
    let mut bad = 0;
    let mut watched = Vec::with_capacity(fds.len());
    for fd in &mut fds {
        fd.revents = 0;
        let file = if fd.fd < 0 { None } else { Some(files.get(fd.fd as u64)) };
        watched.push(match file {
            None => None,
            Some(Ok(file)) => Some(Watched { file, mask: mask(u32::from(fd.events)) }),
            Some(Err(_)) => {
                fd.revents = Poll::NVAL.bits() as u16;
                bad += 1;
                None
            }
        });
    }
    let timeout = if bad > 0 { Timeout::Now } else { timeout };
    let ready = wait(cx, &watched, timeout, &mut |i, ready| {
        let Some(fd) = fds.get_mut(i) else { return false };
        fd.revents = bits(ready, u32::from(fd.events)) as u16;
        fd.revents != 0
    })?;
    for (i, fd) in fds.iter().enumerate() {
        let to = at + (i * size_of::<PollFd>()) as u64 + 6;
        cx.user(|u| u.write(to, &fd.revents.to_le_bytes()))?;
    }
    Ok(ready + bad)
}

/// poll(2).
pub fn poll(cx: &Cx, [at, n, timeout, ..]: [u64; 6]) -> Result<u64> {
    let ms = timeout as i32;
    if ms < 0 {
        return do_poll(cx, at, n, Timeout::Never);
    }
    if ms == 0 {
        return do_poll(cx, at, n, Timeout::Now);
    }
    let deadline = cx.deadline(ms as u64 * 1_000_000);
    let result = do_poll(cx, at, n, Timeout::At(deadline));
    if result.as_ref().is_err_and(|e| *e == Errno::EINTR) {
        cx.restart_until(deadline);
    }
    result
}

/// The time-out of ppoll and pselect6, and when it was read: what is left is written back.
struct TimeLeft {
    at: u64,
    deadline: u64,
}

fn time_left(cx: &Cx, at: u64) -> Result<(Timeout, Option<TimeLeft>)> {
    if at == 0 {
        return Ok((Timeout::Never, None));
    }
    let ns = time::timespec(cx, at)?;
    let deadline = hal::time::now().saturating_add(ns);
    Ok((if ns == 0 { Timeout::Now } else { Timeout::At(deadline) }, Some(TimeLeft { at, deadline })))
}

fn write_back(cx: &Cx, left: Option<TimeLeft>) {
    if let Some(left) = left {
        let ns = left.deadline.saturating_sub(hal::time::now());
        // A time-out in read-only memory is no reason to lose the result (select_tut(2)).
        let _ = cx.user(|u| u.write_struct(left.at, &Timespec::from_nanos(ns)));
    }
}

/// ppoll(2).
pub fn ppoll(cx: &Cx, [at, n, timeout, mask, size, _]: [u64; 6]) -> Result<u64> {
    let (timeout, left) = time_left(cx, timeout)?;
    if mask != 0 {
        let set = read_set(cx, mask, size)?;
        cx.task().set_mask_for_call(set);
    }
    let result = do_poll(cx, at, n, timeout);
    write_back(cx, left);
    result
}

/// The descriptors of three sets, as `select` has them.
struct Sets {
    n: usize,
    /// Where they are, and what was asked.
    sets: [(u64, Vec<u8>); 3],
}

/// What each set of `select` means: `POLLIN_SET`, `POLLOUT_SET`, `POLLEX_SET` of Linux.
const MEANS: [Ready; 3] = [Ready::IN.union(Ready::HUP).union(Ready::ERR), Ready::OUT.union(Ready::ERR), Ready::PRI];

fn bit(set: &[u8], fd: usize) -> bool {
    set.get(fd / 8).is_some_and(|b| b & 1 << (fd % 8) != 0)
}

fn do_select(cx: &Cx, n: u64, at: [u64; 3], timeout: Timeout) -> Result<u64> {
    let n = usize::try_from(n as i32).map_err(|_| invalid("negative count"))?.min(fd_limit(cx) as usize);
    let bytes = FdSet::bytes(n);
    let mut sets = Sets { n, sets: at.map(|at| (at, Vec::new())) };
    for (at, set) in &mut sets.sets {
        set.resize(bytes, 0);
        if *at != 0 {
            cx.user(|u| u.read(*at, set))?;
        }
    }
    let files = cx.task().files();
    let mut fds = Vec::new();
    let mut watched = Vec::new();
    for fd in 0..sets.n {
        let mut want = Ready::empty();
        for ((_, set), means) in sets.sets.iter().zip(MEANS) {
            if bit(set, fd) {
                want |= means;
            }
        }
        if !want.is_empty() {
            let file = files.get(fd as u64).map_err(|_| Error::new(Errno::EBADF, "a set names no descriptor"))?;
            watched.push(Some(Watched { file, mask: want }));
            fds.push(fd);
        }
    }
    let mut out = [const { Vec::new() }; 3];
    for set in &mut out {
        *set = alloc::vec![0_u8; bytes];
    }
    let mut total = 0;
    wait(cx, &watched, timeout, &mut |i, ready| {
        let Some(fd) = fds.get(i).copied() else { return false };
        let mut any = false;
        for (((_, set), means), out) in sets.sets.iter().zip(MEANS).zip(&mut out) {
            if bit(set, fd) && ready.intersects(means) {
                if let Some(byte) = out.get_mut(fd / 8) {
                    *byte |= 1 << (fd % 8);
                }
                total += 1;
                any = true;
            }
        }
        any
    })?;
    for ((at, _), out) in sets.sets.iter().zip(&out) {
        if *at != 0 {
            cx.user(|u| u.write(*at, out))?;
        }
    }
    Ok(total)
}

/// select(2).
pub fn select(cx: &Cx, [n, read, write, except, at, _]: [u64; 6]) -> Result<u64> {
    if at == 0 {
        return do_select(cx, n, [read, write, except], Timeout::Never);
    }
    let ns = time::timeval(cx, at)?;
    let deadline = hal::time::now().saturating_add(ns);
    let timeout = if ns == 0 { Timeout::Now } else { Timeout::At(deadline) };
    let result = do_select(cx, n, [read, write, except], timeout);
    let left = linux_abi::structs::Timeval::from_nanos(deadline.saturating_sub(hal::time::now()));
    let _ = cx.user(|u| u.write_struct(at, &left));
    result
}

/// pselect6(2).
pub fn pselect6(cx: &Cx, [n, read, write, except, at, mask]: [u64; 6]) -> Result<u64> {
    let (timeout, left) = time_left(cx, at)?;
    if mask != 0 {
        let [set, size]: [u64; 2] = cx.user(|u| u.read_struct(mask))?;
        if set != 0 {
            let set = read_set(cx, set, size)?;
            cx.task().set_mask_for_call(set);
        }
    }
    let result = do_select(cx, n, [read, write, except], timeout);
    write_back(cx, left);
    result
}
