//! `abi child mapped FILE PAGES STEP…`: maps a file shared and does one step after the other, for tests in which several processes, wherever they run,
//! map the same file. `FILE` may be `@N`, a descriptor that is open. Prints what steps say, one a line; the exit status is 0, or 1 and the step that
//! failed.

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;

use linux_abi::Errno;

use crate::sys;
use crate::sys::word;

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// What the steps go by.
struct Mapped {
    fd: i32,
    at: usize,
    len: usize,
    /// Where it is mapped privately too; 0: nowhere.
    private: usize,
}

fn failed(step: &str, errno: Errno) -> String {
    format!("{step}: {errno:?}")
}

/// Does what the words say.
pub fn run(words: &[&str]) -> ExitCode {
    let [file, pages, steps @ ..] = words else { return ExitCode::from(254) };
    match map(file, pages).and_then(|mut mapped| steps.iter().try_for_each(|step| mapped.step(step))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn map(file: &str, pages: &str) -> Result<Mapped, String> {
    let fd = match file.strip_prefix('@') {
        Some(fd) => fd.parse().map_err(|_| format!("{file}: no descriptor"))?,
        None => sys::open(file, libc::O_RDWR | libc::O_CREAT, 0o644).map_err(|e| failed(file, e))?,
    };
    let len = pages.parse::<usize>().map_err(|_| format!("{pages}: no number"))? * PAGE;
    let at = sys::mmap(0, len, RW, libc::MAP_SHARED, fd, 0).map_err(|e| failed("mmap", e))?;
    Ok(Mapped { fd, at, len, private: 0 })
}

impl Mapped {
    /// `NAME:NUMBER:NUMBER`; offsets are in bytes.
    fn step(&mut self, step: &str) -> Result<(), String> {
        let mut parts = step.split(':');
        let name = parts.next().unwrap_or_default();
        let numbers: Vec<usize> = parts.clone().filter_map(|part| part.parse().ok()).collect();
        let ended = match (name, numbers.as_slice()) {
            // Sets the size of the file.
            ("size", [size]) => sys!(SYS_ftruncate, self.fd, *size).map(|_| ()),
            // A store, and a load that is printed.
            ("poke", [at, value]) => {
                sys::poke(self.inside(*at)?, *value as u8);
                Ok(())
            }
            ("peek", [at]) => {
                println!("{}", sys::peek(self.inside(*at)?));
                Ok(())
            }
            // A store that is this process's alone, and a load where it went.
            ("own", [at, value]) => {
                self.inside(*at)?;
                let private = sys::mmap(0, self.len, RW, libc::MAP_PRIVATE, self.fd, 0);
                private.map(|private| {
                    self.private = private as usize;
                    sys::poke(self.private + at, *value as u8);
                })
            }
            ("owned", [at]) if self.private != 0 => {
                self.inside(*at)?;
                println!("{}", sys::peek(self.private + at));
                Ok(())
            }
            // pwrite(2) and pread(2) of a byte.
            ("write", [at, value]) => sys!(SYS_pwrite64, self.fd, &raw const *value, 1usize, *at).map(|_| ()),
            ("read", [at]) => {
                let mut byte = 0u8;
                let read = sys!(SYS_pread64, self.fd, &raw mut byte, 1usize, *at);
                read.map(|n| println!("{}", if n == 1 { i32::from(byte) } else { -1 }))
            }
            // Stores a word and wakes all who wait for it.
            ("tell", [at, value]) => {
                word(self.inside(*at)?).store(*value as u32, SeqCst);
                self.wake(*at, i32::MAX).map(|_| ())
            }
            // Sleeps until a word has a value.
            ("await", [at, value]) => loop {
                let now = word(self.inside(*at)?).load(SeqCst);
                if now == *value as u32 {
                    break Ok(());
                }
                match sys!(SYS_futex, self.inside(*at)?, libc::FUTEX_WAIT, now, 0usize) {
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(errno) => break Err(errno),
                }
            },
            // Sleeps at a word for so many milliseconds and prints how that ended.
            ("sleep", [at, value, ms]) => {
                let time = sys::ms(*ms as i64);
                let ended = sys!(SYS_futex, self.inside(*at)?, libc::FUTEX_WAIT, *value as u32, &raw const time);
                println!("{}", ended.map_or_else(|errno| format!("{errno:?}"), |_| "woken".into()));
                Ok(())
            }
            // Wakes so many, again and again until that many were there.
            ("wake", [at, count]) => {
                let mut woken = 0;
                loop {
                    match self.wake(*at, (*count - woken) as i32) {
                        Ok(n) => woken += n,
                        Err(errno) => break Err(errno),
                    }
                    if woken >= *count {
                        break Ok(());
                    }
                    std::thread::yield_now();
                }
            }
            // Wakes once and prints how many there were.
            ("woken", [at, count]) => self.wake(*at, *count as i32).map(|n| println!("{n}")),
            // Moves sleepers to another word, until so many were moved.
            ("requeue", [from, to, count]) => {
                let mut moved = 0;
                loop {
                    let (a, b) = (self.inside(*from)?, self.inside(*to)?);
                    let now = word(a).load(SeqCst);
                    match sys!(SYS_futex, a, libc::FUTEX_CMP_REQUEUE, 0, count - moved, b, now) {
                        Ok(n) => moved += n as usize,
                        Err(errno) => break Err(errno),
                    }
                    if moved >= *count {
                        break Ok(());
                    }
                    std::thread::yield_now();
                }
            }
            // Adds one to a word so many times.
            ("add", [at, times]) => {
                let word = word(self.inside(*at)?);
                for _ in 0..*times {
                    word.fetch_add(1, SeqCst);
                }
                Ok(())
            }
            ("word", [at]) => {
                println!("{}", word(self.inside(*at)?).load(SeqCst));
                Ok(())
            }
            // Every page gets its number plus a value; every page is found to have that.
            ("fill", [value]) => {
                (0..self.len / PAGE).for_each(|n| sys::poke(self.at + n * PAGE, (n + value) as u8));
                Ok(())
            }
            ("check", [value]) => {
                match (0..self.len / PAGE).find(|n| sys::peek(self.at + n * PAGE) != (n + value) as u8) {
                    Some(page) => return Err(format!("page {page} is {}", sys::peek(self.at + page * PAGE))),
                    None => Ok(()),
                }
            }
            // Gives the pages up; the next touch has them again.
            ("drop", []) => sys!(SYS_madvise, self.at, self.len, libc::MADV_DONTNEED).map(|_| ()),
            ("hole", [at, len]) => sys!(SYS_madvise, self.inside(*at)?, *len, libc::MADV_REMOVE).map(|_| ()),
            ("unmap", []) => sys!(SYS_munmap, self.at, self.len).map(|_| ()),
            ("move", [pages]) => sys!(SYS_mremap, self.at, self.len, pages * PAGE, libc::MREMAP_MAYMOVE).map(|at| {
                (self.at, self.len) = (at as usize, pages * PAGE);
            }),
            // The rest is done by a child; its status is waited for and printed.
            ("child", []) => match sys!(SYS_clone, libc::SIGCHLD, 0usize, 0usize, 0usize, 0usize) {
                Ok(0) => Ok(()),
                Ok(pid) => {
                    let status = sys::wait(pid as i32, 0).map_err(|errno| failed(step, errno))?;
                    println!("{status:?}");
                    sys::exit(0)
                }
                Err(errno) => Err(errno),
            },
            // Holds a robust lock at a word of the first page and sleeps until it is killed.
            ("lock", [at]) => {
                let (head, entry) = (self.inside(at - 64)? as *mut u64, self.inside(at - 32)?);
                // SAFETY: both lie in our mapping, below the word.
                unsafe {
                    head.write(entry as u64);
                    head.add(1).write(32);
                    head.add(2).write(0);
                    (entry as *mut u64).write(head as u64);
                }
                let tid = sys!(SYS_gettid).map_err(|errno| failed(step, errno))? as u32;
                sys!(SYS_set_robust_list, head, 24usize).map_err(|errno| failed(step, errno))?;
                word(self.inside(*at)?).store(tid | libc::FUTEX_WAITERS, SeqCst);
                Ok(())
            }
            // Sleeps at a robust lock until its owner died.
            ("inherit", [at]) => loop {
                let now = word(self.inside(*at)?).load(SeqCst);
                if now & libc::FUTEX_OWNER_DIED != 0 {
                    break Ok(());
                }
                match sys!(SYS_futex, self.inside(*at)?, libc::FUTEX_WAIT, now, 0usize) {
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(errno) => break Err(errno),
                }
            },
            ("say", []) => {
                println!("{}", step.split_once(':').map_or("", |(_, text)| text));
                Ok(())
            }
            ("pause", []) => sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize).map(|_| ()),
            _ => return Err(format!("{step}: no such step")),
        };
        ended.map_err(|errno| failed(step, errno))
    }

    fn inside(&self, at: usize) -> Result<usize, String> {
        if at < self.len { Ok(self.at + at) } else { Err(format!("{at}: beyond the mapping")) }
    }

    fn wake(&self, at: usize, count: i32) -> Result<usize, Errno> {
        sys!(SYS_futex, self.at + at, libc::FUTEX_WAKE, count).map(|n| n as usize)
    }
}
