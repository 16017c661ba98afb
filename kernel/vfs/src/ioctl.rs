//! What ioctl(2) asks, decoded: the numbers and structs of a program's ISA stay in crate `linux`.

use alloc::sync::Arc;

use crate::OpenFile;

/// Terminal modes, termios(3); flag bits as on all ISAs here (`asm-generic/termbits.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Termios {
    /// Input modes.
    pub input: u32,
    /// Output modes.
    pub output: u32,
    /// Control modes.
    pub control: u32,
    /// Local modes.
    pub local: u32,
    /// Line discipline.
    pub line: u8,
    /// Special characters.
    pub chars: [u8; 19],
    /// Input speed in baud.
    pub input_speed: u32,
    /// Output speed in baud.
    pub output_speed: u32,
}

/// Size of a terminal window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WindowSize {
    /// Rows of characters.
    pub rows: u16,
    /// Columns of characters.
    pub columns: u16,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
}

/// When new terminal modes take effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At once.
    Now,
    /// After all output is sent.
    Drain,
    /// After that, and what was not read is thrown away.
    Flush,
}

/// Which queues of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queues {
    /// What was received and not read.
    Input,
    /// What was written and not sent.
    Output,
    /// Both.
    Both,
}

/// A request. Those that an object does not know are answered `ENOTTY`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ioctl {
    /// TCGETS.
    GetTermios,
    /// TCSETS, TCSETSW, TCSETSF.
    SetTermios(When, Termios),
    /// TIOCGWINSZ.
    GetWindow,
    /// TIOCSWINSZ.
    SetWindow(WindowSize),
    /// TIOCGPGRP.
    GetForeground,
    /// TIOCSPGRP.
    SetForeground(u32),
    /// TIOCGSID.
    GetSession,
    /// TIOCSCTTY; the argument says whether to steal it.
    TakeTerminal(bool),
    /// TIOCNOTTY.
    DropTerminal,
    /// FIONREAD, TIOCINQ.
    BytesReadable,
    /// TIOCOUTQ.
    BytesUnsent,
    /// TCFLSH.
    FlushQueues(Queues),
    /// TCSBRK with an argument, tcdrain(3).
    Drain,
    /// TCXONC: stop (`true`) or start output.
    Suspend(bool),
    /// TCXONC: send STOP (`true`) or START.
    SuspendInput(bool),
    /// TCSBRK, TCSBRKP.
    Break,
    /// TIOCGPTN.
    PtyNumber,
    /// TIOCSPTLCK.
    PtyLock(bool),
    /// TIOCGPTLCK.
    PtyLocked,
    /// TIOCGPTPEER; the answer is a file.
    PtyPeer(crate::OpenFlags, crate::Status),
    /// TIOCPKT.
    PacketMode(bool),
    /// TIOCEXCL, TIOCNXCL.
    Exclusive(bool),
    /// TIOCSTI.
    Insert(u8),
    /// TIOCVHANGUP.
    HangUp,
    /// BLKGETSIZE64.
    BlockBytes,
    /// The number of the process that a pidfd stands for; no program can ask this, calls on pidfds do.
    ProcessNumber,
    /// One that is not known to anybody; kept for the log.
    Other(u32),
}

/// The answer.
#[derive(Clone)]
pub enum IoctlReply {
    /// Done.
    Done,
    /// A number.
    Number(u64),
    /// Terminal modes.
    Termios(Termios),
    /// Window size.
    Window(WindowSize),
    /// A new open file.
    File(Arc<dyn OpenFile>),
}

impl core::fmt::Debug for IoctlReply {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Number(n) => write!(f, "Number({n})"),
            Self::Termios(t) => write!(f, "{t:?}"),
            Self::Window(w) => write!(f, "{w:?}"),
            Self::File(_) => f.write_str("File"),
        }
    }
}
