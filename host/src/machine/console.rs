//! A person at the console: keys go in, what the guest says comes out.

use std::fs::File;
use std::io::{ErrorKind, Read, Write, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::time::Duration;

use agent::{Decoder, Message, ToGuest, ToHost};
use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Vm;
use crate::signals::Signals;
use crate::terminal::RawTerminal;

/// Why the console was left.
pub enum Leave {
    /// The emulator ended.
    Ended(ExitStatus),
    /// The person typed Ctrl-A x.
    Escape,
    /// This process was asked to end by a signal.
    Signal(i32),
}

/// Ctrl-A: the next key is for `cob`.
const ESCAPE: u8 = 1;

/// Takes keys apart: what goes to the guest and whether the person leaves.
#[derive(Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    /// The bytes for the guest; `None` to leave.
    fn take(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for byte in typed {
            match (std::mem::take(&mut self.escaped), *byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x' | b'X') => return None,
                // Ctrl-A Ctrl-A, and Ctrl-A a as in other programs, is one Ctrl-A.
                (true, ESCAPE | b'a') => out.push(ESCAPE),
                (true, other) => out.extend_from_slice(&[ESCAPE, other]),
                (false, other) => out.push(other),
            }
        }
        Some(out)
    }
}

impl Vm {
    /// Connects the terminal, until the machine ends or the person leaves.
    pub fn attend(&mut self) -> Result<Leave> {
        let mut signals = Signals::catch()?;
        let terminal = RawTerminal::enter()?;
        let leave = self.pass_keys(&mut signals);
        drop(terminal);
        leave
    }

    fn pass_keys(&mut self, signals: &mut Signals) -> Result<Leave> {
        let mut transcript = File::create(self.folder().join("console.log"))?;
        let (mut keys, mut to_guest, mut sizes) = (Keys::default(), Vec::new(), Sizes::default());
        let mut open = true;
        loop {
            if let Some(status) = self.ended()? {
                self.copy_out(&mut transcript)?;
                return Ok(Leave::Ended(status));
            }
            let (guest, agent, stdin) = {
                let input = stdin();
                let mut console = PollFlags::IN;
                console.set(PollFlags::OUT, !to_guest.is_empty());
                let mut agent = PollFlags::IN;
                agent.set(PollFlags::OUT, !sizes.outgoing.is_empty());
                let end = self.end_fd();
                let signal_fds: Vec<BorrowedFd<'_>> = signals.fds().collect();
                let mut fds = vec![
                    PollFd::new(&self.console, console),
                    PollFd::new(&self.agent, agent),
                    PollFd::new(&end, PollFlags::IN),
                ];
                fds.extend(signal_fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
                // Keys wait in the terminal while the guest does not take them.
                if open && to_guest.len() < 4096 {
                    fds.push(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN));
                }
                let more = Timespec { tv_sec: 1, tv_nsec: 0 };
                match poll(&mut fds, Some(&more)) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                let came = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                let last = fds.len() - 1;
                (came(0), came(1), open && last >= 3 + signal_fds.len() && came(last))
            };
            let arrived = signals.take();
            if let Some(signal) = arrived.end {
                return Ok(Leave::Signal(signal));
            }
            if guest {
                self.copy_out(&mut transcript)?;
                send(&mut self.console, &mut to_guest);
            }
            sizes.changed |= arrived.resized;
            if agent {
                sizes.listen(&mut self.agent);
            }
            sizes.tell();
            send(&mut self.agent, &mut sizes.outgoing);
            if stdin {
                let mut typed = [0; 4096];
                match rustix::io::read(std::io::stdin(), &mut typed) {
                    Ok(0) => open = false,
                    Ok(n) => match keys.take(typed.get(..n).unwrap_or_default()) {
                        Some(bytes) => to_guest.extend_from_slice(&bytes),
                        None => return Ok(Leave::Escape),
                    },
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
                send(&mut self.console, &mut to_guest);
            }
        }
    }

    /// Prints what the guest has said.
    fn copy_out(&mut self, transcript: &mut File) -> Result<()> {
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.console.read(&mut bytes) {
                Ok(0) => {
                    // The emulator closed it and is about to end.
                    std::thread::sleep(Duration::from_millis(1));
                    return Ok(());
                }
                Ok(n) => {
                    let said = bytes.get(..n).unwrap_or_default();
                    let mut out = stdout().lock();
                    out.write_all(said)?;
                    out.flush()?;
                    transcript.write_all(said)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(()),
            }
        }
    }
}

/// Sends what the other side takes now.
fn send(to: &mut impl Write, bytes: &mut Vec<u8>) {
    if let Ok(n) = to.write(bytes) {
        bytes.drain(..n);
    }
}

/// Tells the guest's terminal how large the one here is, by `stty` through the agent.
struct Sizes {
    decoder: Decoder,
    outgoing: Vec<u8>,
    ready: bool,
    changed: bool,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { decoder: Decoder::new(), outgoing: Vec::new(), ready: false, changed: true }
    }
}

impl Sizes {
    fn listen(&mut self, agent: &mut impl Read) {
        let mut bytes = [0; 4096];
        if let Ok(n) = agent.read(&mut bytes) {
            self.decoder.push(bytes.get(..n).unwrap_or_default());
        }
        while let Ok(Some(message)) = self.decoder.next::<ToHost<'_>>() {
            // One command at a time: ready again when the last has ended.
            self.ready |= matches!(message, ToHost::Ready { .. } | ToHost::Exit(_));
            if matches!(message, ToHost::Ready { .. }) {
                // At boot, or another kernel has agent and console now: its terminal does not know how large this one is.
                self.changed = true;
                self.outgoing.clear();
                agent::sync(&mut self.outgoing);
            }
        }
    }

    fn tell(&mut self) {
        if self.ready
            && self.changed
            && let Some(size) = RawTerminal::size()
        {
            let line = format!("stty rows {} cols {} </dev/console", size.ws_row, size.ws_col);
            ToGuest::Exec(line.as_bytes()).encode(&mut self.outgoing);
            ToGuest::StdinEof.encode(&mut self.outgoing);
            (self.ready, self.changed) = (false, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn the_escape_leaves_and_everything_else_goes_through() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ls\r\x03"), Some(b"ls\r\x03".to_vec()));
        assert_eq!(keys.take(b"\x01"), Some(vec![]));
        assert_eq!(keys.take(b"\x01b"), Some(b"\x01b".to_vec()));
        assert_eq!(keys.take(b"\x01q"), Some(b"\x01q".to_vec()));
        assert_eq!(keys.take(b"a\x01x"), None);
    }
}
