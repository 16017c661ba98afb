//! Ids and errors as the links have them and as the kernel has them. The fields are the same; the crates may not know each other.

/// A kernel as the wire names it.
pub const fn to_wire(id: base::KernelId) -> wire::KernelId {
    wire::KernelId { index: id.index, incarnation: id.incarnation }
}

/// A kernel as the kernel names it.
pub const fn from_wire(id: wire::KernelId) -> base::KernelId {
    base::KernelId { index: id.index, incarnation: id.incarnation }
}

/// An object as the wire names it.
pub const fn object_to_wire(id: base::ObjectId) -> wire::ObjectId {
    wire::ObjectId { birth: to_wire(id.birth), serial: id.serial }
}

/// An object as the kernel names it.
pub const fn object_from_wire(id: wire::ObjectId) -> base::ObjectId {
    base::ObjectId { birth: from_wire(id.birth), serial: id.serial }
}

/// A link's error as the kernel's.
pub const fn error(error: link::Error) -> base::Error {
    base::Error::new(error.errno, error.why).by(from_wire(error.peer))
}
