//! The pump against a guest that is played: the protocol's other side, around `sh` of this host.

use std::io::{Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command as Process, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agent::{Decoder, Message, ToGuest, ToHost};

use super::{Command, Ended, Input, Output, Session, shell_status};
use crate::machine::{Died, Vm};

#[test]
fn wait_statuses() {
    assert_eq!(shell_status(0), 0);
    assert_eq!(shell_status(3 << 8), 3);
    assert_eq!(shell_status(9), 137);
    assert_eq!(shell_status(11 | 0x80), 139);
}

/// Serves commands until the channel closes; `die` ends the machine at the next command instead.
fn guest(mut channel: UnixStream, die: bool) {
    channel.set_nonblocking(false).expect("a channel");
    let mut send = {
        let mut out = channel.try_clone().expect("a channel");
        move |message: ToHost<'_>| {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let _ = out.write_all(&bytes);
        }
    };
    let mut begin = Vec::new();
    agent::sync(&mut begin);
    ToHost::Ready { version: agent::VERSION, kernel: 0 }.encode(&mut begin);
    let mut raw = channel.try_clone().expect("a channel");
    raw.write_all(&begin).expect("a host");
    let (mut decoder, mut child) = (Decoder::new(), None);
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(n) = channel.read(&mut bytes) {
        if n == 0 {
            return;
        }
        decoder.push(&bytes[..n]);
        while let Some(message) = decoder.next::<ToGuest<'_>>().expect("good frames") {
            match message {
                ToGuest::Exec(_) if die => return,
                // Cut in the middle of a frame, and another agent in its place.
                ToGuest::Exec(b"crash") => {
                    raw.write_all(&[0x82, 100, 0, 0, 0, b'x']).expect("a host");
                    raw.write_all(&begin).expect("a host");
                    decoder = Decoder::new();
                    break;
                }
                ToGuest::Exec(line) => {
                    let line = String::from_utf8_lossy(line).into_owned();
                    let mut sh = Process::new("sh");
                    sh.args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                    child = Some(sh.spawn().expect("sh"));
                }
                ToGuest::Stdin(bytes) => {
                    if let Some(stdin) = child.as_mut().and_then(|child| child.stdin.as_mut()) {
                        let _ = stdin.write_all(bytes);
                    }
                }
                ToGuest::StdinEof => {
                    let mut child = child.take().expect("a command");
                    drop(child.stdin.take());
                    let mut piece = vec![0; agent::MAX_PAYLOAD];
                    let mut out = child.stdout.take().expect("a pipe");
                    while let Ok(n @ 1..) = out.read(&mut piece) {
                        send(ToHost::Stdout(&piece[..n]));
                    }
                    let mut err = child.stderr.take().expect("a pipe");
                    while let Ok(n @ 1..) = err.read(&mut piece) {
                        send(ToHost::Stderr(&piece[..n]));
                    }
                    let status = child.wait().expect("an end");
                    send(ToHost::Exit(std::os::unix::process::ExitStatusExt::into_raw(status)));
                }
                ToGuest::Poweroff | ToGuest::Kill(_) => {}
            }
        }
    }
}

/// A session with a played guest; the emulator is a process that waits.
fn session(die: bool) -> Session {
    let (agent, far) = UnixStream::pair().expect("a channel");
    let (console, _) = UnixStream::pair().expect("a channel");
    agent.set_nonblocking(true).expect("a channel");
    console.set_nonblocking(true).expect("a channel");
    let emulator = Process::new("sh")
        .args(["-c", "read -r _; exit 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sh");
    let mut vm = Vm::around(emulator, console, agent);
    let stdin = vm.emulator_stdin();
    thread::spawn(move || {
        guest(far, die);
        drop(stdin);
    });
    Session::new(vm).expect("a session")
}

fn run(session: &mut Session, line: &str, input: &[u8], time: u64) -> (anyhow::Result<Ended>, Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = session.run(Command {
        line,
        input: Input::Memory(input),
        stdout: Output::Memory(&mut stdout),
        stderr: Output::Memory(&mut stderr),
        deadline: Some(Instant::now() + Duration::from_secs(time)),
    });
    (ended, stdout, stderr)
}

#[test]
fn commands_follow_each_other() {
    let mut session = session(false);
    for round in 0..3u8 {
        let (ended, stdout, stderr) = run(&mut session, &format!("cat; echo e >&2; exit {round}"), b"in\0\xff", 20);
        assert_eq!(ended.expect("an end"), Ended::Status(round));
        assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"in\0\xff"[..], &b"e\n"[..]));
    }
    let (ended, ..) = run(&mut session, "kill -9 $$", b"", 20);
    assert_eq!(ended.expect("an end"), Ended::Status(137));
}

#[test]
fn a_slow_reader_holds_up_the_guest_and_loses_nothing() {
    let mut session = session(false);
    let (mut read, write) = pipe().expect("a pipe");
    let reader = thread::spawn(move || {
        let (mut all, mut piece) = (0u64, [0; 1000]);
        while let Ok(n @ 1..) = read.read(&mut piece) {
            all += piece[..n].iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        all
    });
    let mut stderr = Vec::new();
    let ended = session.run(Command {
        line: "head -c 8000000 /dev/zero | tr '\\0' '\\1'",
        input: Input::Memory(b""),
        stdout: Output::Fd(write.as_fd()),
        stderr: Output::Memory(&mut stderr),
        deadline: Some(Instant::now() + Duration::from_secs(60)),
    });
    assert_eq!(ended.expect("an end"), Ended::Status(0));
    drop(write);
    assert_eq!(reader.join().expect("the reader"), 8_000_000);
}

#[test]
fn a_closed_reader_does_not_end_the_command() {
    let mut session = session(false);
    let (read, write) = pipe().expect("a pipe");
    drop(read);
    let mut stderr = Vec::new();
    let ended = session.run(Command {
        line: "head -c 1000000 /dev/zero; exit 4",
        input: Input::Memory(b""),
        stdout: Output::Fd(write.as_fd()),
        stderr: Output::Memory(&mut stderr),
        deadline: Some(Instant::now() + Duration::from_secs(60)),
    });
    assert_eq!(ended.expect("an end"), Ended::Status(4));
}

#[test]
fn a_deadline_and_a_death_are_told_apart() {
    let mut slow = session(false);
    let (ended, ..) = run(&mut slow, "sleep 5", b"", 1);
    assert_eq!(ended.expect("an end"), Ended::TimedOut);
    let mut dying = session(true);
    let (ended, ..) = run(&mut dying, "true", b"", 20);
    let error = ended.expect_err("a death");
    assert!(error.downcast_ref::<Died>().is_some_and(|died| died.reason.contains("status 7")), "{error:#}");
}

#[test]
fn a_command_is_lost_with_its_agent_and_the_next_one_runs() {
    let mut session = session(false);
    let input = vec![b'y'; 300_000];
    let (ended, stdout, _) = run(&mut session, "crash", &input, 20);
    assert_eq!(ended.expect("an end"), Ended::Lost);
    assert_eq!(stdout, b"", "what was cut is not heard");
    let (ended, stdout, _) = run(&mut session, "cat; exit 3", b"again", 20);
    assert_eq!((ended.expect("an end"), stdout.as_slice()), (Ended::Status(3), &b"again"[..]));
}
