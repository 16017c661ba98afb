//! Pseudo terminals, pty(7): `/dev/ptmx` makes a master, `/dev/pts/N` is its slave.

use alloc::{
    collections::BTreeMap,
    string::ToString,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicBool, Ordering};

use base::{
    Errno, Error, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::done,
};
use hal::sync::{SpinLock, rank};

use super::Tty;
use crate::{
    Caller, Device, Inode, Ioctl, IoctlReply, LocalFile, OpenFile, Place, SetAttr, Vfs,
    device::Driver,
    inode::NewNode,
    local::{FileOps, Wrote},
    mounts::FsType,
    tmpfs::{Limits, TmpInode, Tmpfs},
    types::{FileKind, OpenFlags, Status},
};

/// `/dev/ptmx`.
pub const PTMX: Device = Device::new(5, 2);
/// The major number of slaves.
pub const SLAVES: u32 = 136;
/// The most there can be (`/proc/sys/kernel/pty/max`).
const MAX: u32 = 4096;

struct Slave {
    tty: Arc<Tty>,
    locked: Arc<AtomicBool>,
}

/// The pseudo terminals of a kernel.
pub struct Ptys {
    table: SpinLock<BTreeMap<u32, Slave>>,
    root: SpinLock<Option<Arc<TmpInode>>>,
}

impl Ptys {
    /// None.
    pub const fn new() -> Self {
        Self { table: SpinLock::new(rank::DENTRIES, BTreeMap::new()), root: SpinLock::new(rank::MOUNTS, None) }
    }

    /// The directory `/dev/pts`, one for all mounts.
    /// The directory of the slaves.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn root(&self, vfs: &Arc<Vfs>) -> Result<Arc<TmpInode>> {
        if let Some(root) = self.root.lock().clone() {
            return Ok(root);
        }
        let new = Tmpfs::new(vfs, 0o755, Limits::NONE);
        new.add(b"ptmx", NewNode::Device(FileKind::Char, PTMX), 0o666)?;
        Ok(self.root.lock().get_or_insert(new).clone())
    }
}

impl Default for Ptys {
    fn default() -> Self {
        Self::new()
    }
}

/// `devpts` for mount(2).
#[derive(Debug)]
pub struct DevPts;

impl FsType for DevPts {
    fn name(&self) -> &str {
        "devpts"
    }

    fn mount(&self, vfs: &Arc<Vfs>, _: &str, _: &str) -> Result<Arc<dyn Inode>> {
        Ok(vfs.ptys.root(vfs)?)
    }
}

/// The driver of masters and slaves.
struct PtyDriver(Weak<Vfs>);

/// Makes `/dev/ptmx` and slaves work.
pub fn install(vfs: &Arc<Vfs>) {
    let driver = Arc::new(PtyDriver(Arc::downgrade(vfs)));
    vfs.devices.add(FileKind::Char, PTMX.major, Some(PTMX.minor), driver.clone());
    vfs.devices.add(FileKind::Char, SLAVES, None, driver);
    vfs.add_type(Arc::new(DevPts));
}

impl Driver for PtyDriver {
    fn open(
        &self,
        device: Device,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        let vfs = self.0.upgrade().ok_or(Errno::ENXIO)?;
        if device.major == SLAVES {
            let (tty, locked) = {
                let table = vfs.ptys.table.lock();
                let slave = table.get(&device.minor).ok_or(Error::new(Errno::ENXIO, "no such terminal"))?;
                (slave.tty.clone(), slave.locked.load(Ordering::Relaxed))
            };
            if locked {
                return Err(Error::new(Errno::EIO, "the terminal is locked"));
            }
            return tty.open_at(caller, flags, status, place);
        }
        let root = vfs.ptys.root(&vfs)?;
        let locked = Arc::new(AtomicBool::new(true));
        let (number, tty) = {
            let mut table = vfs.ptys.table.lock();
            let number = (0..MAX).find(|n| !table.contains_key(n)).ok_or(Errno::ENOSPC)?;
            let tty = Tty::new(vfs.env(), Device::new(SLAVES, number), None);
            table.insert(number, Slave { tty: tty.clone(), locked: locked.clone() });
            (number, tty)
        };
        let name = number.to_string();
        let node = NewNode::Device(FileKind::Char, Device::new(SLAVES, number));
        match root.add(name.as_bytes(), node, 0o620) {
            Ok(node) => {
                let owner = SetAttr { uid: Some(caller.uid), gid: Some(5), mode: Some(0o620), ..SetAttr::default() };
                node.set_attr(&Caller::kernel(), owner)?;
            }
            Err(e) => {
                vfs.ptys.table.lock().remove(&number);
                return Err(e);
            }
        }
        let master = Arc::new(Master { vfs: self.0.clone(), tty, number, locked });
        done(LocalFile::new(vfs.env().new_id(), master, place, flags, status))
    }
}

/// The side of the program that plays the terminal.
struct Master {
    vfs: Weak<Vfs>,
    tty: Arc<Tty>,
    number: u32,
    locked: Arc<AtomicBool>,
}

impl Master {
    fn slave_gone(&self) -> bool {
        let open = self.tty.opens.load(Ordering::SeqCst) > 0;
        (!open && self.tty.opened.load(Ordering::SeqCst)) || self.tty.is_hung_up()
    }
}

impl FileOps for Master {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        let gone = self.slave_gone();
        let n = self.tty.take_output(sink);
        if n > 0 || sink.stalled() || sink.room() == 0 {
            return done(n);
        }
        if gone { Err(Error::new(Errno::EIO, "the slave is closed")) } else { Ok(Try::WouldBlock) }
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, source: &mut dyn Source) -> TryResult<Wrote> {
        if self.tty.is_hung_up() {
            return Err(Errno::EIO.into());
        }
        let mut moved = 0;
        let mut piece = [0; 256];
        while source.left() > 0 {
            let room = self.tty.input_room().min(piece.len());
            if room == 0 {
                break;
            }
            let Some(buf) = piece.get_mut(..room.min(source.left())) else { break };
            let want = buf.len();
            let n = source.take(buf);
            self.tty.receive(buf.get(..n).unwrap_or_default());
            moved += n;
            if n < want {
                return done(Wrote { bytes: moved, end: 0 });
            }
        }
        if moved == 0 && source.left() > 0 { Ok(Try::WouldBlock) } else { done(Wrote { bytes: moved, end: 0 }) }
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        let mut ready = Ready::empty();
        ready.set(Ready::HUP, self.slave_gone());
        ready.set(Ready::IN, self.tty.has_output() || ready.contains(Ready::HUP));
        ready.set(Ready::OUT, self.tty.input_room() > 0);
        ready
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.tty.master_waiters.subscribe(mask, waker)
    }

    fn ioctl(&self, _: &LocalFile, caller: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        match request {
            Ioctl::PtyNumber => done(IoctlReply::Number(u64::from(self.number))),
            Ioctl::PtyLock(locked) => {
                self.locked.store(locked, Ordering::Relaxed);
                done(IoctlReply::Done)
            }
            Ioctl::PtyLocked => done(IoctlReply::Number(u64::from(self.locked.load(Ordering::Relaxed)))),
            Ioctl::PtyPeer(flags, status) => {
                let vfs = self.vfs.upgrade().ok_or(Errno::EIO)?;
                let root = vfs.ptys.root(&vfs)?;
                let node = root.get(self.number.to_string().as_bytes()).ok_or(Errno::EIO)?;
                let name = alloc::format!("/dev/pts/{}", self.number);
                let place = vfs.anonymous(node, name.as_bytes());
                Ok(self.tty.open_at(caller, flags, status, place)?.map(IoctlReply::File))
            }
            // From the master these are about the slave's session, whoever asks.
            Ioctl::GetForeground => done(IoctlReply::Number(self.tty.session_ids().map_or(0, |s| u64::from(s.1)))),
            Ioctl::GetSession => {
                let (sid, _) = self.tty.session_ids().ok_or(Errno::ENOTTY)?;
                done(IoctlReply::Number(u64::from(sid)))
            }
            Ioctl::BytesReadable => done(IoctlReply::Number(u64::from(self.tty.has_output()))),
            request => self.tty.common(request),
        }
    }

    fn release(&self, _: &LocalFile) {
        self.tty.hang_up();
        let Some(vfs) = self.vfs.upgrade() else { return };
        let gone = vfs.ptys.table.lock().remove(&self.number);
        drop(gone);
        if let Ok(root) = vfs.ptys.root(&vfs) {
            // Nobody else takes names out of this directory, so it is there.
            let _ = root.unlink(&Caller::kernel(), self.number.to_string().as_bytes(), false);
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
