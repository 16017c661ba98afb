//! Starting a peer: its CPUs stopped, its memory filled, its first CPU started. Whoever calls holds the leave to do so (`ssi/life`). For a peer on another
//! board see [`crate::far`].

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bootblock::BootBlock;
use hal::addr::PhysAddr;
use hal::boot::PhysRange;
use hal::cpuref::{BootLoan, BootToken, CpuRef, FenceToken, Fenced, Refused};

use base::KernelId;
use cluster::{Far as _, Starter};
use virtio_net::Card;

use crate::facts::{self, Facts};
use crate::far::Boards;
use crate::managed::Managed;

/// Starts peers.
pub struct Images {
    /// What this kernel is.
    pub facts: Arc<Facts>,
    /// Seconds since 1970 at time 0.
    pub epoch: u64,
    /// The other boards of a mixed machine.
    pub boards: Option<Arc<Boards>>,
    /// The network of a machine whose boards share nothing else.
    pub managed: Option<Arc<Managed<Arc<Card>>>>,
}

/// Where a kernel is that another one wants to start or stop.
enum Place<'a> {
    /// On this board.
    Here,
    /// On a board that this one sees: its number.
    Seen(usize, &'a Boards),
    /// On a board with which this one shares nothing: its number.
    Apart(usize),
}

impl Images {
    fn place(&self, index: u16) -> Place<'_> {
        let board = |index| self.facts.plan.kernel(index).map(|kernel| kernel.board);
        match (board(index).filter(|of| board(self.facts.info.index) != Some(*of)), &self.boards) {
            (None, _) => Place::Here,
            (Some(board), Some(boards)) => Place::Seen(board, boards),
            (Some(board), None) => Place::Apart(board),
        }
    }
}

impl Starter for Images {
    fn image(&self, index: u16) -> Result<Option<&'static str>, String> {
        let kernel = self.facts.plan.kernel(index).ok_or("the plan knows no such kernel")?;
        match self.place(index) {
            Place::Here => Ok(Some(facts::image(kernel.isa))),
            Place::Seen(0, _) => Err("firmware starts its board: it has no stub that would wait".to_string()),
            Place::Seen(..) => Ok(Some(facts::image(kernel.isa))),
            Place::Apart(0) => Err("its board has the console: it is not switched off and on".to_string()),
            Place::Apart(board) => match self.facts.plan.primary(board) {
                Some(first) if first.index != index => Err(format!(
                    "no kernel of its board is up: boot kernel {} first, which firmware starts",
                    first.index
                )),
                _ => Ok(None),
            },
        }
    }

    fn start(&self, kernel: KernelId, image: &[u8]) -> Result<(), String> {
        let facts = &self.facts;
        match self.place(kernel.index) {
            Place::Seen(_, boards) => {
                boards.start(kernel.index, &block(facts, kernel, self.epoch, PhysRange::new(0, 0)), image)
            }
            Place::Here => start(facts, kernel.index, &block(facts, kernel, self.epoch, facts.info.archive), image),
            Place::Apart(board) => {
                let managed = self.managed.as_ref().ok_or("this kernel has no network card")?;
                Ok(managed.start(board, kernel)?)
            }
        }
    }

    fn stop(&self, index: u16) -> Fenced {
        match self.place(index) {
            Place::Seen(board, boards) => boards.stop(board),
            Place::Here => stop(&self.facts, index),
            Place::Apart(board) => self.managed.as_ref().map_or(Fenced::Lost, |managed| managed.stop(board)),
        }
    }
}

/// What a started kernel is told. `archive` is empty if the loader of its board tells it.
fn block(facts: &Facts, kernel: KernelId, epoch: u64, archive: PhysRange) -> Vec<u8> {
    BootBlock {
        index: kernel.index,
        starter: facts.info.index,
        incarnation: kernel.incarnation,
        archive: (archive.start.0, archive.len),
        epoch,
        plan: &facts.text,
        command_line: &facts.command_line,
    }
    .encode()
}

/// Stops all CPUs that the plan gives to kernel `index`, and says how sure that is.
fn stop(facts: &Facts, index: u16) -> Fenced {
    let token = FenceToken::for_fence();
    let mut least = Fenced::Reset;
    for cpu in facts.plan.kernel(index).into_iter().flat_map(|kernel| &kernel.cpus) {
        let fenced = CpuRef::new(cpu.hardware).map_or(Fenced::Lost, |cpu| cpu.fence(&token));
        least = match (least, fenced) {
            (_, Fenced::Lost) | (Fenced::Lost, _) => Fenced::Lost,
            (_, Fenced::Parked) | (Fenced::Parked, _) => Fenced::Parked,
            (Fenced::Reset, Fenced::Reset) => Fenced::Reset,
        };
    }
    least
}

/// Loads `image` into the memory of kernel `index` and starts its first CPU. It says itself that it runs, in its porch.
///
/// # Errors
/// A sentence about what went wrong; the target does not run then.
fn start(facts: &Facts, index: u16, block: &[u8], image: &[u8]) -> Result<(), String> {
    let kernel = facts.plan.kernel(index).ok_or("the plan knows no such kernel")?;
    let cpu = kernel.boot_cpu().ok_or("it has no CPU")?;
    // Where CPUs need no page below 1 MiB to start, they start at the image.
    let page = kernel.low_page.unwrap_or(kernel.image_base());
    let first = kernel.memory.first().ok_or("it has no memory")?;
    if block.len() as u64 > plan::BOOT_BLOCK_SIZE {
        return Err("the plan is too long for a boot block".to_string());
    }
    // Whatever ran there stands still before its memory is touched.
    if stop(facts, index) == Fenced::Lost {
        return Err("its CPUs cannot be stopped".to_string());
    }
    let token = BootToken::for_boot();
    let say = |why: Refused| format!("kernel {index}: {}", why.0);
    let loan = BootLoan::new(&token, PhysRange::new(first.start, first.size)).map_err(say)?;
    // Porch and boot block: nothing of a former life may be seen.
    if !loan.zero(0, plan::BOOT_BLOCK_OFFSET + plan::BOOT_BLOCK_SIZE) || !loan.write(plan::BOOT_BLOCK_OFFSET, block) {
        return Err("its memory is too small".to_string());
    }
    loan.load_image(plan::IMAGE_OFFSET, image).map_err(say)?;
    drop(loan);
    let cpu = CpuRef::new(cpu.hardware).map_err(say)?;
    cpu.start(&token, PhysAddr(page), kernel.base()).map_err(say)
}
