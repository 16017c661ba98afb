//! Paths: from bytes to places, as `path_resolution(7)` has it.

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, Result};

use crate::{
    Caller, Inode, Place, Vfs, WaitOps,
    caller::cap,
    place::Node,
    types::{Access, FileKind},
};

/// Symbolic links in one walk.
const MAX_LINKS: u32 = 40;
/// Longest name.
pub const NAME_MAX: usize = 255;
/// Longest path with its NUL.
pub const PATH_MAX: usize = 4096;

const NOT_DIR: Error = Error::new(Errno::ENOTDIR, "not a directory");
const NO_ENTRY: Error = Error::new(Errno::ENOENT, "no such file");
const LOOP: Error = Error::new(Errno::ELOOP, "too many symbolic links");

/// What a walk does with a symbolic link at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// Goes on to its target.
    Yes,
    /// Stays at the link (unless a slash follows).
    No,
}

/// The last component of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Last {
    /// Its name; may be `.` or `..`, and empty for `/`.
    pub name: Vec<u8>,
    /// Slashes came after it.
    pub slash: bool,
}

impl Last {
    /// Whether it can be the name of something new.
    pub fn is_plain(&self) -> bool {
        !matches!(self.name.as_slice(), b"" | b"." | b"..")
    }
}

/// Who walks, and from where.
pub struct Walk<'a> {
    /// The tree.
    pub vfs: &'a Vfs,
    /// On whose behalf.
    pub caller: &'a Caller,
    /// What `/` means.
    pub root: Place,
    /// Where relative paths start.
    pub start: Place,
    /// How it waits for a peer.
    pub wait: &'a dyn WaitOps,
}

/// Where a walk ended: at a place, or in a directory with the last name left.
enum End {
    Place(Place),
    Parent(Place, Last),
}

impl Walk<'_> {
    /// The place that `path` names.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`, `ENAMETOOLONG`, and those of a peer.
    pub fn find(&self, path: &[u8], follow: Follow) -> Result<Place> {
        match self.run(self.start.clone(), path, follow, false, &mut 0)? {
            End::Place(place) => Ok(place),
            End::Parent(..) => Err(NO_ENTRY),
        }
    }

    /// The directory that has, or would have, the last name of `path`.
    ///
    /// # Errors
    /// As [`Walk::find`].
    pub fn find_parent(&self, path: &[u8]) -> Result<(Place, Last)> {
        self.find_parent_from(self.start.clone(), path, &mut 0)
    }

    pub(crate) fn find_parent_from(&self, start: Place, path: &[u8], links: &mut u32) -> Result<(Place, Last)> {
        match self.run(start, path, Follow::No, true, links)? {
            End::Parent(place, last) => Ok((place, last)),
            End::Place(place) => Ok((place, Last { name: Vec::new(), slash: true })),
        }
    }

    /// One step down from `dir`, over mounts. Links are not followed.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES`, `ENAMETOOLONG`.
    #[inline]
    pub fn step(&self, dir: &Place, name: &[u8]) -> Result<Place> {
        if name.len() > NAME_MAX {
            return Err(Error::new(Errno::ENAMETOOLONG, "name too long"));
        }
        let inode = dir.node.inode();
        let version = inode.names_version(self.caller);
        let cached = version.and_then(|v| dir.node.cached(name, v));
        let node = match cached.or_else(|| self.mounted(dir, name, version)) {
            Some(node) => node,
            None => {
                let found = self.wait.finish(inode.lookup(self.caller, name))?;
                dir.node.child(name, found, version)
            }
        };
        Ok(self.vfs.cross(Place { mount: dir.mount.clone(), node }))
    }

    /// A mount point of this kernel in another kernel's directory, for a caller who may search every directory: there is nothing to ask.
    fn mounted(&self, dir: &Place, name: &[u8], version: Option<u64>) -> Option<Arc<Node>> {
        let may = || self.caller.can(cap::DAC_OVERRIDE) || self.caller.can(cap::DAC_READ_SEARCH);
        if version.is_none() && may() { dir.node.mounted(name) } else { None }
    }

    /// Follows `link`, found in `dir`: where it leads.
    pub(crate) fn jump(&self, link: &Place, links: &mut u32) -> Result<Jump> {
        *links += 1;
        if *links > MAX_LINKS {
            return Err(LOOP);
        }
        if let Some(place) = self.wait.finish(link.inode().follow(self.caller))? {
            return Ok(Jump::Place(place));
        }
        let target = self.wait.finish(link.inode().read_link(self.caller))?;
        if target.is_empty() { Err(NO_ENTRY) } else { Ok(Jump::Path(target)) }
    }

    fn run(&self, start: Place, path: &[u8], follow: Follow, parent: bool, links: &mut u32) -> Result<End> {
        if path.is_empty() {
            return Err(NO_ENTRY);
        }
        if path.len() >= PATH_MAX {
            return Err(Error::new(Errno::ENAMETOOLONG, "path too long"));
        }
        let mut rest = path;
        let mut here = if rest.first() == Some(&b'/') { self.root.clone() } else { start };
        loop {
            let skip = rest.iter().take_while(|b| **b == b'/').count();
            rest = rest.get(skip..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(End::Place(here));
            }
            if here.kind() != FileKind::Directory {
                return Err(NOT_DIR);
            }
            let len = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let (name, after) = rest.split_at(len);
            let slash = !after.is_empty();
            let last = after.iter().all(|b| *b == b'/');
            if last && parent {
                return Ok(End::Parent(here, Last { name: name.into(), slash }));
            }
            match name {
                b"." => self.may_search(&here)?,
                b".." => {
                    self.may_search(&here)?;
                    here = here.up(&self.root);
                }
                _ => {
                    let next = self.step(&here, name)?;
                    let kind = next.kind();
                    if kind == FileKind::Symlink && (!last || slash || follow == Follow::Yes) {
                        match self.jump(&next, links)? {
                            Jump::Place(place) => here = place,
                            Jump::Path(mut target) => {
                                if target.first() == Some(&b'/') {
                                    here = self.root.clone();
                                }
                                target.extend_from_slice(after);
                                return self.go_on(here, &target, follow, parent, links);
                            }
                        }
                    } else {
                        here = next;
                    }
                    if (slash || !last) && here.kind() != FileKind::Directory {
                        return Err(NOT_DIR);
                    }
                }
            }
            rest = after;
        }
    }

    /// After a link: the same walk over what is left. As deep as there are links, at most [`MAX_LINKS`].
    #[cold]
    fn go_on(&self, here: Place, path: &[u8], follow: Follow, parent: bool, links: &mut u32) -> Result<End> {
        self.run(here, path, follow, parent, links)
    }

    fn may_search(&self, dir: &Place) -> Result<()> {
        if dir.inode().names_version(self.caller).is_some() {
            return Ok(());
        }
        self.wait.finish(dir.inode().access(self.caller, Access::EXECUTE))
    }
}

/// Where a symbolic link leads.
pub(crate) enum Jump {
    /// To a place (links of `/proc`).
    Place(Place),
    /// To a path, relative to the directory of the link.
    Path(Vec<u8>),
}

/// Whether `a` and `b` are on one mount.
pub(crate) fn same_mount(a: &Place, b: &Place) -> Result<()> {
    if Arc::ptr_eq(&a.mount, &b.mount) { Ok(()) } else { Err(Error::new(Errno::EXDEV, "another file system")) }
}

/// Checks that `inode` is a directory.
pub(crate) fn directory(inode: &Arc<dyn Inode>) -> Result<()> {
    if inode.kind() == FileKind::Directory { Ok(()) } else { Err(NOT_DIR) }
}
