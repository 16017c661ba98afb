//! `/dev`: a tmpfs with the usual nodes, and the drivers of those that are only memory.

use alloc::sync::Arc;

use base::{
    Errno, Error, Result, TryResult,
    io::{Sink, Source},
    wait::done,
};
use hal::sync::{SpinLock, rank};

use crate::{
    Caller, Device, Inode, LocalFile, OpenFile, OpenFlags, Place, SeekFrom, Status, Vfs,
    device::Driver,
    inode::NewNode,
    local::{FileOps, Wrote},
    mounts::FsType,
    tmpfs::{Limits, TmpInode, Tmpfs},
    types::FileKind,
};

/// The memory devices, by minor number of major 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    Null,
    Zero,
    Full,
    Random,
    Kmsg,
}

const NODES: &[(&str, u32, u32, u32)] = &[
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("kmsg", 1, 11, 0o644),
    ("tty", 5, 0, 0o666),
    ("console", 5, 1, 0o600),
    ("ttyS0", 4, 64, 0o620),
];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

struct MemoryDriver {
    env: Arc<dyn crate::Env>,
    rng: Arc<SpinLock<Rng>>,
}

/// A fast generator whose state is stirred with hardware entropy at every read (xoshiro256**).
struct Rng([u64; 4]);

impl Rng {
    fn new() -> Self {
        Self([hal::cpu::entropy() | 1, hal::cpu::entropy(), hal::cpu::entropy(), hal::cpu::entropy()])
    }

    fn stir(&mut self) {
        let [a, _, c, _] = &mut self.0;
        *a ^= hal::cpu::entropy();
        *c ^= hal::time::now();
        if self.0 == [0; 4] {
            self.0 = [1; 4];
        }
    }

    const fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        result
    }
}

/// Fills a sink with random bytes; for `/dev/urandom` and getrandom(2).
fn random(rng: &SpinLock<Rng>, sink: &mut dyn Sink) -> usize {
    let mut moved = 0;
    while sink.room() > 0 {
        let mut block = [0; 256];
        {
            let mut rng = rng.lock();
            rng.stir();
            for word in block.chunks_exact_mut(8) {
                word.copy_from_slice(&rng.next().to_le_bytes());
            }
        }
        let want = block.len().min(sink.room());
        let n = sink.put(block.get(..want).unwrap_or_default());
        moved += n;
        if n < want {
            break;
        }
    }
    moved
}

impl Driver for MemoryDriver {
    fn open(
        &self,
        device: Device,
        _: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        let which = match device.minor {
            3 => Memory::Null,
            5 => Memory::Zero,
            7 => Memory::Full,
            8 | 9 => Memory::Random,
            11 => Memory::Kmsg,
            _ => return Err(Errno::ENXIO.into()),
        };
        let ops = Arc::new(MemoryFile { which, env: self.env.clone(), rng: self.rng.clone() });
        done(LocalFile::new(self.env.new_id(), ops, place, flags, status))
    }
}

struct MemoryFile {
    which: Memory,
    env: Arc<dyn crate::Env>,
    rng: Arc<SpinLock<Rng>>,
}

impl FileOps for MemoryFile {
    // Positions mean nothing here: lseek(2) works and says 0.
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        match self.which {
            Memory::Null | Memory::Kmsg => done(0),
            Memory::Zero | Memory::Full => {
                let mut moved = 0;
                // In pieces, so that a long read lets interrupts in.
                while sink.room() > 0 {
                    let want = sink.room().min(65536);
                    let n = sink.put_zeros(want);
                    moved += n;
                    if n < want {
                        break;
                    }
                    if hal::sync::held() == 0 {
                        hal::cpu::breathe();
                    }
                }
                done(moved)
            }
            Memory::Random => done(random(&self.rng, sink)),
        }
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, source: &mut dyn Source) -> TryResult<Wrote> {
        match self.which {
            Memory::Full if source.left() > 0 => Err(Error::new(Errno::ENOSPC, "/dev/full")),
            Memory::Kmsg => {
                let mut line = [0; 1024];
                let n = source.take(&mut line);
                let text = alloc::string::String::from_utf8_lossy(line.get(..n).unwrap_or_default()).into_owned();
                self.env.log(format_args!("{}", text.trim_end()));
                done(Wrote { bytes: n, end: 0 })
            }
            // Nobody looks at the bytes, so they need not be there (as on Linux).
            _ => done(Wrote { bytes: source.left(), end: 0 }),
        }
    }

    fn seek(&self, _: SeekFrom, _: u64) -> Result<u64> {
        Ok(0)
    }

    fn can_epoll(&self) -> bool {
        self.which == Memory::Random
    }

    fn memory(&self) -> Result<Arc<dyn mm::MemoryObject>> {
        match self.which {
            Memory::Zero => Ok(mm::PageCache::new(self.env.memory(), i64::MAX as u64 & !4095)),
            _ => Err(Errno::ENODEV.into()),
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// `devtmpfs` for mount(2): one for all mounts.
pub struct DevFs {
    root: Arc<TmpInode>,
}

impl DevFs {
    /// Makes `/dev` with its nodes, and registers drivers and the file-system type.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn install(vfs: &Arc<Vfs>) -> Result<Arc<Self>> {
        let rng = Arc::new(SpinLock::new(rank::EVENT, Rng::new()));
        let driver = Arc::new(MemoryDriver { env: vfs.env().clone(), rng });
        vfs.devices.add(FileKind::Char, 1, None, driver);
        // As devtmpfs, which is a tmpfs like others.
        let root = Tmpfs::new(vfs, 0o755, Limits::of_memory());
        for (name, major, minor, mode) in NODES {
            root.add(name.as_bytes(), NewNode::Device(FileKind::Char, Device::new(*major, *minor)), *mode)?;
        }
        for (name, target) in LINKS {
            root.add(name.as_bytes(), NewNode::Symlink(target.as_bytes().into()), 0o777)?;
        }
        root.add(b"pts", NewNode::Directory, 0o755)?;
        root.add(b"shm", NewNode::Directory, 0o1777)?;
        let fs = Arc::new(Self { root });
        vfs.add_type(Arc::new(DevType(fs.clone())));
        Ok(fs)
    }

    /// A node for a device that a driver found.
    ///
    /// # Errors
    /// `EEXIST`.
    pub fn add(&self, name: &str, kind: FileKind, device: Device, mode: u32) -> Result<()> {
        self.root.add(name.as_bytes(), NewNode::Device(kind, device), mode).map(|_| ())
    }

    /// The directory.
    pub const fn root(&self) -> &Arc<TmpInode> {
        &self.root
    }
}

struct DevType(Arc<DevFs>);

impl FsType for DevType {
    fn name(&self) -> &str {
        "devtmpfs"
    }

    fn mount(&self, _: &Arc<Vfs>, _: &str, _: &str) -> Result<Arc<dyn Inode>> {
        Ok(self.0.root.clone())
    }
}
