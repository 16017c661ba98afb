//! Starting the kernels that the plan says this one starts.

use alloc::format;
use alloc::string::{String, ToString};

use bootblock::BootBlock;
use hal::addr::PhysAddr;
use hal::boot::PhysRange;
use hal::cpuref::{BootLoan, BootToken, CpuRef};

use crate::facts::{Facts, IMAGE};

/// Loads the image of kernel `index` into its memory and starts its first CPU. It says itself that it runs, in its porch.
///
/// # Errors
/// A sentence about what went wrong; the target does not run then.
pub fn start(facts: &Facts, index: u16, incarnation: u32, epoch: u64, image: &[u8]) -> Result<(), String> {
    let kernel = facts.plan.kernel(index).ok_or("the plan knows no such kernel")?;
    let cpu = kernel.boot_cpu().ok_or("it has no CPU")?;
    let page = kernel.low_page.ok_or("it has no low page")?;
    let first = kernel.memory.first().ok_or("it has no memory")?;
    let archive = facts.info.archive;
    let block = BootBlock {
        index,
        starter: facts.info.index,
        incarnation,
        archive: (archive.start.0, archive.len),
        epoch,
        plan: &facts.text,
        command_line: &facts.command_line,
    }
    .encode();
    if block.len() as u64 > plan::BOOT_BLOCK_SIZE {
        return Err("the plan is too long for a boot block".to_string());
    }
    let token = BootToken::for_boot();
    let say = |why: hal::cpuref::Refused| format!("kernel {index}: {}", why.0);
    let loan = BootLoan::new(&token, PhysRange::new(first.start, first.size)).map_err(say)?;
    // Porch and boot block: nothing of a former life may be seen.
    if !loan.zero(0, plan::BOOT_BLOCK_OFFSET + plan::BOOT_BLOCK_SIZE) || !loan.write(plan::BOOT_BLOCK_OFFSET, &block) {
        return Err("its memory is too small".to_string());
    }
    loan.load_image(plan::IMAGE_OFFSET, image).map_err(say)?;
    let cpu = CpuRef::new(cpu.hardware).map_err(say)?;
    cpu.start(&token, PhysAddr(page), kernel.base()).map_err(say)
}

/// Starts all kernels that this one is to start at boot, and says what became of each.
pub fn start_all(facts: &Facts, epoch: u64, archive: &[u8]) {
    let Some(image) = crate::facts::file(archive, IMAGE) else {
        log::error!("the archive has no {IMAGE}: no peer can be started");
        return;
    };
    for kernel in facts.plan.starts(facts.info.index) {
        match start(facts, kernel.index, 1, epoch, image) {
            Ok(()) => log::info!("started kernel {}", kernel.index),
            Err(why) => log::error!("cannot start kernel {}: {why}", kernel.index),
        }
    }
}
