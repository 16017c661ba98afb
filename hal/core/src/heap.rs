//! The kernel heap on bare metal; the host has the process's.
