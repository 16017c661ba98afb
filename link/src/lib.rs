//! Rings, lanes, groups, transports, request and reply.
#![no_std]
#![forbid(unsafe_code)]
