//! Names: (kind, key) to object, and the registrars (`ssi/names`).

use crate::id::{KernelId, ObjectId};

crate::messages! {
    /// The name stands for the object from now on. Answered by [`Named`], or `EEXIST`.
    0x0301 Register (Request, request -> Named) {
        v1 {
            /// The sort of name: `ssi/names` lists them.
            kind: u8,
            /// 1: the object moved, the name stood for it before; 0: the name must be free.
            replace: u8,
            /// The key within the sort.
            key: u64,
            /// What it stands for.
            object: ObjectId,
            /// The home of that object.
            home: KernelId,
        }
    }

    /// The name is free again, if it still stands for this object.
    0x0302 Unregister (Request, request -> Named) {
        v1 {
            /// The sort of name.
            kind: u8,
            /// The key within the sort.
            key: u64,
            /// What it stood for.
            object: ObjectId,
        }
    }

    /// What does the name stand for? Answered by [`Named`], or `ESRCH`.
    0x0303 Lookup (Request, request -> Named) {
        v1 {
            /// The sort of name.
            kind: u8,
            /// The key within the sort.
            key: u64,
        }
    }

    /// The registrar's answer. For a lookup it says what the name stands for.
    0x0304 Named (Reply, reply) {
        v1 {
            /// The object; none for the other requests.
            object: ObjectId,
            /// Its home.
            home: KernelId,
            /// Not 0: the asked kernel is not the registrar under this epoch, its own. Ask again under that view, maybe another kernel (the
            /// generic `Stale` would ask the same one).
            epoch: u32,
        }
    }

    /// To a registrar that is new in the view: this name stands for this object. Nobody waits for an answer.
    0x0305 Retell (Request, event) {
        v1 {
            /// The sort of name.
            kind: u8,
            /// The key within the sort.
            key: u64,
            /// What it stands for.
            object: ObjectId,
            /// The home of that object.
            home: KernelId,
        }
    }

    /// The sender has retold everything under the view of the epoch. Follows the last [`Retell`] on the same lane.
    0x0306 Settled (Request, event) {
        v1 {
            /// The epoch of that view.
            epoch: u32,
        }
    }
}
