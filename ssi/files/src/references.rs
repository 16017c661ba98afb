//! References: how objects are lent and received. The counting is in crate `objects`.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{Errno, Error, KernelId, ObjectId, Result, TryResult, wait::Try};
use link::Incoming;
use objects::{Receipt, codec::Body, from_wire, object_from_wire, to_wire};
use vfs::{Inode, OpenFile, OpenFlags, Place, Stat, Status, socket::Address};
use wire::files::GrantFor;

use crate::{
    remote::{Opened, RemoteFile, RemoteInode},
    service::{FileService, Inner, Lent},
    sockets::RemoteAddress,
    state::Event,
};

/// A reference that was made for another kernel. Dropped before it is sent, it is taken back.
pub struct Passed {
    service: Weak<FileService>,
    /// To what.
    pub object: ObjectId,
    /// The home of that.
    pub home: KernelId,
    holder: KernelId,
}

impl Passed {
    /// It is in a message, which was sent.
    pub fn sent(mut self) {
        self.service = Weak::new();
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(service) = self.service.upgrade() {
            service.not_sent(self.object, self.home, self.holder);
        }
    }
}

/// The values of many operations that run at the same time, in order.
///
/// # Errors
/// The first; what the others made is dropped.
pub(crate) fn all<T: Send + 'static>(tries: Vec<TryResult<T>>) -> TryResult<Vec<T>> {
    let mut together: TryResult<Vec<T>> = base::wait::done(Vec::with_capacity(tries.len()));
    for one in tries {
        together = together?.and_then(move |mut values| {
            Ok(one?.map(move |value| {
                values.push(value);
                values
            }))
        });
    }
    together
}

impl FileService {
    // -- lending ---------------------------------------------------------------------------------------------------

    fn lend(&self, id: ObjectId, lent: Lent, holder: KernelId) -> Result<ObjectId> {
        let mut inner = self.inner.lock();
        // A holder that is dead is answered by nobody's fault.
        inner.state.lend(id, holder).map_err(|_| Error::new(Errno::EHOSTDOWN, "nobody to lend to"))?;
        inner.lent.entry(id).or_insert(lent);
        Ok(id)
    }

    /// Lends a file of this kernel to `holder`: the name to send. One that is itself a proxy is granted by its home: see [`FileService::pass_on`].
    pub(crate) fn lend_file(&self, file: &Arc<dyn OpenFile>, holder: KernelId) -> Result<ObjectId> {
        self.lend(file.id(), Lent::File(file.clone()), holder)
    }

    /// Lends an inode of this kernel.
    pub(crate) fn lend_node(&self, node: &Arc<dyn Inode>, holder: KernelId) -> Result<ObjectId> {
        self.lend(node.id(), Lent::Node(node.clone()), holder)
    }

    /// A reference that was granted by this kernel could not be sent.
    pub(crate) fn not_lent(&self, object: ObjectId, holder: KernelId) {
        self.with(|inner, queue| inner.state.not_lent(object, holder, queue));
    }

    /// A reference from [`FileService::pass_on`] was not sent after all, or may not have come.
    pub(crate) fn not_sent(&self, object: ObjectId, home: KernelId, holder: KernelId) {
        self.with(|inner, queue| inner.state.unsent(object, home, holder, queue));
    }

    /// Has the home of a proxy make a reference for `holder`, which may be that home.
    fn grant_elsewhere(&self, object: ObjectId, holder: KernelId) -> TryResult<Passed> {
        if self.is_dead(object) {
            // The new holder gets the same dead object.
            return base::wait::done(Passed { service: Weak::new(), object, home: object.birth, holder });
        }
        let service = self.me.clone();
        self.ask(object, &GrantFor { holder: to_wire(holder) }, &[], move |answer| {
            answer.read::<wire::files::FileCount>()?;
            Ok(Try::Done(Passed { service, object, home: from_wire(answer.from), holder }))
        })
    }

    /// Makes a reference to an open file that can be sent to `holder`.
    ///
    /// # Errors
    /// `EHOSTDOWN` if `holder` is dead.
    pub fn pass_on(&self, file: &Arc<dyn OpenFile>, holder: KernelId) -> TryResult<Passed> {
        match file.as_any().downcast_ref::<RemoteFile>() {
            Some(remote) => self.grant_elsewhere(remote.object(), holder),
            None => self.pass(file.id(), Lent::File(file.clone()), holder),
        }
    }

    fn pass(&self, object: ObjectId, lent: Lent, holder: KernelId) -> TryResult<Passed> {
        {
            let mut inner = self.inner.lock();
            inner.state.pass(object, holder).map_err(|_| Error::new(Errno::EHOSTDOWN, "nobody to lend to"))?;
            inner.lent.entry(object).or_insert(lent);
        }
        base::wait::done(Passed { service: self.me.clone(), object, home: self.kernel(), holder })
    }

    /// The same for what a name of a socket stands for.
    pub(crate) fn pass_address(&self, address: &Arc<dyn Address>, holder: KernelId) -> TryResult<Passed> {
        match address.as_any().downcast_ref::<RemoteAddress>() {
            Some(remote) => self.grant_elsewhere(remote.object(), holder),
            None => self.pass(address.id(), Lent::Address(address.clone()), holder),
        }
    }

    // -- receiving -------------------------------------------------------------------------------------------------

    /// A reference came with a message of `via`. What is here is made by `here`, a proxy by `make` if there is none.
    fn receive<T>(
        &self,
        object: ObjectId,
        (home, via, passed): (KernelId, KernelId, bool),
        here: impl FnOnce(&Lent) -> Option<T>,
        make: impl FnOnce(&mut Inner, bool) -> T,
    ) -> Result<T> {
        self.with(|inner, queue| {
            // Before the reference ends here, so that it is there.
            let local = inner.lent.get(&object).and_then(here);
            let receipt = inner.state.receive(object, home, via, passed, queue);
            match receipt.map_err(|_| Error::new(Errno::EHOSTDOWN, "who sent it is down"))? {
                Receipt::Home => local.ok_or(Error::new(Errno::ESTALE, "no such object")),
                receipt => Ok(make(inner, receipt == Receipt::New)),
            }
        })
    }

    /// A reference to an open file came from `via`: the real one if this is its home, else a proxy.
    ///
    /// # Errors
    /// `ESTALE` if it is said to be here but is not; `EHOSTDOWN` if `via` is dead.
    pub fn receive_file(
        &self,
        object: ObjectId,
        home: KernelId,
        via: KernelId,
        passed: bool,
        opened: Opened,
    ) -> Result<Arc<dyn OpenFile>> {
        let service = self.this().ok_or(Error::new(Errno::EHOSTDOWN, "shutting down"))?;
        let here = |lent: &Lent| if let Lent::File(file) = lent { Some(file.clone()) } else { None };
        self.receive(object, (home, via, passed), here, |inner, new| {
            if !new && let Some(file) = inner.files.get(&object).and_then(Weak::upgrade) {
                return file;
            }
            let file = Arc::new(RemoteFile::new(service, object, opened));
            inner.files.insert(object, Arc::downgrade(&file));
            file
        })
    }

    /// A reference to an inode came from its home.
    pub(crate) fn receive_node(
        &self,
        object: ObjectId,
        home: KernelId,
        stat: Stat,
        base: Option<Arc<dyn Inode>>,
    ) -> Result<Arc<dyn Inode>> {
        let service = self.this().ok_or(Error::new(Errno::EHOSTDOWN, "shutting down"))?;
        let here = |lent: &Lent| if let Lent::Node(node) = lent { Some(node.clone()) } else { None };
        self.receive(object, (home, home, false), here, |inner, new| {
            if !new && let Some(node) = inner.nodes.get(&object).and_then(Weak::upgrade) {
                return node;
            }
            let node = Arc::new(RemoteInode::new(service, object, stat.kind, base));
            inner.nodes.insert(object, Arc::downgrade(&node));
            node
        })
    }

    /// A reference to what a name of a socket stands for came.
    pub(crate) fn receive_address(
        &self,
        object: ObjectId,
        home: KernelId,
        via: KernelId,
        facts: crate::sockets::Known,
    ) -> Result<Arc<dyn Address>> {
        let service = self.this().ok_or(Error::new(Errno::EHOSTDOWN, "shutting down"))?;
        let here = |lent: &Lent| if let Lent::Address(address) = lent { Some(address.clone()) } else { None };
        self.receive(object, (home, via, true), here, |inner, new| {
            if !new && let Some(address) = inner.addresses.get(&object).and_then(Weak::upgrade) {
                return address;
            }
            let address = Arc::new(RemoteAddress::new(service, object, facts));
            inner.addresses.insert(object, Arc::downgrade(&address));
            address
        })
    }

    /// An inode in an answer. `base` finds what this kernel has under the same name, for one that is still as the archive has it.
    pub(crate) fn take_node(
        &self,
        answer: &Incoming<'_>,
        base: impl FnOnce(&Stat) -> Option<Arc<dyn Inode>>,
    ) -> link::Result<Arc<dyn Inode>> {
        let (node, payload) = answer.read::<wire::files::NodeIs>()?;
        let bad = |_| link::Error::new(Errno::EBADMSG, "the answer does not decode", answer.from);
        let stat = <Stat as Body<crate::codec::Files>>::get(&mut objects::codec::Reader(payload)).map_err(bad)?;
        let base = if node.base != 0 || stat.kind == vfs::FileKind::Directory { base(&stat) } else { None };
        self.receive_node(object_from_wire(node.node), from_wire(answer.from), stat, base)
            .map_err(|error| link::Error::new(error.errno(), error.why(), answer.from))
    }

    /// An open file in an answer.
    pub(crate) fn take_file(
        &self,
        answer: &Incoming<'_>,
        flags: OpenFlags,
        status: Status,
        place: Option<Place>,
        base: Option<Arc<dyn Inode>>,
    ) -> link::Result<Arc<dyn OpenFile>> {
        let (opened, payload) = answer.read::<wire::files::FileOpened>()?;
        let kind = place.as_ref().map_or(vfs::FileKind::Char, Place::kind);
        let facts =
            Opened { flags, status, able: opened.able, kind, inode: None, place, base, describe: payload.into() };
        let home = from_wire(answer.from);
        self.receive_file(object_from_wire(opened.file), home, home, false, facts)
            .map_err(|error| link::Error::new(error.errno(), error.why(), answer.from))
    }

    /// The last user of a proxy is gone.
    pub(crate) fn let_go(&self, object: ObjectId) {
        self.with(|inner, queue| {
            // A new proxy may have been made since the last one died: then it keeps the grants.
            if inner.files.get(&object).is_some_and(|file| file.strong_count() > 0)
                || inner.nodes.get(&object).is_some_and(|node| node.strong_count() > 0)
                || inner.addresses.get(&object).is_some_and(|address| address.strong_count() > 0)
            {
                return;
            }
            inner.files.remove(&object);
            inner.nodes.remove(&object);
            inner.addresses.remove(&object);
            inner.state.step(Event::Dropped { object }, queue);
        });
    }

    /// Whether the home of a proxy is dead.
    pub(crate) fn is_dead(&self, object: ObjectId) -> bool {
        self.home(object).is_none()
    }
}
