//! The echo service: sends back what it gets; and what measurements build on: round trips through the complete path.

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linux_abi::Errno;
use wire::{
    KernelId, Message as _, ObjectId,
    test::{Echo, EchoBulk, EchoReply, EchoUrgent},
};

use crate::{
    error::Result,
    links::Links,
    service::{Handler, Incoming},
};

/// Answers every [`Echo`] at once, and those of other lanes.
#[derive(Clone, Copy, Debug, Default)]
pub struct EchoService;

impl Handler for EchoService {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> Result<()> {
        let (value, payload) = match message.header.kind {
            kind if kind == EchoUrgent::SPEC.number => {
                message.read::<EchoUrgent>().map(|(echo, rest)| (echo.value, rest))
            }
            kind if kind == EchoBulk::SPEC.number => message.read::<EchoBulk>().map(|(echo, rest)| (echo.value, rest)),
            _ => message.read::<Echo>().map(|(echo, rest)| (echo.value, rest)),
        }?;
        links.answer(message.answer_to(), &EchoReply { value }, payload)
    }
}

/// Makes `count` round trips to a peer, one after the other, polling. `go_on` is asked between polls; when it says no the rest is left out.
///
/// # Errors
/// `EIO` if a request failed, `ETIMEDOUT` if not all were answered, `EBUSY` if another CPU receives.
pub fn round_trips(
    links: &Links,
    peer: KernelId,
    count: u64,
    payload: &[u8],
    deadline: u64,
    mut go_on: impl FnMut() -> bool,
) -> Result<()> {
    let ended = Arc::new((AtomicU64::new(0), AtomicBool::new(false)));
    let mut asked = 0;
    let polled = links.watch(|_| {
        if ended.0.load(Ordering::Acquire) == asked {
            if asked == count || ended.1.load(Ordering::Relaxed) {
                return false;
            }
            let done = ended.clone();
            let then = Box::new(move |_: &Links, answer: Result<Incoming<'_>>| {
                if answer.is_err() {
                    done.1.store(true, Ordering::Relaxed);
                }
                done.0.fetch_add(1, Ordering::Release);
            });
            asked += 1;
            links.request(peer, ObjectId::NONE, &Echo { value: asked }, payload, deadline, then);
        }
        go_on()
    });
    let error = |errno, why| Err(crate::Error::new(errno, why, peer));
    match (polled, ended.1.load(Ordering::Relaxed)) {
        (false, _) => error(Errno::EBUSY, "another CPU receives"),
        (_, true) => error(Errno::EIO, "an echo failed"),
        _ if ended.0.load(Ordering::Relaxed) < count => error(Errno::ETIMEDOUT, "no echo"),
        _ => Ok(()),
    }
}
