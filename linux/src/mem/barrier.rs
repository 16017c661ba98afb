//! `membarrier(2)`.

use core::sync::atomic::Ordering::Relaxed;

use base::{Errno, Error, Result};
use task::Cx;

use super::invalid;

const PRIVATE_EXPEDITED: u32 = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: u32 = 1 << 4;
const PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 5;
const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 6;
/// The commands for the threads of one process. Those for all processes of the machine would have to ask every kernel.
const KNOWN: u32 =
    PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED | PRIVATE_EXPEDITED_SYNC_CORE | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;

/// `membarrier(cmd, flags, cpu_id)`.
///
/// # Errors
/// See membarrier(2).
pub fn membarrier(cx: &Cx, [command, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags as u32 != 0 {
        return Err(invalid("unknown flags"));
    }
    let registered = &cx.process().membarrier;
    match command as u32 {
        0 => Ok(KNOWN.into()),
        register @ (REGISTER_PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE) => {
            registered.fetch_or(register, Relaxed);
            Ok(0)
        }
        command @ (PRIVATE_EXPEDITED | PRIVATE_EXPEDITED_SYNC_CORE) => {
            // The bit of the registration is the next one.
            if registered.load(Relaxed) & command << 1 == 0 {
                return Err(Error::new(Errno::EPERM, "the process has not registered for that"));
            }
            cx.space().synchronize();
            Ok(0)
        }
        _ => Err(invalid("unknown command")),
    }
}
