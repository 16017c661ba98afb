//! The types of crate `task` as bytes, in the payload of the messages of `wire::tasks`.
//!
//! [`Tasks`] stands in each of their implementations of [`Body`].

use alloc::vec::Vec;

use objects::{
    codec::{Body, Coded, Reader, Short, Writer},
    coded,
};
use task::{
    children::{ChildChange, ChildEvent, ChildRecord, Status, Usage},
    cluster::{Ids, ProcessReply, ProcessRequest},
    ids::Pid,
    limits::{Limit, Resource},
    load::{CpuLoad, Load, MemoryLoad, Traffic},
    session::Sender,
    signal::{SigInfo, Signal, info::Origin},
};

/// Names the encodings of this crate.
#[derive(Clone, Copy, Debug)]
pub struct Tasks;

/// Encodes a value.
pub fn encode(value: &impl Body<Tasks>) -> Vec<u8> {
    let mut to = Writer::default();
    value.put(&mut to);
    to.0
}

/// Decodes a value.
///
/// # Errors
/// [`Short`] if the bytes are none; the sender is to blame.
pub fn decode<T: Body<Tasks>>(bytes: &[u8]) -> Result<T, Short> {
    T::get(&mut Reader(bytes))
}

fn put(value: &impl Body<Tasks>, to: &mut Writer) {
    value.put(to);
}

fn get<T: Body<Tasks>>(from: &mut Reader<'_>) -> Result<T, Short> {
    T::get(from)
}

mod image;
mod session;

impl Body<Tasks> for Pid {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        u32::get(from).map(Self)
    }
}

impl Body<Tasks> for Signal {
    fn put(&self, to: &mut Writer) {
        self.number().put(to);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        Self::new(u64::from(u8::get(from)?)).ok_or(Short)
    }
}

coded!(
    Tasks: SigInfo,
    |v, to| {
        put(&v.signal, to);
        v.code.put(to);
        v.errno.put(to);
        match v.origin {
            Origin::Kernel => 0_u8.put(to),
            Origin::User { pid, uid, value } => {
                1_u8.put(to);
                put(&pid, to);
                uid.put(to);
                value.put(to);
            }
            Origin::Timer { id, overrun, value } => {
                2_u8.put(to);
                id.put(to);
                overrun.put(to);
                value.put(to);
            }
            Origin::Child { pid, uid, status, utime, stime } => {
                3_u8.put(to);
                put(&pid, to);
                uid.put(to);
                status.put(to);
                utime.put(to);
                stime.put(to);
            }
            Origin::Fault { addr } => {
                4_u8.put(to);
                addr.put(to);
            }
            Origin::Raw(raw) => {
                5_u8.put(to);
                raw.put(to);
            }
        }
    },
    |from| {
        SigInfo {
            signal: get(from)?,
            code: Coded::get(from)?,
            errno: Coded::get(from)?,
            origin: match u8::get(from)? {
                0 => Origin::Kernel,
                1 => Origin::User { pid: get(from)?, uid: Coded::get(from)?, value: Coded::get(from)? },
                2 => Origin::Timer { id: Coded::get(from)?, overrun: Coded::get(from)?, value: Coded::get(from)? },
                3 => Origin::Child {
                    pid: get(from)?,
                    uid: Coded::get(from)?,
                    status: Coded::get(from)?,
                    utime: Coded::get(from)?,
                    stime: Coded::get(from)?,
                },
                4 => Origin::Fault { addr: Coded::get(from)? },
                5 => Origin::Raw(Coded::get(from)?),
                _ => return Err(Short),
            },
        }
    }
);

coded!(
    Tasks: Sender,
    |v, to| {
        put(&v.pid, to);
        v.uid.put(to);
        v.euid.put(to);
        v.privileged.put(to);
        put(&v.sid, to);
    },
    |from| {
        Sender {
            pid: get(from)?,
            uid: Coded::get(from)?,
            euid: Coded::get(from)?,
            privileged: Coded::get(from)?,
            sid: get(from)?,
        }
    }
);

coded!(
    Tasks: (SigInfo, Sender),
    |v, to| {
        put(&v.0, to);
        put(&v.1, to);
    },
    |from| { (get(from)?, get(from)?) }
);

coded!(
    Tasks: CpuLoad,
    |v, to| {
        v.global.put(to);
        for ns in [v.user, v.system, v.idle] {
            ns.put(to);
        }
    },
    |from| {
        CpuLoad {
            global: Coded::get(from)?,
            user: Coded::get(from)?,
            system: Coded::get(from)?,
            idle: Coded::get(from)?,
        }
    }
);

coded!(
    Tasks: MemoryLoad,
    |v, to| {
        for pages in [v.total, v.free, v.cached, v.shared, v.heap, v.committed, v.commit_limit] {
            pages.put(to);
        }
    },
    |from| {
        MemoryLoad {
            total: Coded::get(from)?,
            free: Coded::get(from)?,
            cached: Coded::get(from)?,
            shared: Coded::get(from)?,
            heap: Coded::get(from)?,
            committed: Coded::get(from)?,
            commit_limit: Coded::get(from)?,
        }
    }
);

coded!(
    Tasks: Load,
    |v, to| {
        v.kernel.put(to);
        put(&v.memory, to);
        put(&v.cpus, to);
        for n in [v.switches, v.interrupts, v.forks, v.running, v.tasks] {
            n.put(to);
        }
        v.last_pid.put(to);
        for n in v.averages {
            n.put(to);
        }
        for n in [v.traffic.sent, v.traffic.sent_bytes, v.traffic.received, v.traffic.doorbells] {
            n.put(to);
        }
    },
    |from| {
        Load {
            kernel: Coded::get(from)?,
            memory: get(from)?,
            cpus: get(from)?,
            switches: Coded::get(from)?,
            interrupts: Coded::get(from)?,
            forks: Coded::get(from)?,
            running: Coded::get(from)?,
            tasks: Coded::get(from)?,
            last_pid: Coded::get(from)?,
            averages: [Coded::get(from)?, Coded::get(from)?, Coded::get(from)?],
            traffic: Traffic {
                sent: from.later(0)?,
                sent_bytes: from.later(0)?,
                received: from.later(0)?,
                doorbells: from.later(0)?,
            },
        }
    }
);

coded!(
    Tasks: Limit,
    |v, to| {
        v.soft.put(to);
        v.hard.put(to);
    },
    |from| { Limit { soft: Coded::get(from)?, hard: Coded::get(from)? } }
);

coded!(
    Tasks: ProcessRequest,
    |v, to| {
        match v {
            ProcessRequest::Signal { info, from, thread } => {
                1_u8.put(to);
                put(info, to);
                put(from, to);
                put(thread, to);
            }
            ProcessRequest::Ids => 2_u8.put(to),
            ProcessRequest::Nice => 3_u8.put(to),
            ProcessRequest::SetNice { nice, from } => {
                4_u8.put(to);
                nice.put(to);
                put(from, to);
            }
            ProcessRequest::Limit { resource, new, from } => {
                5_u8.put(to);
                (*resource as usize as u8).put(to);
                put(new, to);
                put(from, to);
            }
            ProcessRequest::Reparent(parent) => {
                6_u8.put(to);
                put(parent, to);
            }
            ProcessRequest::SetGroup(pgid) => {
                7_u8.put(to);
                put(pgid, to);
            }
            ProcessRequest::Reap => 8_u8.put(to),
            ProcessRequest::IsOver => 9_u8.put(to),
        }
    },
    |from| {
        match u8::get(from)? {
            1 => ProcessRequest::Signal { info: get(from)?, from: get(from)?, thread: get(from)? },
            2 => ProcessRequest::Ids,
            3 => ProcessRequest::Nice,
            4 => ProcessRequest::SetNice { nice: Coded::get(from)?, from: get(from)? },
            5 => ProcessRequest::Limit {
                resource: Resource::new(u64::from(u8::get(from)?)).ok_or(Short)?,
                new: get(from)?,
                from: get(from)?,
            },
            6 => ProcessRequest::Reparent(get(from)?),
            7 => ProcessRequest::SetGroup(get(from)?),
            8 => ProcessRequest::Reap,
            9 => ProcessRequest::IsOver,
            _ => return Err(Short),
        }
    }
);

coded!(
    Tasks: ProcessReply,
    |v, to| {
        match v {
            ProcessReply::Done => 1_u8.put(to),
            ProcessReply::Ids(ids) => {
                2_u8.put(to);
                for pid in [ids.pid, ids.ppid, ids.pgid, ids.sid] {
                    put(&pid, to);
                }
                ids.uid.put(to);
                ids.euid.put(to);
            }
            ProcessReply::Nice(nice) => {
                3_u8.put(to);
                nice.put(to);
            }
            ProcessReply::Limit(limit) => {
                4_u8.put(to);
                put(limit, to);
            }
            ProcessReply::Over(over) => {
                5_u8.put(to);
                over.put(to);
            }
        }
    },
    |from| {
        match u8::get(from)? {
            1 => ProcessReply::Done,
            2 => ProcessReply::Ids(Ids {
                pid: get(from)?,
                ppid: get(from)?,
                pgid: get(from)?,
                sid: get(from)?,
                uid: Coded::get(from)?,
                euid: Coded::get(from)?,
            }),
            3 => ProcessReply::Nice(Coded::get(from)?),
            4 => ProcessReply::Limit(get(from)?),
            5 => ProcessReply::Over(Coded::get(from)?),
            _ => return Err(Short),
        }
    }
);

coded!(
    Tasks: Status,
    |v, to| {
        match *v {
            Status::Exited(code) => {
                1_u8.put(to);
                code.put(to);
            }
            Status::Killed { signal, core } => {
                2_u8.put(to);
                put(&signal, to);
                core.put(to);
            }
            Status::Stopped(signal) => {
                3_u8.put(to);
                put(&signal, to);
            }
            Status::Continued => 4_u8.put(to),
        }
    },
    |from| {
        match u8::get(from)? {
            1 => Status::Exited(Coded::get(from)?),
            2 => Status::Killed { signal: get(from)?, core: Coded::get(from)? },
            3 => Status::Stopped(get(from)?),
            4 => Status::Continued,
            _ => return Err(Short),
        }
    }
);

coded!(
    Tasks: Usage,
    |v, to| {
        for n in [v.user, v.system, v.max_rss, v.minor_faults, v.major_faults, v.voluntary, v.involuntary] {
            n.put(to);
        }
    },
    |from| {
        Usage {
            user: Coded::get(from)?,
            system: Coded::get(from)?,
            max_rss: Coded::get(from)?,
            minor_faults: Coded::get(from)?,
            major_faults: Coded::get(from)?,
            voluntary: Coded::get(from)?,
            involuntary: Coded::get(from)?,
        }
    }
);

coded!(
    Tasks: (Status, Usage),
    |v, to| {
        put(&v.0, to);
        put(&v.1, to);
    },
    |from| { (get(from)?, get(from)?) }
);

coded!(
    Tasks: ChildEvent,
    |v, to| {
        put(&v.pid, to);
        match v.change {
            ChildChange::Status { status, uid, usage } => {
                1_u8.put(to);
                put(&status, to);
                uid.put(to);
                put(&usage, to);
            }
            ChildChange::Group(pgid) => {
                2_u8.put(to);
                put(&pgid, to);
            }
            ChildChange::Exec => 3_u8.put(to),
            ChildChange::Gone => 4_u8.put(to),
        }
    },
    |from| {
        ChildEvent {
            pid: get(from)?,
            change: match u8::get(from)? {
                1 => ChildChange::Status { status: get(from)?, uid: Coded::get(from)?, usage: get(from)? },
                2 => ChildChange::Group(get(from)?),
                3 => ChildChange::Exec,
                4 => ChildChange::Gone,
                _ => return Err(Short),
            },
        }
    }
);

coded!(
    Tasks: ChildRecord,
    |v, to| {
        put(&v.pid, to);
        put(&v.pgid, to);
        v.exit_signal.put(to);
        v.uid.put(to);
        put(&v.by, to);
        put(&v.zombie, to);
        put(&v.job, to);
    },
    |from| {
        ChildRecord {
            pid: get(from)?,
            pgid: get(from)?,
            exit_signal: Coded::get(from)?,
            uid: Coded::get(from)?,
            by: get(from)?,
            zombie: get(from)?,
            job: get(from)?,
        }
    }
);

#[cfg(test)]
mod tests {
    use task::{
        children::{ChildChange, ChildEvent, Status, Usage},
        cluster::{ProcessReply, ProcessRequest},
        ids::Pid,
        limits::Resource,
        session::Sender,
        signal::{SigInfo, Signal},
    };

    use super::{Body, Tasks, decode, encode};

    pub(super) fn same<T: Body<Tasks> + PartialEq + core::fmt::Debug>(value: &T) {
        let bytes = encode(value);
        assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value));
        for cut in 0..bytes.len() {
            assert!(decode::<T>(&bytes[..cut]).is_err(), "{value:?} decodes from {cut} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn requests_and_answers_come_back_the_same() {
        let info = SigInfo::user(Signal::TERM, Pid(7), 1000);
        same(&ProcessRequest::Signal { info: Some(info), from: Sender::KERNEL, thread: Some(Pid(8)) });
        same(&ProcessRequest::Limit { resource: Resource::Files, new: None, from: Sender::KERNEL });
        same(&ProcessReply::Nice(20));
        same(&SigInfo::from_bytes(Signal::USR1, &[7; 128]));
        let status = Status::Killed { signal: Signal::SEGV, core: true };
        same(&ChildEvent { pid: Pid(4), change: ChildChange::Status { status, uid: 5, usage: Usage::default() } });
    }
}
