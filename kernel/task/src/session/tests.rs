use alloc::{vec, vec::Vec};

use base::{Errno, KernelId, ObjectId};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::state::{Access, Effects, Life, Member, Notice, Reply, Request, Sender, State, Users};
use crate::{
    ids::Pid,
    signal::{SigInfo, Signal},
};

const fn kernel(index: u16) -> KernelId {
    KernelId { index, incarnation: 1 }
}

const TTY: ObjectId = ObjectId { birth: kernel(0), serial: 9 };

#[derive(Default, Debug)]
struct Log {
    signals: Vec<(u16, Pid, Signal)>,
    lost: usize,
    made: Vec<Pid>,
    gone: Vec<Pid>,
}

impl Effects for Log {
    fn signal(&mut self, to: KernelId, pgid: Pid, members: Vec<Pid>, info: SigInfo, _: Sender) {
        assert!(!members.is_empty());
        self.signals.push((to.index, pgid, info.signal));
    }
    fn terminal_lost(&mut self, _: ObjectId) {
        self.lost += 1;
    }
    fn group_made(&mut self, pgid: Pid) {
        self.made.push(pgid);
    }
    fn group_gone(&mut self, pgid: Pid) {
        self.gone.push(pgid);
    }
}

fn moved(pid: u32, to: u16) -> Notice {
    Notice::Moved { pid: Pid(pid), member: Member::new(Pid(pid), Pid(10), kernel(to), Users::default()) }
}

fn shell() -> State {
    let leader = Member {
        pgid: Pid(10),
        ppid: Pid(1),
        place: kernel(0),
        life: Life::Alive,
        execed: true,
        terminal: false,
        users: Users::default(),
    };
    let mut s = State::new(Pid(10), leader);
    s.request(
        Request::TakeTerminal { caller: Pid(10), terminal: TTY, device: vfs::Device::new(4, 64) },
        &mut Log::default(),
    )
    .unwrap();
    s
}

fn fork(s: &mut State, parent: u32, child: u32) {
    let (ppid, child) = (Pid(parent), Pid(child));
    s.request(Request::Fork { ppid, from: ppid, child, place: kernel(0) }, &mut Log::default()).unwrap();
}

fn job(s: &mut State, pid: u32) {
    fork(s, 10, pid);
    let mut log = Log::default();
    s.request(Request::SetGroup { caller: Pid(10), target: Pid(pid), pgid: Pid(0) }, &mut log).unwrap();
    assert_eq!(log.made, [Pid(pid)]);
    s.request(Request::SetForeground { caller: Pid(10), pgid: Pid(pid), immune: true }, &mut log).unwrap();
}

#[test]
fn control_c_reaches_the_foreground_group_on_every_kernel_once() {
    let mut s = shell();
    job(&mut s, 20);
    fork(&mut s, 20, 21);
    fork(&mut s, 20, 22);
    s.notice(moved(22, 1), &mut Log::default());
    let mut log = Log::default();
    s.request(Request::SignalForeground(SigInfo::kernel(Signal::INT)), &mut log).unwrap();
    assert_eq!(log.signals, [(0, Pid(20), Signal::INT), (1, Pid(20), Signal::INT)]);
}

#[test]
fn a_background_reader_stops_and_an_orphaned_one_gets_an_error() {
    let mut s = shell();
    job(&mut s, 20);
    let mut log = Log::default();
    let use_it = |caller, access, immune| Request::Use { caller: Pid(caller), access, immune };
    assert_eq!(s.request(use_it(20, Access::Read, false), &mut log), Ok(Reply::Done));
    s.request(Request::SetForeground { caller: Pid(10), pgid: Pid(10), immune: true }, &mut log).unwrap();
    assert_eq!(s.request(use_it(20, Access::Read, false), &mut log), Ok(Reply::Stopped));
    assert_eq!(log.signals, [(0, Pid(20), Signal::TTIN)]);
    assert_eq!(s.request(use_it(20, Access::Read, true), &mut log), Err(Errno::EIO));
    assert_eq!(s.request(use_it(20, Access::Write, true), &mut log), Ok(Reply::Done));
    // A background shell that wants the foreground back is stopped unless it is immune.
    let front = |immune| Request::SetForeground { caller: Pid(20), pgid: Pid(20), immune };
    assert_eq!(s.request(front(false), &mut log), Ok(Reply::Stopped));
    assert_eq!(s.request(front(true), &mut log), Ok(Reply::Done));
    assert_eq!(s.foreground(), Pid(20));
    s.notice(Notice::Reparent { pid: Pid(20), ppid: Pid(1) }, &mut log);
    s.request(Request::SetForeground { caller: Pid(10), pgid: Pid(10), immune: true }, &mut log).unwrap();
    assert_eq!(s.request(use_it(20, Access::Read, false), &mut log), Err(Errno::EIO));
}

#[test]
fn stopped_jobs_are_hung_up_when_the_shell_exits() {
    let mut s = shell();
    job(&mut s, 20);
    s.notice(Notice::Stop(Pid(20)), &mut Log::default());
    let mut log = Log::default();
    s.notice(Notice::Exit { pid: Pid(10), reaper: Pid(1) }, &mut log);
    assert_eq!(log.signals, [(0, Pid(20), Signal::HUP), (0, Pid(20), Signal::HUP), (0, Pid(20), Signal::CONT)]);
    assert_eq!((log.lost, s.terminal()), (1, None));
    // Once only.
    let mut log = Log::default();
    s.notice(Notice::Exit { pid: Pid(10), reaper: Pid(1) }, &mut log);
    assert!(log.signals.is_empty() && log.lost == 0);
}

#[test]
fn a_new_parent_that_is_faster_than_the_exit_of_the_old_one_hides_no_orphans() {
    let mut s = shell();
    job(&mut s, 20);
    s.notice(Notice::Stop(Pid(20)), &mut Log::default());
    let mut log = Log::default();
    s.notice(Notice::Reparent { pid: Pid(20), ppid: Pid(1) }, &mut log);
    assert_eq!(log.signals, [(0, Pid(20), Signal::HUP), (0, Pid(20), Signal::CONT)]);
    // Not again; only the foreground group is told that the leader is gone.
    let mut log = Log::default();
    s.notice(Notice::Exit { pid: Pid(10), reaper: Pid(1) }, &mut log);
    assert!(!log.signals.iter().any(|(_, _, signal)| *signal == Signal::CONT), "{log:?}");
}

#[test]
fn a_zombie_that_loses_its_parent_has_its_group_looked_at() {
    let mut s = shell();
    job(&mut s, 20);
    fork(&mut s, 20, 21);
    // 21 is of the group of the shell, and a zombie; the shell is stopped, and pid 1 does not hold it.
    s.request(Request::SetGroup { caller: Pid(21), target: Pid(21), pgid: Pid(10) }, &mut Log::default()).unwrap();
    s.notice(Notice::Exit { pid: Pid(21), reaper: Pid(1) }, &mut Log::default());
    s.notice(Notice::Stop(Pid(10)), &mut Log::default());
    let mut log = Log::default();
    s.notice(Notice::Exit { pid: Pid(20), reaper: Pid(1) }, &mut log);
    assert_eq!(log.signals, [(0, Pid(10), Signal::HUP), (0, Pid(10), Signal::CONT)]);
}

#[test]
fn groups_live_as_long_as_their_zombies() {
    let mut s = shell();
    job(&mut s, 20);
    s.notice(Notice::Exit { pid: Pid(20), reaper: Pid(1) }, &mut Log::default());
    fork(&mut s, 10, 21);
    let join = Request::SetGroup { caller: Pid(10), target: Pid(21), pgid: Pid(20) };
    assert_eq!(s.clone().request(join.clone(), &mut Log::default()), Ok(Reply::Group(Pid(20))));
    let mut log = Log::default();
    s.notice(Notice::Reap(Pid(20)), &mut log);
    assert_eq!(log.gone, [Pid(20)]);
    assert_eq!(s.request(join, &mut log), Err(Errno::EPERM));
}

#[test]
fn setpgid_and_setsid_refuse_what_linux_refuses() {
    let mut s = shell();
    let mut log = Log::default();
    let set = |caller, target, pgid| Request::SetGroup { caller: Pid(caller), target: Pid(target), pgid: Pid(pgid) };
    assert_eq!(s.request(set(10, 10, 0), &mut log), Err(Errno::EPERM));
    fork(&mut s, 10, 20);
    assert_eq!(s.request(set(20, 10, 0), &mut log), Err(Errno::ESRCH));
    assert_eq!(s.request(set(10, 99, 0), &mut log), Err(Errno::ESRCH));
    assert_eq!(s.request(set(10, 20, 33), &mut log), Err(Errno::EPERM));
    s.notice(Notice::Exec(Pid(20)), &mut log);
    assert_eq!(s.request(set(10, 20, 0), &mut log), Err(Errno::EACCES));
    assert_eq!(s.request(set(20, 20, 0), &mut log), Ok(Reply::Group(Pid(20))));
    assert_eq!(s.request(Request::Depart(Pid(20)), &mut log), Err(Errno::EPERM));
    fork(&mut s, 20, 21);
    assert_eq!(s.request(Request::Depart(Pid(21)), &mut log), Ok(Reply::Done));
    assert_eq!(s.member(Pid(21)), None);
}

#[test]
fn kill_of_a_group_asks_for_permission() {
    let mut s = shell();
    job(&mut s, 20);
    s.notice(Notice::Users(Pid(20), Users { real: 5, saved: 5 }), &mut Log::default());
    let from = |uid, sid| Sender { pid: Pid(99), uid, euid: uid, privileged: false, sid: Pid(sid) };
    let kill = |pgid, signal, from| Request::SignalGroup {
        pgid: Pid(pgid),
        info: Some(SigInfo::user(signal, Pid(99), 0)),
        from,
    };
    let mut log = Log::default();
    assert_eq!(s.request(kill(33, Signal::TERM, from(5, 1)), &mut log), Err(Errno::ESRCH));
    assert_eq!(s.request(kill(20, Signal::TERM, from(6, 1)), &mut log), Err(Errno::EPERM));
    assert_eq!(s.request(kill(20, Signal::CONT, from(6, 10)), &mut log), Ok(Reply::Done));
    assert_eq!(s.request(kill(20, Signal::TERM, from(5, 1)), &mut log), Ok(Reply::Done));
    assert_eq!(log.signals.len(), 2);
}

#[derive(Clone, Debug)]
enum Op {
    Fork(u32),
    SetGroup(u32, u32, u32),
    Front(u32, u32, bool),
    Notice(Notice),
    Depart(u32),
    Read(u32, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let pid = || 10..18_u32;
    prop_oneof![
        4 => pid().prop_map(Op::Fork),
        3 => (pid(), pid(), 0..18_u32).prop_map(|(a, b, c)| Op::SetGroup(a, b, c)),
        2 => (pid(), pid(), any::<bool>()).prop_map(|(a, b, i)| Op::Front(a, b, i)),
        1 => pid().prop_map(Op::Depart),
        2 => (pid(), any::<bool>()).prop_map(|(p, i)| Op::Read(p, i)),
        2 => pid().prop_map(|p| Op::Notice(Notice::Stop(Pid(p)))),
        1 => pid().prop_map(|p| Op::Notice(Notice::Continue(Pid(p)))),
        2 => pid().prop_map(|p| Op::Notice(Notice::Exit { pid: Pid(p), reaper: Pid(1) })),
        2 => pid().prop_map(|p| Op::Notice(Notice::Reap(Pid(p)))),
        1 => pid().prop_map(|p| Op::Notice(Notice::Exec(Pid(p)))),
        1 => (pid(), 0..3_u16).prop_map(|(p, k)| Op::Notice(moved(p, k))),
        1 => Just(Op::Notice(Notice::Down(kernel(2)))),
    ]
}

/// Whether a member, which may be a zombie, had a parent of another group that it has no more: then Linux looks at its group, orphaned or not.
fn lost_a_parent(before: &State, after: &State, pgid: Pid) -> bool {
    before.members().filter(|(_, m)| m.pgid == pgid).any(|(pid, m)| {
        let Some(parent) = before.member(m.ppid).filter(|parent| parent.pgid != pgid) else { return false };
        // Who dies with its kernel keeps its children here until their new parent is told of them.
        let died = parent.life != Life::Zombie && after.member(m.ppid).is_none_or(|now| now.life == Life::Zombie);
        died || after.member(pid).is_none_or(|now| now.ppid != m.ppid)
    })
}

proptest! {
    /// Whatever happens in whatever order: groups are announced exactly when they come and go, signals go to kernels with living
    /// members only, a hang-up comes only with an orphaned, stopped group or the leader's end, and export/import loses nothing.
    #[test]
    fn books_balance(ops in proptest::collection::vec(op(), 1..80)) {
        let mut s = shell();
        let mut alive_groups = alloc::collections::BTreeSet::from([Pid(10)]);
        let mut next = 11;
        for op in ops {
            let before = s.clone();
            let mut log = Log::default();
            match op {
                Op::Fork(parent) => {
                    if before.member(Pid(parent)).is_some_and(|m| m.life == Life::Alive) && next < 18 {
                        fork(&mut s, parent, next);
                        next += 1;
                    }
                }
                Op::SetGroup(a, b, c) => {
                    let r = s.request(Request::SetGroup { caller: Pid(a), target: Pid(b), pgid: Pid(c) }, &mut log);
                    if r.is_err() {
                        assert_eq!(s, before);
                    }
                }
                Op::Front(a, b, immune) => {
                    let r = s.request(Request::SetForeground { caller: Pid(a), pgid: Pid(b), immune }, &mut log);
                    if r == Ok(Reply::Done) {
                        assert!(s.has_group(s.foreground()) || s.member(s.foreground()).is_some());
                    } else {
                        assert_eq!(s, before);
                    }
                }
                Op::Notice(n) => s.notice(n, &mut log),
                Op::Depart(p) => { let _ = s.request(Request::Depart(Pid(p)), &mut log); }
                Op::Read(p, immune) => {
                    let _ = s.request(Request::Use { caller: Pid(p), access: Access::Read, immune }, &mut log);
                }
            }
            for made in &log.made {
                assert!(alive_groups.insert(*made), "{made} made twice");
            }
            for gone in &log.gone {
                assert!(alive_groups.remove(gone), "{gone} gone twice");
            }
            for (_, m) in s.members() {
                assert!(alive_groups.contains(&m.pgid));
            }
            for g in &alive_groups {
                assert!(s.has_group(*g));
            }
            for (to, pgid, signal) in &log.signals {
                assert!(before.members().any(|(_, m)| m.pgid == *pgid && m.place.index == *to));
                if *signal == Signal::CONT {
                    assert!(s.is_orphaned(*pgid) && (!before.is_orphaned(*pgid) || lost_a_parent(&before, &s, *pgid)));
                }
            }
            if s.terminal().is_none() {
                let (sid, members) = s.export();
                assert_eq!(State::import(sid, members), s);
            }
        }
    }
}
