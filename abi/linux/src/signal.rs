//! Signal numbers: the same on x86-64, aarch64 and riscv64 (`asm-generic/signal.h`).

/// Declares the standard signals.
macro_rules! signals {
    ($($name:ident = $nr:literal, $action:ident;)*) => {
        /// The standard signals, by number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Standard {
            $($name = $nr,)*
        }

        impl Standard {
            /// The signal with this number, if it is a standard one.
            pub const fn from_number(nr: u32) -> Option<Self> {
                match nr {
                    $($nr => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The name as in `signal(7)`, for example `"SIGHUP"`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// What happens if the program has said nothing (`signal(7)`).
            pub const fn default_action(self) -> DefaultAction {
                match self {
                    $(Self::$name => DefaultAction::$action,)*
                }
            }
        }
    };
}

/// What a signal does that is neither caught nor ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// Ends the process.
    Terminate,
    /// Ends the process, with a core dump.
    Core,
    /// Nothing.
    Ignore,
    /// Stops the process.
    Stop,
    /// Lets a stopped process go on.
    Continue,
}

signals! {
    SIGHUP = 1, Terminate;
    SIGINT = 2, Terminate;
    SIGQUIT = 3, Core;
    SIGILL = 4, Core;
    SIGTRAP = 5, Core;
    SIGABRT = 6, Core;
    SIGBUS = 7, Core;
    SIGFPE = 8, Core;
    SIGKILL = 9, Terminate;
    SIGUSR1 = 10, Terminate;
    SIGSEGV = 11, Core;
    SIGUSR2 = 12, Terminate;
    SIGPIPE = 13, Terminate;
    SIGALRM = 14, Terminate;
    SIGTERM = 15, Terminate;
    SIGSTKFLT = 16, Terminate;
    SIGCHLD = 17, Ignore;
    SIGCONT = 18, Continue;
    SIGSTOP = 19, Stop;
    SIGTSTP = 20, Stop;
    SIGTTIN = 21, Stop;
    SIGTTOU = 22, Stop;
    SIGURG = 23, Ignore;
    SIGXCPU = 24, Core;
    SIGXFSZ = 25, Core;
    SIGVTALRM = 26, Terminate;
    SIGPROF = 27, Terminate;
    SIGWINCH = 28, Ignore;
    SIGIO = 29, Terminate;
    SIGPWR = 30, Terminate;
    SIGSYS = 31, Core;
}

/// The first real-time signal, as the kernel counts.
pub const SIGRTMIN: u32 = 32;
/// The last signal.
pub const SIGRTMAX: u32 = 64;

/// What an uncaught signal does; real-time signals end the process.
pub const fn default_action(nr: u32) -> DefaultAction {
    match Standard::from_number(nr) {
        Some(signal) => signal.default_action(),
        None => DefaultAction::Terminate,
    }
}

// The target that this is compiled for agrees.
const _: () = {
    use linux_raw_sys::general as raw;
    assert!(Standard::SIGBUS as u32 == raw::SIGBUS && Standard::SIGUSR1 as u32 == raw::SIGUSR1);
    assert!(Standard::SIGCHLD as u32 == raw::SIGCHLD && Standard::SIGCONT as u32 == raw::SIGCONT);
    assert!(Standard::SIGTSTP as u32 == raw::SIGTSTP && Standard::SIGTTOU as u32 == raw::SIGTTOU);
    assert!(
        Standard::SIGSYS as u32 == raw::SIGSYS && Standard::SIGPWR as u32 == raw::SIGPWR && SIGRTMIN == raw::SIGRTMIN
    );
};
