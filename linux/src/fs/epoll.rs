//! epoll(7).

use base::{Errno, Ready, Result};
use linux_abi::{
    flags::{OpenFlags as Abi, Poll},
    structs::EpollEvent,
};
use task::{Cx, Interrupted, Timeout};
use vfs::epoll::{Epoll, Interest, Watch};

use super::{file, install, invalid, poll::mask};
use crate::{signal::read_set, time};

/// epoll_create(2).
pub fn epoll_create(cx: &Cx, [size, ..]: [u64; 6]) -> Result<u64> {
    if size as i32 <= 0 {
        return Err(invalid("the size must be positive"));
    }
    epoll_create1(cx, [0; 6])
}

/// epoll_create1(2).
pub fn epoll_create1(cx: &Cx, [flags, ..]: [u64; 6]) -> Result<u64> {
    let abi = Abi::from_program(cx.task().isa, flags as u32);
    if !Abi::CLOEXEC.contains(abi) {
        return Err(invalid("unknown flags"));
    }
    install(cx, Epoll::open(cx.kernel().vfs(), &cx.caller()), abi.contains(Abi::CLOEXEC))
}

/// epoll_ctl(2).
pub fn epoll_ctl(cx: &Cx, [epfd, op, fd, event, ..]: [u64; 6]) -> Result<u64> {
    const ADD: u64 = 1;
    const DEL: u64 = 2;
    const MOD: u64 = 3;
    let set = file(cx, epfd)?;
    let target = file(cx, fd)?;
    let epoll = Epoll::behind(&*set)?;
    if core::ptr::addr_eq(alloc::sync::Arc::as_ptr(&set), alloc::sync::Arc::as_ptr(&target)) {
        return Err(invalid("an epoll instance cannot watch itself"));
    }
    let fd = fd as u32;
    if op == DEL {
        return epoll.remove(fd, &target).map(|()| 0);
    }
    let isa = cx.task().isa;
    let mut bytes = [0; 16];
    let bytes = bytes.get_mut(..EpollEvent::size(isa)).unwrap_or_default();
    cx.user(|u| u.read(event, bytes))?;
    let event = EpollEvent::decode(isa, bytes).ok_or(invalid("no event"))?;
    let flags = Poll::from_bits_retain(event.events);
    let mut watch = Watch::empty();
    watch.set(Watch::EDGE, flags.contains(Poll::ET));
    watch.set(Watch::ONCE, flags.contains(Poll::ONESHOT));
    watch.set(Watch::EXCLUSIVE, flags.contains(Poll::EXCLUSIVE));
    let interest = Interest { mask: mask(event.events), watch, data: event.data };
    match op {
        ADD => epoll.add(&cx.caller(), fd, &target, interest),
        MOD => epoll.modify(&cx.caller(), fd, &target, interest),
        _ => Err(invalid("unknown operation")),
    }?;
    Ok(0)
}

fn wait(cx: &Cx, epfd: u64, at: u64, max: u64, timeout: Timeout) -> Result<u64> {
    let isa = cx.task().isa;
    let size = EpollEvent::size(isa);
    let max = usize::try_from(max as i32).ok().filter(|n| *n > 0).ok_or(invalid("no room for events"))?;
    let set = file(cx, epfd)?;
    let epoll = Epoll::behind(&*set)?;
    let caller = cx.caller();
    let collect = || {
        epoll.collect(max.min(1024), &mut |file| match file.poll(&caller) {
            Ok(base::Try::Done(ready)) => ready,
            Ok(tried) => cx.settle(Ok(tried), Interrupted::Never).unwrap_or(Ready::ERR),
            Err(_) => Ready::ERR,
        })
    };
    let mut events = collect();
    if events.is_empty() && timeout != Timeout::Now {
        let bell = cx.bell();
        let subscription = epoll.waiters().subscribe_exclusive(Ready::IN, bell.clone());
        let mut sleep = cx.sleep(timeout, Interrupted::Never);
        loop {
            bell.clear();
            events = collect();
            if !events.is_empty() {
                break;
            }
            match sleep.until(&bell) {
                Ok(()) => {}
                Err(e) if e == Errno::ETIMEDOUT => break,
                Err(e) => return Err(e),
            }
        }
        drop(sleep);
        drop(subscription);
    }
    for (i, event) in events.iter().enumerate() {
        let told = EpollEvent { events: event.ready.bits(), data: event.data };
        cx.user(|u| u.write(at + (i * size) as u64, &told.encode(isa)))?;
    }
    Ok(events.len() as u64)
}

fn after_ms(ms: u64) -> Timeout {
    match ms as i32 {
        0 => Timeout::Now,
        ms if ms < 0 => Timeout::Never,
        ms => Timeout::after(ms as u64 * 1_000_000),
    }
}

/// epoll_wait(2).
pub fn epoll_wait(cx: &Cx, [epfd, at, max, timeout, ..]: [u64; 6]) -> Result<u64> {
    wait(cx, epfd, at, max, after_ms(timeout))
}

fn with_mask(cx: &Cx, mask: u64, size: u64) -> Result<()> {
    if mask != 0 {
        let set = read_set(cx, mask, size)?;
        cx.task().set_mask_for_call(set);
    }
    Ok(())
}

/// epoll_pwait(2).
pub fn epoll_pwait(cx: &Cx, [epfd, at, max, timeout, mask, size]: [u64; 6]) -> Result<u64> {
    with_mask(cx, mask, size)?;
    wait(cx, epfd, at, max, after_ms(timeout))
}

/// epoll_pwait2(2).
pub fn epoll_pwait2(cx: &Cx, [epfd, at, max, timeout, mask, size]: [u64; 6]) -> Result<u64> {
    let timeout = match timeout {
        0 => Timeout::Never,
        at => Timeout::after(time::timespec(cx, at)?),
    };
    with_mask(cx, mask, size)?;
    wait(cx, epfd, at, max, timeout)
}
