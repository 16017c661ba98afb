//! The emulators of all boards but the first one, and what the board controller of a machine whose boards share nothing does with them: a board is switched
//! off by ending its emulator, and on by starting that again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use boardctl::Order;
use boardctl::ether::Request;

/// What an emulator is started with, as often as its board is switched on.
struct Recipe {
    program: OsString,
    args: Vec<OsString>,
    folder: PathBuf,
    /// Where it says what it has to say.
    log: PathBuf,
}

impl Recipe {
    /// Starts it, with more words on its kernel's command line.
    fn start(&self, words: &str) -> Result<Child> {
        let mut args = self.args.clone();
        if let Some(line) = args.iter().position(|arg| arg == "-append").and_then(|at| args.get_mut(at + 1)) {
            line.push(OsStr::new(words));
        }
        let log = File::options().create(true).append(true).open(&self.log).context("what the emulator says")?;
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().context("starting QEMU (through setpriv of util-linux)")
    }
}

struct Emulator {
    recipe: Recipe,
    /// None while the board is off.
    child: Option<Child>,
}

impl Emulator {
    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Emulators of the boards from the second on. Dropping the last of its clones ends them.
#[derive(Clone, Default)]
pub struct Emulators(Arc<Mutex<Vec<Emulator>>>);

impl Emulators {
    fn all(&self) -> MutexGuard<'_, Vec<Emulator>> {
        // Who died with it has left the boards as they are.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the emulator of the next board. What it says on standard error goes to `log`.
    pub fn add(&self, command: &Command, log: PathBuf) -> Result<()> {
        let recipe = Recipe {
            program: command.get_program().to_owned(),
            args: command.get_args().map(OsStr::to_owned).collect(),
            folder: command.get_current_dir().context("an emulator without a folder")?.to_owned(),
            log,
        };
        let child = Some(recipe.start("")?);
        self.all().push(Emulator { recipe, child });
        Ok(())
    }

    /// The process ids of those that run.
    pub fn ids(&self) -> Vec<u32> {
        self.all().iter().filter_map(|emulator| Some(emulator.child.as_ref()?.id())).collect()
    }

    /// Ends them.
    pub fn kill(&self) {
        self.all().iter_mut().for_each(Emulator::stop);
    }

    /// Does what a kernel asked of the board controller.
    pub fn obey(&self, request: &Request) -> Result<()> {
        let number = usize::from(request.board);
        ensure!(number > 0, "the first board has the console and the agent: it is not switched off and on");
        let mut all = self.all();
        let emulator = all.get_mut(number - 1).context("there is no such board")?;
        emulator.stop();
        if request.order == Order::Start {
            let words = format!(" cob.incarnation={} cob.starter={}", request.incarnation, request.starter);
            emulator.child = Some(emulator.recipe.start(&words)?);
        }
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead as _, BufReader};
    use std::process::Command;

    use boardctl::Order;
    use boardctl::ether::Request;

    use super::Emulators;

    #[test]
    fn a_board_is_switched_off_and_on_with_new_words() {
        let folder = std::env::temp_dir().join(format!("cob-power-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // What it says goes into a pipe, so that it is waited for. Open both ways: whoever opens one end waits for nobody.
        let log = folder.join("log");
        assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
        let mut heard = BufReader::new(File::options().read(true).write(true).open(&log).unwrap()).lines();
        let mut said = || heard.next().unwrap().unwrap();
        let emulators = Emulators::default();
        let mut command = Command::new("sh");
        // What the words are is in its arguments, for whoever looks.
        command.args(["-c", "echo \"$2\" >&2; exec sleep 1000", "sh", "-append", "cob.board=1"]).current_dir(&folder);
        emulators.add(&command, log).unwrap();
        assert_eq!(said(), "cob.board=1");
        let ask = |board, order| {
            emulators
                .obey(&Request { number: 1, board, order, starter: 2, incarnation: 7 })
                .map_err(|why| why.to_string())
        };
        let first = emulators.ids();
        assert_eq!((first.len(), ask(1, Order::Stop), emulators.ids().len()), (1, Ok(()), 0));
        // Off it stays off.
        assert_eq!((ask(1, Order::Stop), ask(1, Order::Start)), (Ok(()), Ok(())));
        assert_eq!(said(), "cob.board=1 cob.incarnation=7 cob.starter=2");
        assert_ne!(emulators.ids(), first);
        assert!(ask(0, Order::Stop).unwrap_err().contains("console"));
        assert!(ask(2, Order::Start).unwrap_err().contains("no such board"));
        emulators.kill();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
