//! Arm's PL011 UART: the console of `virt` boards.
//!
//! Interrupt driven both ways with a transmit queue, so that a writer never spins on the line; access goes through [`Registers`].
//!
//! Source: PrimeCell UART (PL011) Technical Reference Manual, Arm DDI 0183, chapter 3.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

use alloc::collections::VecDeque;

/// How the registers of one UART are reached.
pub trait Registers: Send {
    /// Reads the register at this offset.
    fn read(&mut self, offset: usize) -> u32;
    /// Writes the register at this offset.
    fn write(&mut self, offset: usize, value: u32);
}

/// How many bytes wait for the line at most; a writer that would go beyond waits for room.
pub const TRANSMIT_QUEUE: usize = 8192;

/// Registers.
const DATA: usize = 0x00;
const FLAGS: usize = 0x18;
const LINE: usize = 0x2c;
const CONTROL: usize = 0x30;
const LEVELS: usize = 0x34;
const MASK: usize = 0x38;
const CLEAR: usize = 0x44;

/// In FLAGS: nothing received, no room to send.
const RECEIVE_EMPTY: u32 = 1 << 4;
const TRANSMIT_FULL: u32 = 1 << 5;
/// In LINE: 8 bits, FIFOs on.
const EIGHT_BITS_FIFO: u32 = 3 << 5 | 1 << 4;
/// In CONTROL: UART, transmitter and receiver on.
const ENABLE: u32 = 1 | 1 << 8 | 1 << 9;
/// In MASK and CLEAR: received, sent, received and then silence.
const RECEIVE: u32 = 1 << 4;
const TRANSMIT: u32 = 1 << 5;
const TIMEOUT: u32 = 1 << 6;

/// One UART.
#[derive(Debug)]
pub struct Pl011<R> {
    registers: R,
    queue: VecDeque<u8>,
}

impl<R: Registers> Pl011<R> {
    /// Takes the UART over, in whatever state it is. The baud rate stays what firmware set.
    pub fn new(mut registers: R) -> Self {
        registers.write(MASK, 0);
        registers.write(CONTROL, 0);
        registers.write(CLEAR, 0x7ff);
        registers.write(LINE, EIGHT_BITS_FIFO);
        // An interrupt at an eighth of the receive FIFO, and when an eighth of the transmit FIFO is left.
        registers.write(LEVELS, 0);
        registers.write(CONTROL, ENABLE);
        let mut uart = Self { registers, queue: VecDeque::new() };
        uart.enable_interrupts();
        uart
    }

    /// Queues bytes for the line; the number taken, which is less than offered when the queue is full.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(TRANSMIT_QUEUE - self.queue.len());
        self.queue.extend(&bytes[..taken]);
        self.transmit();
        self.enable_interrupts();
        taken
    }

    /// Whether all that was written has left the queue (`tcdrain`).
    pub fn drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// Serves the interrupt: hands over what was received and sends what fits. Returns whether room became free in the queue.
    pub fn interrupt(&mut self, mut received: impl FnMut(u8)) -> bool {
        let before = self.queue.len();
        self.registers.write(CLEAR, RECEIVE | TRANSMIT | TIMEOUT);
        while self.registers.read(FLAGS) & RECEIVE_EMPTY == 0 {
            received(self.registers.read(DATA) as u8);
        }
        self.transmit();
        self.enable_interrupts();
        self.queue.len() < before
    }

    fn transmit(&mut self) {
        while self.registers.read(FLAGS) & TRANSMIT_FULL == 0
            && let Some(byte) = self.queue.pop_front()
        {
            self.registers.write(DATA, u32::from(byte));
        }
    }

    /// Receive interrupts always, transmit interrupts only while something waits.
    fn enable_interrupts(&mut self) {
        let sending = if self.queue.is_empty() { 0 } else { TRANSMIT };
        self.registers.write(MASK, RECEIVE | TIMEOUT | sending);
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::VecDeque, vec::Vec};

    use super::{CONTROL, DATA, ENABLE, FLAGS, MASK, Pl011, RECEIVE, RECEIVE_EMPTY, Registers, TIMEOUT};
    use super::{TRANSMIT, TRANSMIT_FULL, TRANSMIT_QUEUE};

    /// The register side of the device: a FIFO of 16 that empties when the test says so.
    #[derive(Default)]
    struct Chip {
        line: Vec<u8>,
        fifo: usize,
        received: VecDeque<u8>,
        mask: u32,
        control: u32,
    }

    impl Registers for Chip {
        fn read(&mut self, offset: usize) -> u32 {
            match offset {
                DATA => self.received.pop_front().map_or(0, u32::from),
                FLAGS => {
                    (if self.received.is_empty() { RECEIVE_EMPTY } else { 0 })
                        | (if self.fifo == 16 { TRANSMIT_FULL } else { 0 })
                }
                _ => 0,
            }
        }
        fn write(&mut self, offset: usize, value: u32) {
            match offset {
                DATA => {
                    assert!(self.fifo < 16, "the FIFO overflows");
                    self.fifo += 1;
                    self.line.push(value as u8);
                }
                MASK => self.mask = value,
                CONTROL => self.control = value,
                _ => {}
            }
        }
    }

    #[test]
    fn what_is_written_is_sent_in_order() {
        let mut uart = Pl011::new(Chip::default());
        assert_eq!(uart.registers.control, ENABLE);
        let text: Vec<u8> = (0..100).collect();
        assert_eq!(uart.write(&text), 100);
        assert_eq!((uart.registers.line.len(), uart.drained()), (16, false));
        assert_eq!(uart.registers.mask, RECEIVE | TIMEOUT | TRANSMIT);
        for _ in 0..6 {
            uart.registers.fifo = 0;
            assert!(uart.interrupt(|_| panic!("nothing was received")));
        }
        assert_eq!(uart.registers.line, text);
        assert!(uart.drained());
        assert_eq!(uart.registers.mask, RECEIVE | TIMEOUT);
        assert!(!uart.interrupt(|_| {}));
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let mut uart = Pl011::new(Chip::default());
        let much = [7; TRANSMIT_QUEUE + 100];
        assert_eq!(uart.write(&much), TRANSMIT_QUEUE);
        assert_eq!(uart.write(&much), 16);
    }

    #[test]
    fn what_is_received_comes_in_order() {
        let mut uart = Pl011::new(Chip::default());
        uart.registers.received.extend(b"hello");
        let mut got = Vec::new();
        assert!(!uart.interrupt(|byte| got.push(byte)));
        assert_eq!(got, b"hello");
    }
}
