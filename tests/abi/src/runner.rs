//! Runs cases, each in a process of its own, and reports.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use linux_abi::Errno;

use crate::case::{Case, Fail};
use crate::cases;
use crate::sys;
use crate::sys::{Do, Status};

/// Seconds after which a case counts as hanging. No case waits for time to pass for longer than a fraction of one.
const LIMIT: u32 = 10;

/// How a case ended.
enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Prints the names, or the calls with their cases.
pub fn list(by_call: bool) {
    if !by_call {
        cases::all().iter().for_each(|case| println!("{}", case.name));
        return;
    }
    let mut calls: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for case in cases::all() {
        for call in case.calls {
            calls.entry(call).or_default().push(case.name);
        }
    }
    for (call, names) in calls {
        println!("{call}: {}", names.join(" "));
    }
}

/// The cases with these names.
pub fn select(names: &[String]) -> Result<Vec<Case>, String> {
    let mut selected = Vec::new();
    for name in names {
        let fits = |case: &Case| match name.strip_suffix('*') {
            Some(start) => case.name.starts_with(start),
            None => case.name == name,
        };
        let before = selected.len();
        selected.extend(cases::all().into_iter().filter(fits));
        if selected.len() == before {
            return Err(format!("no case {name}; see abi list"));
        }
    }
    Ok(selected)
}

/// Runs the cases and prints what became of them; success if none failed.
pub fn run(cases: &[Case], json: bool) -> ExitCode {
    let program = std::env::current_exe().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    // SAFETY: there is one thread.
    unsafe { std::env::set_var("ABI_SELF", program) };
    if json {
        println!("[");
    } else {
        println!("1..{}", cases.len());
    }
    let mut failed = 0;
    for (at, case) in cases.iter().enumerate() {
        let start = Instant::now();
        let verdict = run_one(case);
        let ms = start.elapsed().as_millis();
        failed += usize::from(matches!(verdict, Verdict::Failed(_)));
        if json {
            let (ok, skipped, reason) = match &verdict {
                Verdict::Passed => (true, false, ""),
                Verdict::Skipped(reason) => (true, true, reason.as_str()),
                Verdict::Failed(reason) => (false, false, reason.as_str()),
            };
            let comma = if at + 1 == cases.len() { "" } else { "," };
            let reason = quote(reason);
            println!(
                r#"  {{"name": "{}", "ok": {ok}, "skipped": {skipped}, "ms": {ms}, "reason": {reason}}}{comma}"#,
                case.name
            );
        } else {
            match verdict {
                Verdict::Passed => println!("ok {} {}", at + 1, case.name),
                Verdict::Skipped(reason) => println!("ok {} {} # SKIP {reason}", at + 1, case.name),
                Verdict::Failed(reason) => println!("not ok {} {} # {reason}", at + 1, case.name),
            }
        }
    }
    if json {
        println!("]");
    } else if failed > 0 {
        println!("# {failed} of {} failed", cases.len());
    }
    ExitCode::from(u8::from(failed > 0))
}

/// A JSON string.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            ' '.. => out.push(letter),
            _ => out += &format!("\\u{:04x}", letter as u32),
        }
    }
    out + "\""
}

fn run_one(case: &Case) -> Verdict {
    let dir = std::env::temp_dir().join(format!("abi-{}-{}", sys::pid(), case.name));
    if let Err(error) = std::fs::create_dir_all(&dir) {
        return Verdict::Failed(format!("{}: {error}", dir.display()));
    }
    let verdict = run_in(case, &dir).unwrap_or_else(|errno| Verdict::Failed(format!("the runner: {errno:?}")));
    let _ = std::fs::remove_dir_all(&dir);
    verdict
}

/// What the runner did to itself must not show in a case; and what a case leaves behind must not hold the runner's output open.
fn fresh() -> crate::case::Outcome {
    sys::on(libc::SIGALRM, Do::Default, 0)?;
    // A shell has its background jobs ignore some of these.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
        sys::on(signal, Do::Default, 0)?;
    }
    sys::CAME.iter().for_each(|count| count.store(0, SeqCst));
    sys::ORDERED.store(0, SeqCst);
    let null = sys::open("/dev/null", libc::O_RDWR, 0)?;
    for fd in 0..3 {
        sys!(SYS_dup3, null, fd, 0)?;
    }
    sys::close(null)?;
    std::panic::set_hook(Box::new(|panic| {
        let _ = sys::write(sys::REASON.load(SeqCst), panic.to_string().as_bytes());
    }));
    Ok(())
}

fn run_in(case: &Case, dir: &std::path::Path) -> Result<Verdict, Errno> {
    let (reason, tell) = sys::pipe2(libc::O_CLOEXEC)?;
    let child = sys::child(|| {
        sys!(SYS_setsid)?;
        std::env::set_current_dir(dir)?;
        sys::close(reason)?;
        sys::REASON.store(tell, SeqCst);
        fresh()?;
        // 2: skipped; 3: failed, and the reason is told.
        match (case.run)() {
            Ok(()) => sys::exit(0),
            Err(Fail::Skip(text)) => {
                let _ = sys::write(tell, text.as_bytes());
                sys::exit(2)
            }
            Err(Fail::Wrong(text)) => {
                let _ = sys::write(tell, text.as_bytes());
                sys::exit(3)
            }
        }
    })?;
    sys::close(tell)?;
    sys::on(libc::SIGALRM, Do::Count, 0)?;
    let hung = |seconds: u32| {
        let time = libc::timeval { tv_sec: seconds.into(), tv_usec: 0 };
        let timer = libc::itimerval { it_interval: libc::timeval { tv_sec: 1, tv_usec: 0 }, it_value: time };
        sys!(SYS_setitimer, libc::ITIMER_REAL, &raw const timer, 0usize)
    };
    let before = sys::came(libc::SIGALRM);
    hung(LIMIT)?;
    let status = loop {
        match sys::wait_with(child, 0) {
            Ok(Some((_, status))) => break status,
            Ok(None) => {}
            Err(Errno::EINTR) if sys::came(libc::SIGALRM) > before => {
                let _ = sys::kill(child, libc::SIGKILL);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    };
    hung(0)?;
    // What the case left behind in its own group must not disturb the next one.
    let _ = sys::kill(-child, libc::SIGKILL);
    // Everything was written before the end; a process left behind may still hold the other end, so the end of file is not awaited.
    sys::fcntl(reason, libc::F_SETFL, libc::O_NONBLOCK.into())?;
    let text = String::from_utf8_lossy(&sys::get(reason, 4096).unwrap_or_default()).trim_end_matches("; ").to_string();
    sys::close(reason)?;
    Ok(match status {
        Status::Exited(0) => Verdict::Passed,
        Status::Exited(2) => Verdict::Skipped(text),
        _ if sys::came(libc::SIGALRM) > before => Verdict::Failed(format!("still running after {LIMIT} s; {text}")),
        Status::Exited(3) => Verdict::Failed(text),
        other => Verdict::Failed(format!("{other:?}; {text}")),
    })
}
