//! Files: traits, path walk, tmpfs, pipes, ttys, epoll.
#![no_std]
#![forbid(unsafe_code)]
