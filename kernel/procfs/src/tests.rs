//! The trees on the simulated kernel, as programs walk and read them.

use alloc::{
    boxed::Box,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

use base::{Errno, Error, KernelId, Try, TryResult, Wake, id::ObjectIds, io::VecSink, wait::Op, wait::done};
use hal::{
    addr::UserAddr,
    sync::{SpinLock, rank},
    testing::on_kernel,
    usermode::UserContext,
};
use linux_abi::Isa;
use task::{Abi, Cx, Facts, Kernel, Pid, Placement};
use vfs::{
    Caller, Entry as Listed, FileKind, Follow, OpenFile, OpenFlags, ReadOut, SeekFrom, SetAttr, Status, Walk,
    caller::NoWait,
    place::MountFlags,
    tmpfs::{Limits, Tmpfs},
};

use crate::{Entry, Trees, install};

struct NoCalls;

impl Abi for NoCalls {
    fn syscall(&self, _: &Cx, _: u64, _: [u64; 6]) -> i64 {
        -38
    }
    fn restart_nr(&self, _: Isa) -> u64 {
        0
    }
}

static ABI: NoCalls = NoCalls;

/// As programs see it.
type Result<T> = core::result::Result<T, Errno>;

/// A kernel with `/proc`, `/sys` and process 1.
struct World {
    kernel: Arc<Kernel>,
    trees: Trees,
    me: Caller,
}

fn world() -> World {
    let id = KernelId { index: 0, incarnation: 1 };
    let ids = Arc::new(ObjectIds::new(id));
    let memory = mm::Memory::new(ids.clone()).unwrap();
    let facts = Facts { id, isa: Isa::X86_64, name: "test".into(), kernels: 2, version: "#1 test".into() };
    let kernel = Kernel::new(facts, memory, ids, &ABI);
    let trees = install(&kernel, None, "console=ttyS0 quiet");
    let vfs = kernel.vfs();
    let root = Tmpfs::new(vfs, 0o755, Limits::NONE);
    for name in [&b"proc"[..], b"sys"] {
        root.add(name, vfs::NewNode::Directory, 0o755).unwrap();
    }
    vfs.mount_root(root, "rootfs", "rootfs").unwrap();
    let me = Caller { pid: 1, ..Caller::kernel() };
    let world = World { kernel, trees, me };
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys")] {
        let place = world.walk(|w| w.find(at.as_bytes(), Follow::Yes)).unwrap();
        world.kernel.vfs().mount(&world.me, place, kind, kind, "", MountFlags::NOSUID).unwrap();
    }
    world.kernel.start_scripted(Pid::INIT, UserContext::new(UserAddr(0x1000), UserAddr(0x2000))).unwrap();
    world
}

impl World {
    fn walk<R>(&self, f: impl FnOnce(&Walk<'_>) -> R) -> R {
        let vfs = self.kernel.vfs();
        let root = vfs.root().unwrap();
        f(&Walk { vfs, caller: &self.me, root: root.clone(), start: root, wait: &NoWait })
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<dyn OpenFile>> {
        self.walk(|w| w.open(path.as_bytes(), flags, Status::empty(), 0)).map_err(Error::errno)
    }

    fn read(&self, path: &str) -> Result<String> {
        let file = self.open(path, OpenFlags::READ)?;
        self.rest(&file)
    }

    fn rest(&self, file: &Arc<dyn OpenFile>) -> Result<String> {
        let mut all = Vec::new();
        loop {
            // Small pieces, as a careless program reads.
            let bytes = self.piece(file, 100)?;
            if bytes.is_empty() {
                return Ok(String::from_utf8(all).unwrap());
            }
            all.extend(bytes);
        }
    }

    fn piece(&self, file: &Arc<dyn OpenFile>, limit: usize) -> Result<Vec<u8>> {
        let mut sink = VecSink::new(limit);
        let mut tried = file.read(&self.me, &mut sink);
        loop {
            match tried.map_err(Error::errno)? {
                Try::Done(ReadOut::InPlace(n)) => {
                    assert_eq!(n, sink.bytes.len());
                    return Ok(sink.bytes);
                }
                Try::Done(ReadOut::Bytes(bytes) | ReadOut::Part(bytes)) => return Ok(bytes),
                Try::WouldBlock => return Err(Errno::EAGAIN),
                Try::Started(mut op) => tried = op.take().unwrap_or(Err(Errno::EIO.into())),
            }
        }
    }

    fn write(&self, path: &str, text: &str) -> Result<usize> {
        let file = self.open(path, OpenFlags::WRITE | OpenFlags::TRUNCATE)?;
        match file.write(&self.me, &mut text.as_bytes()).map_err(Error::errno)? {
            Try::Done(n) => Ok(n),
            _ => Err(Errno::EAGAIN),
        }
    }

    fn list(&self, path: &str) -> Vec<Listed> {
        let dir = self.open(path, OpenFlags::READ | OpenFlags::DIRECTORY).unwrap();
        let mut all: Vec<Listed> = Vec::new();
        assert!(matches!(dir.read_dir(&mut all), Ok(Try::Done(_))));
        all
    }

    fn names(&self, path: &str) -> Vec<String> {
        self.list(path).into_iter().map(|e| String::from_utf8(e.name).unwrap()).collect()
    }
}

#[test]
fn processes_are_listed_with_the_numbers_that_stat_gives() {
    on_kernel(|| {
        let w = world();
        let names = w.names("/proc");
        assert_eq!(names[..2], [".", ".."]);
        for name in ["1", "self", "thread-self", "cob", "meminfo", "sys", "mounts"] {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
        for entry in w.list("/proc/1").into_iter().skip(2) {
            let path = [&b"/proc/1/"[..], &entry.name].concat();
            let inode = w.walk(|walk| walk.find(&path, Follow::No)).unwrap().inode().clone();
            let Ok(Try::Done(stat)) = inode.stat() else { panic!("{path:?}") };
            assert_eq!((stat.inode, stat.kind), (entry.inode, entry.kind), "{}", String::from_utf8_lossy(&path));
        }
        assert_eq!(w.read("/proc/77/stat"), Err(Errno::ENOENT));
        // One way only to write a number.
        assert_eq!(w.read("/proc/01/stat"), Err(Errno::ENOENT));
    });
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    on_kernel(|| {
        struct One(Option<Vec<u8>>);
        impl vfs::DirSink for One {
            fn put(&mut self, name: &[u8], _: u64, _: FileKind, _: u64) -> bool {
                self.0.is_none() && self.0.replace(name.into()).is_none()
            }
        }
        let w = world();
        let dir = w.open("/proc/1", OpenFlags::READ | OpenFlags::DIRECTORY).unwrap();
        let mut names = Vec::new();
        loop {
            let mut one = One(None);
            assert!(matches!(dir.read_dir(&mut one), Ok(Try::Done(_))));
            match one.0 {
                Some(name) => names.push(String::from_utf8(name).unwrap()),
                None => break,
            }
        }
        assert_eq!(names, w.names("/proc/1"));
        // rewinddir(3), and telldir(3) of the third entry.
        let at = w.list("/proc/1")[1].next;
        for (to, first) in [(0, "."), (at, names[2].as_str())] {
            assert!(matches!(dir.seek(SeekFrom::Start(to)), Ok(Try::Done(_))));
            let mut one = One(None);
            assert!(matches!(dir.read_dir(&mut one), Ok(Try::Done(1))));
            assert_eq!(one.0.as_deref(), Some(first.as_bytes()));
        }
    });
}

#[test]
fn every_text_can_be_read() {
    on_kernel(|| {
        let w = world();
        // Makes a tree walk of both file systems; whatever is a text is read, whatever is a link is shown.
        let mut left: Vec<String> = ["/proc", "/sys"].map(String::from).into();
        let mut texts = 0;
        while let Some(dir) = left.pop() {
            for entry in w.list(&dir).into_iter().skip(2) {
                let path = dir.clone() + "/" + core::str::from_utf8(&entry.name).unwrap();
                match entry.kind {
                    FileKind::Directory => left.push(path),
                    FileKind::Regular => {
                        let text = w.read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
                        assert!(text.is_empty() || text.ends_with(['\n', '\0']) || path.ends_with("wchan"), "{path}");
                        texts += 1;
                    }
                    _ => {
                        let place = w.walk(|walk| walk.find(path.as_bytes(), Follow::No)).unwrap();
                        // Process 1 has no program here.
                        let link = place.inode().read_link(&w.me);
                        assert!(matches!(link, Ok(Try::Done(_))) || path.ends_with("/exe"), "{path}");
                    }
                }
            }
        }
        assert!(texts > 60, "{texts}");
    });
}

#[test]
fn self_is_the_process_that_looks() {
    on_kernel(|| {
        let w = world();
        assert!(w.read("/proc/self/stat").unwrap().starts_with("1 (init) "));
        assert!(w.read("/proc/thread-self/status").unwrap().contains("\nPid:\t1\n"));
        assert_eq!(w.names("/proc/self/task"), [".", "..", "1"]);
        let mounts = w.read("/proc/mounts").unwrap();
        assert_eq!(mounts, "rootfs / rootfs rw 0 0\nproc /proc proc rw,nosuid 0 0\nsysfs /sys sysfs rw,nosuid 0 0\n");
        // Links that are places: through cwd into the tree again.
        assert_eq!(w.read("/proc/self/cwd/proc/self/comm").unwrap(), "init\n");
        let other = World { me: Caller { pid: 99, uid: 1000, ..Caller::default() }, ..w };
        assert_eq!(other.read("/proc/self/stat"), Err(Errno::ENOENT));
        assert_eq!(other.read("/proc/1/environ"), Err(Errno::EACCES));
        assert_eq!(other.read("/proc/1/cwd/proc/uptime"), Err(Errno::EACCES));
        assert_eq!(other.read("/proc/1/comm").unwrap(), "init\n");
    });
}

#[test]
fn descriptors_lead_to_what_they_are() {
    on_kernel(|| {
        let w = world();
        let file = w.open("/proc/uptime", OpenFlags::READ).unwrap();
        let files = w.kernel.table.process(Pid::INIT).unwrap().leader().unwrap().files();
        assert_eq!(files.open(file, true, 5, 100).unwrap(), 5);
        assert_eq!(w.names("/proc/self/fd"), [".", "..", "5"]);
        let place = w.walk(|walk| walk.find(b"/proc/self/fd/5", Follow::Yes)).unwrap();
        assert_eq!(place.path(None).0, b"/proc/uptime");
        assert!(w.read("/proc/self/fdinfo/5").unwrap().starts_with("pos:\t0\nflags:\t02000000\n"));
        assert_eq!(w.read("/proc/self/fdinfo/6"), Err(Errno::ENOENT));
    });
}

/// Counts how often it was asked, and holds what was written.
struct Counted {
    reads: SpinLock<u32>,
    wrote: SpinLock<Vec<String>>,
    slow: bool,
}

/// An operation that has ended.
struct Ended(Option<Vec<u8>>);

impl Op<Vec<u8>> for Ended {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        waker.wake(base::Ready::IN);
    }
    fn take(&mut self) -> Option<TryResult<Vec<u8>>> {
        self.0.take().map(done)
    }
}

impl Entry for Arc<Counted> {
    fn read(&self, _: &Caller) -> TryResult<Vec<u8>> {
        assert_eq!(hal::sync::held(), 0, "a text may take any lock");
        let mut reads = self.reads.lock();
        *reads += 1;
        let text = reads.to_string().repeat(150).into_bytes();
        if self.slow { Ok(Try::Started(Box::new(Ended(Some(text))))) } else { done(text) }
    }
    fn write(&self, _: &Caller, bytes: &[u8]) -> TryResult<()> {
        assert_eq!(hal::sync::held(), 0, "a command may take any lock");
        let text = String::from_utf8(bytes.into()).map_err(|_| Errno::EINVAL)?;
        if text == "stop 9" {
            return Err(Error::new(Errno::ENXIO, "no such kernel"));
        }
        self.wrote.lock().push(text);
        done(())
    }
    fn mode(&self) -> u32 {
        0o600
    }
}

fn counted(w: &World, name: &str, slow: bool) -> Arc<Counted> {
    let entry =
        Counted { reads: SpinLock::new(rank::SERVICE, 0), wrote: SpinLock::new(rank::SERVICE, Vec::new()), slow };
    let entry = Arc::new(entry);
    w.trees.cob.file(name, entry.clone());
    entry
}

#[test]
fn what_one_reader_sees_belongs_together() {
    on_kernel(|| {
        let w = world();
        for (name, slow) in [("quick", false), ("slow", true)] {
            counted(&w, name, slow);
            let file = w.open(&(String::from("/proc/cob/") + name), OpenFlags::READ).unwrap();
            assert_eq!(w.rest(&file).unwrap(), "1".repeat(150));
            // From the start again: made anew, as for programs that keep /proc/stat open.
            assert!(matches!(file.seek(SeekFrom::Start(0)), Ok(Try::Done(0))));
            assert_eq!(w.piece(&file, 10).unwrap(), b"2222222222");
            assert_eq!(w.rest(&file).unwrap(), "2".repeat(140));
            // pread(2) leaves the position alone.
            let mut sink = VecSink::new(4);
            assert!(file.read_at(&w.me, 148, &mut sink).is_ok());
            assert_eq!(sink.bytes, b"22");
            assert_eq!(w.piece(&file, 10).unwrap(), b"");
            assert_eq!(file.seek(SeekFrom::End(0)).err().map(Error::errno), Some(Errno::EINVAL));
        }
    });
}

#[test]
fn a_write_is_a_command() {
    on_kernel(|| {
        let w = world();
        let control = counted(&w, "control", false);
        assert_eq!(w.write("/proc/cob/control", "boot 1\n"), Ok(7));
        assert_eq!(w.write("/proc/cob/control", "stop 9"), Err(Errno::ENXIO));
        assert_eq!(*control.wrote.lock(), ["boot 1\n"]);
        assert_eq!(w.write("/proc/uptime", "0"), Err(Errno::EIO));
        let other = World { me: Caller { uid: 5, ..Caller::default() }, ..w };
        assert_eq!(other.write("/proc/cob/control", "boot 1"), Err(Errno::EACCES));
    });
}

#[test]
fn names_cannot_be_made_or_taken_away() {
    on_kernel(|| {
        let w = world();
        let create = OpenFlags::WRITE | OpenFlags::CREATE;
        assert_eq!(w.open("/proc/new", create).err(), Some(Errno::ENOENT));
        assert!(w.open("/proc/self/oom_score_adj", create | OpenFlags::TRUNCATE).is_ok());
        let proc = w.walk(|walk| walk.find(b"/proc", Follow::Yes)).unwrap();
        assert_eq!(proc.inode().unlink(&w.me, b"uptime", false).err().map(Error::errno), Some(Errno::EPERM));
        let chmod = SetAttr { mode: Some(0o777), ..SetAttr::default() };
        assert_eq!(proc.inode().set_attr(&w.me, chmod).err().map(Error::errno), Some(Errno::EPERM));
        let Ok(Try::Done(fs)) = proc.inode().stat_fs() else { panic!() };
        assert_eq!(fs.magic, 0x9fa0);
        assert_eq!(w.open("/proc", OpenFlags::WRITE).err(), Some(Errno::EISDIR));
    });
}

#[test]
fn placement_is_written_as_documented() {
    on_kernel(|| {
        let w = world();
        let path = "/proc/self/cob/placement";
        let process = w.kernel.table.process(Pid::INIT).unwrap();
        assert_eq!(w.read(path).unwrap(), "-\n");
        assert_eq!(w.write(path, "0\n"), Ok(2));
        assert_eq!((w.read(path).unwrap().as_str(), process.placement()), ("0\n", Placement::Kernel(0)));
        assert_eq!(w.write(path, "7\n"), Err(Errno::ENXIO));
        assert_eq!(w.write(path, "auto"), Err(Errno::EINVAL));
        assert_eq!(process.placement(), Placement::Kernel(0));
        assert_eq!(w.write(path, "-"), Ok(1));
        assert_eq!(process.placement(), Placement::Automatic);
    });
}

#[test]
fn settings_change_what_they_show() {
    on_kernel(|| {
        let w = world();
        assert_eq!(w.write("/proc/sys/kernel/hostname", "lab\n"), Ok(4));
        assert_eq!(w.kernel.names.lock().host, "lab");
        assert_eq!(w.write("/proc/sys/vm/overcommit_memory", "1\n"), Ok(2));
        assert_eq!(w.read("/proc/sys/vm/overcommit_memory").unwrap(), "1\n");
        assert_eq!(w.write("/proc/sys/vm/overcommit_memory", "3"), Err(Errno::EINVAL));
        assert_eq!(w.write("/proc/self/oom_score_adj", "500"), Ok(3));
        assert_eq!(w.read("/proc/self/oom_score_adj").unwrap(), "500\n");
        assert_eq!(w.write("/proc/self/oom_score_adj", "1001"), Err(Errno::EINVAL));
        assert_eq!(w.read("/proc/cmdline").unwrap(), "console=ttyS0 quiet\n");
        let ids = ["1", "2"].map(|_| w.read("/proc/sys/kernel/random/uuid").unwrap());
        assert_ne!(ids[0], ids[1]);
    });
}

#[test]
fn cpus_and_nodes_are_where_tools_look() {
    on_kernel(|| {
        let w = world();
        for (path, text) in [
            ("cpu/online", "0\n"),
            ("cpu/possible", "0\n"),
            ("cpu/cpu0/topology/core_siblings_list", "0\n"),
            ("node/online", "0\n"),
            ("node/node0/cpulist", "0\n"),
            ("node/node0/distance", "10\n"),
        ] {
            assert_eq!(w.read(&(String::from("/sys/devices/system/") + path)).unwrap(), text, "{path}");
        }
        let node = w.read("/sys/devices/system/node/node0/meminfo").unwrap();
        assert!(node.starts_with("Node 0 MemTotal:"), "{node}");
        assert!(w.read("/proc/meminfo").unwrap().contains("\nMemAvailable:"));
        assert_eq!(w.read("/sys/class/tty/console/active").unwrap(), "ttyS0\n");
    });
}
