//! What the lives of kernels speak of.

use alloc::vec::Vec;

use base::{Errno, KernelId};

use crate::rows::Row;

/// Names an order: its answer comes by this.
pub type Ticket = u64;

/// What is ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum What {
    /// Start it.
    Boot,
    /// Make it stop in good order.
    Stop,
}

/// Where the plan has a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// Its board: who is on one board reaches each other's CPUs and memory.
    pub board: u16,
    /// Its board begins anew with this kernel when any other kernel has that switched on, and whatever ran there is gone.
    pub switched: bool,
}

/// Times in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// How long a kernel that was started may take to join.
    pub patience: u64,
}

/// What kernels tell each other about lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// May I? To the coordinator.
    Ask {
        /// The sender's epoch.
        epoch: u32,
        /// Which kernel.
        index: u16,
        /// What.
        what: What,
    },
    /// No.
    Denied {
        /// Which kernel.
        index: u16,
        /// What.
        what: What,
        /// Why.
        errno: Errno,
    },
    /// What the sender knows; all of it if it is for the coordinator of an epoch.
    Table {
        /// The epoch.
        epoch: Option<u32>,
        /// These are all rows, and nothing that ever was is unknown to the sender.
        whole: bool,
        /// Rows by index.
        rows: Vec<(u16, Row)>,
    },
    /// The sender starts this kernel as soon as all have heard of it.
    Tell(KernelId),
    /// The sender has heard.
    Heard(KernelId),
    /// The receiver is to stop, if it is this one.
    Stop(KernelId),
    /// Start a kernel for me.
    Help {
        /// Returned in the answer.
        ticket: Ticket,
        /// Which kernel.
        index: u16,
    },
    /// It is up, or why not.
    Helped {
        /// Of the request.
        ticket: Ticket,
        /// The end.
        result: Result<(), Errno>,
    },
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A program orders something.
    Order {
        /// Never used before.
        ticket: Ticket,
        /// Which kernel.
        index: u16,
        /// What.
        what: What,
    },
    /// The program went away: nobody hears the answer.
    Forget(Ticket),
    /// The plan says that kernel `by` starts this one when the machine comes up.
    Planned {
        /// Its first incarnation.
        kernel: KernelId,
        /// Its starter.
        by: KernelId,
    },
    /// A message came.
    Received {
        /// From whom.
        from: KernelId,
        /// What.
        message: Message,
    },
    /// The membership entered a view.
    View {
        /// Its epoch.
        epoch: u32,
        /// Its members, by index.
        members: Vec<KernelId>,
    },
    /// A kernel is dead and stopped.
    Down {
        /// Who.
        kernel: KernelId,
        /// It had said goodbye.
        orderly: bool,
        /// It could not be stopped.
        lost: bool,
    },
    /// What [`Actions::bar`] came to: not if an earlier one is in, or on its way in.
    Barred {
        /// Who is to be started.
        kernel: KernelId,
        /// Whether none is.
        barred: bool,
    },
    /// What [`Actions::load`] came to.
    Loaded {
        /// Who was to be started.
        kernel: KernelId,
        /// Whether its CPU runs.
        result: Result<(), Errno>,
    },
    /// Time passed.
    Tick,
}

/// What is to be done. Nothing here waits.
pub trait Actions {
    /// Sends a message, in order per peer; nothing to one that is down.
    fn send(&mut self, to: KernelId, message: Message);
    /// Stops all CPUs of the index, loads its image, starts it as this incarnation. Ends with [`Event::Loaded`].
    fn load(&mut self, kernel: KernelId);
    /// It did not join: stops all its CPUs.
    fn abort(&mut self, kernel: KernelId);
    /// This kernel was told to stop.
    fn wind_down(&mut self);
    /// An order has ended.
    fn done(&mut self, ticket: Ticket, result: Result<(), Errno>);
    /// Makes sure that this kernel's membership lets no earlier incarnation of the index in any more. Ends with [`Event::Barred`].
    fn bar(&mut self, kernel: KernelId);
    /// The incarnation that is written in the memory of an index; 0 for none. It may be anything: only so that a kernel that was told nothing chooses
    /// a later one.
    fn written(&mut self, index: u16) -> u32;
}
