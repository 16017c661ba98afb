//! Restartable sequences. The C library registers a struct of its own in every thread, so these run in a program that was told not to.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::case::Outcome;
use crate::sys;
use crate::sys::{Do, Status, child, wait};
use crate::{cases, check, refused, same};

/// What marks the handlers.
const SIGNATURE: u32 = 0x5305_3053;

/// `struct rseq`: four words of 64 bits.
#[repr(align(32))]
struct Area([AtomicU64; 4]);

static AREA: Area = Area([const { AtomicU64::new(0) }; 4]);

/// Code that is never run: a mark, and where it would go on.
static HANDLER: [u32; 4] = [SIGNATURE, 0, 0, 0];

fn rseq(at: usize, len: u32, flags: i32, signature: u32) -> sys::Sys {
    sys!(SYS_rseq, at, len, flags, signature)
}

/// `struct rseq_cs` of a sequence that this program is never in.
fn sequence(signature_at: usize) -> [u64; 4] {
    let handler = HANDLER.as_ptr() as u64;
    [0, handler + 8, 4, handler + 4 * signature_at as u64]
}

/// What the program that was told not to register does.
pub fn alone(what: &str) -> Outcome {
    let at = AREA.0.as_ptr() as usize;
    refused!(rseq(at + 8, 32, 0, SIGNATURE), EINVAL);
    refused!(rseq(at, 31, 0, SIGNATURE), EINVAL);
    refused!(rseq(at, 32, 8, SIGNATURE), EINVAL);
    rseq(at, 32, 0, SIGNATURE)?;
    refused!(rseq(at, 32, 0, SIGNATURE), EBUSY);
    refused!(rseq(at, 32, 0, 1), EPERM);
    sys::on(libc::SIGUSR1, Do::Count, 0)?;
    if what == "broken" {
        // The word before the handler is not the mark: a signal, and it is over.
        let broken = sequence(2);
        AREA.0[1].store(broken.as_ptr() as u64, SeqCst);
        sys::kill(sys::pid(), libc::SIGUSR1)?;
        return Err(crate::case::wrong("a sequence with a wrong mark"));
    }
    let (mut cpu, mut node) = (0u32, 0u32);
    loop {
        let before = AREA.0[0].load(SeqCst);
        sys!(SYS_getcpu, &raw mut cpu, &raw mut node, 0usize)?;
        // It may be on another CPU by now.
        if before == AREA.0[0].load(SeqCst) {
            break;
        }
    }
    let ids = AREA.0[0].load(SeqCst);
    same!((ids as u32, (ids >> 32) as u32), (cpu, cpu));
    // A sequence that the program is not in is forgotten when it is disturbed.
    let elsewhere = sequence(1);
    AREA.0[1].store(elsewhere.as_ptr() as u64, SeqCst);
    sys::kill(sys::pid(), libc::SIGUSR1)?;
    same!((sys::came(libc::SIGUSR1), AREA.0[1].load(SeqCst)), (1, 0));
    refused!(rseq(at, 32, 1, 1), EPERM);
    rseq(at, 32, 1, SIGNATURE)?;
    refused!(rseq(at, 32, 1, SIGNATURE), EINVAL);
    check!(AREA.0[0].load(SeqCst) >> 32 == u64::from(u32::MAX));
    Ok(())
}

/// Runs this program so that its C library leaves rseq alone.
fn run(what: &str) -> sys::Sys<Status> {
    let pid = child(|| {
        let path = sys::me();
        sys::exec(&path, &["abi", "child", "rseq", what], &["GLIBC_TUNABLES=glibc.pthread.rseq=0"])?;
        Ok(())
    })?;
    wait(pid, 0)
}

cases! {
    fn rseq_tells_the_cpu [rseq, getcpu] {
        same!(run("good")?, Status::Exited(0));
        Ok(())
    }

    fn rseq_with_a_wrong_mark [rseq] {
        same!(run("broken")?, Status::Killed(libc::SIGSEGV));
        Ok(())
    }
}
