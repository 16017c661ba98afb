//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What `kctl --help` prints.
pub const HELP: &str = "\
kctl: shows and commands the kernels of this system

  kctl kernels              every kernel: id, ISA, CPUs, memory, state, uptime
  kctl topo                 kernels with their CPUs, memory and links, as a tree
  kctl links [--lanes]      traffic and latency between kernels, or lane by lane
  kctl resources            who owns which CPU, memory and device
  kctl service list         which kernel serves what for all
  kctl top [--once]         a live view of kernels, processes and messages
  kctl boot K               start kernel K, return when it is up
  kctl stop K               stop kernel K in good order
  kctl run -k K CMD [ARG]…  run a command on kernel K: same pid, terminal and files
  kctl plan check FILE      check a machine plan, say what to change
  kctl crash K --yes        make kernel K panic
  kctl hang K --yes         make kernel K stop answering

  --json                    for kernels, topo, links, resources, service, top, plan check: print JSON
  --help                    this text, or with a command its details

Exit status: 0 done, 1 refused or failed (why is on standard error), 2 wrong usage; of `run`, that of the command.
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print a text.
    Help(&'static str),
    Kernels,
    Topo,
    Links {
        /// A line per lane.
        lanes: bool,
    },
    Resources,
    Services,
    Top {
        /// Between two looks.
        pause: Duration,
        /// Print one span of time, and end.
        once: bool,
    },
    /// Write this command for this kernel to the control file.
    Control(&'static str, u16),
    Run(u16, Vec<OsString>),
    PlanCheck(PathBuf),
}

/// The command and its options.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    pub json: bool,
    pub command: Command,
}

/// Details of one command.
fn help_of(command: &str) -> Option<&'static str> {
    Some(match command {
        "kernels" => {
            "kctl kernels [--json]\n\nOne line per kernel of the plan; `*` marks the kernel that answers.\n\
            JSON: an array of objects: id, isa, cpus (ids), memory_bytes, state, uptime (seconds or null), incarnation, here.\n"
        }
        "topo" => "kctl topo [--json]\n\nThe kernels with what they own and the links between them.\n",
        "links" => {
            "kctl links [--lanes] [--json]\n\nOne line per open link of the kernel that answers: messages and bytes sent, doorbells rung, marks found (polls),\n\
            messages that waited for room, and the median time from a request to its answer.\n\
            --lanes: one line per link and lane: sent, received, what is in the ring and what waits for it, how many requests\n\
            were answered, and within which time 50 %, 99 % and 99.9 % of them. JSON has both.\n\
            `kctl run -k K kctl links` shows those of kernel K.\n"
        }
        "resources" => {
            "kctl resources [--json]\n\nOne line per CPU, range of memory and device: owner, access of others, lease.\n"
        }
        "service" => {
            "kctl service list [--json]\n\nOne line per service that kernels have for all: the file tree, the console, the agent, views (who proposes them, and gives\n\
            leave to start and stop kernels), and names (pids, groups, ports), of which each kernel has a part. When a kernel dies\n\
            the next one has what it had.\n"
        }
        "top" => {
            "kctl top [-d SECONDS] [--once] [--json]\n\nA live view: each kernel with how busy its CPUs are, its memory, and its messages and doorbells in a second;\n\
            each process with its kernel and ISA. Keys: q quit, s sort by CPU, memory or pid, k the processes of one\n\
            kernel, arrows scroll, space pause.\n\
            -d SECONDS: between two looks (1). --once: look twice, print what happened between as text, end.\n\
            --json: the same as an object: seconds, kernels, processes.\n"
        }
        "boot" => "kctl boot K\n\nStarts kernel K of the plan and returns when it is up.\n",
        "stop" => "kctl stop K\n\nEnds the processes on kernel K, then the kernel. It can be booted again.\n",
        "run" => {
            "kctl run -k K CMD [ARG]…\n\nExecutes CMD on kernel K, in this process: pid, parent, group, terminal and files stay.\n"
        }
        "plan" => {
            "kctl plan check FILE [--json]\n\nChecks a machine plan (machines/*.toml). Each error names the line and what to change.\n"
        }
        "crash" => {
            "kctl crash K --yes\n\nKernel K panics. Its processes are reported dead, calls on its objects fail with EHOSTDOWN.\n"
        }
        "hang" => {
            "kctl hang K --yes\n\nKernel K stops answering without a word. The others notice, fence it and go on.\n"
        }
        _ => return None,
    })
}

fn kernel(word: Option<OsString>, usage: &str) -> Result<u16, String> {
    let word = word.ok_or_else(|| format!("which kernel? usage: {usage}"))?;
    let index = word.to_str().and_then(|w| w.parse().ok());
    index.ok_or_else(|| format!("`{}` is not the index of a kernel; usage: {usage}", word.to_string_lossy()))
}

/// A pause between two looks.
fn seconds(word: Option<OsString>) -> Result<Duration, String> {
    let word = word.ok_or("how many seconds? usage: kctl top -d SECONDS")?;
    let number = word.to_str().and_then(|w| w.parse::<f64>().ok()).filter(|s| (0.1..=3600.0).contains(s));
    let refused = || format!("`{}` is not a number of seconds between 0.1 and 3600", word.to_string_lossy());
    number.map(Duration::from_secs_f64).ok_or_else(refused)
}

/// Reads the words after the program's name.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Args, String> {
    let mut words = words.into_iter();
    let (mut json, mut yes, mut help, mut lanes, mut once) = (false, false, false, false, false);
    let mut pause = None;
    let mut plain: Vec<OsString> = Vec::new();
    let mut target = None;
    while let Some(word) = words.next() {
        let running = plain.first().is_some_and(|w| w == "run");
        match word.to_str() {
            Some("--help" | "-h") => help = true,
            Some("--json") => json = true,
            Some("--yes") => yes = true,
            Some("--lanes") => lanes = true,
            Some("--once") => once = true,
            Some("-d" | "--delay") if plain.first().is_some_and(|w| w == "top") => pause = Some(seconds(words.next())?),
            Some("-k" | "--kernel") if running => target = Some(kernel(words.next(), "kctl run -k K CMD [ARG]…")?),
            Some("--") if running => break,
            Some(option) if option.starts_with('-') && option.len() > 1 => {
                return Err(format!("unknown option {option}; see kctl --help"));
            }
            _ if running => {
                plain.push(word);
                break;
            }
            _ => plain.push(word),
        }
    }
    // What follows the command of `run` belongs to that command.
    plain.extend(words);
    let mut plain = plain.into_iter();
    let name = plain.next().unwrap_or_default();
    let name = name.to_str().unwrap_or_default();
    if help || matches!(name, "" | "help") {
        return Ok(Args { json, command: Command::Help(help_of(name).unwrap_or(HELP)) });
    }
    let command = match name {
        "kernels" => Command::Kernels,
        "topo" => Command::Topo,
        "links" => Command::Links { lanes: std::mem::take(&mut lanes) },
        "resources" => Command::Resources,
        "service" => match plain.next() {
            Some(verb) if verb == "list" => Command::Services,
            _ => return Err("usage: kctl service list".into()),
        },
        "top" => {
            Command::Top { pause: pause.unwrap_or(Duration::from_secs(1)), once: std::mem::take(&mut once) || json }
        }
        "boot" => Command::Control("boot", kernel(plain.next(), "kctl boot K")?),
        "stop" => Command::Control("stop", kernel(plain.next(), "kctl stop K")?),
        "crash" => Command::Control("crash", kernel(plain.next(), "kctl crash K --yes")?),
        "hang" => Command::Control("hang", kernel(plain.next(), "kctl hang K --yes")?),
        "run" => {
            let target = target.ok_or("on which kernel? usage: kctl run -k K CMD [ARG]…")?;
            let line: Vec<OsString> = plain.by_ref().collect();
            if line.is_empty() {
                return Err("run what? usage: kctl run -k K CMD [ARG]…".into());
            }
            Command::Run(target, line)
        }
        "plan" => match (plain.next(), plain.next()) {
            (Some(verb), Some(file)) if verb == "check" => Command::PlanCheck(file.into()),
            _ => return Err("usage: kctl plan check FILE".into()),
        },
        other => return Err(format!("unknown command `{other}`; see kctl --help")),
    };
    if once {
        return Err(format!("--once is an option of top; see kctl {name} --help"));
    }
    if lanes {
        return Err(format!("--lanes is an option of links; see kctl {name} --help"));
    }
    if let Some(extra) = plain.next() {
        return Err(format!("`{}` is one word too many; see kctl {name} --help", extra.to_string_lossy()));
    }
    if matches!(command, Command::Control("crash" | "hang", _)) && !yes {
        return Err(format!("{name} kills a kernel and what runs on it; say --yes if you mean it"));
    }
    Ok(Args { json, command })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Args, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn command(line: &str) -> Command {
        read(line).expect(line).command
    }

    #[test]
    fn commands() {
        assert_eq!(read("kernels --json"), Ok(Args { json: true, command: Command::Kernels }));
        assert_eq!(command("boot 1"), Command::Control("boot", 1));
        assert_eq!(
            (command("links"), command("links --lanes")),
            (Command::Links { lanes: false }, Command::Links { lanes: true })
        );
        let top = |once, ms| Command::Top { pause: Duration::from_millis(ms), once };
        assert_eq!((command("top"), command("top --once -d 0.5")), (top(false, 1000), top(true, 500)));
        assert_eq!(command("top --json"), top(true, 1000));
        assert_eq!(command("service list"), Command::Services);
        assert!(read("service").is_err() && read("service mv files 1").is_err());
        assert_eq!(command("crash 0 --yes"), Command::Control("crash", 0));
        assert_eq!(command("--yes hang 3"), Command::Control("hang", 3));
        assert_eq!(command("plan check x.toml"), Command::PlanCheck("x.toml".into()));
        assert_eq!(command(""), Command::Help(HELP));
        assert_eq!(command("--help"), Command::Help(HELP));
        assert!(matches!(command("boot --help"), Command::Help(text) if text.starts_with("kctl boot K\n")));
    }

    #[test]
    fn run_leaves_the_words_of_the_command_alone() {
        let words = |line: &str| match command(line) {
            Command::Run(k, words) => (k, words.join(std::ffi::OsStr::new(" ")).into_string().expect("text")),
            other => panic!("{other:?}"),
        };
        assert_eq!(words("run -k 1 sh -c --help -k 2 --json"), (1, "sh -c --help -k 2 --json".into()));
        assert_eq!(words("run -k 1 -- -x --yes"), (1, "-x --yes".into()));
        assert_eq!(words("run --kernel 7 true"), (7, "true".into()));
    }

    #[test]
    fn wrong_usage_is_explained() {
        for (line, hint) in [
            ("boot", "which kernel?"),
            ("boot x", "`x` is not"),
            ("boot -1", "unknown option -1"),
            ("boot 70000", "`70000` is not"),
            ("boot 1 2", "one word too many"),
            ("crash 1", "--yes"),
            ("run true", "on which kernel?"),
            ("run -k 1", "run what?"),
            ("plan", "plan check FILE"),
            ("frob", "unknown command `frob`"),
            ("kernels --jsn", "unknown option --jsn"),
            ("kernels --lanes", "an option of links"),
            ("kernels --once", "an option of top"),
            ("top -d", "how many seconds?"),
            ("top -d 0", "`0` is not a number of seconds"),
            ("top -d x", "`x` is not a number of seconds"),
            ("links -d 1", "unknown option -d"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(hint), "{line}: {error}");
        }
    }
}
