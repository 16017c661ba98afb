//! The second half of execve(2): a loaded program takes the place of the running one.

use base::Result;
use core::sync::atomic::Ordering::Relaxed;
use hal::{addr::UserAddr, usermode::UserContext};

use crate::{
    children::{ChildChange, ChildEvent},
    creds::Creds,
    cx::Cx,
    exec::Loaded,
    signal::Signal,
    table::Entry,
    task::{AltStack, work},
    wait::{Interrupted, Timeout},
};

impl Cx {
    /// Makes the loaded program the program of this process. `name` is the last part of its path. When this succeeds the registers are those of
    /// the new program; the caller returns 0.
    ///
    /// # Errors
    /// `EINTR` if another thread ends the process or executes something first; then the old program goes on to its end.
    pub fn exec(&self, program: Loaded, creds: Creds, name: &[u8]) -> Result<()> {
        self.end_other_threads()?;
        let process = self.process().clone();
        let task = self.task();
        // The futexes of the old memory, while it is still there.
        self.release_futexes();
        process.actions(crate::signal::Actions::reset_for_exec);
        process.posix_timers.clear();
        task.set_altstack(AltStack::NONE);
        let files = task.files().fork()?;
        let old = task.set_files(files.clone());
        drop(old);
        let caller = self.caller();
        for file in files.take_close_on_exec() {
            file.flush(&caller);
        }
        let gains = creds.euid != creds.uid || creds.egid != creds.gid;
        process.dumpable.store(u8::from(!gains), Relaxed);
        if gains {
            process.parent_death_signal.store(0, Relaxed);
        }
        process.change_creds(|c| {
            *c = creds;
            Ok(())
        })?;
        if process.exit_signal.swap(Signal::CHLD.number(), Relaxed) != Signal::CHLD.number() {
            let event = ChildEvent { pid: process.pid(), change: ChildChange::Exec };
            self.kernel().child_event(process.ppid(), event);
        }
        let old = process.set_space(Some(program.space.clone()));
        drop(old);
        self.set_space(program.space);
        self.finish_vfork();
        **self.regs() = UserContext::new(UserAddr(program.entry), UserAddr(program.sp));
        // What the FPU holds belongs to the old program.
        self.fpu_away.set(true);
        task.set_name(name);
        process.note_exec();
        Ok(())
    }

    /// Ends all other threads of the process and waits until they are gone; this one takes the number of the process.
    fn end_other_threads(&self) -> Result<()> {
        let process = self.process();
        let me = self.task();
        {
            let mut shared = process.shared.lock();
            if shared.exiting.is_some() || shared.execing.is_some() {
                return Err(crate::wait::INTERRUPTED);
            }
            if shared.threads.len() > 1 {
                shared.execing = Some(me.tid());
                for task in shared.threads.iter().filter(|t| !alloc::sync::Arc::ptr_eq(t, me)) {
                    task.set_work(work::DIE);
                    task.poke();
                }
            }
        }
        let _waiter = process.child_waiters.add(base::Ready::IN, self.waker());
        let alone = || (process.shared.lock().threads.len() == 1).then_some(());
        let waited = self.wait_until(alone, Timeout::Never, Interrupted::Killed);
        process.shared.lock().execing = None;
        waited?;
        if me.tid() != process.pid() {
            self.kernel().table.remove(me.tid());
            me.set_tid(process.pid());
            self.kernel().table.insert(process.pid(), Entry::Process(process.clone()));
        }
        Ok(())
    }
}
