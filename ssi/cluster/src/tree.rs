//! The file tree that programs find: the archive as root, `/dev` on it. A kernel that joined others puts theirs over its own.

use alloc::sync::Arc;
use alloc::vec::Vec;

use base::io::VecSink;
use base::{KernelId, Result, wait::Try};
use files::FileService;
use procfs::ProcessView;
use task::Task;
use vfs::devfs::DevFs;
use vfs::tmpfs::{self, TmpfsType};
use vfs::{Caller, Device, FileKind, Follow, Inode, Mount, OpenFile, OpenFlags, ReadOut, Status, Vfs, Walk};
use wire::files::tree;

/// What this kernel has by itself; it stays when the kernel whose tree is seen dies.
pub struct Own {
    /// For those who add files to `/proc`.
    pub trees: procfs::Trees,
    /// The archive as a tree.
    pub root: Arc<dyn Inode>,
    /// `/dev`.
    pub dev: Arc<dyn Inode>,
    /// `/dev/pts`.
    pub pts: Arc<dyn Inode>,
    /// `/dev`, for devices that come later.
    pub devfs: Arc<DevFs>,
    /// Where it is mounted: everything else is of the machine's tree.
    pub mounts: Vec<Arc<Mount>>,
}

/// A device in `/dev`: name, kind, number, mode.
pub type Node = (&'static str, FileKind, Device, u32);

/// Waits for nothing: at boot everything is local.
struct Never;

impl vfs::WaitOps for Never {
    fn wait(&self, _: &mut dyn vfs::caller::Waitable) -> Result<()> {
        Err(base::Errno::EAGAIN.into())
    }
}

/// The devices of a kernel, as far as its tree has to do with them.
pub trait Devices {
    /// Makes them known to the tree.
    fn register(&self, vfs: &Vfs);
    /// What `/dev` shows beside what every kernel has.
    fn nodes(&self) -> Vec<Node>;
}

/// Makes the tree of `kernel`, with `processes` in `/proc` (its own without peers); where `/proc/cob` and others are filled in.
///
/// # Errors
/// What is wrong with the archive.
pub fn make(
    kernel: &Arc<task::Kernel>,
    processes: Option<Arc<dyn ProcessView>>,
    archive: &'static [u8],
    devices: &dyn Devices,
    command_line: &str,
) -> Result<Own> {
    let vfs = kernel.vfs();
    let trees = procfs::install(kernel, processes, command_line);
    vfs.add_type(Arc::new(TmpfsType("tmpfs")));
    vfs.add_type(Arc::new(TmpfsType("ramfs")));
    let tree: Arc<dyn Inode> = tmpfs::archive::load(vfs, archive)?;
    vfs.mount_root(tree.clone(), "rootfs", "rootfs")?;
    vfs::tty::pty::install(vfs);
    devices.register(vfs);
    let dev = DevFs::install(vfs)?;
    for (name, kind, number, mode) in devices.nodes() {
        dev.add(name, kind, number, mode)?;
    }
    let root = vfs.root()?;
    let caller = Caller::kernel();
    let walk = Walk { vfs, caller: &caller, root: root.clone(), start: root, wait: &Never };
    if let Ok(at) = walk.find(b"/dev", Follow::Yes) {
        vfs.mount(&caller, at, "devtmpfs", "devtmpfs", "", vfs::place::MountFlags::empty())?;
    }
    let (mounts, pts) = (vfs.mounts(), vfs.ptys.root(vfs)?);
    Ok(Own { trees, root: tree, dev: dev.root().clone(), pts, devfs: dev, mounts })
}

/// Waits in a kernel thread.
pub struct InThread<'a>(pub &'a Arc<Task>);

impl vfs::WaitOps for InThread<'_> {
    fn wait(&self, op: &mut dyn vfs::caller::Waitable) -> Result<()> {
        op.notify(self.0.clone());
        loop {
            self.0.begin_wait();
            if op.ready() {
                return Ok(());
            }
            self.0.park();
        }
    }
}

/// Puts the tree of `home` over this kernel's own: from now on programs here see the same files as there. Called in a kernel thread.
///
/// # Errors
/// `EHOSTDOWN` if `home` died meanwhile.
pub fn see(kernel: &Arc<task::Kernel>, files: &Arc<FileService>, home: KernelId, thread: &Arc<Task>) -> Result<()> {
    let wait: &dyn vfs::WaitOps = &InThread(thread);
    let vfs = kernel.vfs();
    let caller = Caller::kernel();
    let over = |at, inode, name: &str| {
        vfs.attach(at, inode, name, name, "", vfs::place::MountFlags::empty());
    };
    let root = wait.finish(files.root_of(home, tree::ROOT))?;
    let dev = wait.finish(files.root_of(home, tree::DEVICES))?;
    let pts = wait.finish(files.root_of(home, tree::PTYS))?;
    let at = vfs.root()?;
    over(at, root, "rootfs");
    let find = |path: &[u8]| {
        let root = vfs.root()?;
        Walk { vfs, caller: &caller, start: root.clone(), root, wait }.find(path, Follow::Yes)
    };
    over(find(b"/dev")?, dev, "devtmpfs");
    over(find(b"/dev/pts")?, pts, "devpts");
    mount_own(kernel, wait)
}

/// Mounts what every kernel serves itself: `/proc` and `/sys` show the whole machine.
fn mount_own(kernel: &Arc<task::Kernel>, wait: &dyn vfs::WaitOps) -> Result<()> {
    let vfs = kernel.vfs();
    let caller = Caller::kernel();
    for (path, kind) in [(&b"/proc"[..], "proc"), (b"/sys", "sysfs")] {
        let root = vfs.root()?;
        let at = Walk { vfs, caller: &caller, start: root.clone(), root, wait }.find(path, Follow::Yes)?;
        vfs.mount(&caller, at, kind, kind, "", vfs::place::MountFlags::empty())?;
    }
    Ok(())
}

/// Makes this kernel's own tree the one that is shown, with all that the first program mounts in a machine that starts.
///
/// # Errors
/// What is wrong with the archive.
pub fn complete(kernel: &Arc<task::Kernel>, own: &Own, thread: &Arc<Task>) -> Result<()> {
    let wait: &dyn vfs::WaitOps = &InThread(thread);
    let vfs = kernel.vfs();
    let caller = Caller::kernel();
    let root = vfs.root()?;
    let at = Walk { vfs, caller: &caller, start: root.clone(), root, wait }.find(b"/dev/pts", Follow::Yes)?;
    vfs.attach(at, own.pts.clone(), "devpts", "devpts", "", vfs::place::MountFlags::empty());
    mount_own(kernel, wait)
}

/// Programs whose working directory or root is in one of the mounts that are gone find themselves at the same path of the tree that is there now. Where that has no
/// such directory they stay where nothing is: everything there says `EHOSTDOWN`, and absolute paths work.
pub fn relocate(kernel: &Arc<task::Kernel>, gone: &[Arc<Mount>], wait: &dyn vfs::WaitOps) {
    let vfs = kernel.vfs();
    let caller = Caller::kernel();
    let again = |place: Result<vfs::Place>| {
        let place = place.ok().filter(|place| gone.iter().any(|m| Arc::ptr_eq(m, &place.mount)))?;
        let root = vfs.root().ok()?;
        let (path, there) = place.path(None);
        if !there {
            return None;
        }
        let found = Walk { vfs, caller: &caller, start: root.clone(), root, wait }.find(&path, Follow::Yes).ok()?;
        (found.kind() == FileKind::Directory).then_some(found)
    };
    // Who is forked from a program that was not yet looked at comes next time.
    let mut some = true;
    while core::mem::take(&mut some) {
        for fs in kernel.table.processes().iter().flat_map(|p| p.threads()).map(|task| task.fs()) {
            if let Some(root) = again(fs.root()) {
                fs.set_root(root);
                some = true;
            }
            if let Some(cwd) = again(fs.cwd()) {
                fs.set_cwd(cwd);
                some = true;
            }
        }
    }
}

/// What the first program has as its standard streams.
pub fn console(kernel: &Arc<task::Kernel>) -> Option<Arc<dyn OpenFile>> {
    let vfs = kernel.vfs();
    let root = vfs.root().ok()?;
    let caller = Caller::kernel();
    let walk = Walk { vfs, caller: &caller, root: root.clone(), start: root, wait: &Never };
    let place = walk.find(b"/dev/console", Follow::Yes).ok()?;
    let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::NO_CTTY;
    match place.inode().clone().open(&caller, flags, Status::empty(), place.clone()) {
        Ok(Try::Done(file)) => Some(file),
        _ => None,
    }
}

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// The bytes of a file, read through the tree that programs see. Called in a kernel thread.
///
/// # Errors
/// `ENOENT`, `EFBIG` beyond `limit`, and what its file system says.
pub fn read_file(kernel: &Arc<task::Kernel>, path: &str, limit: usize, thread: &Arc<Task>) -> Result<Vec<u8>> {
    let wait: &dyn vfs::WaitOps = &InThread(thread);
    let vfs = kernel.vfs();
    let caller = Caller::kernel();
    let root = vfs.root()?;
    let walk = Walk { vfs, caller: &caller, start: root.clone(), root, wait };
    let place = walk.find(path.as_bytes(), Follow::Yes)?;
    let inode = place.inode().clone();
    let file = wait.finish(inode.open(&caller, OpenFlags::READ, Status::empty(), place))?;
    let size = usize::try_from(wait.finish(file.stat())?.size).unwrap_or(usize::MAX);
    if size > limit {
        return Err(base::Errno::EFBIG.into());
    }
    let mut bytes = Vec::with_capacity(size);
    loop {
        let mut piece = VecSink::new(PIECE);
        let read = wait.finish(file.read_at(&caller, bytes.len() as u64, &mut piece))?;
        let piece = match read {
            ReadOut::InPlace(_) => piece.bytes,
            ReadOut::Bytes(bytes) | ReadOut::Part(bytes) => bytes,
        };
        if piece.is_empty() {
            return Ok(bytes);
        }
        if bytes.len() + piece.len() > limit {
            return Err(base::Errno::EFBIG.into());
        }
        bytes.extend_from_slice(&piece);
        hal::cpu::breathe();
    }
}
