//! Memory: pages of an object mapped by another kernel, and sleeping at its words (`ssi/memory`). The header's object is the memory object, but for
//! [`MemoryOpen`].
//!
//! A page is named by its place in its owner's memory: the distance in bytes from where that kernel's memory begins, which every kernel knows from the
//! plan at its own address. What a home grants to a holder is numbered per object and holder; [`MemoryRevoke`] and [`MemoryRelease`] name such a number,
//! so that they mean the same in whatever order they and the grants are handled.

use crate::id::ObjectId;

/// Bytes of a page in the payload of [`MemoryMapped`]: its index (`u64`), its place (`u64`), flags (`u64`).
pub const PAGE_RECORD: usize = 24;
/// In the flags of a page: it may be written.
pub const PAGE_WRITABLE: u64 = 1;

crate::messages! {
    /// What does this open file (the header's object) map? The asker holds the memory object from the answer on.
    0x0601 MemoryOpen (Request, request -> MemoryOpened) {
        v1 {
            /// 1: it may be written through memory.
            writable: u8,
        }
    }

    /// The memory object.
    0x0602 MemoryOpened (Reply, reply) {
        v1 {
            /// Its name.
            memory: ObjectId,
            /// 0: pages of a file, 1: shared memory.
            kind: u8,
            /// 0: it is sealed against being written through memory.
            writable: u8,
        }
    }

    /// Grant me a page for an access that is about to happen, and some around it that are there. Answered by `EFAULT` beyond the end.
    0x0603 MemoryMap (Request, request -> MemoryMapped) {
        v1 {
            /// The page, in pages from the start of the object.
            index: u64,
            /// The first page that is welcome with it.
            first: u64,
            /// How many pages from there on are welcome.
            count: u32,
            /// 1: the page will be written.
            write: u8,
        }
    }

    /// The pages are granted.
    0x0604 MemoryMapped (Reply, reply, payload 4096) {
        v1 {
            /// The number of this grant.
            serial: u64,
        }
    }

    /// Unmap these pages on all your CPUs, as far as they were granted before this number, then answer.
    0x0605 MemoryRevoke (Reply, request -> MemoryDone) {
        v1 {
            /// The first page.
            first: u64,
            /// One past the last page.
            end: u64,
            /// The number; that of later grants is higher.
            serial: u64,
        }
    }

    /// Done.
    0x0606 MemoryDone (Reply, reply) {
        v1 {}
    }

    /// The sender does not map anything of the object that was granted up to this number.
    0x0607 MemoryRelease (Request, event) {
        v1 {
            /// The number.
            serial: u64,
            /// How many answers to [`MemoryOpen`] are given back with it.
            opens: u32,
        }
    }

    /// These bytes read as zeros from now on (`MADV_REMOVE`).
    0x0608 MemoryPunch (Request, request -> MemoryDone) {
        v1 {
            /// The first byte.
            start: u64,
            /// One past the last byte.
            end: u64,
        }
    }

    /// futex(2): sleep if the word is still this. Answered when woken, or at once by `EAGAIN`; `Cancel` takes the sleeper out again.
    0x0609 FutexWait (Request, request -> FutexWoken) {
        v1 {
            /// Where the word is, in bytes from the start of the object.
            offset: u64,
            /// What it is expected to be.
            expected: u32,
            /// Which wakers count.
            bits: u32,
        }
    }

    /// A waker chose the sleeper.
    0x060a FutexWoken (Reply, reply) {
        v1 {}
    }

    /// futex(2): wake sleepers, wherever they are.
    0x060b FutexWake (Request, request -> FutexCount) {
        v1 {
            /// Where the word is, in bytes from the start of the object.
            offset: u64,
            /// The most that are woken.
            count: u32,
            /// Which sleepers are meant.
            bits: u32,
        }
    }

    /// How many there were.
    0x060c FutexCount (Reply, reply) {
        v1 {
            /// Sleepers that were woken.
            woken: u32,
            /// Sleepers that were moved to another word.
            moved: u32,
        }
    }

    /// futex(2): wake some and move others to another word. If that word has another home they are woken.
    0x060d FutexRequeue (Request, request -> FutexCount) {
        v1 {
            /// Where the word is, in bytes from the start of the object.
            offset: u64,
            /// The object of the other word.
            target: ObjectId,
            /// Where that word is in it.
            to: u64,
            /// The most that are woken.
            wake: u32,
            /// The most that are moved.
            requeue: u32,
        }
    }

    /// Send me a copy of a page: we do not see each other's memory. Answered by `EFAULT` beyond the end.
    0x060e MemoryFetch (Request, request -> MemoryFetched) {
        v1 {
            /// The page, in pages from the start of the object.
            index: u64,
            /// What the asker calls this wish, and the copy that comes of it; never used again.
            wish: u64,
            /// 1: the page will be written, and nobody else has it then.
            write: u8,
        }
    }

    /// The bytes of the page.
    0x060f MemoryFetched (Reply, reply, payload 4096) {
        v1 {
            /// The number of this copy, for [`MemoryRevoke`].
            serial: u64,
            /// 1: it may be written.
            write: u8,
        }
    }

    /// Give a copy back, when it has come.
    0x0610 MemoryRecall (Request, request -> MemoryRecalled) {
        v1 {
            /// The page.
            index: u64,
            /// Of which wish it came.
            wish: u64,
            /// 1: it may be read on.
            keep: u8,
        }
    }

    /// It is given back; the payload is the page if the copy could be written.
    0x0611 MemoryRecalled (Reply, reply, payload 4096) {
        v1 {
            /// 1: it is read on.
            keeps: u8,
        }
    }

    /// A copy is given back by itself; the payload is the page if the copy could be written.
    0x0612 MemoryGaveBack (Reply, event, payload 4096) {
        v1 {
            /// The page.
            index: u64,
            /// Of which wish it came.
            wish: u64,
        }
    }
}
