//! Sessions, and what is asked and told of them, as bytes.

use alloc::vec::Vec;

use objects::{
    codec::{Coded, Short},
    coded,
};
use task::{
    ids::Pid,
    session::{Access, Life, Member, Notice, Reply, Request, Sender, State, Users},
    signal::SigInfo,
};
use vfs::Device;

use super::{Tasks, get, put};

coded!(
    Tasks: (SigInfo, Sender, Vec<Pid>),
    |v, to| {
        put(&v.0, to);
        put(&v.1, to);
        put(&v.2, to);
    },
    |from| { (get(from)?, get(from)?, get(from)?) }
);

coded!(
    Tasks: Device,
    |v, to| {
        v.major.put(to);
        v.minor.put(to);
    },
    |from| { Device { major: Coded::get(from)?, minor: Coded::get(from)? } }
);

coded!(
    Tasks: (Device, Pid),
    |v, to| {
        put(&v.0, to);
        put(&v.1, to);
    },
    |from| { (get(from)?, get(from)?) }
);

coded!(
    Tasks: Member,
    |v, to| {
        put(&v.pgid, to);
        put(&v.ppid, to);
        v.place.put(to);
        let life: u8 = match v.life {
            Life::Alive => 1,
            Life::Stopped => 2,
            Life::Zombie => 3,
        };
        life.put(to);
        v.execed.put(to);
        v.terminal.put(to);
        v.users.real.put(to);
        v.users.saved.put(to);
    },
    |from| {
        Member {
            pgid: get(from)?,
            ppid: get(from)?,
            place: Coded::get(from)?,
            life: match u8::get(from)? {
                1 => Life::Alive,
                2 => Life::Stopped,
                3 => Life::Zombie,
                _ => return Err(Short),
            },
            execed: Coded::get(from)?,
            terminal: Coded::get(from)?,
            users: Users { real: Coded::get(from)?, saved: Coded::get(from)? },
        }
    }
);

coded!(
    Tasks: (Pid, Member),
    |v, to| {
        put(&v.0, to);
        put(&v.1, to);
    },
    |from| { (get(from)?, get(from)?) }
);

coded!(
    Tasks: State,
    |v, to| {
        let (sid, members) = v.export();
        put(&sid, to);
        put(&members, to);
    },
    |from| { State::import(get(from)?, get(from)?) }
);

coded!(
    Tasks: Request,
    |v, to| {
        match v {
            Request::SetGroup { caller, target, pgid } => {
                1_u8.put(to);
                put(caller, to);
                put(target, to);
                put(pgid, to);
            }
            Request::GroupOf(pid) => {
                2_u8.put(to);
                put(pid, to);
            }
            Request::Depart(pid) => {
                3_u8.put(to);
                put(pid, to);
            }
            Request::SignalGroup { pgid, info, from } => {
                4_u8.put(to);
                put(pgid, to);
                put(info, to);
                put(from, to);
            }
            Request::SignalForeground(info) => {
                5_u8.put(to);
                put(info, to);
            }
            Request::Foreground => 6_u8.put(to),
            Request::SetForeground { caller, pgid, immune } => {
                7_u8.put(to);
                put(caller, to);
                put(pgid, to);
                immune.put(to);
            }
            Request::Use { caller, access, immune } => {
                8_u8.put(to);
                put(caller, to);
                matches!(access, Access::Write).put(to);
                immune.put(to);
            }
            Request::TakeTerminal { caller, terminal, device } => {
                9_u8.put(to);
                put(caller, to);
                Coded::put(terminal, to);
                put(device, to);
            }
            Request::DropTerminal { caller } => {
                10_u8.put(to);
                put(caller, to);
            }
            Request::Terminal(pid) => {
                11_u8.put(to);
                put(pid, to);
            }
            Request::IsOrphaned(pgid) => {
                12_u8.put(to);
                put(pgid, to);
            }
            Request::Fork { ppid, from, child, place } => {
                13_u8.put(to);
                put(ppid, to);
                put(from, to);
                put(child, to);
                place.put(to);
            }
        }
    },
    |from| {
        match u8::get(from)? {
            1 => Request::SetGroup { caller: get(from)?, target: get(from)?, pgid: get(from)? },
            2 => Request::GroupOf(get(from)?),
            3 => Request::Depart(get(from)?),
            4 => Request::SignalGroup { pgid: get(from)?, info: get(from)?, from: get(from)? },
            5 => Request::SignalForeground(get(from)?),
            6 => Request::Foreground,
            7 => Request::SetForeground { caller: get(from)?, pgid: get(from)?, immune: Coded::get(from)? },
            8 => Request::Use {
                caller: get(from)?,
                access: if bool::get(from)? { Access::Write } else { Access::Read },
                immune: Coded::get(from)?,
            },
            9 => Request::TakeTerminal { caller: get(from)?, terminal: Coded::get(from)?, device: get(from)? },
            10 => Request::DropTerminal { caller: get(from)? },
            11 => Request::Terminal(get(from)?),
            12 => Request::IsOrphaned(get(from)?),
            13 => Request::Fork { ppid: get(from)?, from: get(from)?, child: get(from)?, place: Coded::get(from)? },
            _ => return Err(Short),
        }
    }
);

coded!(
    Tasks: Reply,
    |v, to| {
        match v {
            Reply::Done => 1_u8.put(to),
            Reply::Group(pgid) => {
                2_u8.put(to);
                put(pgid, to);
            }
            Reply::Terminal(terminal) => {
                3_u8.put(to);
                put(terminal, to);
            }
            Reply::Stopped => 4_u8.put(to),
            Reply::Orphaned(yes) => {
                5_u8.put(to);
                yes.put(to);
            }
        }
    },
    |from| {
        match u8::get(from)? {
            1 => Reply::Done,
            2 => Reply::Group(get(from)?),
            3 => Reply::Terminal(get(from)?),
            4 => Reply::Stopped,
            5 => Reply::Orphaned(bool::get(from)?),
            _ => return Err(Short),
        }
    }
);

coded!(
    Tasks: Notice,
    |v, to| {
        match v {
            Notice::Exec(pid) => {
                2_u8.put(to);
                put(pid, to);
            }
            Notice::Users(pid, users) => {
                3_u8.put(to);
                put(pid, to);
                users.real.put(to);
                users.saved.put(to);
            }
            Notice::Stop(pid) => {
                4_u8.put(to);
                put(pid, to);
            }
            Notice::Continue(pid) => {
                5_u8.put(to);
                put(pid, to);
            }
            Notice::Exit { pid, reaper } => {
                6_u8.put(to);
                put(pid, to);
                put(reaper, to);
            }
            Notice::Reap(pid) => {
                7_u8.put(to);
                put(pid, to);
            }
            Notice::Moved { pid, member } => {
                8_u8.put(to);
                put(pid, to);
                put(member, to);
            }
            Notice::Down(kernel) => {
                9_u8.put(to);
                kernel.put(to);
            }
            Notice::Reparent { pid, ppid } => {
                10_u8.put(to);
                put(pid, to);
                put(ppid, to);
            }
        }
    },
    |from| {
        match u8::get(from)? {
            2 => Notice::Exec(get(from)?),
            3 => Notice::Users(get(from)?, Users { real: Coded::get(from)?, saved: Coded::get(from)? }),
            4 => Notice::Stop(get(from)?),
            5 => Notice::Continue(get(from)?),
            6 => Notice::Exit { pid: get(from)?, reaper: get(from)? },
            7 => Notice::Reap(get(from)?),
            8 => Notice::Moved { pid: get(from)?, member: get(from)? },
            9 => Notice::Down(Coded::get(from)?),
            10 => Notice::Reparent { pid: get(from)?, ppid: get(from)? },
            _ => return Err(Short),
        }
    }
);

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use base::{KernelId, ObjectId};
    use task::{
        ids::Pid,
        session::{Access, Effects, Life, Member, Notice, Reply, Request, Sender, State, Users},
        signal::{SigInfo, Signal},
    };
    use vfs::Device;

    use super::super::tests::same;

    const KERNEL: KernelId = KernelId { index: 3, incarnation: 9 };

    struct Nobody;

    impl Effects for Nobody {
        fn signal(&mut self, _: KernelId, _: Pid, _: Vec<Pid>, _: SigInfo, _: Sender) {}
        fn terminal_lost(&mut self, _: ObjectId) {}
    }

    #[test]
    fn sessions_come_back_the_same() {
        let info = SigInfo::user(Signal::TERM, Pid(7), 1000);
        same(&Request::SignalGroup { pgid: Pid(5), info: None, from: Sender::KERNEL });
        same(&Request::Use { caller: Pid(5), access: Access::Write, immune: true });
        same(&Request::Fork { ppid: Pid(4), from: Pid(4), child: Pid(8), place: KERNEL });
        same(&Reply::Terminal(Some((Device::new(4, 64), Pid(7)))));
        let member = Member::new(Pid(4), Pid(1), KERNEL, Users { real: 5, saved: 6 });
        same(&Notice::Moved { pid: Pid(5), member });
        let mut state = State::new(Pid(4), member);
        state.merge(alloc::vec![(Pid(9), Member { life: Life::Zombie, execed: true, ..member })], &mut Nobody);
        same(&state);
        same(&(info, Sender::KERNEL, alloc::vec![Pid(4), Pid(9)]));
    }
}
