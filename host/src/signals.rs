//! Signals as readable bytes, so that one `poll` waits for them too.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::low_level::pipe;

/// What arrived.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrived {
    /// Somebody wants this process to end, by this signal.
    pub end: Option<i32>,
    /// The terminal has another size.
    pub resized: bool,
}

/// The signals that this process takes care of, from now on.
pub struct Signals {
    ending: Vec<(i32, UnixStream)>,
    resize: UnixStream,
}

impl Signals {
    /// Catches SIGINT, SIGQUIT, SIGTERM, SIGHUP and SIGWINCH.
    pub fn catch() -> Result<Self> {
        let catch = |signal| -> Result<UnixStream> {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            pipe::register(signal, write)?;
            Ok(read)
        };
        let mut ending = Vec::new();
        for signal in [SIGINT, SIGQUIT, SIGTERM, SIGHUP] {
            ending.push((signal, catch(signal)?));
        }
        Ok(Self { ending, resize: catch(SIGWINCH)? })
    }

    /// To be polled for input.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ending.iter().map(|(_, pipe)| pipe.as_fd()).chain([self.resize.as_fd()])
    }

    /// What arrived since the last call.
    pub fn take(&mut self) -> Arrived {
        let mut some = [0; 64];
        let mut came = |pipe: &mut UnixStream| matches!(pipe.read(&mut some), Ok(n) if n > 0);
        let mut arrived = Arrived { end: None, resized: came(&mut self.resize) };
        for (signal, pipe) in &mut self.ending {
            if came(pipe) {
                arrived.end = Some(*signal);
            }
        }
        arrived
    }
}
