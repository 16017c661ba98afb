//! Terminals: a line discipline between programs and a *port*, which is a console driver or the other side of a pseudo terminal.

pub mod console;
pub mod discipline;
pub mod pty;
pub mod termios;

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::{
    Errno, Error, ObjectId, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::{Op, done},
};
use hal::sync::{SpinLock, rank};

use crate::{
    Alarm, AlarmId, Caller, Device, Env, Ioctl, IoctlReply, JobControl, LocalFile, OpenFile, Place, Terminal,
    TtySignal, TtyUse, Verdict, Waiters,
    ioctl::{Queues, When, WindowSize},
    local::{FileOps, Wrote},
    types::{OpenFlags, Status},
};
use discipline::{Discipline, Effects, Readable};

/// Where a terminal's output goes. Called with the terminal locked; never calls back.
pub trait Port: Send + Sync {
    /// Takes bytes from the front and says how many.
    fn send(&self, bytes: &[u8]) -> usize;
    /// Whether all that was taken has left (tcdrain).
    fn is_sent(&self) -> bool {
        true
    }
}

const HUNG_UP: Error = Error::new(Errno::EIO, "the terminal hung up");
/// The caller's group was sent a stop signal: act on it and call again.
const RESTART: Error = Error::new(Errno::EINTR, "a background process");
const OTHERS: Error = Error::new(Errno::EPERM, "the terminal of another session");
const NO_TTY: Error = Error::new(Errno::ENOTTY, "not this terminal's business");

struct State {
    line: Discipline,
    window: WindowSize,
}

/// See the module.
pub struct Tty {
    me: Weak<Self>,
    env: Arc<dyn Env>,
    id: ObjectId,
    device: Device,
    state: SpinLock<State>,
    waiters: Waiters,
    session: SpinLock<Option<Arc<dyn JobControl>>>,
    /// `None` for a pseudo terminal, whose master takes the output itself.
    port: Option<Arc<dyn Port>>,
    /// The master of a pseudo terminal waits for output here.
    pub(crate) master_waiters: Waiters,
    hung_up: AtomicBool,
    /// Open slaves of a pseudo terminal.
    pub(crate) opens: AtomicU32,
    /// A slave was open once: then none being open is a hang-up for the master.
    pub(crate) opened: AtomicBool,
}

impl Tty {
    /// A terminal with this number.
    pub fn new(env: &Arc<dyn Env>, device: Device, port: Option<Arc<dyn Port>>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            env: env.clone(),
            id: env.new_id(),
            device,
            state: SpinLock::new(rank::TTY, State { line: Discipline::new(), window: WindowSize::default() }),
            waiters: Waiters::new(),
            session: SpinLock::new(rank::OPEN_FILE, None),
            port,
            master_waiters: Waiters::new(),
            hung_up: AtomicBool::new(false),
            opens: AtomicU32::new(0),
            opened: AtomicBool::new(false),
        })
    }

    /// Bytes came from the line. Callable in interrupt context, with no lock held.
    pub fn receive(&self, bytes: &[u8]) {
        let effects = {
            let mut state = self.state.lock();
            let effects = state.line.receive(bytes, hal::time::now());
            if effects.output {
                self.push(&mut state);
            }
            effects
        };
        self.act(effects);
    }

    /// The port can take more. Callable in interrupt context, with no lock held.
    pub fn writable(&self) {
        let room = {
            let mut state = self.state.lock();
            self.push(&mut state);
            state.line.output_room() > 0
        };
        if room {
            self.waiters.wake(Ready::OUT);
        }
    }

    fn act(&self, effects: Effects) {
        if let Some(signal) = effects.signal {
            self.signal(signal);
        }
        if effects.readable {
            self.waiters.wake(Ready::IN);
        }
        if effects.output {
            self.master_waiters.wake(Ready::IN);
        }
    }

    fn signal(&self, signal: TtySignal) {
        let session = self.session.lock().clone();
        if let Some(session) = session {
            session.signal_foreground(signal);
        }
    }

    /// Sends what may be sent.
    fn push(&self, state: &mut State) {
        let Some(port) = &self.port else { return };
        while !state.line.stopped {
            let (front, _) = state.line.out.as_slices();
            if front.is_empty() {
                break;
            }
            let n = port.send(front);
            if n == 0 {
                break;
            }
            state.line.out.drain(..n);
        }
    }

    /// The line is gone: the session loses its terminal, readers see the end.
    pub fn hang_up(&self) {
        if self.hung_up.swap(true, Ordering::SeqCst) {
            return;
        }
        let session = self.session.lock().take();
        if let Some(session) = session {
            session.hung_up();
        }
        self.waiters.wake(Ready::all());
        self.master_waiters.wake(Ready::all());
    }

    /// Whether the line is gone.
    pub fn is_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::SeqCst)
    }

    /// Whether the caller may use its terminal like this, if it is its terminal.
    fn check(&self, caller: &Caller, what: TtyUse) -> Result<()> {
        let session = self.session.lock().clone();
        match session {
            Some(session) if session.sid() == caller.sid => match session.may(caller, what)? {
                Verdict::Go => Ok(()),
                Verdict::Stopped => Err(RESTART),
            },
            _ => Ok(()),
        }
    }

    /// Its session, if that is the caller's and this the caller's controlling terminal.
    fn own_session(&self, caller: &Caller) -> Result<Arc<dyn JobControl>> {
        let session = self.session.lock().clone();
        session.filter(|s| s.sid() == caller.sid && s.terminal(caller.pid).is_some()).ok_or(NO_TTY)
    }

    /// Makes it the controlling terminal of the caller, a session leader without one. The session comes to this kernel for that.
    fn take_as_terminal(&self, caller: &Caller, steal: bool) -> TryResult<()> {
        let steal = steal && caller.can(crate::caller::cap::SYS_ADMIN);
        let old = self.session.lock().clone();
        match old {
            Some(session) if session.sid() == caller.sid => return done(()),
            Some(_) if !steal => return Err(OTHERS),
            _ => {}
        }
        let me = self.me.upgrade().ok_or(HUNG_UP)?;
        let taker = caller.clone();
        self.env.bring_session(caller)?.and_then(move |session| {
            let old = {
                let mut slot = me.session.lock();
                if slot.is_some() && !steal {
                    // Another session was faster.
                    return Err(OTHERS);
                }
                slot.replace(session.clone())
            };
            if let Err(refused) = session.take_terminal(&taker, me.clone()) {
                let ours = core::mem::replace(&mut *me.session.lock(), old);
                drop(ours);
                return Err(refused);
            }
            if let Some(old) = old {
                old.hung_up();
            }
            if me.is_hung_up() {
                session.hung_up();
                return Err(HUNG_UP);
            }
            done(())
        })
    }

    /// Opens it. A session leader without a terminal gets it, unless `NO_CTTY`.
    ///
    /// # Errors
    /// `EIO` after a hang-up.
    pub fn open_at(
        &self,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        if self.is_hung_up() {
            return Err(HUNG_UP);
        }
        let me = self.me.upgrade().ok_or(HUNG_UP)?;
        let takes = !flags.contains(OpenFlags::NO_CTTY)
            && caller.pid == caller.sid
            && caller.pid != 0
            && self.session.lock().is_none();
        // Not becoming the controlling terminal is no error.
        let taken = if takes { Try::settled(self.take_as_terminal(caller, false)) } else { Try::Done(Ok(())) };
        taken.and_then(move |_| {
            me.opens.fetch_add(1, Ordering::SeqCst);
            me.opened.store(true, Ordering::SeqCst);
            me.master_waiters.wake(Ready::all());
            done(LocalFile::new(me.env.new_id(), me.clone(), place, flags, status) as Arc<dyn OpenFile>)
        })
    }

    /// Output for the master of a pseudo terminal.
    pub(crate) fn take_output(&self, sink: &mut dyn Sink) -> usize {
        let mut moved = 0;
        {
            let mut state = self.state.lock();
            while !state.line.stopped {
                let (front, _) = state.line.out.as_slices();
                let want = front.len();
                if want == 0 {
                    break;
                }
                let n = sink.put(front);
                state.line.out.drain(..n);
                moved += n;
                if n < want {
                    break;
                }
            }
        }
        if moved > 0 {
            self.waiters.wake(Ready::OUT);
        }
        moved
    }

    pub(crate) fn has_output(&self) -> bool {
        let state = self.state.lock();
        !state.line.stopped && !state.line.out.is_empty()
    }

    pub(crate) fn input_room(&self) -> usize {
        self.state.lock().line.input_room()
    }

    /// Modes and sizes, which both sides of a pseudo terminal may ask for.
    pub(crate) fn common(&self, request: Ioctl) -> TryResult<IoctlReply> {
        match request {
            Ioctl::GetTermios => done(IoctlReply::Termios(self.state.lock().line.termios)),
            Ioctl::SetTermios(when, termios) => {
                {
                    let mut state = self.state.lock();
                    if when != When::Now && self.port.is_some() && !self.is_drained(&state) {
                        return Ok(Try::WouldBlock);
                    }
                    if when == When::Flush {
                        state.line.flush_input();
                    }
                    state.line.set_termios(termios);
                    self.push(&mut state);
                }
                self.waiters.wake(Ready::IN | Ready::OUT);
                done(IoctlReply::Done)
            }
            Ioctl::GetWindow => done(IoctlReply::Window(self.state.lock().window)),
            Ioctl::SetWindow(window) => {
                let old = core::mem::replace(&mut self.state.lock().window, window);
                if old != window {
                    self.signal(TtySignal::WindowChange);
                }
                done(IoctlReply::Done)
            }
            _ => Err(NO_TTY),
        }
    }

    fn is_drained(&self, state: &State) -> bool {
        (state.line.out.is_empty() || state.line.stopped) && self.port.as_ref().is_none_or(|p| p.is_sent())
    }

    pub(crate) fn session_ids(&self) -> Option<(u32, u32)> {
        let session = self.session.lock().clone();
        session.map(|s| (s.sid(), s.foreground()))
    }

    fn flush(&self, queues: Queues) {
        {
            let mut state = self.state.lock();
            if queues != Queues::Output {
                state.line.flush_input();
            }
            if queues != Queues::Input {
                state.line.out.clear();
            }
        }
        self.waiters.wake(Ready::OUT);
    }

    /// The controlling process group as `/proc/PID/stat` shows it.
    pub fn foreground(&self) -> u32 {
        self.session_ids().map_or(0, |(_, pgid)| pgid)
    }
}

impl Terminal for Tty {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn device(&self) -> Device {
        self.device
    }

    fn lost(&self, sid: u32) {
        let old = {
            let mut session = self.session.lock();
            if session.as_ref().is_some_and(|s| s.sid() == sid) { session.take() } else { None }
        };
        drop(old);
    }

    fn open(&self, caller: &Caller, flags: OpenFlags, status: Status, place: Place) -> TryResult<Arc<dyn OpenFile>> {
        self.open_at(caller, flags | OpenFlags::NO_CTTY, status, place)
    }
}

/// A raw read that ends by VTIME.
struct TimedRead {
    tty: Arc<Tty>,
    due: u64,
    subscription: Option<Subscription>,
    alarm: Option<(AlarmId, Arc<Ring>)>,
}

/// Wakes a reader when its time is over.
struct Ring(SpinLock<Option<Arc<dyn Wake>>>);

impl Alarm for Ring {
    fn ring(self: Arc<Self>) {
        let waker = self.0.lock().take();
        if let Some(waker) = waker {
            waker.wake(Ready::IN);
        }
    }
}

impl Op<usize> for TimedRead {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.subscription = Some(self.tty.waiters.subscribe(Ready::IN, waker.clone()));
        let ring = Arc::new(Ring(SpinLock::new(rank::EVENT, Some(waker))));
        let alarm = self.tty.env.set_alarm(self.due, ring.clone());
        if let Some((old, _)) = self.alarm.replace((alarm, ring)) {
            self.tty.env.cancel_alarm(old);
        }
    }

    fn take(&mut self) -> Option<TryResult<usize>> {
        if self.tty.is_hung_up() {
            return Some(done(0));
        }
        let (have, least) = {
            let state = self.tty.state.lock();
            (state.line.readable_bytes(), state.line.termios.chars.get(termios::index::VMIN).copied().unwrap_or(1))
        };
        if hal::time::now() >= self.due {
            // With VMIN the bytes that came are there; without, the read ends with nothing.
            return Some(if have == 0 && least == 0 { done(0) } else { Ok(Try::WouldBlock) });
        }
        let enough = if least == 0 { have > 0 } else { have >= usize::from(least) };
        enough.then_some(Ok(Try::WouldBlock))
    }
}

impl Drop for TimedRead {
    fn drop(&mut self) {
        if let Some((alarm, _)) = self.alarm.take() {
            self.tty.env.cancel_alarm(alarm);
        }
    }
}

impl FileOps for Tty {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, file: &LocalFile, caller: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        if self.is_hung_up() || sink.room() == 0 {
            return done(0);
        }
        self.check(caller, TtyUse::Read)?;
        let n = {
            let mut state = self.state.lock();
            match state.line.readable(sink.room(), hal::time::now()) {
                Readable::Now => {}
                Readable::No => return Ok(Try::WouldBlock),
                Readable::At(_) if file.is_nonblocking() => return Ok(Try::WouldBlock),
                Readable::At(due) => {
                    drop(state);
                    let tty = self.me.upgrade().ok_or(HUNG_UP)?;
                    return Ok(Try::Started(Box::new(TimedRead { tty, due, subscription: None, alarm: None })));
                }
            }
            state.line.read(sink)
        };
        // The other side may send again.
        self.master_waiters.wake(Ready::OUT);
        done(n)
    }

    fn write(&self, _: &LocalFile, caller: &Caller, _: u64, _: bool, source: &mut dyn Source) -> TryResult<Wrote> {
        if self.is_hung_up() {
            return Err(HUNG_UP);
        }
        let stop = self.state.lock().line.termios.has(termios::local::TOSTOP);
        if stop {
            self.check(caller, TtyUse::Write)?;
        }
        if source.left() == 0 {
            return done(Wrote { bytes: 0, end: 0 });
        }
        let mut moved = 0;
        let mut blocked = false;
        let mut piece = [0; 512];
        while source.left() > 0 {
            let mut state = self.state.lock();
            let room = state.line.output_room().min(piece.len());
            if room == 0 {
                self.push(&mut state);
                if state.line.output_room() == 0 {
                    blocked = true;
                    break;
                }
                continue;
            }
            let Some(buf) = piece.get_mut(..room.min(source.left())) else { break };
            let want = buf.len();
            let n = source.take(buf);
            state.line.write(buf.get(..n).unwrap_or_default());
            self.push(&mut state);
            moved += n;
            if n < want {
                break;
            }
        }
        self.master_waiters.wake(Ready::IN);
        if moved == 0 && blocked { Ok(Try::WouldBlock) } else { done(Wrote { bytes: moved, end: 0 }) }
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        if self.is_hung_up() {
            return Ready::IN | Ready::OUT | Ready::HUP | Ready::ERR;
        }
        let state = self.state.lock();
        let mut ready = Ready::empty();
        ready.set(Ready::IN, state.line.has_input());
        ready.set(Ready::OUT, state.line.output_room() > 0);
        ready
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.waiters.subscribe(mask, waker)
    }

    fn ioctl(&self, _: &LocalFile, caller: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        if self.is_hung_up() {
            return Err(HUNG_UP);
        }
        match request {
            Ioctl::SetTermios(..) => {
                self.check(caller, TtyUse::Write)?;
                self.common(request)
            }
            Ioctl::GetForeground => done(IoctlReply::Number(u64::from(self.own_session(caller)?.foreground()))),
            Ioctl::SetForeground(pgid) => match self.own_session(caller)?.set_foreground(caller, pgid)? {
                Verdict::Go => done(IoctlReply::Done),
                Verdict::Stopped => Err(RESTART),
            },
            Ioctl::GetSession => done(IoctlReply::Number(u64::from(self.own_session(caller)?.sid()))),
            Ioctl::TakeTerminal(steal) => Ok(self.take_as_terminal(caller, steal)?.map(|()| IoctlReply::Done)),
            Ioctl::DropTerminal => {
                self.own_session(caller)?.drop_terminal(caller)?;
                done(IoctlReply::Done)
            }
            Ioctl::BytesReadable => done(IoctlReply::Number({
                let state = self.state.lock();
                state.line.readable_bytes() as u64
            })),
            Ioctl::BytesUnsent => done(IoctlReply::Number(self.state.lock().line.out.len() as u64)),
            Ioctl::FlushQueues(queues) => {
                self.check(caller, TtyUse::Write)?;
                self.flush(queues);
                done(IoctlReply::Done)
            }
            Ioctl::Drain | Ioctl::Break => {
                self.check(caller, TtyUse::Write)?;
                let state = self.state.lock();
                if self.port.is_none() || self.is_drained(&state) {
                    done(IoctlReply::Done)
                } else {
                    Ok(Try::WouldBlock)
                }
            }
            Ioctl::Suspend(stop) => {
                self.check(caller, TtyUse::Write)?;
                {
                    let mut state = self.state.lock();
                    state.line.stopped = stop;
                    self.push(&mut state);
                }
                self.waiters.wake(Ready::OUT);
                self.master_waiters.wake(Ready::IN);
                done(IoctlReply::Done)
            }
            Ioctl::SuspendInput(stop) => {
                let mut state = self.state.lock();
                let which = if stop { termios::index::VSTOP } else { termios::index::VSTART };
                let byte = state.line.termios.chars.get(which).copied().unwrap_or(0);
                if byte != 0 {
                    state.line.out.push_back(byte);
                    self.push(&mut state);
                }
                done(IoctlReply::Done)
            }
            Ioctl::Insert(byte) => {
                let own = self.own_session(caller).is_ok();
                if !own && !caller.can(crate::caller::cap::SYS_ADMIN) {
                    return Err(Errno::EPERM.into());
                }
                self.receive(&[byte]);
                done(IoctlReply::Done)
            }
            Ioctl::HangUp => {
                if !caller.can(crate::caller::cap::SYS_ADMIN) {
                    return Err(Errno::EPERM.into());
                }
                self.hang_up();
                done(IoctlReply::Done)
            }
            _ => self.common(request),
        }
    }

    fn release(&self, _: &LocalFile) {
        self.opens.fetch_sub(1, Ordering::SeqCst);
        self.master_waiters.wake(Ready::all());
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
