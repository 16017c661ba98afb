//! What this program does when a case executes it: `abi child WORD…`.

use std::process::ExitCode;

/// Does what the words say.
pub fn run(words: &[String]) -> ExitCode {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        // Ends with this code.
        ["exit", code] => ExitCode::from(code.parse().unwrap_or(255)),
        // Prints the other words, one a line.
        ["echo", rest @ ..] => {
            rest.iter().for_each(|word| println!("{word}"));
            ExitCode::SUCCESS
        }
        // Prints pid, ppid, process group and session.
        ["ids"] => {
            let field = |at: usize| {
                let stat = crate::sys::proc_stat(crate::sys::pid()).unwrap_or_default();
                stat.get(at).cloned().unwrap_or_default()
            };
            println!("{} {} {} {}", crate::sys::pid(), field(1), field(2), field(3));
            ExitCode::SUCCESS
        }
        // Succeeds if the descriptor is open.
        ["open", fd] => {
            let fd = fd.parse().unwrap_or(-1);
            ExitCode::from(u8::from(crate::sys::fcntl(fd, libc::F_GETFD, 0).is_err()))
        }
        // Prints the blocked, pending and ignored signals as /proc shows them.
        ["signals"] => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let wanted =
                |line: &&str| ["SigBlk:", "SigPnd:", "ShdPnd:", "SigIgn:"].iter().any(|key| line.starts_with(key));
            status.lines().filter(wanted).for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        // Says so and waits until a signal ends it.
        ["sleep"] => {
            println!("ready");
            loop {
                std::thread::park();
            }
        }
        ["pi"] => ExitCode::from(u8::from(crate::cases::pi::alone().is_err())),
        ["rseq", what] => match crate::cases::rseq::alone(what) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        // Prints the environment.
        ["env"] => {
            std::env::vars().for_each(|(key, value)| println!("{key}={value}"));
            ExitCode::SUCCESS
        }
        // Prints how many bytes of arguments came.
        ["count", rest @ ..] => {
            println!("{} {}", rest.len(), rest.iter().map(|word| word.len()).sum::<usize>());
            ExitCode::SUCCESS
        }
        ["between", rest @ ..] => crate::between::run(rest),
        // Takes memory until it is killed.
        ["hog"] => {
            const PIECE: usize = 1 << 20;
            loop {
                let Ok(at) = crate::sys::anon(PIECE) else { return ExitCode::FAILURE };
                (at..at + PIECE).step_by(4096).for_each(|page| crate::sys::poke(page, 1));
            }
        }
        // Tries to map pages at addresses in hexadecimal, and prints what came of it.
        ["map-at", rest @ ..] => {
            for word in rest {
                let at = usize::from_str_radix(word, 16).unwrap_or(0);
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
                match crate::sys::mmap(at, 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) {
                    Ok(at) => {
                        crate::sys::poke(at, 1);
                        println!("{at:x}: mapped");
                    }
                    Err(errno) => println!("{at:x}: {errno:?}"),
                }
            }
            ExitCode::SUCCESS
        }
        ["mapped", rest @ ..] => crate::mapped::run(rest),
        ["stamps", rest @ ..] => crate::stamps::run(rest),
        _ => ExitCode::from(254),
    }
}
