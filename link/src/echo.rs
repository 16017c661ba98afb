//! The echo service: sends back what it gets; and what measurements build on: round trips through the complete path.

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicU64, Ordering};

use wire::{
    KernelId, ObjectId,
    test::{Echo, EchoReply},
};

use crate::{
    error::Result,
    links::Links,
    service::{Handler, Incoming},
};

/// Answers every [`Echo`] at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct EchoService;

impl Handler for EchoService {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> Result<()> {
        let (echo, payload) = message.read::<Echo>()?;
        links.answer(message.answer_to(), &EchoReply { value: echo.value }, payload)
    }
}

/// Makes `count` round trips to a polling peer, one after the other, polling too; `each` gets the nanoseconds of every one. Stops at the first
/// that fails.
///
/// # Errors
/// What the request ended with: `EHOSTDOWN`, `ETIMEDOUT`, …
pub fn round_trips(
    links: &Arc<Links>,
    peer: KernelId,
    count: usize,
    payload: &[u8],
    now: impl Fn() -> u64,
    mut each: impl FnMut(u64),
) -> Result<()> {
    /// A round trip under way, answered, failed.
    const WAITING: u64 = 0;
    const ANSWERED: u64 = 1;
    const FAILED: u64 = 2;

    let state = Arc::new(AtomicU64::new(WAITING));
    for value in 0..count as u64 {
        state.store(WAITING, Ordering::Relaxed);
        let start = now();
        let done = state.clone();
        let then = Box::new(move |_: &Links, answer: Result<Incoming<'_>>| {
            let end = if answer.is_ok() { ANSWERED } else { FAILED };
            done.store(end, Ordering::Release);
        });
        links.request(peer, ObjectId::NONE, &Echo { value }, payload, start + 1_000_000_000, then);
        while state.load(Ordering::Acquire) == WAITING {
            links.poll(1);
            if now() > start + 2_000_000_000 {
                break;
            }
        }
        if state.load(Ordering::Acquire) != ANSWERED {
            return Err(crate::Error::new(linux_abi::Errno::ETIMEDOUT, "no echo", peer));
        }
        each(now() - start);
    }
    while links.receive(64) {}
    Ok(())
}

/// Answers echoes by polling, until `until` on the clock `now`.
pub fn serve(links: &Links, now: impl Fn() -> u64, until: u64) {
    while now() < until {
        links.poll(16);
    }
    while links.receive(64) {}
}
