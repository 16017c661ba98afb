//! execve(2): a program is found and loaded, then takes the place of the running one.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::Ordering::Relaxed;

use base::{Errno, Error, KernelId, Result, wait::Op};
use hal::{addr::UserAddr, usermode::UserContext};
use mm::FileLabel;
use vfs::{Access, FileKind, Follow, OpenFlags, Place, Stat, Status, Walk, place::MountFlags};

use crate::{
    children::{ChildChange, ChildEvent},
    creds::Creds,
    cx::Cx,
    exec::{self, ExecFile, Identity, Loaded, Loader, Request, Strings},
    signal::Signal,
    table::Entry,
    task::{AltStack, work},
    wait::{Interrupted, Timeout},
};

/// `ADDR_NO_RANDOMIZE` of personality(2).
const NO_RANDOM: u32 = 0x004_0000;

/// The program of an execve: where it was found, and its bytes.
struct Found {
    place: Place,
    file: ExecFile,
    stat: Stat,
}

/// A loaded program, who it will be, and what it is called.
pub(crate) type Ready = (Loaded, Creds, Vec<u8>);

impl Cx {
    /// Executes the program that `path` names from `start` (or the root). Returns when the registers are those of the new program.
    ///
    /// # Errors
    /// As execve(2); then the old program goes on.
    pub fn execve(&self, start: Place, path: &[u8], follow: Follow, argv: Strings, envp: Strings) -> Result<()> {
        let found = self.find_program(start, path, follow)?;
        self.execve_found(&found, path, argv, envp)
    }

    /// Executes what an open file stands for: execveat(2) with AT_EMPTY_PATH. `name` is what the program is told that its path was.
    ///
    /// # Errors
    /// As execve(2).
    pub fn execve_place(&self, place: Place, name: &[u8], argv: Strings, envp: Strings) -> Result<()> {
        let found = self.open_program(place)?;
        self.execve_found(&found, name, argv, envp)
    }

    fn execve_found(&self, found: &Found, path: &[u8], argv: Strings, envp: Strings) -> Result<()> {
        if let Some(to) = self.elsewhere(found)? {
            return self.execve_elsewhere(to, &found.place, path, &argv, &envp);
        }
        let (loaded, creds, name) = self.load(found, path, argv, envp)?;
        self.exec(loaded, creds, &name)
    }

    /// The kernel where the program goes on: the one that was asked for, or one of its ISA. `None`: here.
    fn elsewhere(&self, found: &Found) -> Result<Option<KernelId>> {
        let (kernel, cluster) = (self.kernel(), self.kernel().cluster());
        let asked = cluster.place(self.process().placement())?;
        if asked.is_some() || !cluster.is_mixed() {
            return Ok(asked);
        }
        let isa = exec::isa(&found.file, self)?;
        if isa == kernel.facts.isa {
            return Ok(None);
        }
        match cluster.kernel_of(isa) {
            Some(to) => Ok(Some(to)),
            None => {
                log::info!("exec: {}: no kernel for {} is up", found.file.label.path.escape_ascii(), isa.name());
                Err(Error::new(Errno::ENOEXEC, "no kernel for its instruction set"))
            }
        }
    }

    /// Loads the program at `place` without starting it.
    pub(crate) fn load_place(&self, place: Place, path: &[u8], argv: Strings, envp: Strings) -> Result<Ready> {
        let found = self.open_program(place)?;
        self.load(&found, path, argv, envp)
    }

    fn load(&self, found: &Found, path: &[u8], argv: Strings, envp: Strings) -> Result<Ready> {
        let process = self.process();
        let mut creds = (*process.creds()).clone();
        let stat = &found.stat;
        let obeys = !found.place.mount.flags().contains(MountFlags::NOSUID);
        let setuid = (obeys && stat.mode & 0o4000 != 0).then_some(stat.uid);
        // Set-group-id without group execution is something else (mandatory locking).
        let setgid = (obeys && stat.mode & 0o2010 == 0o2010).then_some(stat.gid);
        creds.exec(setuid, setgid);
        let identity = Identity {
            uid: creds.uid,
            euid: creds.euid,
            gid: creds.gid,
            egid: creds.egid,
            secure: creds.uid != creds.euid || creds.gid != creds.egid,
        };
        let loaded = exec::load(
            Request {
                memory: &self.kernel().memory,
                file: found.file.clone(),
                path,
                argv,
                envp,
                limits: process.memory_limits(),
                identity,
                fixed_addresses: process.personality.load(Relaxed) & NO_RANDOM != 0,
            },
            self,
        )?;
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        Ok((loaded, creds, name.into()))
    }

    fn find_program(&self, start: Place, path: &[u8], follow: Follow) -> Result<Found> {
        let caller = self.caller();
        let root = self.task().fs().root()?;
        let walk = Walk { vfs: self.kernel().vfs(), caller: &caller, root, start, wait: self };
        let place = walk.find(path, follow)?;
        self.open_program(place)
    }

    fn open_program(&self, place: Place) -> Result<Found> {
        match place.kind() {
            FileKind::Regular => {}
            FileKind::Symlink => return Err(Errno::ELOOP.into()),
            _ => return Err(Error::new(Errno::EACCES, "not a regular file")),
        }
        if place.mount.flags().contains(MountFlags::NOEXEC) {
            return Err(Error::new(Errno::EACCES, "mounted noexec"));
        }
        let caller = self.caller();
        let inode = place.inode().clone();
        // One look for permission, set-user-id and label: the file may be another kernel's.
        let stat = self.finish(inode.stat())?;
        stat.check(&caller, Access::EXECUTE)?;
        // A program may be executable and not readable: the kernel reads it, not the caller.
        let reader = vfs::Caller::kernel();
        let open = inode.open(&reader, OpenFlags::READ, Status::empty(), place.clone());
        let object = self.finish(open)?.memory()?;
        let path = place.path(self.task().fs().root().ok().as_ref()).0;
        let device = u64::from(stat.device.major) << 32 | u64::from(stat.device.minor);
        let label = Arc::new(FileLabel { path, device, inode: stat.inode });
        Ok(Found { place, file: ExecFile { object, label }, stat })
    }

    fn finish<T>(&self, tried: base::TryResult<T>) -> Result<T> {
        let wait: &dyn vfs::WaitOps = self;
        wait.finish(tried)
    }

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
        // It goes on, and may have others.
        task.let_go.store(false, Relaxed);
        process.actions(crate::signal::Actions::reset_for_exec);
        process.posix_timers.clear();
        task.set_altstack(AltStack::NONE);
        let files = task.files().fork()?;
        let old = task.set_files(files.clone());
        drop(old);
        let caller = self.caller();
        for file in files.take_close_on_exec() {
            file.flush(self.kernel().vfs(), &caller);
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
        task.rseq.store(0, Relaxed);
        // What the FPU holds belongs to the old program.
        self.fpu_away.set(true);
        task.set_name(name);
        // A placement is for one execve.
        process.set_placement(crate::cluster::Placement::Automatic);
        process.note_exec();
        Ok(())
    }

    /// Ends all other threads of the process and waits until they are gone; this one takes the number of the process.
    pub(crate) fn end_other_threads(&self) -> Result<()> {
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

impl Loader for Cx {
    fn open(&self, path: &[u8]) -> Result<ExecFile> {
        let start = self.task().fs().cwd()?;
        Ok(self.find_program(start, path, Follow::Yes)?.file)
    }

    fn wait_read(&self, op: Box<dyn Op<usize>>) -> Result<()> {
        self.wait_op(op, Interrupted::Restart).map(drop)
    }
}
