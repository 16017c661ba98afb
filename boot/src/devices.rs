//! The devices of this kernel: what the plan gives it, as far as a driver exists.

use hal::io::{IrqLine, Ports};
use hal::sync::{SpinLock, rank};
use hal_virtio::pci::Ecam;
use ns16550::{Registers, Uart};
use plan::{Device, Kernel};
use virtio_console::{Console, DEVICES, VENDOR};

/// First port and interrupt line of COM1.
const COM1: (u16, u32) = (0x3f8, 4);
/// Buses behind the host bridge that are looked at: emulated machines have one.
const BUSES: u16 = 1;

/// The registers of COM1.
pub struct Com(Ports);

impl Registers for Com {
    fn read(&mut self, offset: u8) -> u8 {
        self.0.read8(u16::from(offset))
    }
    fn write(&mut self, offset: u8, value: u8) {
        self.0.write8(u16::from(offset), value);
    }
}

/// The serial port and its line.
pub struct Serial {
    /// The port.
    pub uart: SpinLock<Uart<Com>>,
    /// Its interrupt line.
    pub line: IrqLine,
}

/// The channel that `cob exec` speaks through.
pub struct Agent {
    /// The port.
    pub console: SpinLock<Console>,
    /// The line that interrupts name.
    pub line: u32,
}

/// What was found.
#[derive(Default)]
pub struct Devices {
    /// COM1.
    pub serial: Option<Serial>,
    /// The agent's channel.
    pub agent: Option<Agent>,
}

impl Devices {
    /// Takes over what the plan gives to `kernel`. What does not work is said in the log and left out.
    pub fn find(kernel: &Kernel, ecam: Option<u64>) -> Self {
        let mut found = Self::default();
        if kernel.has(Device::Com1) {
            let ports = Ports::new(COM1.0, 8);
            match ports.and_then(|p| Ok((p, IrqLine::enable(COM1.1)?))) {
                Ok((ports, line)) => {
                    let uart = SpinLock::new(rank::DRIVER, Uart::new(Com(ports)));
                    found.serial = Some(Serial { uart, line });
                }
                Err(why) => log::error!("com1: {}", why.0),
            }
        }
        if kernel.has(Device::Agent)
            && let Some(base) = ecam
        {
            found.agent = agent(base);
        }
        found
    }

    /// Serves an interrupt line or vector.
    pub fn interrupt(&self, line: u32) {
        if let Some(serial) = &self.serial
            && serial.line.line() == line
        {
            serial.uart.lock().interrupt(|_| {});
        }
    }
}

fn agent(base: u64) -> Option<Agent> {
    let ecam = Ecam::new(base, BUSES).map_err(|why| log::error!("pci: {}", why.0)).ok()?;
    let (at, ..) = ecam.functions().into_iter().find(|(_, v, d)| *v == VENDOR && DEVICES.contains(d))?;
    match Console::new(&ecam, at, 0) {
        Ok(console) => {
            let line = console.line();
            Some(Agent { console: SpinLock::new(rank::DRIVER, console), line })
        }
        Err(why) => {
            log::error!("agent: {}", why.0);
            None
        }
    }
}
