//! From facts to a running kernel: its memory, its clocks, its tasks, its CPUs.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use base::KernelId;
use base::id::ObjectIds;
use hal::sync::Once;
use mm::Memory;
use mm::vdso::Vdso;
use task::kernel::{Hooks, Power};
use task::{Abi, Kernel};

use crate::devices::Devices;
use crate::facts::Facts;

/// What `uname -v` shows.
const VERSION: &str = concat!("#1 SMP Cob ", env!("CARGO_PKG_VERSION"));

/// The kernel of this image, for CPUs that start later: they come with nothing but their number.
static KERNEL: Once<Arc<Kernel>> = Once::new();

/// What the kernel asks of the image.
struct Lent {
    devices: Arc<Devices>,
}

impl Hooks for Lent {
    fn power(&self, what: Power) {
        match what {
            Power::Off | Power::Halt => hal::cpu::power_off(true),
            Power::Restart => hal::cpu::reset(),
        }
    }

    fn irq(&self, line: u32) {
        self.devices.interrupt(line);
    }

    fn doorbell(&self) {
        if let Some(peers) = crate::member::peers() {
            peers.doorbell();
        }
    }

    fn idle(&self, has_work: &dyn Fn() -> bool) -> bool {
        match crate::member::peers() {
            Some(peers) => peers.links().idle(&Cpu(has_work)),
            None => {
                hal::cpu::idle_wait();
                true
            }
        }
    }
}

/// This CPU, as the links may use it while it has nothing to do.
struct Cpu<'a>(&'a dyn Fn() -> bool);

impl link::polling::IdleCpu for Cpu<'_> {
    fn has_work(&self) -> bool {
        (self.0)()
    }

    fn breathe(&self) {
        hal::cpu::breathe();
    }

    fn sleep(&self) {
        hal::cpu::idle_wait();
    }
}

/// Makes the kernel: everything but files and peers. Interrupts are not let in before [`run`].
///
/// # Errors
/// A sentence for the log.
pub fn make(facts: &Facts, epoch: u64, devices: Arc<Devices>, abi: &'static dyn Abi) -> Result<Arc<Kernel>, String> {
    let id = KernelId { index: facts.info.index, incarnation: facts.info.incarnation };
    let ids = Arc::new(ObjectIds::new(id));
    let memory = Memory::new(ids.clone()).map_err(|_| String::from("no memory"))?;
    if let Ok(Some((data, image))) = hal::vdso::make() {
        memory.set_vdso(Vdso { data: alloc::vec![data], image });
    }
    let about = task::Facts {
        id,
        isa: crate::facts::ISA,
        name: facts.plan.name.clone(),
        kernels: facts.plan.kernels.len() as u16,
        version: String::from(VERSION),
    };
    let kernel = Kernel::new(about, memory, ids, abi);
    kernel.clocks.set_realtime((epoch * 1_000_000_000).wrapping_add(hal::time::now()) as i64);
    kernel.set_hooks(Box::new(Lent { devices }));
    if !hal::boot::install(kernel.handlers()) || KERNEL.set(kernel.clone()).is_err() {
        return Err(String::from("there is a kernel already"));
    }
    Ok(kernel)
}

/// Starts the other CPUs, then makes this one run tasks.
pub fn run(kernel: &Arc<Kernel>) -> ! {
    for slot in 1..hal::cpu::count() {
        if let Err(why) = hal::cpu::start(slot, another_cpu) {
            log::error!("CPU {slot}: {}", why.0);
        }
    }
    kernel.run_cpu()
}

fn another_cpu(_slot: usize) -> ! {
    match KERNEL.get() {
        Some(kernel) => kernel.run_cpu(),
        None => panic!("a CPU was started before its kernel"),
    }
}
