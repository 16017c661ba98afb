//! The console and the devices that mean "my terminal".

use alloc::sync::Arc;

use base::{Errno, Error, TryResult};

use super::{Port, Tty};
use crate::{Caller, Device, Env, OpenFile, OpenFlags, Place, Status, Vfs, device::Driver, types::FileKind};

/// `/dev/console`.
pub const CONSOLE: Device = Device::new(5, 1);
/// `/dev/tty`.
pub const TTY: Device = Device::new(5, 0);
/// `/dev/ttyS0`.
pub const SERIAL: Device = Device::new(4, 64);

/// A terminal as a device.
struct TtyDriver {
    tty: Arc<Tty>,
    /// Opening it does not make it the controlling terminal.
    no_ctty: bool,
}

impl Driver for TtyDriver {
    fn open(
        &self,
        _: Device,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        let flags = if self.no_ctty { flags | OpenFlags::NO_CTTY } else { flags };
        self.tty.open_at(caller, flags, status, place)
    }
}

/// `/dev/tty`: the controlling terminal of whoever opens it.
struct MyTty(Arc<dyn Env>);

impl Driver for MyTty {
    fn open(
        &self,
        _: Device,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        let terminal = self.0.session(caller).ok().and_then(|s| s.terminal(caller.pid));
        terminal.ok_or(Error::new(Errno::ENXIO, "no controlling terminal"))?.open(caller, flags, status, place)
    }
}

/// Makes the console over `port`, and `/dev/tty`. The driver hands what it receives to [`Tty::receive`] and says [`Tty::writable`].
pub fn install(vfs: &Vfs, port: Arc<dyn Port>) -> Arc<Tty> {
    let tty = Tty::new(vfs.env(), SERIAL, Some(port));
    let serial = Arc::new(TtyDriver { tty: tty.clone(), no_ctty: false });
    vfs.devices.add(FileKind::Char, SERIAL.major, Some(SERIAL.minor), serial);
    let console = Arc::new(TtyDriver { tty: tty.clone(), no_ctty: true });
    vfs.devices.add(FileKind::Char, CONSOLE.major, Some(CONSOLE.minor), console);
    vfs.devices.add(FileKind::Char, TTY.major, Some(TTY.minor), Arc::new(MyTty(vfs.env().clone())));
    tty
}
