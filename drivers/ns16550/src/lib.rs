//! The 16550 UART: the console of every emulated machine and most real ones.
//!
//! Interrupt driven both ways with a transmit queue, so that a writer never spins on the line. The register definitions are those of
//! the `uart_16550` crate; access goes through [`Registers`], because how a register is reached (port, MMIO, stride) is the machine's.
//!
//! Source: PC16550D data sheet (National Semiconductor), sections 8.1 to 8.8.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

use alloc::collections::VecDeque;

use uart_16550::spec::{
    FIFO_SIZE,
    registers::{FCR, IER, LCR, LSR, MCR, WordLength, offsets},
};

/// How the registers of one UART are reached.
pub trait Registers: Send {
    /// Reads the register at this offset (`0..8`).
    fn read(&mut self, offset: u8) -> u8;
    /// Writes the register at this offset.
    fn write(&mut self, offset: u8, value: u8);
}

/// How many bytes wait for the line at most; a writer that would go beyond waits for room.
pub const TRANSMIT_QUEUE: usize = 8192;

/// Divisor for 115,200 baud at the standard clock of 1.8432 MHz.
const DIVISOR: u16 = 1;

/// One UART.
#[derive(Debug)]
pub struct Uart<R> {
    registers: R,
    queue: VecDeque<u8>,
    /// Bytes that the receiver lost because nobody took them in time.
    overruns: u64,
}

impl<R: Registers> Uart<R> {
    /// Takes the UART over: 115,200 baud, 8N1, FIFOs on, receive interrupts on. Whoever had it before (the firmware, a kernel
    /// that died) may have left it in any state.
    pub fn new(registers: R) -> Self {
        let mut uart = Self { registers, queue: VecDeque::new(), overruns: 0 };
        let [low, high] = DIVISOR.to_le_bytes();
        uart.put(offsets::IER, 0);
        uart.put(offsets::LCR, LCR::DLAB.bits());
        uart.put(offsets::DLL, low);
        uart.put(offsets::DLM, high);
        uart.put(offsets::LCR, LCR::empty().set_word_length(WordLength::EightBits).bits());
        uart.put(offsets::FCR, (FCR::FIFO_ENABLE | FCR::RX_FIFO_RESET | FCR::TX_FIFO_RESET).bits());
        uart.put(offsets::MCR, (MCR::DTR | MCR::RTS | MCR::OUT_2_INT_ENABLE).bits());
        uart.enable_interrupts();
        uart
    }

    /// Queues bytes for the line; the number taken, which is less than offered when the queue is full.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        self.queue.extend(&bytes[..taken]);
        self.transmit();
        self.enable_interrupts();
        taken
    }

    /// How many more bytes [`Uart::write`] would take.
    pub fn room(&self) -> usize {
        TRANSMIT_QUEUE - self.queue.len()
    }

    /// Whether all that was written has left the queue (`tcdrain`).
    pub fn drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// Throws away what waits for the line (`TCOFLUSH`).
    pub fn discard(&mut self) {
        self.queue.clear();
        self.enable_interrupts();
    }

    /// Serves the interrupt: hands over what was received and sends what fits. Returns whether room became free in the queue.
    pub fn interrupt(&mut self, mut received: impl FnMut(u8)) -> bool {
        let before = self.queue.len();
        loop {
            let status = self.status();
            if status.contains(LSR::OVERRUN_ERROR) {
                self.overruns += 1;
            }
            if !status.contains(LSR::DATA_READY) {
                break;
            }
            received(self.get(offsets::DATA));
        }
        self.transmit();
        self.enable_interrupts();
        self.queue.len() < before
    }

    /// Bytes lost by overruns since the UART was taken over.
    pub const fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Fills the transmit FIFO if it is empty.
    fn transmit(&mut self) {
        while !self.queue.is_empty() && self.status().contains(LSR::THR_EMPTY) {
            for byte in self.queue.drain(..FIFO_SIZE.min(self.queue.len())) {
                self.registers.write(offsets::DATA as u8, byte);
            }
        }
    }

    /// Receive interrupts always, transmit interrupts only while something waits: an empty FIFO would interrupt for ever.
    fn enable_interrupts(&mut self) {
        let mut wanted = IER::DATA_READY | IER::RECEIVER_LINE_STATUS;
        if !self.queue.is_empty() {
            wanted |= IER::THR_EMPTY;
        }
        self.put(offsets::IER, wanted.bits());
    }

    fn status(&mut self) -> LSR {
        LSR::from_bits_retain(self.get(offsets::LSR))
    }

    fn get(&mut self, offset: usize) -> u8 {
        self.registers.read(offset as u8)
    }

    fn put(&mut self, offset: usize, value: u8) {
        self.registers.write(offset as u8, value);
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::VecDeque, vec::Vec};

    use uart_16550::spec::registers::{IER, LSR, offsets};

    use super::{Registers, TRANSMIT_QUEUE, Uart};

    /// The register side of the device: a FIFO of 16 that empties when the test says so.
    #[derive(Default, Debug)]
    struct Chip {
        line: Vec<u8>,
        fifo: usize,
        received: VecDeque<u8>,
        enabled: u8,
        latch: bool,
    }

    impl Registers for &mut Chip {
        fn read(&mut self, offset: u8) -> u8 {
            match usize::from(offset) {
                offsets::DATA => self.received.pop_front().unwrap_or(0),
                offsets::LSR => {
                    let mut status = LSR::empty();
                    status.set(LSR::DATA_READY, !self.received.is_empty());
                    status.set(LSR::THR_EMPTY, self.fifo == 0);
                    status.bits()
                }
                _ => 0,
            }
        }

        fn write(&mut self, offset: u8, value: u8) {
            match usize::from(offset) {
                offsets::LCR => self.latch = value & 0x80 != 0,
                offsets::DATA if !self.latch => {
                    assert!(self.fifo < 16, "the FIFO overflows");
                    self.fifo += 1;
                    self.line.push(value);
                }
                offsets::IER if !self.latch => self.enabled = value,
                _ => {}
            }
        }
    }

    #[test]
    fn everything_written_reaches_the_line_in_order() {
        let text: Vec<u8> = (0..100).collect();
        let mut chip = Chip::default();
        let mut uart = Uart::new(&mut chip);
        assert_eq!(uart.write(&text), 100);
        assert!(IER::from_bits_retain(uart.registers.enabled).contains(IER::THR_EMPTY));
        while !uart.drained() {
            uart.registers.fifo = 0;
            assert!(uart.interrupt(|_| ()));
        }
        assert_eq!(uart.registers.line, text);
        assert!(!IER::from_bits_retain(uart.registers.enabled).contains(IER::THR_EMPTY), "would interrupt for ever");
    }

    #[test]
    fn a_full_queue_takes_what_fits() {
        let mut chip = Chip { fifo: 16, ..Chip::default() };
        let mut uart = Uart::new(&mut chip);
        let big = [b'x'; TRANSMIT_QUEUE + 10];
        assert_eq!(uart.write(&big), TRANSMIT_QUEUE);
        assert_eq!(uart.write(b"y"), 0);
        uart.discard();
        assert_eq!(uart.room(), TRANSMIT_QUEUE);
    }

    #[test]
    fn received_bytes_are_handed_over() {
        let mut chip = Chip { received: VecDeque::from(*b"ls\r"), ..Chip::default() };
        let mut uart = Uart::new(&mut chip);
        let mut got = Vec::new();
        assert!(!uart.interrupt(|byte| got.push(byte)));
        assert_eq!(got, b"ls\r");
    }
}
