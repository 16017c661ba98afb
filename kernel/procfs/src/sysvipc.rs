//! `/proc/sysvipc`: the System V objects of this kernel, as ipcs(1) reads them.

use alloc::{string::String, sync::Arc};
use core::fmt::Write;

use mm::MemoryObject;
use task::Kernel;

use crate::entry::Folder;

/// Fills the folder.
pub(crate) fn fill(dir: &Folder, kernel: &Arc<Kernel>) {
    for (name, make) in [("shm", shm as fn(&Kernel) -> String), ("sem", sem), ("msg", msg)] {
        let of = kernel.clone();
        dir.text(name, move || make(&of));
    }
}

fn shm(kernel: &Kernel) -> String {
    const DEST: u32 = 0o1000;
    let mut out = String::from(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   \
         rss                  swap\n",
    );
    for view in kernel.memory.segments().list() {
        let (i, n) = (&view.info, view.mappings());
        let mode = i.mode | if i.removed { DEST } else { 0 };
        // A text that cannot be written is left out.
        let _ = writeln!(
            out,
            "{:>10} {:>10}  {mode:>4o} {:>21} {:>5} {:>5}  {n:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10} {:>21} {:>21}",
            i.key,
            view.id,
            i.size,
            i.creator,
            i.last,
            i.uid,
            i.gid,
            i.cuid,
            i.cgid,
            i.attached,
            i.detached,
            i.changed,
            view.object.held(),
            0
        );
    }
    out
}

fn sem(kernel: &Kernel) -> String {
    let mut out =
        String::from("       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n");
    for (id, set) in kernel.ipc.semaphores.list() {
        set.look(|s| {
            let p = &s.perm;
            let _ = writeln!(
                out,
                "{:>10} {id:>10}  {:>4o} {:>10} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10}",
                p.key,
                p.mode,
                s.all.len(),
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                s.operated,
                s.changed
            );
        });
    }
    out
}

fn msg(kernel: &Kernel) -> String {
    let mut out = String::from(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
    );
    for (id, queue) in kernel.ipc.queues.list() {
        queue.look(|q| {
            let p = &q.perm;
            let _ = writeln!(
                out,
                "{:>10} {id:>10}  {:>4o}  {:>10} {:>10} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10}",
                p.key,
                p.mode,
                q.bytes,
                q.messages.len(),
                q.sender,
                q.receiver,
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                q.sent,
                q.received,
                q.changed
            );
        });
    }
    out
}
