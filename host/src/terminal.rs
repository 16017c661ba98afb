//! The terminal in raw mode, and back.

use std::io::{IsTerminal, stdin};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal on stdin, raw as long as this lives. A guard process puts it back even if this one is killed.
pub struct RawTerminal {
    saved: Termios,
    guard: Option<Child>,
}

impl RawTerminal {
    /// Makes stdin's terminal raw: every key goes to the guest.
    pub fn enter() -> Result<Self> {
        let stdin = stdin();
        let saved = tcgetattr(&stdin).context("the terminal's settings")?;
        let guard = guard().ok();
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Drain, &raw).context("the terminal's raw mode")?;
        Ok(Self { saved, guard })
    }

    /// Rows and columns.
    pub fn size() -> Option<Winsize> {
        tcgetwinsize(stdin().as_fd()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0)
    }

    /// Whether there is a person at both ends.
    pub fn is_there() -> bool {
        stdin().is_terminal() && std::io::stdout().is_terminal()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done about a failure: the terminal may be gone.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.saved);
        if let Some(mut guard) = self.guard.take() {
            let _ = guard.kill();
            let _ = guard.wait();
        }
    }
}

/// A shell that waits for the end of its stdin, which is the end of this process, and then restores the terminal, which is its
/// stdout. It ignores what the terminal's keys send and that it is in the background then.
fn guard() -> Result<Child> {
    let settings = Command::new("stty").arg("-g").stdin(Stdio::inherit()).stderr(Stdio::null()).output()?;
    anyhow::ensure!(settings.status.success(), "stty -g failed");
    let settings = String::from_utf8(settings.stdout)?;
    let script = "trap '' INT QUIT HUP TERM TTOU TSTP; read -r _; stty \"$1\" <&1";
    let guard = Command::new("sh")
        .args(["-c", script, "sh", settings.trim()])
        .stdin(Stdio::piped())
        .stdout(stdin().as_fd().try_clone_to_owned()?)
        .stderr(Stdio::null())
        .spawn()?;
    Ok(guard)
}
