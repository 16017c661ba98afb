//! Rows in which two CPUs of one kernel work: together, or each for itself at the same time.

use std::io;

use crate::rows::{
    Operation, Row, fork, fork_exit_wait, futex_pair, one_byte, page_fault, pin, pipe, round_trip, unix_pair,
};

/// See the module.
pub const CROSS: &[Row] = &[
    Row { name: "cross_pipe", what: "pipe round trip, each side bound to a CPU", count: 2_000, setup: cross_pipe },
    Row {
        name: "cross_unix",
        what: "unix stream round trip, each side bound to a CPU",
        count: 2_000,
        setup: cross_unix,
    },
    Row {
        name: "cross_futex",
        what: "futex wake and wait, each side bound to a CPU",
        count: 2_000,
        setup: cross_futex,
    },
    Row {
        name: "parallel_page_fault",
        what: "first write to an anonymous page, on both CPUs at once",
        count: 2_048,
        setup: || both(page_fault),
    },
    Row {
        name: "parallel_fork",
        what: "fork, exit of the child, wait, on both CPUs at once",
        count: 200,
        setup: || both(fork_exit_wait),
    },
];

const APART: [Option<usize>; 2] = [Some(0), Some(1)];

fn cross_pipe() -> io::Result<Operation> {
    round_trip(pipe()?, pipe()?, APART)
}

fn cross_unix() -> io::Result<Operation> {
    unix_pair(APART)
}

fn cross_futex() -> io::Result<Operation> {
    futex_pair(APART)
}

/// Two processes, one per CPU, each do the same number of operations at the same time; the batch ends when both are done.
fn both(setup: fn() -> io::Result<Operation>) -> io::Result<Operation> {
    let (go, done) = (pipe()?, pipe()?);
    fork(|| {
        pin(APART[1]);
        // SAFETY: the child's copies of the parent's ends: the child ends when the parent does.
        unsafe { libc::close(go[1]) };
        let Ok(mut operation) = setup() else { return };
        let mut n = [0; 8];
        while n.iter_mut().all(|byte| read_byte(go[0], byte)) {
            if operation(u64::from_le_bytes(n)).is_err() || one_byte(done[1], true).is_err() {
                return;
            }
        }
    })?;
    pin(APART[0]);
    // SAFETY: the parent's copies of the child's ends.
    unsafe {
        libc::close(go[0]);
        libc::close(done[1]);
    }
    let mut operation = setup()?;
    Ok(Box::new(move |n| {
        let bytes = n.to_le_bytes();
        // SAFETY: eight bytes are valid.
        if unsafe { libc::write(go[1], bytes.as_ptr().cast(), bytes.len()) } != bytes.len() as isize {
            return Err(io::Error::last_os_error());
        }
        operation(n)?;
        one_byte(done[0], false)
    }))
}

fn read_byte(fd: i32, byte: &mut u8) -> bool {
    // SAFETY: one byte fits.
    unsafe { libc::read(fd, std::ptr::from_mut(byte).cast(), 1) == 1 }
}
