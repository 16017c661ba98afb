//! Abstract names of local sockets, of the whole machine: the name service knows which kernel has a name, that kernel which socket.

use alloc::sync::{Arc, Weak};

use base::{Errno, Error, ObjectId, TryResult};
use names::{Kind, Name, NameService};
use vfs::socket::{Address, Names};
use wire::files::AddressFind;

use crate::service::FileService;

/// See the module.
pub struct Abstracts {
    files: Weak<FileService>,
    names: Arc<NameService>,
}

/// FNV-1a. Two names with one hash cannot be bound at the same time; that a name is the one that was asked for is looked at where it is bound.
fn key(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn name_of(name: &[u8]) -> Name {
    Name { kind: Kind::Abstract, key: key(name) }
}

impl Abstracts {
    /// The names of the machine that `names` knows.
    pub fn new(files: &Arc<FileService>, names: Arc<NameService>) -> Arc<Self> {
        Arc::new(Self { files: Arc::downgrade(files), names })
    }
}

impl Names for Abstracts {
    fn claim(&self, name: &[u8], object: ObjectId) -> TryResult<()> {
        let taken = |e: Error| if e == Errno::EEXIST { Error::new(Errno::EADDRINUSE, "the name is taken") } else { e };
        objects::map_error(self.names.claim(name_of(name), object), taken)
    }

    fn free(&self, name: &[u8], object: ObjectId) {
        self.names.unregister(name_of(name), object);
    }

    fn find(&self, name: &[u8]) -> TryResult<Arc<dyn Address>> {
        const REFUSED: Error = Error::new(Errno::ECONNREFUSED, "nobody is bound there");
        let files = self.files.clone();
        let asked = name.to_vec();
        let found = self.names.lookup(name_of(name)).and_then(|t| {
            t.and_then(move |entry| {
                let files = files.upgrade().ok_or(REFUSED)?;
                if entry.home == files.kernel() {
                    // It was here, and has gone since it was looked for here.
                    return Err(REFUSED);
                }
                let service = files.clone();
                let nobody = ObjectId { birth: entry.home, serial: 0 };
                files.ask_kernel(entry.home, nobody, &AddressFind {}, &asked, false, move |answer| {
                    service.take_address(answer)
                })
            })
        });
        objects::map_error(found, |_| REFUSED)
    }
}

impl core::fmt::Debug for Abstracts {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Abstracts")
    }
}
