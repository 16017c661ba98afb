//! The devices of this kernel: what the plan gives it, as far as a driver exists, and how programs reach them.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::far::Boards;
use base::io::{Sink, Source};
use base::wait::{Try, done};
use base::{Errno, Ready, Subscription, TryResult, Wake};
use cluster::Hardware;
use cluster::tree::{Devices as _, Node};
use hal::boot::{PciHost, SerialPort};
use hal::io::{IrqLine, Mmio, Ports, Refused};
use hal::sync::{Once, SpinLock, rank};
use hal_virtio::Error;
use hal_virtio::pci::Ecam;
use ns16550::{Registers, Uart};
use pl011::Pl011;
use vfs::device::Driver;
use vfs::local::{FileOps, Wrote};
use vfs::tty::{Port, Tty};
use vfs::{Caller, Device, FileKind, LocalFile, OpenFile, OpenFlags, Place, Status, Vfs, Waiters};
use virtio_console::{Console, DEVICES, VENDOR};
use virtio_net::Card;

/// Buses behind the host bridge that are looked at: emulated machines have one.
const BUSES: u16 = 1;
/// `/dev/vport0p1`. The major number is one that Linux leaves to dynamic allocation.
const AGENT: Device = Device::new(247, 1);
/// How `/dev` shows it.
const AGENT_NODE: Node = ("vport0p1", FileKind::Char, AGENT, 0o600);

/// A UART of whatever kind.
trait Line: Send {
    fn write(&mut self, bytes: &[u8]) -> usize;
    fn drained(&self) -> bool;
    fn interrupt(&mut self, received: &mut dyn FnMut(u8)) -> bool;
}

/// The registers of a 16550 behind ports.
struct Com(Ports);

impl Registers for Com {
    fn read(&mut self, offset: u8) -> u8 {
        self.0.read8(u16::from(offset))
    }
    fn write(&mut self, offset: u8, value: u8) {
        self.0.write8(u16::from(offset), value);
    }
}

/// The same in memory.
struct Memory(Mmio);

impl Registers for Memory {
    fn read(&mut self, offset: u8) -> u8 {
        self.0.read8(usize::from(offset))
    }
    fn write(&mut self, offset: u8, value: u8) {
        self.0.write8(usize::from(offset), value);
    }
}

impl<R: Registers> Line for Uart<R> {
    fn write(&mut self, bytes: &[u8]) -> usize {
        Self::write(self, bytes)
    }
    fn drained(&self) -> bool {
        Self::drained(self)
    }
    fn interrupt(&mut self, received: &mut dyn FnMut(u8)) -> bool {
        Self::interrupt(self, received)
    }
}

/// The registers of a PL011.
struct Arm(Mmio);

impl pl011::Registers for Arm {
    fn read(&mut self, offset: usize) -> u32 {
        self.0.read32(offset)
    }
    fn write(&mut self, offset: usize, value: u32) {
        self.0.write32(offset, value);
    }
}

impl<R: pl011::Registers> Line for Pl011<R> {
    fn write(&mut self, bytes: &[u8]) -> usize {
        Self::write(self, bytes)
    }
    fn drained(&self) -> bool {
        Self::drained(self)
    }
    fn interrupt(&mut self, received: &mut dyn FnMut(u8)) -> bool {
        Self::interrupt(self, received)
    }
}

/// Takes over the UART of the console.
fn uart(port: SerialPort) -> Result<(alloc::boxed::Box<dyn Line>, u32), Refused> {
    Ok(match port {
        SerialPort::Ports16550 { base, line } => (alloc::boxed::Box::new(Uart::new(Com(Ports::new(base, 8)?))), line),
        SerialPort::Memory16550 { registers, line } => {
            (alloc::boxed::Box::new(Uart::new(Memory(Mmio::map(registers)?))), line)
        }
        SerialPort::Pl011 { registers, line } => (alloc::boxed::Box::new(Pl011::new(Arm(Mmio::map(registers)?))), line),
    })
}

/// The serial port.
pub struct Serial {
    uart: SpinLock<alloc::boxed::Box<dyn Line>>,
    line: IrqLine,
    /// The terminal on it.
    tty: Once<Arc<Tty>>,
}

impl Serial {
    /// Connects the terminal that gets what the line brings.
    pub fn connect(&self, tty: Arc<Tty>) {
        // A second terminal on the line would be a bug of `boot`; the first stays.
        let _ = self.tty.set(tty);
    }

    fn interrupt(&self) {
        // The line may bring more while its FIFO is read.
        let mut got = Vec::new();
        let room = self.uart.lock().interrupt(&mut |byte| got.push(byte));
        let Some(tty) = self.tty.get() else { return };
        if !got.is_empty() {
            tty.receive(&got);
        }
        if room {
            tty.writable();
        }
    }
}

impl Port for Serial {
    fn send(&self, bytes: &[u8]) -> usize {
        self.uart.lock().write(bytes)
    }
    fn is_sent(&self) -> bool {
        self.uart.lock().drained()
    }
}

/// The channel that `cob exec` speaks through, as a character device.
pub struct Agent {
    console: SpinLock<Console>,
    line: u32,
    waiters: Waiters,
    env: Once<Arc<dyn vfs::Env>>,
    me: alloc::sync::Weak<Self>,
}

impl Agent {
    fn interrupt(&self) {
        self.console.lock().interrupt();
        let ready = self.ready();
        if !ready.is_empty() {
            self.waiters.wake(ready);
        }
    }

    fn ready(&self) -> Ready {
        let mut console = self.console.lock();
        let mut ready = Ready::empty();
        if console.readable() {
            ready |= Ready::IN;
        }
        if console.writable() {
            ready |= Ready::OUT;
        }
        if !console.is_connected() {
            // A read says "end" then.
            ready |= Ready::IN | Ready::HUP;
        }
        ready
    }
}

impl Driver for Agent {
    fn open(
        &self,
        _: Device,
        _: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        let (Some(env), Some(me)) = (self.env.get(), self.me.upgrade()) else { return Err(Errno::ENXIO.into()) };
        self.console.lock().open();
        done(LocalFile::new(env.new_id(), me, place, flags, status))
    }
}

impl FileOps for Agent {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        if sink.room() == 0 {
            return done(0);
        }
        let mut moved = 0;
        let mut console = self.console.lock();
        console.read(|bytes| {
            let n = sink.put(bytes);
            moved += n;
            n
        });
        let ended = !console.is_connected();
        if moved == 0 && !sink.stalled() && !ended { Ok(Try::WouldBlock) } else { done(moved) }
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, source: &mut dyn Source) -> TryResult<Wrote> {
        let mut bytes = 0;
        let mut console = self.console.lock();
        while source.left() > 0 {
            let mut buf = [0; 1024];
            let room = console.room().min(buf.len());
            let n = source.take(buf.get_mut(..room).unwrap_or_default());
            if n == 0 {
                break;
            }
            bytes += console.write(buf.get(..n).unwrap_or_default());
        }
        let blocked = bytes == 0 && source.left() > 0 && !source.stalled();
        if blocked { Ok(Try::WouldBlock) } else { done(Wrote { bytes, end: 0 }) }
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        self.ready()
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.waiters.subscribe(mask, waker)
    }

    fn release(&self, _: &LocalFile) {
        self.console.lock().close();
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// The devices that this kernel has: those of the plan, and those that it took over from kernels that died.
#[derive(Default)]
pub struct Devices {
    /// COM1.
    serial: Once<Arc<Serial>>,
    /// The agent's channel.
    agent: Once<Arc<Agent>>,
    /// The PCI host bridge.
    pci: Option<PciHost>,
    /// The other boards of a mixed machine.
    boards: Once<Option<Arc<Boards>>>,
    /// What carries messages to boards that share nothing with this one.
    card: Once<Arc<Card>>,
    /// The slots of all such cards on this board, each with the kernel whose it is.
    cards: Vec<(u8, u16)>,
    /// For the first program that it starts.
    command_line: String,
}

impl Devices {
    /// None so far. `cards`: the slots of network cards that carry messages, each with the kernel whose it is.
    pub fn new(pci: Option<PciHost>, cards: Vec<(u8, u16)>, command_line: &str) -> Self {
        Self { pci, cards, command_line: command_line.into(), ..Self::default() }
    }

    /// Begins to use devices that are this kernel's, in whatever state they are. What does not work is said in the log and left out.
    pub fn find(&self, devices: &[plan::Device]) {
        if devices.contains(&plan::Device::Com1) {
            let found = machine::board::serial().ok_or(Refused("there is none")).and_then(uart);
            match found.and_then(|(uart, line)| Ok((uart, IrqLine::enable(line)?))) {
                Ok((uart, line)) => {
                    let uart = SpinLock::new(rank::DRIVER, uart);
                    // A device is found once in the life of a kernel: it never gives it back.
                    let _ = self.serial.set(Arc::new(Serial { uart, line, tty: Once::new() }));
                }
                Err(why) => log::error!("com1: {}", why.0),
            }
        }
        if devices.contains(&plan::Device::Agent)
            && let Some(agent) = self.pci.and_then(agent)
        {
            let _ = self.agent.set(agent);
        }
    }

    /// The bells of these are heard from now on.
    pub fn set_boards(&self, boards: Option<Arc<Boards>>) {
        // Once, when the kernel is put together.
        let _ = self.boards.set(boards);
    }

    /// The network card of kernel `me`, if its machine has such cards: it is heard from now on. What does not work is said in the log.
    pub fn find_card(&self, me: u16) -> Option<Arc<Card>> {
        let slot = self.cards.iter().find(|(_, owner)| *owner == me)?.0;
        let ecam = open(self.pci?).map_err(|why| Error(why.0));
        match ecam.and_then(|ecam| Card::new(&ecam, slot)) {
            Ok(card) => {
                // Once, when the kernel is put together.
                let _ = self.card.set(card.clone());
                Some(card)
            }
            Err(why) => {
                log::error!("the network card: {}", why.0);
                None
            }
        }
    }

    /// Serves an interrupt line or vector.
    pub fn interrupt(&self, line: u32) {
        let rang = self.boards.get().is_some_and(|boards| boards.as_ref().is_some_and(|boards| boards.is_bell(line)))
            || self.card.get().is_some_and(|card| card.line() == line);
        if rang && let Some(peers) = crate::member::peers() {
            peers.doorbell();
        }
        if let Some(serial) = self.serial.get()
            && serial.line.line() == line
        {
            serial.interrupt();
        }
        if let Some(agent) = self.agent.get()
            && agent.line == line
        {
            agent.interrupt();
        }
    }
}

impl cluster::tree::Devices for Devices {
    fn register(&self, vfs: &Vfs) {
        if let Some(serial) = self.serial.get()
            && serial.tty.get().is_none()
        {
            serial.connect(vfs::tty::console::install(vfs, serial.clone()));
        }
        if let Some(agent) = self.agent.get()
            && agent.env.set(vfs.env().clone()).is_ok()
        {
            vfs.devices.add(FileKind::Char, AGENT.major, Some(AGENT.minor), agent.clone());
        }
    }

    fn nodes(&self) -> Vec<Node> {
        if self.agent.get().is_some() { alloc::vec![AGENT_NODE] } else { Vec::new() }
    }
}

impl Hardware for Devices {
    fn quiet(&self, victim: u16, devices: &[plan::Device]) {
        let whole_bus = devices.contains(&plan::Device::Pci);
        if !whole_bus && self.cards.iter().all(|(_, owner)| *owner != victim) {
            return;
        }
        let Some(Ok(ecam)) = self.pci.map(|pci| Ecam::new(pci.ecam.0, BUSES)) else { return };
        for (function, ..) in ecam.functions() {
            let owner = self.cards.iter().find(|(slot, _)| *slot == function.device).map(|(_, owner)| *owner);
            if owner.map_or(whole_bus, |owner| owner == victim) {
                hal_virtio::pci::bus_master_off(&ecam, function);
            }
        }
    }

    fn take(&self, kernel: &Arc<task::Kernel>, devices: &[plan::Device]) -> Vec<Node> {
        self.find(devices);
        self.register(kernel.vfs());
        self.nodes()
    }

    fn first_program(&self, kernel: &Arc<task::Kernel>) {
        crate::image::first_program(kernel, &self.command_line);
    }
}

/// The functions behind the host bridge, whose registers have places from now on.
pub fn open(pci: PciHost) -> Result<Ecam, Refused> {
    let ecam = Ecam::new(pci.ecam.0, BUSES)?;
    if let Some((narrow, wide)) = pci.unassigned {
        hal_virtio::pci::assign_bars(&ecam, narrow, wide);
    }
    Ok(ecam)
}

fn agent(pci: PciHost) -> Option<Arc<Agent>> {
    let ecam = open(pci).map_err(|why| log::error!("pci: {}", why.0)).ok()?;
    let (at, ..) = ecam.functions().into_iter().find(|(_, v, d)| *v == VENDOR && DEVICES.contains(d))?;
    match Console::new(&ecam, at, 0) {
        Ok(console) => {
            let line = console.line();
            Some(Arc::new_cyclic(|me| Agent {
                console: SpinLock::new(rank::DRIVER, console),
                line,
                waiters: Waiters::new(),
                env: Once::new(),
                me: me.clone(),
            }))
        }
        Err(why) => {
            log::error!("agent: {}", why.0);
            None
        }
    }
}
