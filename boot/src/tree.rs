//! The file tree that the first program finds: the archive as root, `/dev` on it.

use alloc::sync::Arc;

use base::{Result, wait::Try};
use vfs::devfs::DevFs;
use vfs::tmpfs::{self, TmpfsType};
use vfs::{Caller, FileKind, Follow, OpenFile, OpenFlags, Status, Walk};

use crate::devices::{AGENT, AGENT_NAME, Devices};

/// Waits for nothing: at boot everything is local.
struct Never;

impl vfs::WaitOps for Never {
    fn wait(&self, _: &mut dyn vfs::caller::Waitable) -> Result<()> {
        Err(base::Errno::EAGAIN.into())
    }
}

/// Makes the tree of `kernel`; where `/proc/cob` and others are filled in.
///
/// # Errors
/// What is wrong with the archive.
pub fn make(
    kernel: &Arc<task::Kernel>,
    archive: &'static [u8],
    devices: &Devices,
    command_line: &str,
) -> Result<procfs::Trees> {
    let vfs = kernel.vfs();
    let trees = procfs::install(kernel, None, command_line);
    vfs.add_type(Arc::new(TmpfsType("tmpfs")));
    vfs.add_type(Arc::new(TmpfsType("ramfs")));
    vfs.mount_root(tmpfs::archive::load(vfs, archive)?, "rootfs", "rootfs")?;
    vfs::tty::pty::install(vfs);
    devices.register(vfs);
    let dev = DevFs::install(vfs)?;
    if devices.agent.is_some() {
        dev.add(AGENT_NAME, FileKind::Char, AGENT, 0o600)?;
    }
    let root = vfs.root()?;
    let caller = Caller::kernel();
    let walk = Walk { vfs, caller: &caller, root: root.clone(), start: root, wait: &Never };
    if let Ok(at) = walk.find(b"/dev", Follow::Yes) {
        vfs.mount(&caller, at, "devtmpfs", "devtmpfs", "", vfs::place::MountFlags::empty())?;
    }
    Ok(trees)
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
