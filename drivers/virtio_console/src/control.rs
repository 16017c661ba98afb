//! The conversation about a port. Source: VIRTIO 1.2, section 5.3.6.2.

/// `struct virtio_console_control`: little-endian `id: u32, event: u16, value: u16`; a name may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    port: u32,
    event: u16,
    value: u16,
}

/// The driver is ready to hear of ports.
const DEVICE_READY: u16 = 0;
/// A port is there.
const PORT_ADD: u16 = 1;
/// A port is gone.
const PORT_REMOVE: u16 = 2;
/// The driver is ready to use a port.
const PORT_READY: u16 = 3;
/// Somebody opened (1) or closed (0) the sender's end of a port.
const PORT_OPEN: u16 = 6;

impl Message {
    /// `None` if it is too short to be one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (port, rest) = bytes.split_first_chunk()?;
        let (event, rest) = rest.split_first_chunk()?;
        let (value, _) = rest.split_first_chunk()?;
        let (port, event, value) = (u32::from_le_bytes(*port), u16::from_le_bytes(*event), u16::from_le_bytes(*value));
        Some(Self { port, event, value })
    }

    /// As the device reads it.
    pub fn encode(self) -> [u8; 8] {
        let ([a, b, c, d], [e, f], [g, h]) =
            (self.port.to_le_bytes(), self.event.to_le_bytes(), self.value.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    }
}

/// Something to say to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act(pub Message);

/// What is known of one port.
#[derive(Debug)]
pub struct Control {
    port: u32,
    /// The device has it.
    added: bool,
    /// The host holds its end open.
    connected: bool,
    /// How often programs hold this end open.
    opens: usize,
}

impl Control {
    /// The first message to a device.
    pub const HELLO: Message = Message { port: 0, event: DEVICE_READY, value: 1 };

    /// A port of which nothing is known.
    pub const fn new(port: u32) -> Self {
        Self { port, added: false, connected: false, opens: 0 }
    }

    /// Whether bytes written reach somebody.
    pub const fn is_connected(&self) -> bool {
        self.added && self.connected
    }

    /// Takes a message of the device. At most one is due in answer: a port that comes is answered with "ready", and one that the host opens is told
    /// whether a program holds it open, which the device forgets when it is reset.
    pub fn step(&mut self, message: Message) -> Option<Act> {
        if message.port != self.port {
            // Other ports are left alone: the driver never says that it is ready for them.
            return None;
        }
        match message.event {
            PORT_ADD => {
                self.added = true;
                self.say(PORT_READY, true)
            }
            PORT_REMOVE => {
                (self.added, self.connected) = (false, false);
                None
            }
            PORT_OPEN => {
                self.connected = message.value != 0;
                if self.connected && self.opens > 0 { self.say(PORT_OPEN, true) } else { None }
            }
            _ => None,
        }
    }

    /// A program opens this end.
    pub fn open(&mut self) -> Option<Act> {
        self.opens += 1;
        if self.added && self.opens == 1 { self.say(PORT_OPEN, true) } else { None }
    }

    /// A program closes it.
    pub fn close(&mut self) -> Option<Act> {
        self.opens = self.opens.saturating_sub(1);
        if self.added && self.opens == 0 { self.say(PORT_OPEN, false) } else { None }
    }

    fn say(&self, event: u16, yes: bool) -> Option<Act> {
        Some(Act(Message { port: self.port, event, value: yes.into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(port: u32, event: u16, value: u16) -> Message {
        Message { port, event, value }
    }

    #[test]
    fn messages_are_eight_bytes() {
        let one = message(0x0102_0304, PORT_OPEN, 1);
        assert_eq!(one.encode(), [4, 3, 2, 1, 6, 0, 1, 0]);
        assert_eq!(Message::decode(&one.encode()), Some(one));
        assert_eq!(Message::decode(&[4, 3, 2, 1, 6, 0, 1, 0, b'n', b'a']), Some(one));
        assert_eq!(Message::decode(&[0; 7]), None);
    }

    #[test]
    fn a_port_comes_is_opened_and_goes() {
        let mut control = Control::new(1);
        assert_eq!(control.step(message(0, PORT_ADD, 1)), None, "another port");
        assert_eq!(control.open(), None, "nobody to tell yet");
        assert_eq!(control.step(message(1, PORT_ADD, 1)), Some(Act(message(1, PORT_READY, 1))));
        assert!(!control.is_connected());
        assert_eq!(control.step(message(1, PORT_OPEN, 1)), Some(Act(message(1, PORT_OPEN, 1))));
        assert!(control.is_connected());
        assert_eq!(control.open(), None, "it is open already");
        assert_eq!(control.close(), None, "another one holds it");
        assert_eq!(control.close(), Some(Act(message(1, PORT_OPEN, 0))));
        assert_eq!(control.open(), Some(Act(message(1, PORT_OPEN, 1))));
        assert_eq!(control.step(message(1, PORT_OPEN, 0)), None);
        assert!(!control.is_connected());
        control.step(message(1, PORT_OPEN, 1));
        assert_eq!(control.step(message(1, PORT_REMOVE, 1)), None);
        assert!(!control.is_connected());
    }
}
