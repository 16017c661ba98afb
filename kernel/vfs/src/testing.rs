//! A kernel's loans, for unit tests.

use std::{sync::Arc, vec::Vec};

use base::{Errno, KernelId, ObjectId, Result, id::ObjectIds};

use crate::{
    Alarm, AlarmId, Caller, Env, JobControl, Vfs, Walk,
    caller::NoWait,
    env::SignalSource,
    tmpfs::{Limits, Tmpfs},
};

pub struct TestEnv {
    ids: Arc<ObjectIds>,
    memory: Arc<mm::Memory>,
}

impl Env for TestEnv {
    fn realtime(&self) -> i64 {
        1_700_000_000_000_000_000 + hal::time::now() as i64
    }
    fn realtime_deadline(&self, at: i64) -> u64 {
        (at - 1_700_000_000_000_000_000).max(0) as u64
    }
    fn new_id(&self) -> ObjectId {
        self.ids.next()
    }
    fn memory(&self) -> &Arc<mm::Memory> {
        &self.memory
    }
    fn set_alarm(&self, _: u64, _: Arc<dyn Alarm>) -> AlarmId {
        AlarmId(0, 0, 0)
    }
    fn cancel_alarm(&self, _: AlarmId) -> bool {
        true
    }
    fn session(&self, _: &Caller) -> Result<Arc<dyn JobControl>> {
        Err(Errno::ESRCH.into())
    }

    fn bring_session(&self, caller: &Caller) -> base::TryResult<Arc<dyn JobControl>> {
        base::wait::done(self.session(caller)?)
    }
    fn signals(&self, _: &Caller) -> Result<Arc<dyn SignalSource>> {
        Err(Errno::ESRCH.into())
    }
    fn log(&self, _: core::fmt::Arguments<'_>) {}
}

/// Runs `f` on a simulated kernel with an empty tmpfs as root.
pub fn with_tree<R>(f: impl FnOnce(&Arc<Vfs>) -> R) -> R {
    hal::testing::on_kernel(|| {
        let ids = Arc::new(ObjectIds::new(KernelId { index: 0, incarnation: 1 }));
        let memory = mm::Memory::new(ids.clone()).expect("frames");
        let vfs = Vfs::new(Arc::new(TestEnv { ids, memory }));
        vfs.mount_root(Tmpfs::new(&vfs, 0o755, Limits::NONE), "none", "tmpfs").expect("no root yet");
        f(&vfs)
    })
}

/// A user without privileges.
pub fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, capabilities: 0, umask: 0o022, file_size_limit: u64::MAX, ..Caller::default() }
}

/// Walks from the root.
pub fn walk<'a>(vfs: &'a Vfs, caller: &'a Caller) -> Walk<'a> {
    let root = vfs.root().expect("a root");
    Walk { vfs, caller, root: root.clone(), start: root, wait: &NoWait }
}

/// Reads all of a file.
pub fn contents(file: &dyn crate::OpenFile) -> Vec<u8> {
    let mut sink = base::io::VecSink::new(1 << 20);
    match file.read_at(&Caller::kernel(), 0, &mut sink).expect("readable") {
        base::Try::Done(_) => sink.bytes,
        _ => panic!("a local file waits"),
    }
}
