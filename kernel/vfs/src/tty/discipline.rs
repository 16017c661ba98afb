//! The line discipline N_TTY, as a pure state machine: bytes from the line come in, bytes for the line and signals go out.

use alloc::collections::VecDeque;

use base::io::Sink;

use super::termios::{
    index::{
        VEOF, VEOL, VEOL2, VERASE, VINTR, VKILL, VLNEXT, VMIN, VQUIT, VREPRINT, VSTART, VSTOP, VSUSP, VTIME, VWERASE,
    },
    input as i, local as l, output as o,
};
use crate::{ioctl::Termios, terminal::TtySignal};

/// Input that nobody has read; `MAX_CANON` and `N_TTY_BUF_SIZE`.
pub const INPUT_MAX: usize = 4095;
/// Output that was not sent yet.
pub const OUTPUT_MAX: usize = 8192;

/// What the world must do after input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effects {
    /// Send this to the foreground group.
    pub signal: Option<TtySignal>,
    /// There may be something to read now.
    pub readable: bool,
    /// There is something to send.
    pub output: bool,
}

/// What a read can do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readable {
    /// It can take something (or end of file).
    Now,
    /// Nothing yet.
    No,
    /// At this time (ns), if nothing more comes: VTIME.
    At(u64),
}

/// See the module.
#[derive(Debug)]
pub struct Discipline {
    /// The modes.
    pub termios: Termios,
    /// Readable bytes.
    ready: VecDeque<u8>,
    /// In canonical mode: the lengths of the lines in `ready`. A line of length 0 is an end of file.
    lines: VecDeque<usize>,
    /// The line that is being typed, and whether each byte was quoted.
    edit: VecDeque<u8>,
    /// What goes to the line.
    pub out: VecDeque<u8>,
    /// The column of the cursor, as far as it is known.
    column: usize,
    /// Where the line that is being typed started.
    edit_column: usize,
    quote: bool,
    /// STOP was received, or output was suspended.
    pub stopped: bool,
    /// When the last byte came, ns.
    last_input: u64,
}

impl Discipline {
    /// An idle terminal.
    pub const fn new() -> Self {
        Self {
            termios: Termios::STANDARD,
            ready: VecDeque::new(),
            lines: VecDeque::new(),
            edit: VecDeque::new(),
            out: VecDeque::new(),
            column: 0,
            edit_column: 0,
            quote: false,
            stopped: false,
            last_input: 0,
        }
    }

    /// Bytes came from the line at time `now`.
    pub fn receive(&mut self, bytes: &[u8], now: u64) -> Effects {
        let mut effects = Effects::default();
        let before = self.out.len();
        for byte in bytes {
            self.byte(*byte, &mut effects);
        }
        self.last_input = now;
        effects.output |= self.out.len() != before;
        effects
    }

    fn byte(&mut self, mut c: u8, effects: &mut Effects) {
        let t = self.termios;
        if t.input & i::ISTRIP != 0 {
            c &= 0x7f;
        }
        if t.input & i::IUCLC != 0 && t.has(l::IEXTEN) {
            c = c.to_ascii_lowercase();
        }
        if core::mem::take(&mut self.quote) {
            if t.has(l::ECHO) {
                self.echo(c);
            }
            self.store(c, effects);
            return;
        }
        if t.input & i::IXON != 0 {
            if t.is(VSTART, c) {
                effects.output |= core::mem::replace(&mut self.stopped, false);
                return;
            }
            if t.is(VSTOP, c) {
                self.stopped = true;
                return;
            }
        }
        if self.stopped && t.input & (i::IXON | i::IXANY) == i::IXON | i::IXANY {
            self.stopped = false;
            effects.output = true;
        }
        if t.has(l::ISIG) {
            let signal = match c {
                _ if t.is(VINTR, c) => Some(TtySignal::Interrupt),
                _ if t.is(VQUIT, c) => Some(TtySignal::Quit),
                _ if t.is(VSUSP, c) => Some(TtySignal::Suspend),
                _ => None,
            };
            if let Some(signal) = signal {
                effects.output |= core::mem::replace(&mut self.stopped, false);
                if !t.has(l::NOFLSH) {
                    self.flush_input();
                    self.out.clear();
                }
                if t.has(l::ECHO) {
                    self.echo(c);
                }
                effects.signal = Some(signal);
                return;
            }
        }
        match c {
            b'\r' if t.input & i::IGNCR != 0 => return,
            b'\r' if t.input & i::ICRNL != 0 => c = b'\n',
            b'\n' if t.input & i::INLCR != 0 => c = b'\r',
            _ => {}
        }
        if t.has(l::ICANON) {
            self.canonical(c, effects);
        } else {
            if t.has(l::ECHO) {
                self.echo(c);
            }
            self.store(c, effects);
        }
    }

    fn canonical(&mut self, c: u8, effects: &mut Effects) {
        let t = self.termios;
        let extended = t.has(l::IEXTEN);
        if t.is(VERASE, c) {
            self.erase_char();
        } else if t.is(VKILL, c) {
            self.kill_line();
        } else if extended && t.is(VWERASE, c) {
            self.erase_word();
        } else if extended && t.is(VLNEXT, c) {
            self.quote = true;
            if t.has(l::ECHO) && t.has(l::ECHOCTL) {
                self.raw(b"^\x08");
            }
        } else if extended && t.is(VREPRINT, c) {
            if t.has(l::ECHO) {
                self.echo(c);
                self.new_line();
                self.edit_column = self.column;
                let line: alloc::vec::Vec<u8> = self.edit.iter().copied().collect();
                line.into_iter().for_each(|b| self.echo(b));
            }
        } else if c == b'\n' {
            if t.has(l::ECHO) || t.has(l::ECHONL) {
                self.new_line();
            }
            self.edit.push_back(c);
            self.end_line(effects);
        } else if t.is(VEOF, c) {
            self.end_line(effects);
        } else if t.is(VEOL, c) || (extended && t.is(VEOL2, c)) {
            if t.has(l::ECHO) {
                self.echo(c);
            }
            self.edit.push_back(c);
            self.end_line(effects);
        } else {
            if t.has(l::ECHO) {
                if self.edit.is_empty() {
                    self.edit_column = self.column;
                }
                self.echo(c);
            }
            self.store(c, effects);
        }
    }

    /// Keeps a byte that was typed.
    fn store(&mut self, c: u8, effects: &mut Effects) {
        if self.ready.len() + self.edit.len() >= INPUT_MAX {
            if self.termios.input & i::IMAXBEL != 0 {
                self.raw(b"\x07");
            }
            return;
        }
        if self.termios.has(l::ICANON) {
            self.edit.push_back(c);
        } else {
            self.ready.push_back(c);
            effects.readable = true;
        }
    }

    fn end_line(&mut self, effects: &mut Effects) {
        self.lines.push_back(self.edit.len());
        self.ready.append(&mut self.edit);
        effects.readable = true;
    }

    // Echo.

    fn raw(&mut self, bytes: &[u8]) {
        if self.out.len() + bytes.len() <= OUTPUT_MAX + 1024 {
            self.out.extend(bytes);
        }
    }

    fn echo(&mut self, c: u8) {
        match c {
            b'\n' => self.new_line(),
            b'\t' => {
                self.post(c);
            }
            0..32 | 127 if self.termios.has(l::ECHOCTL) => {
                self.raw(&[b'^', c ^ 0x40]);
                self.column += 2;
            }
            _ => self.post(c),
        }
    }

    fn new_line(&mut self) {
        self.post(b'\n');
    }

    /// How many columns a byte of the edited line takes, standing in `column`.
    fn width(&self, c: u8, column: usize) -> usize {
        match c {
            b'\t' => 8 - column % 8,
            0..32 | 127 => {
                if self.termios.has(l::ECHOCTL) {
                    2
                } else {
                    0
                }
            }
            0x80..0xc0 if self.termios.input & i::IUTF8 != 0 => 0,
            _ => 1,
        }
    }

    /// Takes the last character off the line; the columns it took.
    fn take_char(&mut self) -> Option<(u8, usize)> {
        let mut c = self.edit.pop_back()?;
        if self.termios.input & i::IUTF8 != 0 {
            while c & 0xc0 == 0x80 {
                c = self.edit.pop_back()?;
            }
        }
        let mut column = self.edit_column;
        for b in &self.edit {
            column += self.width(*b, column);
        }
        Some((c, self.width(c, column)))
    }

    fn erase_columns(&mut self, columns: usize) {
        for _ in 0..columns {
            self.raw(b"\x08 \x08");
        }
        self.column = self.column.saturating_sub(columns);
    }

    fn erase_char(&mut self) {
        let t = self.termios;
        let Some((c, columns)) = self.take_char() else { return };
        if !t.has(l::ECHO) {
            return;
        }
        if !t.has(l::ECHOE) {
            self.echo(t.chars.get(VERASE).copied().unwrap_or(127));
        } else if c == b'\t' {
            // A tab leaves nothing to wipe: only go back.
            for _ in 0..columns {
                self.raw(b"\x08");
            }
            self.column = self.column.saturating_sub(columns);
        } else {
            self.erase_columns(columns);
        }
    }

    fn erase_word(&mut self) {
        let mut seen = false;
        while let Some(c) = self.edit.back().copied() {
            let word = c.is_ascii_alphanumeric() || c == b'_' || c >= 0x80;
            if seen && !word {
                break;
            }
            seen |= word;
            self.erase_char();
        }
    }

    fn kill_line(&mut self) {
        let t = self.termios;
        if !t.has(l::ECHO) {
            self.edit.clear();
        } else if t.has(l::ECHOK) && t.has(l::ECHOKE) && t.has(l::ECHOE) {
            while !self.edit.is_empty() {
                self.erase_char();
            }
        } else {
            self.edit.clear();
            self.echo(t.chars.get(VKILL).copied().unwrap_or(21));
            if t.has(l::ECHOK) {
                self.new_line();
            }
        }
    }

    // Output.

    /// One byte of output, processed as the modes say.
    fn post(&mut self, c: u8) {
        let modes = self.termios.output;
        if modes & o::OPOST == 0 {
            self.out.push_back(c);
            return;
        }
        match c {
            b'\n' => {
                if modes & o::ONLRET != 0 {
                    self.column = 0;
                }
                if modes & o::ONLCR != 0 {
                    self.column = 0;
                    self.out.push_back(b'\r');
                }
                self.out.push_back(b'\n');
            }
            b'\r' => {
                if modes & o::ONOCR != 0 && self.column == 0 {
                    return;
                }
                if modes & o::OCRNL != 0 {
                    if modes & o::ONLRET != 0 {
                        self.column = 0;
                    }
                    self.out.push_back(b'\n');
                } else {
                    self.column = 0;
                    self.out.push_back(b'\r');
                }
            }
            b'\t' => {
                let n = 8 - self.column % 8;
                self.column += n;
                if modes & o::XTABS == o::XTABS {
                    self.out.extend(core::iter::repeat_n(b' ', n));
                } else {
                    self.out.push_back(c);
                }
            }
            8 => {
                self.column = self.column.saturating_sub(1);
                self.out.push_back(c);
            }
            _ => {
                let upper = modes & o::OLCUC != 0;
                if !c.is_ascii_control() && !(c & 0xc0 == 0x80 && self.termios.input & i::IUTF8 != 0) {
                    self.column += 1;
                }
                self.out.push_back(if upper { c.to_ascii_uppercase() } else { c });
            }
        }
    }

    /// How many bytes a program may write now.
    pub fn output_room(&self) -> usize {
        // A byte becomes at most eight (a tab of spaces), but is nearly always one or two.
        OUTPUT_MAX.saturating_sub(self.out.len()) / if self.termios.output & o::XTABS == o::XTABS { 8 } else { 2 }
    }

    /// A program wrote.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.termios.output & o::OPOST == 0 {
            self.out.extend(bytes);
        } else {
            bytes.iter().for_each(|c| self.post(*c));
        }
    }

    // Reading.

    /// What a read of up to `room` bytes can do at time `now`; `started` is when it began to wait.
    pub fn readable(&self, room: usize, now: u64) -> Readable {
        if self.termios.has(l::ICANON) {
            return if self.lines.is_empty() { Readable::No } else { Readable::Now };
        }
        let least = usize::from(self.termios.chars.get(VMIN).copied().unwrap_or(1));
        let tenths = u64::from(self.termios.chars.get(VTIME).copied().unwrap_or(0));
        let have = self.ready.len();
        match (least, tenths) {
            (0, 0) => Readable::Now,
            (0, _) if have > 0 => Readable::Now,
            (0, _) => Readable::At(now.saturating_add(tenths * 100_000_000)),
            _ if have >= least.min(room) => Readable::Now,
            (_, 0) => Readable::No,
            _ if have == 0 => Readable::No,
            _ => {
                let due = self.last_input.saturating_add(tenths * 100_000_000);
                if now >= due { Readable::Now } else { Readable::At(due) }
            }
        }
    }

    /// Whether poll(2) says that there is input.
    pub fn has_input(&self) -> bool {
        if self.termios.has(l::ICANON) {
            return !self.lines.is_empty();
        }
        let timed = self.termios.chars.get(VTIME).copied().unwrap_or(0) != 0;
        let least = if timed { 1 } else { self.termios.chars.get(VMIN).copied().unwrap_or(1).max(1) };
        self.ready.len() >= usize::from(least)
    }

    /// Moves what a read may have into the sink: at most one line in canonical mode.
    pub fn read(&mut self, sink: &mut dyn Sink) -> usize {
        let canonical = self.termios.has(l::ICANON);
        let limit = match self.lines.front() {
            Some(n) if canonical => *n,
            _ if canonical => 0,
            _ => self.ready.len(),
        };
        let mut moved = 0;
        while moved < limit {
            let (front, _) = self.ready.as_slices();
            let Some(piece) = front.get(..front.len().min(limit - moved)) else { break };
            let n = sink.put(piece);
            let want = piece.len();
            self.ready.drain(..n);
            moved += n;
            if n < want {
                break;
            }
        }
        if canonical && let Some(left) = self.lines.front_mut() {
            *left -= moved;
            if *left == 0 {
                self.lines.pop_front();
            }
        }
        moved
    }

    /// How many bytes FIONREAD says.
    pub fn readable_bytes(&self) -> usize {
        self.ready.len()
    }

    /// How many bytes the line may send before input is lost.
    pub fn input_room(&self) -> usize {
        if self.termios.has(l::ICANON) && self.lines.is_empty() {
            // A line can always be ended, so there is always room for the byte that does.
            return (INPUT_MAX - self.edit.len().min(INPUT_MAX)).max(1);
        }
        INPUT_MAX.saturating_sub(self.ready.len() + self.edit.len())
    }

    /// Throws unread input away.
    pub fn flush_input(&mut self) {
        self.ready.clear();
        self.lines.clear();
        self.edit.clear();
        self.quote = false;
    }

    /// New modes.
    pub fn set_termios(&mut self, new: Termios) {
        let was = self.termios.has(l::ICANON);
        self.termios = new;
        let is = new.has(l::ICANON);
        if was && !is {
            self.ready.append(&mut self.edit);
            self.lines.clear();
        } else if !was && is && !self.ready.is_empty() {
            // What came before can be read as a line.
            self.lines.push_back(self.ready.len());
        }
        if new.input & i::IXON == 0 {
            self.stopped = false;
        }
    }
}

impl Default for Discipline {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{string::String, vec::Vec};

    use base::io::VecSink;

    use super::{Discipline, Readable};
    use crate::{
        terminal::TtySignal,
        tty::termios::{index, local},
    };

    fn echo(d: &mut Discipline) -> String {
        String::from_utf8(d.out.drain(..).collect()).expect("text")
    }

    fn read(d: &mut Discipline, n: usize) -> Vec<u8> {
        let mut sink = VecSink::new(n);
        d.read(&mut sink);
        sink.bytes
    }

    #[test]
    fn lines_are_edited_and_echoed() {
        let mut d = Discipline::new();
        for (typed, shown) in [
            ("ls\r", "ls\r\n"),
            ("ab\x7fc\n", "ab\x08 \x08c\r\n"),
            ("\x01\x7f\n", "^A\x08 \x08\x08 \x08\r\n"),
            ("foo bar\x17baz\n", "foo bar\x08 \x08\x08 \x08\x08 \x08baz\r\n"),
            ("xy\x15z\n", "xy\x08 \x08\x08 \x08z\r\n"),
            ("\x16\x03\n", "^\x08^C\r\n"),
            ("\x7f\n", "\r\n"),
        ] {
            d.receive(typed.as_bytes(), 0);
            assert_eq!(echo(&mut d), shown, "{typed:?}");
        }
        for line in ["ls\n", "ac\n", "\n", "foo baz\n", "z\n", "\x03\n", "\n"] {
            assert_eq!(read(&mut d, 100), line.as_bytes());
        }
        assert_eq!(d.readable(1, 0), Readable::No);
    }

    #[test]
    fn a_tab_is_erased_by_its_width() {
        let mut d = Discipline::new();
        d.receive(b"ab\t\x7f", 0);
        assert_eq!(echo(&mut d), "ab\t\x08\x08\x08\x08\x08\x08");
    }

    #[test]
    fn end_of_file_is_an_empty_read() {
        let mut d = Discipline::new();
        d.receive(b"abc\x04\x04", 0);
        assert_eq!(read(&mut d, 2), b"ab");
        assert_eq!(read(&mut d, 2), b"c");
        assert_eq!(d.readable(1, 0), Readable::Now);
        assert_eq!(read(&mut d, 2), b"");
        assert_eq!(d.readable(1, 0), Readable::No);
    }

    #[test]
    fn control_characters_are_signals() {
        let mut d = Discipline::new();
        let e = d.receive(b"abc\x03", 0);
        assert_eq!(e.signal, Some(TtySignal::Interrupt));
        assert_eq!(echo(&mut d), "^C");
        assert_eq!(d.receive(b"\x1a", 0).signal, Some(TtySignal::Suspend));
        assert_eq!(d.receive(b"\x1c", 0).signal, Some(TtySignal::Quit));
        d.receive(b"x\n", 0);
        assert_eq!(read(&mut d, 10), b"x\n", "what was typed before the signal is gone");
        let mut raw = d.termios;
        raw.local &= !local::ISIG;
        d.set_termios(raw);
        assert_eq!(d.receive(b"\x03\n", 0).signal, None);
    }

    #[test]
    fn flow_control_stops_and_starts() {
        let mut d = Discipline::new();
        d.receive(b"\x13", 0);
        assert!(d.stopped);
        assert!(d.receive(b"\x11", 0).output);
        assert!(!d.stopped);
    }

    #[test]
    fn raw_reads_follow_min_and_time() {
        let mut d = Discipline::new();
        let mut raw = d.termios;
        raw.local = 0;
        let mut set = |d: &mut Discipline, min, time| {
            raw.chars[index::VMIN] = min;
            raw.chars[index::VTIME] = time;
            d.set_termios(raw);
        };
        set(&mut d, 0, 0);
        assert_eq!(d.readable(10, 5), Readable::Now);
        set(&mut d, 0, 1);
        assert_eq!(d.readable(10, 5), Readable::At(100_000_005));
        set(&mut d, 3, 1);
        assert_eq!(d.readable(10, 5), Readable::No);
        d.receive(b"ab", 10);
        assert_eq!(d.readable(10, 20), Readable::At(100_000_010));
        assert_eq!(d.readable(2, 20), Readable::Now);
        assert_eq!(d.readable(10, 100_000_010), Readable::Now);
        d.receive(b"c", 30);
        assert_eq!(d.readable(10, 30), Readable::Now);
        assert_eq!(read(&mut d, 10), b"abc");
    }

    #[test]
    fn switching_modes_keeps_what_was_typed() {
        let mut d = Discipline::new();
        d.receive(b"half", 0);
        let mut raw = d.termios;
        raw.local &= !local::ICANON;
        d.set_termios(raw);
        assert_eq!(read(&mut d, 10), b"half");
        d.receive(b"more", 0);
        raw.local |= local::ICANON;
        d.set_termios(raw);
        assert_eq!(read(&mut d, 10), b"more");
    }

    proptest::proptest! {
        #[test]
        fn no_input_breaks_it(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..500), modes in proptest::num::u32::ANY) {
            let mut d = Discipline::new();
            let mut t = d.termios;
            t.local = modes;
            t.input = modes >> 3;
            t.output = modes >> 7;
            d.set_termios(t);
            d.receive(&bytes, 1);
            d.write(&bytes);
            d.set_termios(crate::ioctl::Termios::STANDARD);
            d.receive(&bytes, 2);
            while d.has_input() {
                let before = d.readable_bytes();
                let got = read(&mut d, 7);
                proptest::prop_assert!(!got.is_empty() || before == d.readable_bytes());
            }
        }
    }
}
