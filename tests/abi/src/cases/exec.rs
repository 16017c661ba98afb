//! execve: what goes over and what does not.

use std::os::unix::fs::PermissionsExt;

use crate::case::{Fail, wrong};
use crate::sys;
use crate::sys::{Do, Status, child, exec, exec_me, good, pipe, wait};
use crate::{cases, check, refused, same};

/// Runs `abi child WORDS…` after some preparation, and gives what it printed and how it ended.
fn output(words: &[&str], prepare: impl FnOnce() -> crate::case::Outcome) -> Result<(String, Status, i32), Fail> {
    output_of(prepare, || exec_me(words))
}

/// The same for any way to execute.
fn output_of(
    prepare: impl FnOnce() -> crate::case::Outcome,
    execute: impl FnOnce() -> sys::Sys,
) -> Result<(String, Status, i32), Fail> {
    let (reader, writer) = pipe()?;
    let pid = child(|| {
        sys!(SYS_dup3, writer, 1, 0)?;
        sys::close(reader)?;
        sys::close(writer)?;
        prepare()?;
        execute()?;
        Err(wrong("execve returned"))
    })?;
    sys::close(writer)?;
    let text = sys::get_all(reader, 1 << 20)?;
    let status = wait(pid, 0)?;
    sys::close(reader)?;
    Ok((String::from_utf8_lossy(&text).into_owned(), status, pid))
}

/// Writes an executable file.
fn program(path: &str, bytes: &[u8]) -> crate::case::Outcome {
    std::fs::write(path, bytes)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
    Ok(())
}

cases! {
    fn exec_passes_arguments [execve] {
        let (text, status, _) = output(&["echo", "a", "", "b c"], || Ok(()))?;
        same!((text.as_str(), status), ("a\n\nb c\n", Status::Exited(0)));
        Ok(())
    }

    fn exec_passes_environment [execve] {
        let (text, ..) = output_of(|| Ok(()), || exec(&sys::me(), &["abi", "child", "env"], &["A=1", "B=x=y"]))?;
        same!(text, "A=1\nB=x=y\n");
        Ok(())
    }

    fn exec_keeps_ids [execve, getpid] {
        let (text, _, pid) = output(&["ids"], || Ok(()))?;
        same!(text.split_whitespace().next(), Some(pid.to_string().as_str()));
        same!(text.split_whitespace().nth(1), Some(sys::pid().to_string().as_str()));
        Ok(())
    }

    fn exec_exit_code [execve, exit_group] {
        same!(output(&["exit", "42"], || Ok(()))?.1, Status::Exited(42));
        Ok(())
    }

    fn exec_closes_cloexec [execve, fcntl, dup3] {
        let (reader, writer) = pipe()?;
        sys::fcntl(reader, libc::F_SETFD, libc::FD_CLOEXEC.into())?;
        let (keep, gone) = (writer.to_string(), reader.to_string());
        same!(output(&["open", &keep], || Ok(()))?.1, Status::Exited(0));
        same!(output(&["open", &gone], || Ok(()))?.1, Status::Exited(1));
        let other = sys::pipe2(libc::O_CLOEXEC)?.0.to_string();
        same!(output(&["open", &other], || Ok(()))?.1, Status::Exited(1));
        Ok(())
    }

    fn exec_failure_keeps_the_program [execve] {
        refused!(exec("/no/such/file", &["x"], &[]), ENOENT);
        refused!(exec("/", &["x"], &[]), EACCES);
        std::fs::write("plain", b"no program")?;
        refused!(exec("plain", &["x"], &[]), EACCES);
        program("junk", b"\x01\x02\x03\x04 no format that anybody knows")?;
        refused!(exec("junk", &["x"], &[]), ENOEXEC);
        refused!(exec("plain/x", &["x"], &[]), ENOTDIR);
        refused!(sys!(SYS_execve, 8usize, 0usize, 0usize), EFAULT);
        Ok(())
    }

    fn exec_script [execve] {
        program("script", format!("#!{} child\n", sys::me()).as_bytes())?;
        // The one argument of the interpreter, then the script's path, then the arguments.
        program("echo", format!("#! {}   child  \nrest", sys::me()).as_bytes())?;
        let (text, ..) = output_of(|| Ok(()), || exec("echo", &["ignored", "x", "y"], &[]))?;
        same!(text, "x\ny\n");
        Ok(())
    }

    fn exec_script_of_script [execve] {
        program("echo", format!("#!{} child\n", sys::me()).as_bytes())?;
        let dir = std::env::current_dir()?;
        program("outer", format!("#!{}/echo one two\n", dir.display()).as_bytes())?;
        let (text, ..) = output_of(|| Ok(()), || exec("./outer", &["outer", "three"], &[]))?;
        // `abi child <dir>/echo "one two" ./outer three`: the child knows no such word, which its code shows.
        same!(text, "");
        program("loop", format!("#!{}/loop\n", dir.display()).as_bytes())?;
        refused!(exec("./loop", &["loop"], &[]), ELOOP);
        program("none", b"#!/no/such/interpreter\n")?;
        refused!(exec("./none", &["none"], &[]), ENOENT);
        Ok(())
    }

    fn exec_large_arguments [execve] {
        let big = "x".repeat(100_000);
        let words: Vec<&str> = ["count"].into_iter().chain((0..10).map(|_| big.as_str())).collect();
        same!(output(&words, || Ok(()))?.0, "10 1000000\n");
        let many: Vec<&str> = ["count"].into_iter().chain((0..5000).map(|_| "ab")).collect();
        same!(output(&many, || Ok(()))?.0, "5000 10000\n");
        let huge = "x".repeat(131_072);
        refused!(exec_me(&["count", &huge]), E2BIG);
        Ok(())
    }

    fn exec_resets_handlers_keeps_ignored_and_mask [execve, rt_sigaction, rt_sigprocmask] {
        let (text, ..) = output(&["signals"], || {
            sys::on(libc::SIGUSR1, Do::Count, 0)?;
            sys::on(libc::SIGUSR2, Do::Ignore, 0)?;
            sys::mask(libc::SIG_BLOCK, &[libc::SIGHUP, libc::SIGUSR1])?;
            sys::kill(sys::pid(), libc::SIGUSR1)?;
            Ok(())
        })?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            u64::from_str_radix(line.trim(), 16).unwrap_or(0)
        };
        same!(value("SigBlk:"), sys::bits(&[libc::SIGHUP, libc::SIGUSR1]));
        same!(value("ShdPnd:") | value("SigPnd:"), sys::bits(&[libc::SIGUSR1]));
        let ignored = value("SigIgn:");
        check!(ignored & sys::bits(&[libc::SIGUSR2]) != 0 && ignored & sys::bits(&[libc::SIGUSR1]) == 0);
        Ok(())
    }

    fn exec_from_a_thread_keeps_the_pid [execve, clone] {
        let (text, _, pid) = output_of(
            || Ok(()),
            || {
                std::thread::scope(|scope| {
                    scope.spawn(|| loop {
                        std::thread::yield_now();
                    });
                    scope.spawn(|| exec_me(&["ids"])).join().unwrap_or(Ok(0))
                })
            },
        )?;
        same!(text.split_whitespace().next(), Some(pid.to_string().as_str()));
        Ok(())
    }

    fn execveat_a_descriptor [execveat] {
        let fd = sys::open(&sys::me(), libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
        let (text, ..) = output_of(
            || Ok(()),
            || {
                let words: Vec<_> = ["abi", "child", "echo", "hi"].iter().map(|word| sys::c(word)).collect();
                let argv: Vec<_> = words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
                let envp = [std::ptr::null::<libc::c_char>()];
                sys!(SYS_execveat, fd, sys::c("").as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH)
            },
        )?;
        same!(text, "hi\n");
        Ok(())
    }

    fn exec_changes_the_name [execve, prctl] {
        std::fs::copy(sys::me(), "a-name-longer-than-15")?;
        let (reader, writer) = pipe()?;
        let pid = child(|| {
            sys!(SYS_dup3, writer, 1, 0)?;
            exec("a-name-longer-than-15", &["x", "child", "ids"], &[])?;
            Ok(())
        })?;
        check!(!sys::get(reader, 100)?.is_empty());
        // It has printed, so it was executed; it may be a zombie by now, which keeps its name.
        same!(std::fs::read_to_string(format!("/proc/{pid}/comm"))?, "a-name-longer-t\n");
        good(pid)
    }

    fn exec_dynamic_program [execve, mmap] {
        let has_interpreter = |path: &str| {
            std::fs::read(path).is_ok_and(|bytes| bytes.windows(4).take(4096).any(|w| w == b"ld-l"))
        };
        let path = ["/usr/bin/true", "/bin/true"].into_iter().find(|path| has_interpreter(path));
        let path = path.ok_or_else(|| Fail::Skip("no dynamic /bin/true".into()))?;
        same!(output_of(|| Ok(()), || exec(path, &["true"], &[]))?.1, Status::Exited(0));
        Ok(())
    }

    fn exec_of_the_file_being_written [execve] {
        std::fs::copy(sys::me(), "busy")?;
        let fd = sys::open("busy", libc::O_WRONLY, 0)?;
        refused!(exec("./busy", &["busy", "child", "exit", "0"], &[]), ETXTBSY);
        sys::close(fd)?;
        same!(output_of(|| Ok(()), || exec("./busy", &["busy", "child", "exit", "6"], &[]))?.1, Status::Exited(6));
        Ok(())
    }
}
