//! Bits and characters of termios(3); the same on all ISAs here (`asm-generic/termbits.h`).

use crate::ioctl::Termios;

/// Input modes.
pub mod input {
    /// Ignore BREAK.
    pub const IGNBRK: u32 = 0o1;
    /// Strip the eighth bit.
    pub const ISTRIP: u32 = 0o40;
    /// NL to CR.
    pub const INLCR: u32 = 0o100;
    /// Ignore CR.
    pub const IGNCR: u32 = 0o200;
    /// CR to NL.
    pub const ICRNL: u32 = 0o400;
    /// Upper case to lower case.
    pub const IUCLC: u32 = 0o1000;
    /// STOP and START characters.
    pub const IXON: u32 = 0o2000;
    /// Any character starts output.
    pub const IXANY: u32 = 0o4000;
    /// Ring the bell when input is full.
    pub const IMAXBEL: u32 = 0o20000;
    /// Input is UTF-8, for erasing.
    pub const IUTF8: u32 = 0o40000;
}

/// Output modes.
pub mod output {
    /// Process output.
    pub const OPOST: u32 = 0o1;
    /// Lower case to upper case.
    pub const OLCUC: u32 = 0o2;
    /// NL to CR NL.
    pub const ONLCR: u32 = 0o4;
    /// CR to NL.
    pub const OCRNL: u32 = 0o10;
    /// No CR at column 0.
    pub const ONOCR: u32 = 0o20;
    /// NL does what CR does.
    pub const ONLRET: u32 = 0o40;
    /// Tab delays; all bits: tabs become spaces.
    pub const XTABS: u32 = 0o14000;
}

/// Local modes.
pub mod local {
    /// Signal characters.
    pub const ISIG: u32 = 0o1;
    /// Lines.
    pub const ICANON: u32 = 0o2;
    /// Echo.
    pub const ECHO: u32 = 0o10;
    /// Echo erase as backspace, space, backspace.
    pub const ECHOE: u32 = 0o20;
    /// Echo NL after KILL.
    pub const ECHOK: u32 = 0o40;
    /// Echo NL even without ECHO.
    pub const ECHONL: u32 = 0o100;
    /// Keep the queues on signals.
    pub const NOFLSH: u32 = 0o200;
    /// Background writers are stopped.
    pub const TOSTOP: u32 = 0o400;
    /// Echo control characters as `^X`.
    pub const ECHOCTL: u32 = 0o1000;
    /// KILL erases each character on the screen.
    pub const ECHOKE: u32 = 0o4000;
    /// Characters beyond POSIX.
    pub const IEXTEN: u32 = 0o100_000;
}

/// Places in [`Termios::chars`].
pub mod index {
    /// Interrupt.
    pub const VINTR: usize = 0;
    /// Quit.
    pub const VQUIT: usize = 1;
    /// Erase a character.
    pub const VERASE: usize = 2;
    /// Erase the line.
    pub const VKILL: usize = 3;
    /// End of file.
    pub const VEOF: usize = 4;
    /// Time-out of a raw read, in tenths of a second.
    pub const VTIME: usize = 5;
    /// Least size of a raw read.
    pub const VMIN: usize = 6;
    /// Start output.
    pub const VSTART: usize = 8;
    /// Stop output.
    pub const VSTOP: usize = 9;
    /// Suspend.
    pub const VSUSP: usize = 10;
    /// Another end of line.
    pub const VEOL: usize = 11;
    /// Show the line again.
    pub const VREPRINT: usize = 12;
    /// Erase a word.
    pub const VWERASE: usize = 14;
    /// The next character is taken as it is.
    pub const VLNEXT: usize = 15;
    /// One more end of line.
    pub const VEOL2: usize = 16;
}

/// `B38400 | CS8 | CREAD | HUPCL` and the like.
const CONTROL: u32 = 0o17 | 0o60 | 0o200 | 0o2000;

impl Termios {
    /// What a terminal starts with, `tty_std_termios` of Linux.
    pub const STANDARD: Self = Self {
        input: input::ICRNL | input::IXON,
        output: output::OPOST | output::ONLCR,
        control: CONTROL,
        local: local::ISIG
            | local::ICANON
            | local::ECHO
            | local::ECHOE
            | local::ECHOK
            | local::ECHOCTL
            | local::ECHOKE
            | local::IEXTEN,
        line: 0,
        chars: [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0],
        input_speed: 38400,
        output_speed: 38400,
    };

    /// Whether `bit` of the local modes is set.
    #[inline]
    pub const fn has(&self, bit: u32) -> bool {
        self.local & bit != 0
    }

    /// Whether `byte` is the special character `which` (0 is none).
    #[inline]
    pub fn is(&self, which: usize, byte: u8) -> bool {
        byte != 0 && self.chars.get(which) == Some(&byte)
    }
}
