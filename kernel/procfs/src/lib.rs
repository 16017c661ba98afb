//! `/proc` as a file system, proc(5). What the files say is made by `proc` from plain facts; here are the names and the facts.
//!
//! * `facts.rs`: the facts of this kernel's processes and of the machine.
//! * `inode.rs`: directories, texts and links.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod facts;
mod inode;

use alloc::string::String;
use alloc::sync::{Arc, Weak};

use base::{Errno, Error, Result};
use task::Kernel;
use vfs::mounts::FsType;
use vfs::{Device, Inode, Vfs};

use inode::{Node, What};

/// `proc` for mount(2).
pub struct ProcType {
    kernel: Weak<Kernel>,
    command_line: String,
}

impl ProcType {
    /// For this kernel, which was started with `command_line`.
    pub fn new(kernel: &Arc<Kernel>, command_line: &str) -> Arc<Self> {
        Arc::new(Self { kernel: Arc::downgrade(kernel), command_line: command_line.into() })
    }
}

impl FsType for ProcType {
    fn name(&self) -> &str {
        "proc"
    }

    fn mount(&self, vfs: &Arc<Vfs>, _: &str, _: &str) -> Result<Arc<dyn Inode>> {
        let fs = Arc::new(ProcFs {
            kernel: self.kernel.clone(),
            vfs: Arc::downgrade(vfs),
            device: vfs.new_device(),
            command_line: self.command_line.clone(),
        });
        Ok(Node::new(&fs, What::Root))
    }
}

/// One mounted `/proc`.
pub(crate) struct ProcFs {
    kernel: Weak<Kernel>,
    vfs: Weak<Vfs>,
    device: Device,
    command_line: String,
}

impl ProcFs {
    fn kernel(&self) -> Result<Arc<Kernel>> {
        self.kernel.upgrade().ok_or(Error::new(Errno::EIO, "the kernel is going away"))
    }
}
