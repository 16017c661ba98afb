//! Memory that devices read and write: frames of this kernel.

use alloc::boxed::Box;
use core::ptr::NonNull;

use hal::{boot::PhysRange, frame::FrameRun};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// The `virtio-drivers` view of this kernel's memory.
pub(crate) struct Dma;

/// Smallest order of a run that holds `pages`.
const fn order_of(pages: usize) -> usize {
    pages.next_power_of_two().trailing_zeros() as usize
}

// SAFETY: runs are contiguous, page-aligned, zeroed and owned by nobody else until they are given back; the linear map is valid for
// all of own memory; device registers are mapped by hal.
unsafe impl Hal for Dma {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        match FrameRun::alloc(order_of(pages)) {
            Ok(run) => {
                let memory = hal::raw::base(&run);
                // `dma_dealloc`, which is told only the address, gives it back.
                (hal::raw::into_raw(run).0, memory)
            }
            // The crate takes address 0 as "no memory".
            Err(_) => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller got the address from `dma_alloc` with the same number of pages, and uses it no more.
        drop(unsafe { hal::raw::from_raw(hal::addr::PhysAddr(paddr), order_of(pages)) });
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        match hal::raw::map_device(PhysRange::new(paddr, size as u64)) {
            Ok(at) => at,
            Err(e) => panic!("device registers at {paddr:#x} cannot be mapped: {}", e.0),
        }
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        match hal::raw::phys_of(buffer.cast()) {
            Some(at) => at.0,
            None => panic!("a buffer for a device lies outside of this kernel's memory"),
        }
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {
        // Own memory is coherent with the devices of the machines we run on; nothing was copied.
    }
}

/// Keeps the box type nameable for queues without exposing the crate's.
pub(crate) type Queue<const N: usize> = Box<virtio_drivers::queue::VirtQueue<Dma, N>>;
