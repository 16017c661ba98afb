//! How kernels ask the board controller of a machine of several boards to stop a board or to start it again: by words in a page that all boards
//! share, or, where nothing is shared, by frames on the network ([`ether`]).
//!
//! In emulation the page is the shared memory of the `ivshmem-doorbell` devices, and `cob` is the controller. Every board has a record of two
//! little-endian words. Who wants something counts the first word up and rings the controller; the controller does what the newest request asks and
//! writes that word into the second, with [`FAILED`] if it could not be done.
#![no_std]
#![forbid(unsafe_code)]

pub mod ether;

/// Bytes of the page: what a BAR can have.
pub const PAGE: usize = 4096;
/// Bells that each board can be rung by: kernels use the first.
pub const VECTORS: u16 = 1;
/// In an answer: it could not be done.
pub const FAILED: u64 = 1 << 63;

/// What can be asked of a board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// All CPUs stand still, and all devices.
    Stop = 1,
    /// The board begins anew: with its stub, or, where nothing is shared, with its firmware.
    Start = 2,
}

impl Order {
    const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Stop),
            2 => Some(Self::Start),
            _ => None,
        }
    }
}

/// Where the request of a board is.
pub const fn request(board: usize) -> usize {
    board * 64
}

/// Where the answer is.
pub const fn answer(board: usize) -> usize {
    board * 64 + 8
}

/// The request after this one.
pub const fn next(before: u64, order: Order) -> u64 {
    ((before >> 8) + 1) << 8 | order as u64
}

/// What a request asks; `None`: nothing yet, or nothing that is known.
pub const fn order(request: u64) -> Option<Order> {
    Order::of(request as u8)
}

/// Whether an answer answers a request, and how: it may be for a newer one.
pub const fn answered(answer: u64, request: u64) -> Option<bool> {
    if (answer & !FAILED) >> 8 >= request >> 8 { Some(answer & FAILED == 0) } else { None }
}

#[cfg(test)]
mod tests {
    use super::{FAILED, Order, answered, next, order};

    #[test]
    fn answers_are_for_requests_up_to_theirs() {
        let stop = next(0, Order::Stop);
        let start = next(stop, Order::Start);
        assert_eq!((order(0), order(stop), order(start)), (None, Some(Order::Stop), Some(Order::Start)));
        assert_eq!(answered(0, stop), None);
        assert_eq!(answered(stop, stop), Some(true));
        assert_eq!(answered(stop, start), None);
        assert_eq!(answered(start, stop), Some(true));
        assert_eq!(answered(start | FAILED, start), Some(false));
    }
}
