//! Tasks: signals, exits, sessions, moves (`ssi/tasks`). Structures in payloads are records (`ssi/objects/src/codec.rs`).
//!
//! All but the answers go on one lane, so that what one kernel says of one process or session arrives in the order in which it was said.

crate::messages! {
    /// Asks something of a process. The payload is a `ProcessRequest`. Answered by [`ProcessAnswer`], or `ESRCH`, `EPERM`.
    0x0401 ProcessAsk (Request, request -> ProcessAnswer, payload 512) {
        v1 {
            /// The process.
            pid: u32,
        }
    }

    /// The payload is a `ProcessReply`.
    0x0402 ProcessAnswer (Reply, reply, payload 256) {
        v1 {}
    }

    /// Asks the home of a session. The payload is a session `Request`.
    0x0403 SessionAsk (Request, request -> SessionAnswer, payload 512) {
        v1 {
            /// The session.
            sid: u32,
        }
    }

    /// The payload is a session `Reply`.
    0x0404 SessionAnswer (Reply, reply, payload 256) {
        v1 {}
    }

    /// Tells the home of a session what happened to a member. The payload is a session `Notice`.
    0x0405 SessionTell (Request, event, payload 256) {
        v1 {
            /// The session.
            sid: u32,
        }
    }

    /// From the home of a session: deliver a signal to members of a group that run on the receiver. The payload is `SigInfo`, `Sender` and the members.
    /// On the lane of the answers, so that what the terminal has to read after a Ctrl-C does not come before it.
    0x0406 SignalMembers (Reply, event, payload 4096) {
        v1 {
            /// The group.
            pgid: u32,
        }
    }

    /// `kill(-1)`: signal every process of the receiver. The payload is `SigInfo` and `Sender`.
    0x0407 SignalAll (Request, request -> SignalledAll, payload 512) {
        v1 {}
    }

    /// How many were signalled.
    0x0408 SignalledAll (Reply, reply) {
        v1 {
            /// Processes that the sender might signal, and did.
            count: u32,
        }
    }

    /// Tells the kernel of a parent what happened to its child. The payload is a `ChildEvent`. Answered, so that it can follow a parent that moves.
    0x0409 ChildTell (Request, request -> Told, payload 256) {
        v1 {
            /// The parent.
            parent: u32,
        }
    }

    /// It was heard.
    0x040a Told (Reply, reply) {
        v1 {}
    }

    /// Orphans for a new parent. The payload is a list of `ChildRecord`.
    0x040b Adopt (Request, request -> Told, payload 4096) {
        v1 {
            /// The new parent.
            parent: u32,
        }
    }

    /// A piece of a `TaskImage` that is about to move here; on the lane of [`MovePrepare`], which follows the last piece.
    0x0410 MovePart (Bulk, event, payload 4096) {
        v1 {
            /// Names the move at the sender.
            serial: u64,
            /// Position of the piece.
            offset: u32,
        }
    }

    /// The whole image is there: reserve everything that can fail, load the program, and say whether it can go on here. Answered by [`MoveReady`], or the
    /// errno that execve(2) gives.
    0x0411 MovePrepare (Bulk, request -> MoveReady) {
        v1 {
            /// Names the move at the sender.
            serial: u64,
            /// Bytes of the image.
            total: u32,
            /// The process.
            pid: u32,
        }
    }

    /// Everything is reserved.
    0x0412 MoveReady (Reply, reply) {
        v1 {}
    }

    /// The process is the receiver's: let it run. From here on the sender only forwards.
    0x0413 MoveCommit (Request, request -> Told) {
        v1 {
            /// Names the move at the sender.
            serial: u64,
        }
    }

    /// A task is being made ready to come: the receiver does nothing, and is awake when the parts arrive.
    0x0415 MoveComing (Bulk, event) {
        v1 {}
    }

    /// Forget it: the process stays at the sender.
    0x0414 MoveAbort (Request, event) {
        v1 {
            /// Names the move at the sender.
            serial: u64,
        }
    }

    /// Which processes does the receiver have? Answered by [`Processes`].
    0x0420 ListProcesses (Request, request -> Processes) {
        v1 {
            /// Only pids above this one.
            after: u32,
        }
    }

    /// The payload is a list of pids in order, 4 bytes each; if it is not full there are no more.
    0x0421 Processes (Reply, reply, payload 4096) {
        v1 {}
    }

    /// What does the receiver do? Answered by [`SystemLook`].
    0x0432 LookAtSystem (Request, request -> SystemLook) {
        v1 {}
    }

    /// The payload is a `Load`.
    0x0433 SystemLook (Reply, reply, payload 4096) {
        v1 {}
    }

    /// How are the receiver's CPUs described? Answered by [`CpuIs`]. Asked by kernels of other instruction sets.
    0x0434 DescribeCpu (Request, request -> CpuIs) {
        v1 {}
    }

    /// The payload is text: the `name: value` lines of `/proc/cpuinfo` that say what a CPU is.
    0x0435 CpuIs (Reply, reply, payload 4096) {
        v1 {}
    }

    /// The sender wants to know when a process of the receiver ends or moves. Answered by [`ProcessChanged`], some time.
    0x0430 WatchProcess (Request, event) {
        v1 {
            /// The process.
            pid: u32,
        }
    }

    /// To who watched a process of the sender: it has ended, or is not there (any more): look where it is.
    0x0431 ProcessChanged (Request, event) {
        v1 {
            /// The process.
            pid: u32,
            /// 1: it has ended.
            over: u8,
        }
    }

    /// What `/proc` shows of a process of the receiver. The payload is a `Question`. Answered by [`ProcessLook`], or the errno that a program gets.
    0x0423 LookAtProcess (Request, request -> ProcessLook, payload 512) {
        v1 {
            /// The process.
            pid: u32,
            /// Where the wanted piece of the answer begins.
            offset: u32,
        }
    }

    /// The payload is a piece of the answer: as many of its bytes as fit.
    0x0424 ProcessLook (Reply, reply, payload 4096) {
        v1 {
            /// Bytes of the whole answer.
            total: u32,
        }
    }

    /// Wants the session of the header to have its home at the sender, for a terminal that its leader takes there. Answered by [`SessionGiven`], or by
    /// `EPERM`, `EBUSY`, `ESRCH`; by `Moved` if it is elsewhere.
    0x0440 SessionFetch (Request, request -> SessionGiven) {
        v1 {
            /// The session.
            sid: u32,
            /// Who takes the terminal.
            caller: u32,
        }
    }

    /// All of the state was sent before, in [`SessionPart`]: the asker is the home.
    0x0441 SessionGiven (Reply, reply) {
        v1 {
            /// How often the home has moved, this time included.
            moves: u32,
            /// Bytes of the state.
            total: u32,
        }
    }

    /// A piece of the state of the session of the header, on the lane of [`SessionGiven`]. The payload is a piece of a session `State`.
    0x0442 SessionPart (Reply, event, payload 4096) {
        v1 {
            /// Position of the piece.
            offset: u32,
        }
    }

    /// From the home of a session that is about to move: send nothing more for it until a kernel says that it is the home.
    0x0443 SessionFreeze (Request, event) {
        v1 {
            /// The session.
            sid: u32,
            /// How often the home moved before it was the sender.
            moves: u32,
        }
    }

    /// To the home: nothing more comes, and all that was sent is before this on its lane.
    0x0444 SessionFrozen (Request, event) {
        v1 {
            /// The session.
            sid: u32,
        }
    }

    /// The sender is the home of the session of the header.
    0x0445 SessionHome (Request, event) {
        v1 {
            /// The session.
            sid: u32,
            /// How often the home has moved.
            moves: u32,
            /// 1: it was made anew after its home died. Who did not tell its members tells them now.
            rebuilt: u8,
            /// 1: it has ended.
            over: u8,
        }
    }

    /// To the kernel that makes a session anew whose home died: members that the sender has. The payload is a list of them.
    0x0446 SessionCensus (Request, event, payload 4096) {
        v1 {
            /// The session.
            sid: u32,
            /// How often its home had moved, as far as the sender knows.
            moves: u32,
            /// The epoch of the sender's view.
            epoch: u32,
        }
    }

    /// The sender has told all members of sessions whose home died, under the view of the epoch.
    0x0447 SessionsSettled (Request, event) {
        v1 {
            /// The epoch.
            epoch: u32,
        }
    }
}
