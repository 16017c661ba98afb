//! `/proc` itself with its processes, and `/proc/PID`.

use alloc::{string::ToString, sync::Arc, vec::Vec};

use base::{Errno, Error, Try, TryResult, wait::done};
use proc::process::{ProcessFile, ProcessLink};
use vfs::{Caller, FileKind, Place};

use crate::{
    entry::{Dir, Entry, Folder, Found, Item, Link},
    view::{Owner, ProcessView},
};

const LINKS: &[(&str, ProcessLink)] =
    &[("cwd", ProcessLink::Cwd), ("exe", ProcessLink::Exe), ("root", ProcessLink::Root)];

const DIRS: &[(&str, Kind)] =
    &[("cob", Kind::Cob), ("fd", Kind::Descriptors), ("fdinfo", Kind::DescriptorInfo), ("task", Kind::Threads)];

fn number(name: &[u8]) -> Option<u32> {
    let text = core::str::from_utf8(name).ok()?;
    // A number is written in one way only.
    let n: u32 = text.parse().ok()?;
    (n.to_string() == text).then_some(n)
}

const NO_ENTRY: Error = Error::new(Errno::ENOENT, "no such process or file");

type View = Arc<dyn ProcessView>;

/// `/proc`: what was registered, and a directory for each process.
pub(crate) struct Root {
    pub folder: Arc<Folder>,
    pub view: View,
}

impl Dir for Root {
    fn list(&self, caller: &Caller) -> TryResult<Vec<(Vec<u8>, FileKind)>> {
        let Try::Done(mut names) = self.folder.list(caller)? else { return Err(Errno::EIO.into()) };
        let add = move |mut pids: Vec<u32>| {
            pids.sort_unstable();
            names.extend(pids.into_iter().map(|pid| (pid.to_string().into_bytes(), FileKind::Directory)));
            names
        };
        Ok(self.view.pids()?.map(add))
    }

    fn find(&self, caller: &Caller, name: &[u8]) -> TryResult<Found> {
        let Some(pid) = number(name) else { return self.folder.find(caller, name) };
        let view = self.view.clone();
        let found = move |owner: Owner| Found {
            item: Item::Dir(Arc::new(Process { view, pid, tid: pid, kind: Kind::Process })),
            uid: owner.uid,
            gid: owner.gid,
        };
        Ok(self.view.owner(pid)?.map(found))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Process,
    Thread,
    Threads,
    Descriptors,
    DescriptorInfo,
    /// What Linux does not have.
    Cob,
}

/// One of the directories of a process.
#[derive(Clone)]
struct Process {
    view: View,
    pid: u32,
    tid: u32,
    kind: Kind,
}

fn numbers(list: Vec<u32>, kind: FileKind) -> Vec<(Vec<u8>, FileKind)> {
    list.into_iter().map(|n| (n.to_string().into_bytes(), kind)).collect()
}

impl Process {
    fn item(&self, name: &[u8]) -> Option<Item> {
        match self.kind {
            Kind::Process | Kind::Thread => {
                let of = |n: &str| n.as_bytes() == name;
                if let Some((_, what, mode)) = ProcessFile::ALL.iter().find(|(n, ..)| of(n)) {
                    return Some(Item::File(Arc::new(File { of: self.clone(), what: *what, mode: u32::from(*mode) })));
                }
                if let Some((_, which)) = LINKS.iter().find(|(n, _)| of(n)) {
                    return Some(self.link(*which));
                }
                let threads = |kind| self.kind == Kind::Process || kind != Kind::Threads;
                let (_, kind) = DIRS.iter().find(|(n, kind)| of(n) && threads(*kind))?;
                Some(Item::Dir(Arc::new(Self { kind: *kind, ..self.clone() })))
            }
            Kind::Cob if name == b"placement" => {
                let what = ProcessFile::Placement;
                Some(Item::File(Arc::new(File { of: self.clone(), what, mode: 0o644 })))
            }
            Kind::Cob => None,
            Kind::Threads => {
                let tid = number(name)?;
                Some(Item::Dir(Arc::new(Self { kind: Kind::Thread, tid, ..self.clone() })))
            }
            Kind::Descriptors => Some(self.link(ProcessLink::Fd(number(name)?))),
            Kind::DescriptorInfo => Some(Item::File(Arc::new(DescriptorInfo { of: self.clone(), fd: number(name)? }))),
        }
    }

    fn link(&self, which: ProcessLink) -> Item {
        Item::Link(Arc::new(To { of: self.clone(), which }))
    }
}

impl Dir for Process {
    fn list(&self, caller: &Caller) -> TryResult<Vec<(Vec<u8>, FileKind)>> {
        match self.kind {
            Kind::Process | Kind::Thread => {
                let mut names: Vec<(Vec<u8>, FileKind)> =
                    ProcessFile::ALL.iter().map(|(n, ..)| (n.as_bytes().into(), FileKind::Regular)).collect();
                names.extend(LINKS.iter().map(|(n, _)| (n.as_bytes().into(), FileKind::Symlink)));
                let threads = |kind: Kind| self.kind == Kind::Process || kind != Kind::Threads;
                let dirs = DIRS.iter().filter(|(_, kind)| threads(*kind));
                names.extend(dirs.map(|(n, _)| (n.as_bytes().into(), FileKind::Directory)));
                done(names)
            }
            Kind::Cob => done(alloc::vec![(b"placement".to_vec(), FileKind::Regular)]),
            Kind::Threads => Ok(self.view.threads(self.pid)?.map(|l| numbers(l, FileKind::Directory))),
            Kind::Descriptors => Ok(self.view.descriptors(caller, self.pid)?.map(|l| numbers(l, FileKind::Symlink))),
            Kind::DescriptorInfo => Ok(self.view.descriptors(caller, self.pid)?.map(|l| numbers(l, FileKind::Regular))),
        }
    }

    fn find(&self, caller: &Caller, name: &[u8]) -> TryResult<Found> {
        let item = self.item(name).ok_or(NO_ENTRY)?;
        let with = move |owner: Owner| Found { item, uid: owner.uid, gid: owner.gid };
        // Names that are numbers must be there.
        let there = match self.kind {
            Kind::Descriptors | Kind::DescriptorInfo => Some(self.view.descriptors(caller, self.pid)?),
            Kind::Threads => Some(self.view.threads(self.pid)?),
            _ => None,
        };
        let (view, pid) = (self.view.clone(), self.pid);
        let owned = move || Ok(view.owner(pid)?.map(with));
        match (there, number(name)) {
            (Some(list), Some(n)) => list.and_then(move |list| if list.contains(&n) { owned() } else { Err(NO_ENTRY) }),
            _ => owned(),
        }
    }
}

struct File {
    of: Process,
    what: ProcessFile,
    mode: u32,
}

impl Entry for File {
    fn read(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        self.of.view.text(caller, self.of.pid, self.of.tid, self.what)
    }

    fn write(&self, caller: &Caller, bytes: &[u8]) -> TryResult<()> {
        let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
        self.of.view.set(caller, self.of.pid, self.what, text.trim_end_matches('\n'))
    }

    fn mode(&self) -> u32 {
        self.mode
    }
}

struct DescriptorInfo {
    of: Process,
    fd: u32,
}

impl Entry for DescriptorInfo {
    fn read(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        self.of.view.descriptor_info(caller, self.of.pid, self.fd)
    }
}

struct To {
    of: Process,
    which: ProcessLink,
}

impl Link for To {
    fn target(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        self.of.view.link(caller, self.of.pid, self.which)
    }

    fn place(&self, caller: &Caller) -> TryResult<Option<Place>> {
        self.of.view.place(caller, self.of.pid, self.which)
    }
}
