//! Serves the peers' messages of the family `tasks` from this kernel.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use base::{Errno, Error, Result, TryResult};
use link::{AnswerTo, Handler, Incoming, Links};
use objects::{codec::Body, from_wire, object_from_wire, when_done};
use task::{ids::Pid, image::TaskImage, session::Sender, signal::SigInfo};
use wire::{
    Message as _,
    tasks::{
        Adopt, ChildTell, CpuIs, DescribeCpu, ListProcesses, LookAtProcess, LookAtSystem, MoveAbort, MoveComing,
        MoveCommit, MovePart, MovePrepare, ProcessAnswer, ProcessAsk, ProcessChanged, ProcessLook, Processes,
        SessionAsk, SessionCensus, SessionFetch, SessionFreeze, SessionFrozen, SessionHome, SessionPart, SessionTell,
        SessionsSettled, SignalAll, SignalMembers, SignalledAll, SystemLook, Told, WatchProcess,
    },
};

use crate::{
    codec::{Tasks, decode, encode},
    homes::{
        Op,
        state::{Event, Key},
    },
    service::{LIST_MAX, Local, Parcel, Prepared, TaskService},
};

/// A task that was announced comes within this time, in ns, or it takes so long that sleeping pays.
const COMING: u64 = 500_000;

/// The payload of one answer in bytes.
const PIECE: usize = 4096;

/// What [`Links`] calls: the service behind an [`Arc`].
pub struct TaskHandler(pub Arc<TaskService>);

fn bad(from: wire::KernelId) -> link::Error {
    link::Error::new(Errno::EBADMSG, "the payload does not decode", from)
}

fn refused(error: Error, from: wire::KernelId) -> link::Error {
    link::Error::new(error.errno(), "refused", from)
}

impl TaskHandler {
    /// Sends an answer now, or when the operation ends.
    fn reply<T: Body<Tasks> + Send + 'static, M: wire::Message + Send + 'static>(
        &self,
        to: AnswerTo,
        tried: TryResult<T>,
        message: M,
    ) {
        let links = self.0.links.clone();
        when_done(tried, move |result| match result {
            // If the asker died nobody needs the answer.
            Ok(value) => {
                let _ = links.answer(to, &message, &encode(&value));
            }
            Err(error) => links.refuse(to, error.errno()),
        });
    }
}

impl Handler for TaskHandler {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let from = message.from;
        let answer = message.answer_to();
        let local = self.0.local().map_err(|error| refused(error, from))?;
        match message.header.kind {
            kind if kind == ProcessAsk::SPEC.number => {
                let (ask, payload) = message.read::<ProcessAsk>()?;
                let request = decode(payload).map_err(|_| bad(from))?;
                if self.moved(answer, &*local, Pid(ask.pid)) {
                    return Ok(());
                }
                self.reply(answer, local.process(Pid(ask.pid), request), ProcessAnswer {});
            }
            kind if kind == SignalMembers::SPEC.number => {
                let (group, payload) = message.read::<SignalMembers>()?;
                let (info, sender, members): (SigInfo, Sender, Vec<Pid>) = decode(payload).map_err(|_| bad(from))?;
                local.signal_members(Pid(group.pgid), &members, info, sender);
            }
            kind if kind == SignalAll::SPEC.number => {
                let (_, payload) = message.read::<SignalAll>()?;
                let (info, sender) = decode(payload).map_err(|_| bad(from))?;
                let count = local.signal_all(info, sender) as u32;
                let _ = links.answer(answer, &SignalledAll { count }, &[]);
            }
            kind if kind == ChildTell::SPEC.number => {
                let (tell, payload) = message.read::<ChildTell>()?;
                let event = decode(payload).map_err(|_| bad(from))?;
                self.to_parent(answer, &*local, Pid(tell.parent), Parcel::Event(event));
            }
            kind if kind == Adopt::SPEC.number => {
                let (adopt, payload) = message.read::<Adopt>()?;
                let children = decode(payload).map_err(|_| bad(from))?;
                self.to_parent(answer, &*local, Pid(adopt.parent), Parcel::Orphans(children));
            }
            kind if kind == ListProcesses::SPEC.number => {
                let (list, _) = message.read::<ListProcesses>()?;
                let mut pids = local.pids(Pid(list.after));
                pids.truncate(LIST_MAX);
                let _ = links.answer(answer, &Processes {}, &encode(&pids));
            }
            kind if kind == LookAtSystem::SPEC.number => {
                let _ = links.answer(answer, &SystemLook {}, &encode(&local.load()));
            }
            kind if kind == DescribeCpu::SPEC.number => {
                let text = self.0.own_description().as_bytes();
                let _ = links.answer(answer, &CpuIs {}, text.get(..CpuIs::SPEC.payload).unwrap_or(text));
            }
            kind if kind == WatchProcess::SPEC.number => {
                let (watch, _) = message.read::<WatchProcess>()?;
                self.0.watched_by(from_wire(from), Pid(watch.pid), &*local);
            }
            kind if kind == ProcessChanged::SPEC.number => {
                let (changed, _) = message.read::<ProcessChanged>()?;
                self.0.changed_elsewhere(Pid(changed.pid), changed.over != 0);
            }
            kind if kind == LookAtProcess::SPEC.number => {
                let (look, payload) = message.read::<LookAtProcess>()?;
                let question = decode(payload).map_err(|_| bad(from))?;
                self.shown(answer, look.offset, local.look(Pid(look.pid), &question));
            }
            kind if kind == MoveComing::SPEC.number => links.expect(COMING),
            kind if kind == MovePart::SPEC.number => {
                let (part, payload) = message.read::<MovePart>()?;
                self.0.moves.lock().part(from_wire(from), part.serial, part.offset, payload).map_err(|_| bad(from))?;
            }
            kind if kind == MovePrepare::SPEC.number => {
                let (prepare, _) = message.read::<MovePrepare>()?;
                self.prepare(answer, &*local, &prepare)?;
            }
            kind if kind == MoveCommit::SPEC.number => {
                let (commit, _) = message.read::<MoveCommit>()?;
                let prepared = self.0.moves.lock().take_prepared(from_wire(from), commit.serial);
                let prepared = prepared.ok_or(link::Error::new(Errno::ESTALE, "no such move", from))?;
                let links = self.0.links.clone();
                when_done(prepared.enter(), move |entered| {
                    if let Err(error) = entered {
                        log::warn!("tasks: a process that moved here is not found by others: {error}");
                    }
                    prepared.run();
                    // If the asker died nobody needs the answer.
                    let _ = links.answer(answer, &Told {}, &[]);
                });
            }
            kind if kind == MoveAbort::SPEC.number => {
                let (abort, _) = message.read::<MoveAbort>()?;
                let forgotten = self.0.moves.lock().forget(from_wire(from), abort.serial);
                drop(forgotten);
            }
            _ => return self.session(message),
        }
        Ok(())
    }

    fn cancel(&self, _: &Links, _: AnswerTo) {
        // Everything here is answered soon by itself.
    }
}

impl TaskHandler {
    /// Messages about sessions.
    fn session(&self, message: &Incoming<'_>) -> link::Result<()> {
        let from = message.from;
        let (peer, object) = (from_wire(from), object_from_wire(message.header.object));
        let key = |sid: u32| Key { object, sid: Pid(sid) };
        let received = |sid, op| {
            let (key, here) = (key(sid), self.0.local().is_ok_and(|local| local.has_session(key(sid))));
            self.0.homes_step(Event::Received { from: peer, key, here, op });
        };
        match message.header.kind {
            kind if kind == SessionAsk::SPEC.number => {
                let (ask, payload) = message.read::<SessionAsk>()?;
                let request = decode(payload).map_err(|_| bad(from))?;
                received(ask.sid, Op::Asked(request, message.answer_to()));
            }
            kind if kind == SessionTell::SPEC.number => {
                let (tell, payload) = message.read::<SessionTell>()?;
                received(tell.sid, Op::Told(decode(payload).map_err(|_| bad(from))?));
            }
            kind if kind == SessionFetch::SPEC.number => {
                let (fetch, _) = message.read::<SessionFetch>()?;
                let asked = self.0.session_fetched(message.answer_to(), key(fetch.sid), Pid(fetch.caller));
                asked.map_err(|error| refused(error, from))?;
            }
            kind if kind == SessionPart::SPEC.number => {
                let (part, piece) = message.read::<SessionPart>()?;
                self.0.session_part(peer, object, part.offset as usize, piece).ok_or(bad(from))?;
            }
            kind if kind == SessionFreeze::SPEC.number => {
                let (freeze, _) = message.read::<SessionFreeze>()?;
                self.0.homes_step(Event::Freeze { from: peer, key: key(freeze.sid), moves: freeze.moves });
            }
            kind if kind == SessionFrozen::SPEC.number => {
                let (frozen, _) = message.read::<SessionFrozen>()?;
                self.0.homes_step(Event::Frozen { from: peer, key: key(frozen.sid) });
            }
            kind if kind == SessionHome::SPEC.number => {
                let (home, _) = message.read::<SessionHome>()?;
                let (rebuilt, over) = (home.rebuilt != 0, home.over != 0);
                let event = Event::HomeIs { from: peer, key: key(home.sid), moves: home.moves, rebuilt, over };
                self.0.homes_step(event);
            }
            kind if kind == SessionCensus::SPEC.number => {
                let (census, payload) = message.read::<SessionCensus>()?;
                let members = decode(payload).map_err(|_| bad(from))?;
                let (key, moves, epoch) = (key(census.sid), census.moves, census.epoch);
                self.0.homes_step(Event::Census { from: peer, key, moves, epoch, members });
            }
            kind if kind == SessionsSettled::SPEC.number => {
                let (settled, _) = message.read::<SessionsSettled>()?;
                self.0.homes_step(Event::Settled { from: peer, epoch: settled.epoch });
            }
            _ => return Err(link::Error::new(Errno::ENOSYS, "the task service does not know it", from)),
        }
        Ok(())
    }

    /// Sends the piece at `offset` of what `/proc` shows.
    fn shown(&self, to: AnswerTo, offset: u32, tried: TryResult<Vec<u8>>) {
        let links = self.0.links.clone();
        when_done(tried, move |result| match result {
            Ok(bytes) => {
                let rest = bytes.get(offset as usize..).unwrap_or_default();
                let piece = rest.get(..PIECE).unwrap_or(rest);
                // If the asker died nobody needs the answer.
                let _ = links.answer(to, &ProcessLook { total: bytes.len() as u32 }, piece);
            }
            Err(error) => links.refuse(to, error.errno()),
        });
    }

    /// Answers that a process moved, if it did: whoever asked asks there.
    fn moved(&self, answer: AnswerTo, local: &dyn Local, pid: Pid) -> bool {
        let to = local.moved_process(pid);
        if let Some(to) = to {
            self.0.links.moved(answer, objects::to_wire(to), 0);
        }
        to.is_some()
    }

    fn to_parent(&self, answer: AnswerTo, local: &dyn Local, parent: Pid, parcel: Parcel) {
        if self.moved(answer, local, parent) {
            return;
        }
        if TaskService::hand_over(local, parent, parcel) {
            let _ = self.0.links.answer(answer, &Told {}, &[]);
        } else {
            self.0.links.refuse(answer, Errno::ESRCH);
        }
    }

    fn prepare(&self, answer: AnswerTo, local: &dyn Local, prepare: &MovePrepare) -> link::Result<()> {
        let from = from_wire(answer.peer);
        let bytes = self.0.moves.lock().assembled(from, prepare.serial, prepare.total).ok_or(bad(answer.peer))?;
        let image: TaskImage = decode(&bytes).map_err(|_| bad(answer.peer))?;
        if image.pid.0 != prepare.pid {
            return Err(bad(answer.peer));
        }
        let service = self.0.clone();
        let serial = prepare.serial;
        let tried = local.prepare(from, Box::new(image));
        when_done(tried, move |result: Result<Box<dyn Prepared>>| match result {
            Ok(prepared) => {
                service.moves.lock().ready(from, serial, prepared);
                if service.links.answer(answer, &wire::tasks::MoveReady {}, &[]).is_err() {
                    // The source died: nobody commits.
                    let forgotten = service.moves.lock().forget(from, serial);
                    drop(forgotten);
                }
            }
            Err(error) => service.links.refuse(answer, error.errno()),
        });
        Ok(())
    }
}
