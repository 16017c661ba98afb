//! Programs into spaces, on the simulated kernel.

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec, vec::Vec};

use base::{Errno, Error, KernelId, Result, id::ObjectIds, wait::Op};
use hal::{addr::UserAddr, testing::on_kernel};
use linux_abi::Isa;
use mm::{FileLabel, Label, Limits, MappedPage, Memory, MemoryObject, PageCache, PageWait, Prot};

use super::{ExecFile, Identity, Loaded, Loader, Request, Strings, elf::tests::program, isa, load, stack::at};

struct Files(BTreeMap<&'static str, ExecFile>);

impl PageWait for Files {
    fn wait(&self, _op: Box<dyn Op<MappedPage>>) -> Result<()> {
        Err(Error::new(Errno::EINTR, "nothing to wait for in a test"))
    }
    fn no_memory(&self) -> Result<()> {
        Err(Error::new(Errno::ENOMEM, "out of memory in a test"))
    }
}

impl Loader for Files {
    fn open(&self, path: &[u8]) -> Result<ExecFile> {
        let path = core::str::from_utf8(path).map_err(|_| Errno::ENOENT)?;
        self.0.get(path).cloned().ok_or(Errno::ENOENT.into())
    }
    fn wait_read(&self, _op: Box<dyn Op<usize>>) -> Result<()> {
        Err(Error::new(Errno::EINTR, "nothing to wait for in a test"))
    }
}

fn file(memory: &Arc<Memory>, path: &str, bytes: &[u8]) -> ExecFile {
    let cache = PageCache::new(memory, 0);
    cache.write(0, &mut &*bytes).unwrap();
    ExecFile { object: cache, label: Arc::new(FileLabel { path: path.into(), device: 1, inode: 2 }) }
}

/// A program with text, data and bss; every byte of the file after the headers says where it is.
fn bytes(kind: u16, machine: u16, base: u64, interp: bool) -> Vec<u8> {
    let mut parts = vec![
        (1, 5, 0, base, 0x1800, 0x1800),
        (1, 6, 0x1800, base + 0x2800, 0x900, 0x3000),
        (0x6474_e551, 6, 0, 0, 0, 0),
    ];
    if interp {
        parts.push((3, 4, 0x400, base + 0x400, 11, 11));
    }
    let mut out = program(kind, machine, &parts);
    let head = out.len();
    out.extend((head..0x2400).map(|i| (i / 16) as u8));
    out[24..32].copy_from_slice(&(base + 0x1000).to_le_bytes());
    out[0x400..0x40b].copy_from_slice(b"/lib/ld.so\0");
    out
}

fn strings(list: &[&str]) -> Strings {
    let mut all = Strings::new();
    for string in list {
        all.push(string.as_bytes()).unwrap();
    }
    all
}

fn go(memory: &Arc<Memory>, files: &Files, path: &str) -> Result<Loaded> {
    let request = Request {
        memory,
        file: files.open(path.as_bytes())?,
        path: path.as_bytes(),
        argv: strings(&["prog", "arg"]),
        envp: strings(&["HOME=/"]),
        limits: Limits::default(),
        identity: Identity::default(),
        fixed_addresses: false,
    };
    load(request, files)
}

fn peek(loaded: &Loaded, at: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    assert_eq!(loaded.space.peek(UserAddr(at), &mut buf).done, len, "{at:#x}");
    buf
}

fn word(loaded: &Loaded, at: u64) -> u64 {
    u64::from_le_bytes(peek(loaded, at, 8).try_into().unwrap())
}

fn text(loaded: &Loaded, at: u64) -> Vec<u8> {
    (at..).map(|at| peek(loaded, at, 1)[0]).take_while(|byte| *byte != 0).collect()
}

fn on_files(test: impl FnOnce(&Arc<Memory>, &mut Files)) {
    on_kernel(|| {
        let memory = Memory::new(Arc::new(ObjectIds::new(KernelId { index: 0, incarnation: 1 }))).unwrap();
        let mut files = Files(BTreeMap::new());
        for (path, bytes) in [
            ("/static", bytes(2, 62, 0x40_0000, false)),
            ("/pie", bytes(3, 62, 0, false)),
            ("/dynamic", bytes(3, 62, 0, true)),
            ("/lib/ld.so", bytes(3, 62, 0, false)),
            ("/arm", bytes(2, 183, 0x40_0000, false)),
            ("/script", b"#!/static -x y\nhello".into()),
            ("/twice", b"#! /script\n".into()),
            ("/loop", b"#!/loop\n".into()),
            ("/lost", b"#!/nowhere\n".into()),
            ("/text", b"just text".into()),
        ] {
            files.0.insert(path, file(&memory, path, &bytes));
        }
        test(&memory, &mut files);
    });
}

#[test]
fn a_static_program() {
    on_files(|memory, files| {
        let loaded = go(memory, files, "/static").unwrap();
        assert_eq!(loaded.entry, 0x40_1000);
        let source = bytes(2, 62, 0x40_0000, false);
        assert_eq!(peek(&loaded, 0x40_0000, 0x1800), source[..0x1800]);
        assert_eq!(peek(&loaded, 0x40_2800, 0x900), source[0x1800..0x2100]);
        assert_eq!(peek(&loaded, 0x40_3100, 0x2f00), vec![0; 0x2f00]);
        // The file itself was not changed by clearing the end of the data.
        let mut sink = base::io::VecSink::new(0x2400);
        files.open(b"/static").unwrap().object.read(0, &mut sink).unwrap();
        assert_eq!(sink.bytes, source);
        // The stack.
        assert_eq!(word(&loaded, loaded.sp), 2);
        assert_eq!(text(&loaded, word(&loaded, loaded.sp + 8)), b"prog");
        assert_eq!(text(&loaded, word(&loaded, loaded.sp + 32)), b"HOME=/");
        let program = loaded.space.program();
        let aux = |kind: u64| program.auxv.iter().find(|[k, _]| *k == kind).map(|[_, v]| *v);
        assert_eq!(aux(at::ENTRY), Some(0x40_1000));
        assert_eq!(aux(at::PHDR), Some(0x40_0040));
        assert_eq!(aux(at::BASE), Some(0));
        assert_eq!(text(&loaded, aux(at::EXECFN).unwrap()), b"/static");
        // Protection, and a heap after the program.
        let maps = loaded.space.mappings();
        let prot = |at: u64| maps.iter().find(|m| m.start <= at && at < m.end).map(|m| m.prot);
        assert_eq!(prot(0x40_0000), Some(Prot::READ | Prot::EXEC));
        assert_eq!(prot(0x40_2000), Some(Prot::READ | Prot::WRITE));
        assert_eq!(prot(loaded.sp), Some(Prot::READ | Prot::WRITE));
        assert!(loaded.space.brk() >= 0x40_6000);
        assert!(maps.iter().any(|m| m.label == Label::Stack));
    });
}

#[test]
fn programs_that_move_and_their_interpreters() {
    on_files(|memory, files| {
        let pie = go(memory, files, "/pie").unwrap();
        let other = go(memory, files, "/pie").unwrap();
        assert!(pie.entry.is_multiple_of(4096) && pie.entry > 1 << 40);
        assert_ne!(pie.entry, other.entry, "addresses are random");
        let loaded = go(memory, files, "/dynamic").unwrap();
        let program = loaded.space.program();
        let aux = |kind: u64| program.auxv.iter().find(|[k, _]| *k == kind).map(|[_, v]| *v).unwrap();
        assert_eq!(loaded.entry, aux(at::BASE) + 0x1000);
        assert_eq!(aux(at::ENTRY), aux(at::PHDR) - 0x40 + 0x1000);
        assert_eq!(peek(&loaded, aux(at::BASE), 4), b"\x7fELF");
        assert_eq!(peek(&loaded, aux(at::ENTRY) - 0x1000, 4), b"\x7fELF");
    });
}

#[test]
fn scripts() {
    on_files(|memory, files| {
        let loaded = go(memory, files, "/twice").unwrap();
        assert_eq!(loaded.argv.bytes(), b"/static\0-x y\0/script\0/twice\0arg\0");
        assert_eq!(loaded.file.label.path, b"/static");
        assert_eq!(isa(&files.open(b"/twice").unwrap(), files).unwrap(), Isa::X86_64);
        assert_eq!(isa(&files.open(b"/arm").unwrap(), files).unwrap(), Isa::Aarch64);
    });
}

#[test]
fn what_cannot_be_executed() {
    on_files(|memory, files| {
        let errno = |files: &Files, path: &str| go(memory, files, path).err().unwrap().errno();
        assert_eq!(errno(files, "/text"), Errno::ENOEXEC);
        assert_eq!(errno(files, "/arm"), Errno::ENOEXEC);
        assert_eq!(errno(files, "/loop"), Errno::ELOOP);
        assert_eq!(errno(files, "/lost"), Errno::ENOENT);
        files.0.insert("/lib/ld.so", file(memory, "/lib/ld.so", &[b'x'; 100]));
        assert_eq!(errno(files, "/dynamic"), Errno::ELIBBAD);
        files.0.remove("/lib/ld.so");
        assert_eq!(errno(files, "/dynamic"), Errno::ENOENT);
        let cut = file(memory, "/cut", &bytes(2, 62, 0x40_0000, false)[..0x800]);
        files.0.insert("/cut", cut);
        assert_eq!(errno(files, "/cut"), Errno::ENOEXEC);
    });
}

#[test]
fn nothing_leaks() {
    on_files(|memory, files| {
        drop(go(memory, files, "/dynamic").unwrap());
        let before = hal::frame::stats().free;
        for _ in 0..10 {
            drop(go(memory, files, "/dynamic").unwrap());
            let _ = go(memory, files, "/cut");
        }
        assert_eq!(hal::frame::stats().free, before);
    });
}
