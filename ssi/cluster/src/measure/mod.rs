//! `/proc/cob/measure`: what a message to a peer costs, and what lies under it. Writing a kernel's index measures (with the name of a figure after it
//! only that, with a number after the name so many rounds of it), reading gives the last figures.
//!
//! Both kernels take part as they are: the peer's receive path answers, polling or woken by the bell as its idle loop decides. What a message cannot be
//! faster than is measured in the same run: a line of memory that goes to and fro between the same two CPUs, polled or with a bell for each store.
//!
//! Three rows prove more than they measure: `order`, that many messages come whole, once and in order, `wakeups`, that of many sleeps none is slept
//! through, and `group`, that all kernels hear all that is said to all, in order.

mod answers;
mod bulk;
mod line;
mod run;
mod spread;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use base::wait::{TryResult, done};
use base::{Errno, Error};
use hal::sync::{SpinLock, rank};
use link::window::Reach;
use procfs::entry::Entry;
use task::Kernel;
use vfs::Caller;

pub use self::answers::Tests;
pub use self::line::own_piece;
use self::run::{Order, Run};
use crate::Peers;

const MS: u64 = 1_000_000;
/// How long one side waits for the other before it gives up.
const PATIENCE: u64 = 2_000 * MS;
/// Interrupts are let in after so many polled round trips.
const BREATH: u32 = 64;

/// The longest payload of a message whose content is compared.
const CONTENT: u64 = 256;

/// What a message of a proof carries: bytes that only this one has, of a length between none and several lines.
fn content(value: u64) -> impl Iterator<Item = u8> {
    let seed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..seed % CONTENT).map(move |at| (seed >> (at % 57)) as u8)
}

/// The file.
pub struct Measure(Arc<Shared>);

struct Shared {
    kernel: Arc<Kernel>,
    peers: Arc<Peers>,
    reaches: Vec<Reach>,
    last: SpinLock<String>,
    busy: AtomicBool,
}

impl Measure {
    /// Of a kernel that reaches the others so.
    pub fn new(kernel: &Arc<Kernel>, peers: &Arc<Peers>, reaches: Vec<Reach>) -> Self {
        Self(Arc::new(Shared {
            kernel: kernel.clone(),
            peers: peers.clone(),
            reaches,
            last: SpinLock::new(rank::INODE_NAMES, String::new()),
            busy: AtomicBool::new(false),
        }))
    }
}

impl Entry for Measure {
    fn read(&self, _: &Caller) -> TryResult<Vec<u8>> {
        done(self.0.last.lock().clone().into_bytes())
    }

    fn write(&self, caller: &Caller, bytes: &[u8]) -> TryResult<()> {
        if caller.uid != 0 {
            return Err(Errno::EPERM.into());
        }
        let text = core::str::from_utf8(bytes).unwrap_or_default();
        let (index, order) = Order::parse(text)?;
        let shared = self.0.clone();
        if index == shared.kernel.id().index || index >= shared.kernel.facts.kernels {
            return Err(Error::new(Errno::ENXIO, "not another kernel of the plan"));
        }
        let view = shared.peers.view();
        let peer = view.at(index).ok_or(Error::new(Errno::EHOSTDOWN, "the kernel is not up"))?;
        if shared.busy.swap(true, Ordering::Acquire) {
            return Err(Errno::EBUSY.into());
        }
        let (call, completer) = objects::call::<()>();
        let kernel = shared.kernel.clone();
        let started = kernel.start_thread("measure", move |thread| {
            let run = Run { shared: &shared, peer: objects::to_wire(peer), thread };
            let result = run.all(order).map(|text| *shared.last.lock() = text);
            shared.busy.store(false, Ordering::Release);
            // Nobody waits any more: the figures can be read all the same.
            let _ = completer.complete(result.and_then(done));
        });
        if let Err(why) = started {
            self.0.busy.store(false, Ordering::Release);
            return Err(why);
        }
        call.into_try()
    }

    fn mode(&self) -> u32 {
        0o644
    }
}
