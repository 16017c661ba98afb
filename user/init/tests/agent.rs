//! The agent over a socket pair, as the host command speaks to it over a virtio port.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use agent::{Decoder, MAX_PAYLOAD, Message, ToGuest, ToHost};

/// What a command did.
#[derive(Debug, Default)]
struct Outcome {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: i32,
}

/// An agent under test and the host's end of the channel.
struct Host {
    init: Child,
    channel: UnixStream,
    decoder: Decoder,
}

/// An owned [`ToHost`].
#[derive(Debug, PartialEq)]
enum Said {
    Ready,
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exit(i32),
    Error(String),
}

impl Host {
    fn start() -> Self {
        let (channel, theirs) = UnixStream::pair().unwrap();
        let fd = theirs.as_raw_fd();
        let mut init = Command::new(env!("CARGO_BIN_EXE_init"));
        init.env("COB_AGENT_FD", "3");
        // SAFETY: dup2 is async-signal-safe.
        unsafe {
            init.pre_exec(move || match libc::dup2(fd, 3) {
                3 => match libc::fcntl(3, libc::F_SETFD, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let init = init.spawn().unwrap();
        drop(OwnedFd::from(theirs));
        channel.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut host = Self { init, channel, decoder: Decoder::new() };
        assert_eq!(host.hear(), Said::Ready);
        let mut bytes = Vec::new();
        agent::sync(&mut bytes);
        (&host.channel).write_all(&bytes).unwrap();
        host
    }

    fn say(&self, message: ToGuest<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        (&self.channel).write_all(&bytes).unwrap();
    }

    fn hear(&mut self) -> Said {
        let mut bytes = [0; 65536];
        loop {
            if let Some(message) = self.decoder.next::<ToHost>().unwrap() {
                return match message {
                    ToHost::Ready { version, .. } => {
                        assert_eq!(version, agent::VERSION);
                        Said::Ready
                    }
                    ToHost::Stdout(bytes) => Said::Stdout(bytes.to_vec()),
                    ToHost::Stderr(bytes) => Said::Stderr(bytes.to_vec()),
                    ToHost::Exit(status) => Said::Exit(status),
                    ToHost::Error(text) => Said::Error(String::from_utf8_lossy(text).into_owned()),
                };
            }
            let n = self.channel.read(&mut bytes).unwrap();
            assert!(n > 0, "init went away");
            self.decoder.push(&bytes[..n]);
        }
    }

    fn outcome(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            match self.hear() {
                Said::Stdout(bytes) => outcome.stdout.extend(bytes),
                Said::Stderr(bytes) => outcome.stderr.extend(bytes),
                Said::Exit(status) => {
                    outcome.status = status;
                    return outcome;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Runs a command with this standard input, writing it while the output is read.
    fn run(&mut self, line: &str, input: &[u8]) -> Outcome {
        self.say(ToGuest::Exec(line.as_bytes()));
        let writer = self.channel.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut bytes = Vec::new();
                for part in input.chunks(MAX_PAYLOAD) {
                    bytes.clear();
                    ToGuest::Stdin(part).encode(&mut bytes);
                    (&writer).write_all(&bytes).unwrap();
                }
                bytes.clear();
                ToGuest::StdinEof.encode(&mut bytes);
                (&writer).write_all(&bytes).unwrap();
            });
            self.outcome()
        })
    }

    fn end(mut self) -> i32 {
        self.say(ToGuest::Poweroff);
        self.init.wait().unwrap().code().unwrap()
    }
}

/// Bytes of all values without a short period.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

#[test]
fn streams_stay_apart_and_the_status_comes_last() {
    let mut host = Host::start();
    let outcome = host.run("echo out; echo err >&2; exit 7", b"");
    assert_eq!((outcome.stdout.as_slice(), outcome.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(outcome.status, 7 << 8);
    assert_eq!(host.run("kill -9 $$", b"").status, 9);
    assert_eq!(host.run("tr a-z A-Z", b"again").stdout, b"AGAIN");
    assert_eq!(host.end(), 0);
}

#[test]
fn sixty_four_mebibytes_through_both_ways() {
    let mut host = Host::start();
    let data = noise(64 << 20);
    let outcome = host.run("cat", &data);
    assert!(outcome.stdout == data, "{} of {} bytes came back", outcome.stdout.len(), data.len());
    assert_eq!(outcome.status, 0);
    assert_eq!(host.end(), 0);
}

#[test]
fn output_of_a_slow_reader_is_not_lost() {
    let mut host = Host::start();
    host.say(ToGuest::Exec(b"head -c 3000000 /dev/zero; echo end >&2"));
    // Nothing is read here until the shell waits for room, which its being in the pipe's write shows.
    let outcome = host.outcome();
    assert_eq!((outcome.stdout.len(), outcome.stderr.as_slice()), (3_000_000, &b"end\n"[..]));
    host.end();
}

#[test]
fn input_that_nobody_reads_is_dropped() {
    let mut host = Host::start();
    let outcome = host.run("exec <&-; echo closed", &noise(1 << 20));
    assert_eq!((outcome.stdout.as_slice(), outcome.status), (&b"closed\n"[..], 0));
    assert_eq!(host.run("wc -c", b"12345").stdout.trim_ascii(), b"5");
    host.end();
}

#[test]
fn a_process_left_behind_does_not_hold_up_the_exit() {
    let mut host = Host::start();
    let outcome = host.run("sleep 1000 & echo $!", b"");
    let pid: i32 = String::from_utf8(outcome.stdout).unwrap().trim().parse().unwrap();
    // SAFETY: a plain call; the process is a child of the harness's init.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    host.end();
}

#[test]
fn kill_reaches_the_whole_group() {
    let mut host = Host::start();
    host.say(ToGuest::Exec(b"cat & echo ready; wait; sleep 1000"));
    assert_eq!(host.hear(), Said::Stdout(b"ready\n".to_vec()));
    host.say(ToGuest::Kill(libc::SIGTERM as u8));
    assert_eq!(host.outcome().status, libc::SIGTERM);
    host.end();
}

#[test]
fn the_command_leads_its_own_session() {
    let mut host = Host::start();
    let outcome = host.run("set -- $(cat /proc/self/stat); echo $$ $5 $6; exit", b"");
    let text = String::from_utf8(outcome.stdout).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(words.len() == 3 && words.iter().all(|w| *w == words[0]), "{text}");
    host.end();
}

#[test]
fn two_commands_at_once_are_refused() {
    let mut host = Host::start();
    host.say(ToGuest::Exec(b"echo first; cat"));
    assert_eq!(host.hear(), Said::Stdout(b"first\n".to_vec()));
    host.say(ToGuest::Exec(b"echo second"));
    assert_eq!(host.hear(), Said::Error("a command is running already".into()));
    host.say(ToGuest::StdinEof);
    assert_eq!(host.hear(), Said::Exit(0));
    host.end();
}

#[test]
fn nonsense_is_answered() {
    let mut host = Host::start();
    (&host.channel).write_all(&[77, 0, 0, 0, 0, agent::END]).unwrap();
    assert_eq!(host.hear(), Said::Error("protocol: unknown frame type 0x4d".into()));
    drop(host.channel);
    assert!(host.init.wait().unwrap().success(), "init ends when the channel does");
}

#[test]
fn orphans_are_no_trouble() {
    let mut host = Host::start();
    for _ in 0..20 {
        assert_eq!(host.run("(sleep 0 &) ; true", b"").status, 0);
    }
    host.end();
}
