//! How a service's state machine joins the simulation.

use std::{any::Any, collections::BTreeSet, fmt::Debug, rc::Rc};

use base::KernelId;
use membership::{Membership, View};
use wire::Lane;

use crate::{coverage::Coverage, judge::Judge, rng::Rng};

/// The body of a service's message: any value that can be shown in a trace.
pub trait Body: Any + Debug {
    /// As what it is.
    fn as_any(&self) -> &dyn Any;
}

impl<T: Any + Debug> Body for T {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What a service does in a step.
#[derive(Debug)]
pub struct Context<'a> {
    /// The kernel that it runs on.
    pub me: KernelId,
    /// The time in nanoseconds.
    pub now: u64,
    /// The view in force on this kernel.
    pub view: &'a View,
    /// What this kernel knows of the others, for how they ended.
    pub membership: &'a Membership,
    /// Chance.
    pub rng: &'a mut Rng,
    /// Kernels whose links are closed: they are dead.
    pub closed: &'a BTreeSet<KernelId>,
    /// What is sent.
    pub sent: Vec<(KernelId, Lane, Rc<dyn Body>)>,
    /// Kernels that did not answer in time.
    pub overdue: Vec<KernelId>,
    /// What met what.
    pub coverage: &'a mut Coverage,
    /// When [`SimService::timer`] is called, at the latest.
    pub wake: Option<u64>,
}

impl Context<'_> {
    /// Sends a message of this service. It arrives unless the peer dies; in order within its lane. Nothing if the peer is known
    /// to be dead (see [`Context::closed`]).
    pub fn send(&mut self, to: KernelId, lane: Lane, body: impl Body) {
        if !self.closed.contains(&to) {
            self.sent.push((to, lane, Rc::new(body)));
        }
    }

    /// The other members that are not known to be dead.
    pub fn peers(&self) -> Vec<KernelId> {
        self.view.members.iter().copied().filter(|k| *k != self.me && !self.closed.contains(k)).collect()
    }

    /// Asks to be called at this time.
    pub fn wake_at(&mut self, at: u64) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }
}

/// A service on one kernel.
pub trait SimService: Any {
    /// A message of the same service on another kernel.
    fn message(&mut self, from: KernelId, body: &dyn Body, context: &mut Context<'_>);
    /// A kernel is dead and stopped: its link is closed (nothing of it comes any more), requests to it are answered.
    fn down(&mut self, dead: KernelId, context: &mut Context<'_>);
    /// This kernel entered a view.
    fn view(&mut self, context: &mut Context<'_>);
    /// Something for programs: a random operation.
    fn operate(&mut self, context: &mut Context<'_>);
    /// The time that was asked for has come.
    fn timer(&mut self, context: &mut Context<'_>);
    /// As what it is, for [`Suite::check`].
    fn as_any(&self) -> &dyn Any;
}

/// The running instances of one service: the kernels that are alive, and their parts.
pub type Parts<'a> = [(KernelId, &'a dyn SimService)];

/// A service as a whole: how its parts are made, and what must hold over all of them.
pub trait Suite {
    /// The name, for traces.
    fn name(&self) -> &'static str;
    /// The part on one kernel.
    fn start(&self, me: KernelId, kernels: u16) -> Box<dyn SimService>;
    /// A kernel stopped (for ever, in this incarnation): what was on it is gone.
    fn stopped(&mut self, kernel: KernelId, part: &dyn SimService) {
        let _ = (kernel, part);
    }
    /// What must hold after every step. `changed` is the kernel that made the step.
    ///
    /// # Errors
    /// The rule that does not hold.
    fn check(&mut self, changed: KernelId, parts: &Parts<'_>, judge: &Judge) -> Result<(), String>;
    /// What must hold when all is quiet.
    ///
    /// # Errors
    /// The rule that does not hold.
    fn finish(&mut self, parts: &Parts<'_>, judge: &Judge) -> Result<(), String>;
}
