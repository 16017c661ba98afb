//! A task that moves, as bytes.

use alloc::{string::String, vec::Vec};

use objects::{codec::Coded, coded};
use task::{
    cluster::SessionHome,
    creds::Creds,
    image::{FdImage, HandleImage, IntervalTimer, Scheduling, TaskImage},
    limits::{COUNT, Limit, Limits},
    signal::SigSet,
};

use super::{Tasks, get, put};

coded!(
    Tasks: Creds,
    |v, to| {
        for id in [v.uid, v.euid, v.suid, v.fsuid, v.gid, v.egid, v.sgid, v.fsgid] {
            id.put(to);
        }
        Coded::put(&v.groups.to_vec(), to);
        for set in [v.effective, v.permitted, v.inheritable, v.ambient, v.bounding] {
            set.put(to);
        }
        v.keep_caps.put(to);
        v.no_new_privs.put(to);
        v.secure_bits.put(to);
    },
    |from| {
        Creds {
            uid: Coded::get(from)?,
            euid: Coded::get(from)?,
            suid: Coded::get(from)?,
            fsuid: Coded::get(from)?,
            gid: Coded::get(from)?,
            egid: Coded::get(from)?,
            sgid: Coded::get(from)?,
            fsgid: Coded::get(from)?,
            groups: <Vec<u32> as Coded>::get(from)?.into(),
            effective: Coded::get(from)?,
            permitted: Coded::get(from)?,
            inheritable: Coded::get(from)?,
            ambient: Coded::get(from)?,
            bounding: Coded::get(from)?,
            keep_caps: Coded::get(from)?,
            no_new_privs: Coded::get(from)?,
            secure_bits: Coded::get(from)?,
        }
    }
);

coded!(
    Tasks: Limits,
    |v, to| {
        for limit in &v.0 {
            put(limit, to);
        }
    },
    |from| {
        let mut limits = [Limit { soft: 0, hard: 0 }; COUNT];
        for limit in &mut limits {
            *limit = get(from)?;
        }
        Limits(limits)
    }
);

coded!(
    Tasks: Scheduling,
    |v, to| {
        v.policy.put(to);
        v.priority.put(to);
        v.nice.put(to);
        v.reset_on_fork.put(to);
    },
    |from| {
        Scheduling {
            policy: Coded::get(from)?,
            priority: Coded::get(from)?,
            nice: Coded::get(from)?,
            reset_on_fork: Coded::get(from)?,
        }
    }
);

coded!(
    Tasks: HandleImage,
    |v, to| {
        v.object.put(to);
        Coded::put(&v.data, to);
    },
    |from| { HandleImage { object: Coded::get(from)?, data: Coded::get(from)? } }
);

coded!(
    Tasks: FdImage,
    |v, to| {
        v.fd.put(to);
        put(&v.handle, to);
    },
    |from| { FdImage { fd: Coded::get(from)?, handle: get(from)? } }
);

coded!(
    Tasks: TaskImage,
    |v, to| {
        for pid in [v.pid, v.ppid, v.pgid, v.sid] {
            put(&pid, to);
        }
        v.id.put(to);
        v.session.put(to);
        v.session_home.kernel.put(to);
        v.session_home.moves.put(to);
        put(&v.children, to);
        v.subreaper.put(to);
        v.exit_signal.put(to);
        v.parent_death_signal.put(to);
        put(&v.creds, to);
        v.umask.put(to);
        put(&v.limits, to);
        put(&v.scheduling, to);
        v.mask.0.put(to);
        v.ignored.0.put(to);
        put(&v.pending, to);
        put(&v.pending_thread, to);
        for timer in &v.itimers {
            timer.left.put(to);
            timer.interval.put(to);
        }
        put(&v.usage, to);
        put(&v.children_usage, to);
        v.started.put(to);
        put(&v.cwd, to);
        put(&v.root, to);
        put(&v.program, to);
        v.path.put(to);
        put(&v.files, to);
        Coded::put(&v.argv, to);
        Coded::put(&v.envp, to);
        v.timer_slack.put(to);
        v.personality.put(to);
    },
    |from| {
        let [pid, ppid, pgid, sid] = [get(from)?, get(from)?, get(from)?, get(from)?];
        TaskImage {
            pid,
            ppid,
            pgid,
            sid,
            id: Coded::get(from)?,
            session: Coded::get(from)?,
            session_home: SessionHome { kernel: Coded::get(from)?, moves: Coded::get(from)? },
            children: get(from)?,
            subreaper: Coded::get(from)?,
            exit_signal: Coded::get(from)?,
            parent_death_signal: Coded::get(from)?,
            creds: get(from)?,
            umask: Coded::get(from)?,
            limits: get(from)?,
            scheduling: get(from)?,
            mask: SigSet(Coded::get(from)?),
            ignored: SigSet(Coded::get(from)?),
            pending: get(from)?,
            pending_thread: get(from)?,
            itimers: {
                let mut timers = [IntervalTimer::default(); 3];
                for timer in &mut timers {
                    *timer = IntervalTimer { left: Coded::get(from)?, interval: Coded::get(from)? };
                }
                timers
            },
            usage: get(from)?,
            children_usage: get(from)?,
            started: Coded::get(from)?,
            cwd: get(from)?,
            root: get(from)?,
            program: get(from)?,
            path: String::get(from)?,
            files: get(from)?,
            argv: Coded::get(from)?,
            envp: Coded::get(from)?,
            timer_slack: Coded::get(from)?,
            personality: Coded::get(from)?,
        }
    }
);

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use base::{KernelId, ObjectId};
    use task::{
        children::{ChildRecord, Status, Usage},
        cluster::SessionHome,
        creds::Creds,
        ids::Pid,
        image::{FdImage, HandleImage, IntervalTimer, Scheduling, TaskImage},
        limits::Limits,
        signal::{SigInfo, SigSet, Signal},
    };

    use super::super::tests::same;

    const OBJECT: ObjectId = ObjectId { birth: KernelId { index: 3, incarnation: 9 }, serial: 77 };

    #[test]
    fn a_task_image_comes_back_the_same() {
        let handle = HandleImage { object: OBJECT, data: vec![1, 2, 3] };
        let child = ChildRecord {
            pid: Pid(9),
            pgid: Pid(9),
            exit_signal: 17,
            uid: 0,
            by: Pid(5),
            zombie: Some((Status::Exited(3), Usage { user: 5, ..Usage::default() })),
            job: None,
        };
        same(&TaskImage {
            pid: Pid(5),
            id: OBJECT,
            ppid: Pid(1),
            pgid: Pid(5),
            sid: Pid(5),
            session: OBJECT,
            session_home: SessionHome { kernel: OBJECT.birth, moves: 2 },
            children: vec![child],
            subreaper: true,
            exit_signal: 17,
            parent_death_signal: 9,
            creds: Creds { groups: vec![4, 5].into(), ..Creds::root() },
            umask: 0o22,
            limits: Limits::initial(1 << 28),
            scheduling: Scheduling { policy: 0, priority: 0, nice: -3, reset_on_fork: false },
            mask: SigSet(5),
            ignored: SigSet(9),
            pending: vec![SigInfo::kernel(Signal::INT)],
            pending_thread: Vec::new(),
            itimers: [IntervalTimer { left: 5, interval: 6 }; 3],
            usage: Usage::default(),
            children_usage: Usage::default(),
            started: 12345,
            cwd: handle.clone(),
            root: handle.clone(),
            program: handle.clone(),
            path: "/bin/sh".into(),
            files: vec![FdImage { fd: 0, handle }],
            argv: vec![b"sh".to_vec(), b"-c".to_vec()],
            envp: vec![b"A=B".to_vec()],
            timer_slack: 50_000,
            personality: 0,
        });
    }
}
