//! wait4(2) and waitid(2).

use base::{Errno, Error, Ready, Result};

use super::{Interrupted, Timeout};
use crate::{
    children::{ChildRecord, Found, Status, Usage, Wanted},
    cx::Cx,
};

impl Cx {
    /// Waits for a child to change state; `None` if nothing happened and `now` was asked for (WNOHANG).
    ///
    /// # Errors
    /// `ECHILD` if there is no such child, `EINTR`.
    pub fn wait_child(&self, wanted: &Wanted, now: bool) -> Result<Option<(ChildRecord, Status, Usage)>> {
        let process = self.process();
        let look = || {
            let mut shared = process.shared.lock();
            let found = shared.children.wait(wanted);
            if let Found::Child(child, _, usage) = &found
                && child.zombie.is_some()
                && !wanted.keep
            {
                shared.children_usage.add(usage);
            }
            found
        };
        let mut found = look();
        if found == Found::NotYet && !now {
            let _waiter = process.child_waiters.add(Ready::IN, self.waker());
            found = self.wait_until(
                || match look() {
                    Found::NotYet => None,
                    found => Some(found),
                },
                Timeout::Never,
                Interrupted::Restart,
            )?;
        }
        match found {
            Found::None => Err(Error::new(Errno::ECHILD, "no such child")),
            Found::NotYet => Ok(None),
            Found::Child(child, status, usage) => {
                if child.zombie.is_some() && !wanted.keep {
                    self.kernel().reap(child.pid);
                }
                Ok(Some((child, status, usage)))
            }
        }
    }
}
