//! Which events the state machines met in which situations, in all states: the simulator's list of pairs that cannot be is held against it.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use cob_sim::coverage::{Coverage, MACHINES};

/// The checker makes steps on several threads, and keeps nothing of its own beside states.
static MET: Mutex<Option<Coverage>> = Mutex::new(None);

/// An event, or the message that came, in a situation.
pub fn met(service: &'static str, situation: &'static str, event: &dyn Debug) {
    let mut met = MET.lock().unwrap_or_else(PoisonError::into_inner);
    met.get_or_insert_default().met(service, situation, event);
}

/// Says how many pairs there are; `false` if one was met that cannot be.
pub fn judge() -> bool {
    let met = MET.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
    println!("{met}");
    let impossible = met.impossible();
    for (service, situation, event) in &impossible {
        println!("  not so: {service} got {event} while {situation}, which cannot be");
    }
    // Who met nothing has proved nothing.
    impossible.is_empty() && MACHINES.iter().all(|machine| met.count(machine.name) > 0)
}
