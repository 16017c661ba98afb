//! The other boards of a mixed machine: their memory behind windows, their bells, and the controller that switches them on and off.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use boardctl::Order;
use cluster::Far;
use hal::boot::{PciHost, PhysRange};
use hal::cpuref::{BootLoan, BootToken, Fenced, Refused};
use ivshmem::Bells;
use link::window::Reach;
use plan::{Kernel, Plan};

use crate::facts::Facts;

/// Bytes of the page in front of what is left for a board: what the stub reads.
const HEAD: u64 = 0x1000;

/// See the module.
pub struct Boards {
    facts: Arc<Facts>,
    /// Where this board sees the RAM of each other one.
    windows: Vec<Option<PhysRange>>,
    bells: Arc<Bells>,
}

impl Boards {
    /// What this board sees of the others. `None` if there are none.
    ///
    /// # Errors
    /// A sentence about what is missing.
    pub fn find(facts: &Arc<Facts>, host: Option<PciHost>) -> Result<Option<Arc<Self>>, String> {
        let plan = &facts.plan;
        let own = plan.kernel(facts.info.index).map_or(0, |kernel| kernel.board);
        if !plan.is_mixed() {
            return Ok(None);
        }
        let host = host.ok_or("no PCI: the other boards cannot be reached")?;
        let ecam = crate::devices::open(host).map_err(|why| why.0.to_string())?;
        let window = |board| match ivshmem::window(&ecam, Plan::window_slot(board)) {
            Ok(range) => Some(range),
            Err(why) => {
                log::error!("the memory of board {board}: {}", why.0);
                None
            }
        };
        let windows = (0..plan.boards.len()).map(|board| if board == own { None } else { window(board) }).collect();
        let bells = Bells::new(&ecam, Plan::BELL_SLOT).map_err(|why| format!("the bells of the boards: {}", why.0))?;
        if bells.position() as usize != own {
            return Err(format!("this is board {own} by the plan but board {} by its bells", bells.position()));
        }
        Ok(Some(Arc::new(Self { facts: facts.clone(), windows, bells })))
    }

    /// The bell of this board rang.
    pub fn is_bell(&self, line: u32) -> bool {
        self.bells.line() == line
    }

    /// A piece of a board's RAM, at this board's addresses.
    pub fn locate(&self, board: usize, range: PhysRange) -> Option<PhysRange> {
        let window = (*self.windows.get(board)?)?;
        let offset = self.facts.plan.boards.get(board)?.ram_offset(range.start.0)?;
        (offset.checked_add(range.len)? <= window.len).then(|| PhysRange::new(window.start.0 + offset, range.len))
    }

    fn order(&self, board: usize, order: Order) -> Result<(), Refused> {
        self.bells.order(board, self.facts.plan.boards.len() as u16, order)
    }

    /// Leaves boot block and image for a kernel of another board, which stands still, and switches that on: its stub puts them in their place.
    ///
    /// # Errors
    /// A sentence about what went wrong; it does not run then.
    pub fn start(&self, index: u16, block: &[u8], image: &[u8]) -> Result<(), String> {
        let kernel = self.facts.plan.kernel(index).ok_or("the plan knows no such kernel")?;
        if block.len() as u64 > plan::BOOT_BLOCK_SIZE {
            return Err("the plan is too long for a boot block".to_string());
        }
        let say = |why: Refused| format!("kernel {index}: {}", why.0);
        self.order(kernel.board, Order::Stop).map_err(say)?;
        let token = BootToken::for_boot();
        let lend = |from: u64, to: u64| {
            let range = self.locate(kernel.board, PhysRange::new(kernel.base() + from, to - from));
            BootLoan::new(&token, range.ok_or(Refused("its memory cannot be reached"))?)
        };
        let loan = lend(plan::STAGE_OFFSET + HEAD, plan::STUB_OFFSET).map_err(say)?;
        // Nothing of a former life may be seen.
        if !loan.zero(0, plan::IMAGE_OFFSET) || !loan.write(plan::BOOT_BLOCK_OFFSET, block) {
            return Err("its memory is too small".to_string());
        }
        let end = loan.load_image(plan::IMAGE_OFFSET, image).map_err(say)?;
        drop(loan);
        let head = lend(plan::STAGE_OFFSET, plan::STAGE_OFFSET + HEAD).map_err(say)?;
        // The stub copies 16 bytes at a time.
        let words = [plan::STAGE_MAGIC.to_le_bytes(), end.next_multiple_of(16).to_le_bytes()];
        if !head.write(0, words.as_flattened()) {
            return Err("its memory is too small".to_string());
        }
        drop(head);
        self.order(kernel.board, Order::Start).map_err(say)
    }
}

impl Far for Boards {
    fn reach(&self, kernel: &Kernel) -> Option<Reach> {
        let pieces = kernel.memory.iter().map(|r| self.locate(kernel.board, PhysRange::new(r.start, r.size)));
        let memory = pieces.collect::<Option<Vec<_>>>()?;
        Some(Reach { index: kernel.index, memory, bell: Some(self.bells.of(kernel.board as u16)), executable: false })
    }

    fn stop(&self, board: usize) -> Fenced {
        match self.order(board, Order::Stop) {
            Ok(()) => Fenced::Reset,
            Err(why) => {
                log::error!("board {board}: {}", why.0);
                Fenced::Lost
            }
        }
    }
}
