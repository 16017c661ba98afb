//! Files: what a remote file, directory, pipe or terminal is asked (`ssi/files`). The header's object says which one; structures in payloads are
//! records (`ssi/objects/src/codec.rs`).
//!
//! A *grant* is a reference that travels with an answer: the receiver gives it back with the generic `Release`.

use crate::id::{KernelId, ObjectId};

/// Trees, in `NodeRoot`.
pub mod tree {
    /// What is mounted at `/`.
    pub const ROOT: u8 = 0;
    /// What is mounted at `/dev`.
    pub const DEVICES: u8 = 1;
    /// What is mounted at `/dev/pts`.
    pub const PTYS: u8 = 2;
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// How a try ended, in `state` fields.
pub mod state {
    /// Done.
    pub const DONE: u8 = 0;
    /// It would block: arm a subscription and try again.
    pub const WOULD_BLOCK: u8 = 1;
}

crate::messages! {
    /// read(2) or pread(2). The payload is the `Caller`.
    0x0501 FileRead (Request, request -> FileData, payload 1024) {
        v1 {
            /// The most bytes to answer with.
            length: u32,
            /// Where, or all ones for the current position.
            offset: u64,
        }
    }

    /// The bytes are the payload.
    0x0502 FileData (Reply, reply, payload 4096) {
        v1 {
            /// `state::*`.
            state: u8,
        }
    }

    /// write(2) or pwrite(2). The payload is the `Caller` and then the bytes.
    0x0503 FileWrite (Request, request -> FileCount, payload 4096) {
        v1 {
            /// Where, or all ones for the current position.
            offset: u64,
            /// Bytes of the payload that are the `Caller`.
            caller: u32,
        }
    }

    /// How many bytes were taken; a position; or nothing but "done".
    0x0504 FileCount (Reply, reply) {
        v1 {
            /// `state::*`.
            state: u8,
            /// The number.
            count: u64,
        }
    }

    /// lseek(2).
    0x0505 FileSeek (Request, request -> FileCount) {
        v1 {
            /// 0 start, 1 current, 2 end, 3 data, 4 hole.
            whence: u8,
            /// From there.
            offset: i64,
        }
    }

    /// poll(2). The payload is the `Caller`. Answered with the bits of `poll(2)`.
    0x0506 FilePoll (Request, request -> FileCount, payload 1024) {
        v1 {}
    }

    /// ioctl(2). The payload is the `Caller` and the `Ioctl`.
    0x0507 FileIoctl (Request, request -> FileIoctlDone, payload 1280) {
        v1 {}
    }

    /// The payload is the `IoctlReply`; a file in it is granted.
    0x0508 FileIoctlDone (Reply, reply, payload 256) {
        v1 {
            /// `state::*`.
            state: u8,
        }
    }

    /// fstat(2), stat(2): of a file or an inode.
    0x0509 Stat (Request, request -> StatIs) {
        v1 {}
    }

    /// The payload is the `Stat`.
    0x050a StatIs (Reply, reply, payload 256) {
        v1 {}
    }

    /// chmod, chown, utimensat, truncate: of a file or an inode. The payload is the `Caller` and the `SetAttr`.
    0x050b SetAttr (Request, request -> FileCount, payload 1280) {
        v1 {}
    }

    /// statfs(2): of a file or an inode.
    0x050c StatFs (Request, request -> StatFsIs) {
        v1 {}
    }

    /// The payload is the `StatFs`.
    0x050d StatFsIs (Reply, reply, payload 256) {
        v1 {}
    }

    /// getdents64(2). Answered with as many entries as fit.
    0x050e FileReadDir (Request, request -> DirEntries) {
        v1 {
            /// The most bytes of names and numbers that the asker has room for.
            room: u32,
        }
    }

    /// The payload is a list of entries.
    0x050f DirEntries (Reply, reply, payload 4096) {
        v1 {}
    }

    /// `F_SETFL`. The status bits are kernel bits.
    0x0510 FileSetStatus (Request, request -> FileCount) {
        v1 {
            /// All of them.
            status: u32,
        }
    }

    /// fallocate(2). The payload is the `Caller`.
    0x0511 FileAllocate (Request, request -> FileCount, payload 1024) {
        v1 {
            /// `FALLOC_FL_*`.
            mode: u32,
            /// First byte.
            offset: u64,
            /// How many.
            length: u64,
        }
    }

    /// fsync(2).
    0x0512 FileSync (Request, request -> FileCount) {
        v1 {}
    }

    /// A process closed a descriptor: its locks go. The payload is the `Caller`.
    0x0513 FileFlush (Request, event, payload 1024) {
        v1 {}
    }

    /// What `/proc/PID/fd` shows, and what the holder may know without asking: answered once per import.
    0x0514 FileDescribe (Request, request -> FileIs) {
        v1 {}
    }

    /// The payload is the description.
    0x0515 FileIs (Reply, reply, payload 512) {
        v1 {
            /// How it was opened, kernel bits.
            flags: u32,
            /// Its status bits.
            status: u32,
            /// Bit 0: epoll can watch it; bit 1: it can be mapped.
            able: u8,
        }
    }

    /// The page of a file, for mapping it or executing it elsewhere.
    0x0516 PageGet (Request, request -> PageIs) {
        v1 {
            /// Its number.
            index: u64,
        }
    }

    /// The payload is the page, without zeros at its end.
    0x0517 PageIs (Reply, reply, payload 4096) {
        v1 {
            /// Bytes of the whole object now.
            size: u64,
        }
    }

    /// One more reference for another kernel, before it is sent there.
    0x0518 GrantFor (Request, request -> FileCount) {
        v1 {
            /// The kernel that will hold it.
            holder: KernelId,
        }
    }

    /// The root of a tree of the receiver.
    0x0520 NodeRoot (Request, request -> NodeIs) {
        v1 {
            /// Which one: `tree::*`.
            tree: u8,
        }
    }

    /// An inode, granted. The payload is its `Stat`.
    0x0521 NodeIs (Reply, reply, payload 256) {
        v1 {
            /// Its name in the machine.
            node: ObjectId,
            /// 1: it is still as the archive has it, and every kernel has the same under the same inode number.
            base: u8,
        }
    }

    /// The entry with this name. The payload is the `Caller` and the name.
    0x0522 NodeLookup (Request, request -> NodeIs, payload 1536) {
        v1 {}
    }

    /// Makes an entry. The payload is the `Caller`, the name and the `NewNode`.
    0x0523 NodeCreate (Request, request -> NodeIs, payload 4096) {
        v1 {
            /// Permission bits.
            mode: u32,
        }
    }

    /// A regular file without a name. The payload is the `Caller`.
    0x0524 NodeCreateUnnamed (Request, request -> NodeIs, payload 1024) {
        v1 {
            /// Permission bits.
            mode: u32,
        }
    }

    /// A second name for another inode of the same home. The payload is the `Caller` and the name.
    0x0525 NodeLink (Request, request -> FileCount, payload 1536) {
        v1 {
            /// That inode.
            target: ObjectId,
        }
    }

    /// Takes a name away. The payload is the `Caller` and the name.
    0x0526 NodeUnlink (Request, request -> FileCount, payload 1536) {
        v1 {
            /// 1: of a directory.
            directory: u8,
        }
    }

    /// Moves an entry. The payload is the `Caller` and both names.
    0x0527 NodeRename (Request, request -> FileCount, payload 2048) {
        v1 {
            /// The directory it goes to.
            to: ObjectId,
            /// `RENAME_*`.
            flags: u32,
        }
    }

    /// The target of a symbolic link. The payload is the `Caller`.
    0x0528 NodeReadLink (Request, request -> LinkIs, payload 1024) {
        v1 {}
    }

    /// The payload is the target.
    0x0529 LinkIs (Reply, reply, payload 4096) {
        v1 {}
    }

    /// open(2). The payload is the `Caller`. The file in the answer is granted.
    0x052a NodeOpen (Request, request -> FileOpened, payload 1024) {
        v1 {
            /// Kernel bits.
            flags: u32,
            /// Status bits.
            status: u32,
        }
    }

    /// The open file. The payload is its description.
    0x052b FileOpened (Reply, reply, payload 512) {
        v1 {
            /// Its name in the machine.
            file: ObjectId,
            /// Bit 0: epoll can watch it; bit 1: it can be mapped; bit 2: it is opened for reading and still as the archive has it.
            able: u8,
            /// Its size in bytes now, for mapping it.
            size: u64,
        }
    }

    /// access(2). The payload is the `Caller`.
    0x052c NodeAccess (Request, request -> FileCount, payload 1024) {
        v1 {
            /// Bits of access(2).
            access: u8,
        }
    }
}
