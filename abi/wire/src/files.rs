//! Files: what a remote file, directory, pipe or terminal is asked (`ssi/files`). The header's object says which one; structures in payloads are
//! records (`ssi/objects/src/codec.rs`).
//!
//! A *grant* is a reference that travels with an answer: the receiver gives it back with the generic `Release`.

use crate::{
    generic::Armed,
    id::{KernelId, ObjectId},
};

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

/// Places that are none, in `offset` fields of reads and writes.
pub mod offset {
    /// The current position.
    pub const CURRENT: u64 = u64::MAX;
    /// The current position, which stays where it is, and what is read can be read again: tee(2).
    pub const PEEK: u64 = u64::MAX - 1;
    /// The end of the file.
    pub const END: u64 = u64::MAX - 1;
    /// The end of the file, and the position goes there.
    pub const END_MOVES: u64 = u64::MAX - 2;
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
            /// Where, or one of `offset::*`.
            offset: u64,
        }
    }

    /// The bytes are the payload, after the pieces that came before it.
    0x0502 FileData (Reply, reply, payload 4096) {
        v1 {
            /// `state::*`.
            state: u8,
        }
        v2 {
            /// Names the [`PieceBack`]s that came before, or 0.
            pieces: u64 = 0,
        }
    }

    /// write(2) or pwrite(2). The payload is the `Caller` and then the bytes, after the pieces that came before it.
    0x0503 FileWrite (Request, request -> FileCount, payload 4096) {
        v1 {
            /// Where, or one of `offset::*`.
            offset: u64,
            /// Bytes of the payload that are the `Caller`.
            caller: u32,
        }
        v2 {
            /// Names the [`Piece`]s that came before, or 0.
            pieces: u64 = 0,
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

    /// flock(2), `F_SETLK`, `F_SETLKW`: answered at once; who waits arms a [`LockArm`]. The payload is the lock.
    0x0519 FileLock (Request, request -> FileCount, payload 128) {
        v1 {
            /// 0 take, 1 take for somebody who waits (`EDEADLK` if that would be for ever), 2 give back.
            what: u8,
        }
    }

    /// `F_GETLK`. The payload is the lock.
    0x051a FileLockTest (Request, request -> LockIs, payload 128) {
        v1 {}
    }

    /// The payload is the lock that is in the way, if there is one.
    0x051b LockIs (Reply, reply, payload 128) {
        v1 {}
    }

    /// As the generic `Arm`, for a lock that is not free, which is the payload.
    0x051c LockArm (Request, request -> Armed, payload 128) {
        v1 {
            /// Returned in `Ready`.
            token: u64,
            /// Returned in `Ready`.
            generation: u32,
        }
    }

    /// A process goes on at the sender and has the file there: its record locks go with it. The payload is the `Caller`.
    0x051d FileArrived (Request, event, payload 1024) {
        v1 {}
    }

    /// The inode of an open file.
    0x051e FileNode (Request, request -> NodeIs) {
        v1 {}
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

    /// open(2). The payload is the `Caller`, and the name under which it was found. The file in the answer is granted.
    0x052a NodeOpen (Request, request -> FileOpened, payload 1536) {
        v1 {
            /// Kernel bits.
            flags: u32,
            /// Status bits.
            status: u32,
        }
        v2 {
            /// The directory that has the name, if it is of the receiver: who watches it is told.
            parent: ObjectId = ObjectId::NONE,
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

    // -- sockets -----------------------------------------------------------------------------------------------------

    /// getsockname(2), getpeername(2) and more.
    0x0530 SocketFacts (Request, request -> SocketIs) {
        v1 {}
    }

    /// The payload is the `Facts`.
    0x0531 SocketIs (Reply, reply, payload 512) {
        v1 {}
    }

    /// A small thing that a socket is to do. The payload is a name, if it needs one.
    0x0532 SocketDo (Request, request -> FileCount, payload 256) {
        v1 {
            /// 0 SO_ERROR, 1 the name in the tree is given, 2 bind to the abstract name, 3 bind to any abstract name, 4 listen, 5 disconnect, 6 shut down.
            what: u8,
            /// The backlog; for shutdown bit 0 receiving, bit 1 sending.
            arg: u64,
        }
    }

    /// What a name of the socket stands for.
    0x0533 SocketAddress (Request, request -> AddressIs) {
        v1 {}
    }

    /// Such an address, granted. The payload is its name.
    0x0534 AddressIs (Reply, reply, payload 256) {
        v1 {
            /// Its name in the machine.
            address: ObjectId,
            /// Its home.
            home: KernelId,
            /// 1 stream, 2 datagrams, 5 packets.
            kind: u8,
        }
    }

    /// connect(2) of a socket of the receiver. The payload is the `Caller` and the address.
    0x0535 SocketConnect (Request, request -> FileCount, payload 1536) {
        v1 {}
    }

    /// accept(2).
    0x0536 SocketAccept (Request, request -> FileGiven) {
        v1 {}
    }

    /// An open file, granted. The payload is what its holder may know.
    0x0537 FileGiven (Reply, reply, payload 1024) {
        v1 {
            /// `state::*`.
            state: u8,
            /// Its name in the machine.
            file: ObjectId,
        }
    }

    /// sendmsg(2). The payload is the message, after the pieces that came before it.
    0x0538 SocketSend (Request, request -> FileCount, payload 4096) {
        v1 {
            /// Names the [`Piece`]s, or 0.
            pieces: u64,
        }
    }

    /// recvmsg(2).
    0x0539 SocketReceive (Request, request -> SocketData) {
        v1 {
            /// The most bytes.
            length: u32,
            /// 1: leave the message where it is.
            peek: u8,
        }
    }

    /// The payload is the message, after the pieces that came before it.
    0x053a SocketData (Reply, reply, payload 4096) {
        v1 {
            /// `state::*`.
            state: u8,
            /// Names the [`PieceBack`]s, or 0.
            pieces: u64,
        }
    }

    /// connect(2) to an address of the receiver. The payload is the `Client`.
    0x053b AddressConnect (Request, request -> FileGiven, payload 512) {
        v1 {}
    }

    /// A datagram for an address of the receiver. The payload is the message, after the pieces that came before it.
    0x053c AddressDeliver (Request, request -> FileCount, payload 4096) {
        v1 {
            /// Names the [`Piece`]s, or 0.
            pieces: u64,
        }
    }

    /// What an abstract name stands for at the receiver. The payload is the name.
    0x053d AddressFind (Request, request -> AddressIs, payload 256) {
        v1 {}
    }

    /// The name of a socket in the tree stands for an address from now on. The payload is the `Caller` and the address.
    0x053e NodeBind (Request, request -> FileCount, payload 1536) {
        v1 {}
    }

    /// What the name of a socket in the tree stands for. The payload is the `Caller`.
    0x053f NodeAddress (Request, request -> AddressIs, payload 1024) {
        v1 {}
    }

    /// Bytes of a payload that is too long for one message: they come before the message whose payload they begin, which names them.
    0x0540 Piece (Request, event, payload 4096) {
        v1 {
            /// Chosen by the sender.
            token: u64,
        }
    }

    /// The same, before an answer.
    0x0541 PieceBack (Reply, event, payload 4096) {
        v1 {
            /// Chosen by the sender.
            token: u64,
        }
    }

    // -- inotify(7) --------------------------------------------------------------------------------------------------

    /// The sender wants to be told what happens to an inode, besides what it wanted before.
    0x0542 NodeWatch (Request, request -> FileCount) {
        v1 {
            /// `IN_*`.
            mask: u32,
            /// Grows with each file that the sender begins to watch.
            serial: u64,
        }
    }

    /// Nobody at the sender watches the file any more.
    0x0543 NodeUnwatch (Request, event) {
        v1 {
            /// Wishes with a greater serial stay.
            serial: u64,
        }
    }

    /// Something happened to a name in a directory of the receiver. The payload is the name.
    0x0544 NodeTouched (Request, event, payload 256) {
        v1 {
            /// `IN_*`.
            mask: u32,
        }
    }

    /// Something happened to a file that the receiver watches, or to a name in it, which is the payload.
    0x0545 NodeHappened (Reply, event, payload 256) {
        v1 {
            /// `IN_*`.
            mask: u32,
            /// Ties the two events of a move together.
            cookie: u32,
        }
    }

    /// Answered when everything has been told that happened before: answers and [`NodeHappened`] come in order.
    0x0546 WatchSettle (Request, request -> FileCount) {
        v1 {}
    }
}
