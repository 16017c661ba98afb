//! The network of a machine whose boards share nothing else: a switch between the cards of its kernels, and the board controller at it. Tests cut it and let it
//! lose frames.
//!
//! Each card is a pair of datagram sockets in the run's folder, one bound by the emulator and one here; a datagram is a frame (QEMU, `-netdev dgram`).

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use boardctl::ether::{self, Request};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// The longest datagram that an emulator sends.
const LONGEST: usize = 1 << 16;
/// So many frames wait for a card that takes no more just now; more are lost, as in any switch.
const BUFFER: usize = 512;
/// Bytes of an Ethernet header.
const HEADER: usize = 14;

/// The socket of a kernel's card.
pub fn card_socket(kernel: u16) -> String {
    format!("card{kernel}.sock")
}

/// The other end of the wire from a kernel's card.
pub fn port_socket(kernel: u16) -> String {
    format!("port{kernel}.sock")
}

/// The address of a kernel's card: a locally administered one.
pub fn card_address(kernel: u16) -> String {
    let [high, low] = kernel.to_be_bytes();
    format!("02:43:6f:62:{high:02x}:{low:02x}")
}

/// What the wires do to frames.
#[derive(Default)]
pub struct Weather {
    /// Kernels, as bits, that hear only each other, and are not heard by the rest.
    pub cut: AtomicU64,
    /// Of a thousand frames so many are lost.
    pub lost: AtomicU32,
    /// Frames that went through.
    pub carried: AtomicU64,
    /// Frames that did not.
    pub dropped: AtomicU64,
}

/// What does what kernels ask of the board controller.
pub type Obey = Box<dyn FnMut(&Request) -> Result<()> + Send>;

/// A running switch. Dropping it ends it.
pub struct Network {
    /// How it is just now.
    pub weather: Arc<Weather>,
    end: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// A switch for the cards of so many kernels, before the emulators start.
    pub fn new(kernels: u16, folder: &Path, obey: Obey) -> Result<Self> {
        let folder = File::open(folder).context("the run's folder")?;
        let ports = (0..kernels).map(|kernel| {
            let wire = UnixDatagram::bind(short(&folder, &port_socket(kernel))).context("a port of the network")?;
            wire.set_nonblocking(true)?;
            Ok(Port { wire, card: short(&folder, &card_socket(kernel)), waiting: VecDeque::new() })
        });
        let ports: Vec<Port> = ports.collect::<Result<_>>()?;
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("the network")?);
        let weather = Arc::new(Weather::default());
        let controller = Controller { obey, last: BTreeMap::new() };
        let mut switch =
            Switch { _folder: folder, ports, weather: weather.clone(), learned: BTreeMap::new(), controller, dice: 1 };
        let told = end.clone();
        let thread = thread::Builder::new()
            .name("network".into())
            .spawn(move || {
                if let Err(error) = switch.run(&told) {
                    eprintln!("cob: the network: {error:#}");
                }
            })
            .context("starting the network")?;
        Ok(Self { weather, end, thread: Some(thread) })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The counter of an event is never full after one.
        let _ = rustix::io::write(&*self.end, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The folder's descriptor is a short name for it: paths of sockets are.
fn short(folder: &File, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd())
}

/// The board controller.
struct Controller {
    obey: Obey,
    /// The last request of each card, and how it was answered.
    last: BTreeMap<[u8; 6], (u64, bool)>,
}

impl Controller {
    /// What is answered to a frame that came for it.
    fn hear(&mut self, frame: &[u8]) -> Option<[u8; ether::BYTES]> {
        let (from, request) = ether::asked(frame)?;
        let done = match self.last.get(&from).copied() {
            // The answer was lost, or the question came late.
            Some((number, done)) if number == request.number => done,
            Some((number, _)) if number > request.number => return None,
            _ => (self.obey)(&request)
                .inspect_err(|why| eprintln!("cob: board {}: {:?}: {why:#}", request.board, request.order))
                .is_ok(),
        };
        self.last.insert(from, (request.number, done));
        Some(ether::answer(from, request.number, done))
    }
}

/// A port of the switch: the wire to a card.
struct Port {
    wire: UnixDatagram,
    /// The socket at the other end.
    card: String,
    /// Frames that the card has no room for just now.
    waiting: VecDeque<Vec<u8>>,
}

impl Port {
    /// Sends a frame, or keeps it until there is room; `false` if it is lost: nobody is there, or too many wait.
    fn send(&mut self, frame: &[u8]) -> bool {
        // None overtakes another one.
        let sent = if self.waiting.is_empty() { self.try_send(frame) } else { None };
        if sent.is_none() && self.waiting.len() < BUFFER {
            self.waiting.push_back(frame.to_vec());
            return true;
        }
        sent == Some(true)
    }

    /// Whether the frame has gone; none: there is no room now.
    fn try_send(&self, frame: &[u8]) -> Option<bool> {
        // An emulator that was started again is another one, though its socket has the same name.
        for again in [true, false] {
            match self.wire.send(frame) {
                Ok(_) => return Some(true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) if again && self.wire.connect(&self.card).is_ok() => {}
                Err(_) => break,
            }
        }
        Some(false)
    }

    /// There is room.
    fn flush(&mut self) {
        while let Some(frame) = self.waiting.front() {
            if self.try_send(frame).is_none() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

struct Switch {
    /// Names of sockets go through its descriptor.
    _folder: File,
    ports: Vec<Port>,
    weather: Arc<Weather>,
    /// Behind which port an address is.
    learned: BTreeMap<[u8; 6], usize>,
    controller: Controller,
    dice: u64,
}

impl Switch {
    fn run(&mut self, end: &OwnedFd) -> Result<()> {
        let mut frame = vec![0; LONGEST];
        loop {
            let wires = self.ports.iter().map(|port| {
                let room = if port.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                PollFd::from_borrowed_fd(port.wire.as_fd(), PollFlags::IN | room)
            });
            let mut fds: Vec<_> = wires.chain([PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN)]).collect();
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let came: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if came.last() == Some(&true) {
                return Ok(());
            }
            for port in (0..self.ports.len()).filter(|port| came[*port]) {
                self.ports[port].flush();
                while let Ok(length) = self.ports[port].wire.recv(&mut frame) {
                    self.forward(port, &frame[..length]);
                }
            }
        }
    }

    fn forward(&mut self, from: usize, frame: &[u8]) {
        let Some((header, _)) = frame.split_at_checked(HEADER) else { return };
        let (mut to, mut source) = ([0; 6], [0; 6]);
        to.copy_from_slice(&header[..6]);
        source.copy_from_slice(&header[6..12]);
        self.learned.insert(source, from);
        if to == ether::CONTROLLER {
            return self.ask_controller(from, frame);
        }
        let known = self.learned.get(&to).copied().filter(|_| to[0] & 1 == 0);
        for port in (0..self.ports.len()).filter(|port| *port != from && known.is_none_or(|known| known == *port)) {
            // An emulator that has ended loses it, as on any wire.
            let goes = !self.loses(from, port) && self.ports[port].send(frame);
            let count = if goes { &self.weather.carried } else { &self.weather.dropped };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The controller hangs at no port that could be cut off.
    fn ask_controller(&mut self, from: usize, frame: &[u8]) {
        if self.loses(from, from) {
            return;
        }
        if let Some(answer) = self.controller.hear(frame)
            && !self.loses(from, from)
        {
            // An emulator that has ended needs no answer.
            let _ = self.ports[from].send(&answer);
        }
    }

    fn loses(&mut self, from: usize, to: usize) -> bool {
        let cut = self.weather.cut.load(Ordering::Relaxed);
        if cut >> from & 1 != cut >> to & 1 {
            return true;
        }
        // xorshift64: the same frames each time, as far as they come in the same order.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % 1000 < u64::from(self.weather.lost.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use boardctl::Order;
    use boardctl::ether::{self, Request};

    use super::{Controller, Network, card_socket, port_socket};

    #[test]
    fn frames_go_where_their_address_is_and_nowhere_when_it_is_cut() {
        let folder = std::env::temp_dir().join(format!("cob-network-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let network = Network::new(3, &folder, Box::new(|_| anyhow::bail!("no boards"))).unwrap();
        let cards: Vec<UnixDatagram> =
            (0..3).map(|kernel| UnixDatagram::bind(folder.join(card_socket(kernel))).unwrap()).collect();
        for card in &cards {
            card.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        let send = |from: u8, to: [u8; 6], body: u8| {
            let frame = [&to[..], &[2, 0, 0, 0, 0, from], &[0x88, 0xb5, body]].concat();
            cards[usize::from(from)].send_to(&frame, folder.join(port_socket(from.into()))).unwrap();
        };
        let hears = |at: usize, body: u8| {
            let mut frame = [0; 100];
            let length = cards[at].recv(&mut frame).unwrap();
            assert_eq!((length, frame[14]), (15, body), "card {at}");
        };
        send(1, [0xff; 6], 1);
        hears(0, 1);
        hears(2, 1);
        send(0, [2, 0, 0, 0, 0, 1], 2);
        hears(1, 2);
        network.weather.cut.store(1 << 1, Ordering::Relaxed);
        send(0, [0xff; 6], 3);
        hears(2, 3);
        network.weather.cut.store(0, Ordering::Relaxed);
        send(0, [0xff; 6], 4);
        // It heard neither what was for another nor what was cut off.
        hears(1, 4);
        hears(2, 4);
        assert_eq!(network.weather.dropped.load(Ordering::Relaxed), 1);
        drop(network);
        std::fs::remove_dir_all(&folder).unwrap();
    }
    #[test]
    fn what_a_card_has_no_room_for_waits_and_a_new_card_gets_what_is_sent_to_it() {
        let folder = std::env::temp_dir().join(format!("cob-network-full-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let network = Network::new(2, &folder, Box::new(|_| anyhow::bail!("no boards"))).unwrap();
        let card = |kernel: u16| {
            let _ = std::fs::remove_file(folder.join(card_socket(kernel)));
            let card = UnixDatagram::bind(folder.join(card_socket(kernel))).unwrap();
            card.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            card
        };
        let (from, to) = (card(0), card(1));
        let send = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 0], &[0x88, 0xb5, high, low]].concat();
            from.send_to(&frame, folder.join(port_socket(0))).unwrap();
        };
        let hears = |card: &UnixDatagram| {
            let mut frame = [0; 100];
            assert_eq!(card.recv(&mut frame).unwrap(), 16);
            u16::from_be_bytes([frame[14], frame[15]])
        };
        // More than a socket keeps.
        (0..300).for_each(send);
        for number in 0..300 {
            assert_eq!(hears(&to), number);
        }
        drop(to);
        let to = card(1);
        send(300);
        assert_eq!(hears(&to), 300);
        drop(network);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_controller_does_a_request_once_and_answers_as_often_as_it_is_asked() {
        let (told, heard) = std::sync::mpsc::channel();
        let obey = Box::new(move |request: &Request| {
            told.send(*request)?;
            anyhow::ensure!(request.board == 1, "no such board");
            Ok(())
        });
        let mut controller = Controller { obey, last: BTreeMap::new() };
        let request = |number, board| Request { number, board, order: Order::Start, starter: 0, incarnation: 2 };
        let card = [2, 0, 0, 0, 0, 1];
        let answer = |said: Option<[u8; ether::BYTES]>| said.and_then(|frame| ether::answered(&frame));
        for _ in 0..3 {
            assert_eq!(answer(controller.hear(&ether::ask(card, &request(5, 1)))), Some((5, true)));
        }
        assert_eq!(answer(controller.hear(&ether::ask(card, &request(6, 2)))), Some((6, false)));
        // One that comes late is of no use to anybody any more.
        assert_eq!(controller.hear(&ether::ask(card, &request(5, 1))), None);
        assert_eq!(controller.hear(&[0; 60]), None);
        // Another card counts for itself.
        assert_eq!(answer(controller.hear(&ether::ask([2, 0, 0, 0, 0, 2], &request(1, 1)))), Some((1, true)));
        let done: Vec<_> = heard.try_iter().map(|request: Request| (request.number, request.board)).collect();
        assert_eq!(done, [(5, 1), (6, 2), (1, 1)]);
    }
}
