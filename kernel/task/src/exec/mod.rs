//! Loading a program: what `execve(2)` does to memory.
//!
//! [`load`] makes a complete new address space and touches nothing of the caller's: whatever fails before it returns is an errno for the old
//! program, which goes on. The caller then takes the new space over and drops the old one; there is no half-way.
//!
//! * `elf.rs`: what the file asks for (pure).
//! * `script.rs`: `#!` lines (pure).
//! * `stack.rs`: the first bytes on the stack (pure).
//! * `place.rs`: segments into a space.

pub mod elf;
mod place;
pub mod script;
pub mod stack;
#[cfg(test)]
mod tests;

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use base::{Errno, Error, Result, Try, wait::Op};
use linux_abi::Isa;
use mm::{FileLabel, Label, Limits, Memory, MemoryObject, PageWait, Program, Prot, Space};

pub use stack::Strings;
use stack::at;

/// How often a script may name another script as its interpreter.
const SCRIPTS_MAX: usize = 4;

/// A program's file, opened for execution: permission and type were checked.
#[derive(Clone)]
pub struct ExecFile {
    /// Its bytes.
    pub object: Arc<dyn MemoryObject>,
    /// What it is called in `/proc/PID/maps`.
    pub label: Arc<FileLabel>,
}

/// What loading needs from the task that asks for it. It may wait.
pub trait Loader: PageWait {
    /// Opens an interpreter by its path, for execution.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES` (not a regular file, no permission, mounted `noexec`), `ELOOP`, ...
    fn open(&self, path: &[u8]) -> Result<ExecFile>;
    /// Sleeps until a read can be tried again.
    ///
    /// # Errors
    /// `EINTR` if the task is to die, or what the read ended with.
    fn wait_read(&self, op: Box<dyn Op<usize>>) -> Result<()>;
}

/// Who the program will run as, for the auxiliary vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective group.
    pub egid: u32,
    /// It has more rights than whoever starts it (set-id, capabilities).
    pub secure: bool,
}

/// The arguments of [`load`].
pub struct Request<'a> {
    /// The kernel's memory.
    pub memory: &'a Arc<Memory>,
    /// The program or script.
    pub file: ExecFile,
    /// Its path as the caller gave it (`AT_EXECFN`, and what a script's interpreter opens).
    pub path: &'a [u8],
    /// Arguments.
    pub argv: Strings,
    /// Environment.
    pub envp: Strings,
    /// The limits it will have.
    pub limits: Limits,
    /// Who it will be.
    pub identity: Identity,
    /// Addresses are not randomised (`ADDR_NO_RANDOMIZE`).
    pub fixed_addresses: bool,
}

/// A program ready to run.
pub struct Loaded {
    /// Its address space.
    pub space: Arc<Space>,
    /// Its first instruction.
    pub entry: u64,
    /// Its stack pointer.
    pub sp: u64,
    /// The file that is executed: the interpreter's for a script.
    pub file: ExecFile,
    /// The arguments it got.
    pub argv: Strings,
}

const fn not_executable(why: &'static str) -> Error {
    Error::new(Errno::ENOEXEC, why)
}

/// What a file is, found out from its first bytes.
enum Kind {
    Elf(elf::Head),
    Script { path: Vec<u8>, argument: Option<Vec<u8>> },
}

fn kind(file: &ExecFile, loader: &dyn Loader) -> Result<Kind> {
    let mut head = [0; script::LINE_MAX];
    let n = read_at(&file.object, 0, &mut head, loader)?;
    let bytes = head.get(..n).unwrap_or(&head);
    if bytes.starts_with(b"#!") {
        let line = script::parse(bytes).ok_or(not_executable("a script without an interpreter"))?;
        return Ok(Kind::Script { path: line.path.into(), argument: line.argument.map(Into::into) });
    }
    elf::head(bytes).map(Kind::Elf)
}

/// The instruction set of the program that `file` leads to, through scripts: where `execve` must continue if it is not this kernel's.
///
/// # Errors
/// As [`load`].
pub fn isa(file: &ExecFile, loader: &dyn Loader) -> Result<Isa> {
    let mut file = file.clone();
    for _ in 0..=SCRIPTS_MAX {
        match kind(&file, loader)? {
            Kind::Elf(head) => return Ok(head.isa),
            Kind::Script { path, .. } => file = loader.open(&path)?,
        }
    }
    Err(Error::new(Errno::ELOOP, "a script of a script of a script ..."))
}

/// Makes an address space with the program in it.
///
/// # Errors
/// `ENOEXEC` (no program, or one for another ISA), `ELIBBAD` (its interpreter is none), `E2BIG`, `ENOMEM`, `ELOOP`, and what opening an
/// interpreter ends with.
pub fn load(request: Request<'_>, loader: &dyn Loader) -> Result<Loaded> {
    let Request { memory, mut file, path, mut argv, envp, limits, identity, fixed_addresses } = request;
    if argv.count() == 0 {
        // A program may rely on argv[0]; Linux gives an empty one since 5.18.
        argv.push(b"")?;
    }
    let mut name: Vec<u8> = path.into();
    let mut scripts = 0;
    let head = loop {
        match kind(&file, loader)? {
            Kind::Elf(head) => break head,
            Kind::Script { path: interpreter, argument } => {
                scripts += 1;
                if scripts > SCRIPTS_MAX {
                    return Err(Error::new(Errno::ELOOP, "a script of a script of a script ..."));
                }
                file = loader.open(&interpreter)?;
                argv = argv.for_script(&interpreter, argument.as_deref(), &name)?;
                name = interpreter;
            }
        }
    };
    if head.isa.elf_machine() != hal::cpu::ELF_MACHINE {
        log::info!("exec: a program for {} cannot run on this kernel", head.isa.name());
        return Err(not_executable("a program for another instruction set"));
    }
    let image = place::read_image(&file, head, loader)?;
    let interpreter = match image.interp {
        None => None,
        Some((offset, len)) => {
            let file = loader.open(&read_path(&file, offset, len, loader)?)?;
            let image = place::read_interpreter(&file, head.isa, loader)?;
            Some((file, image))
        }
    };

    let space = Space::new(memory)?;
    space.set_limits(limits);
    let layout = place::Layout::new(limits.stack, !fixed_addresses);
    space.set_layout(layout.mmap_top, 0);
    // The stack first, so that nothing takes its place.
    let stack = place::stack(&space, &layout, image.exec_stack)?;
    let program = place::image(&space, &file, &image, place::Where::Program(&layout), loader)?;
    space.set_layout(layout.mmap_top, program.end + layout.brk_gap);
    let (entry, base) = match &interpreter {
        None => (program.entry, 0),
        Some((file, image)) => {
            let placed = place::image(&space, file, image, place::Where::Anywhere, loader)?;
            (placed.entry, placed.bias)
        }
    };
    let vdso = match memory.vdso() {
        Some(vdso) => Some(vdso.map(&space)?),
        None => None,
    };

    let [hwcap, hwcap2] = hal::cpu::hwcap();
    let mut aux = Vec::new();
    if let Some(vdso) = vdso {
        aux.push([at::SYSINFO_EHDR, vdso]);
    }
    aux.extend([
        [at::HWCAP, hwcap],
        [at::PAGESZ, hal::addr::PAGE_SIZE as u64],
        [at::CLKTCK, 100],
        [at::PHDR, program.headers],
        [at::PHENT, elf::HEADER_SIZE as u64],
        [at::PHNUM, u64::from(image.head.headers)],
        [at::BASE, base],
        [at::FLAGS, 0],
        [at::ENTRY, program.entry],
        [at::UID, u64::from(identity.uid)],
        [at::EUID, u64::from(identity.euid)],
        [at::GID, u64::from(identity.gid)],
        [at::EGID, u64::from(identity.egid)],
        [at::SECURE, u64::from(identity.secure)],
        [at::HWCAP2, hwcap2],
        [at::MINSIGSTKSZ, hal::usermode::SIGNAL_FRAME_MAX as u64],
    ]);
    let mut random = [0; 16];
    random[..8].copy_from_slice(&hal::cpu::entropy().to_le_bytes());
    random[8..].copy_from_slice(&hal::cpu::entropy().to_le_bytes());
    let start = stack::build(stack, &argv, &envp, &name, head.isa.name(), random, &aux)?;
    // The strings and the room that a program may rely on must fit below the limit.
    if stack - start.sp + (128 << 10) > limits.stack {
        return Err(Error::new(Errno::E2BIG, "arguments do not fit on the stack"));
    }
    place::poke(&space, start.sp, &start.bytes, loader)?;
    space.set_program(Program {
        code: program.code,
        data: program.data,
        stack: start.sp,
        args: start.args,
        env: start.env,
        auxv: start.auxv,
        file: Some(file.label.clone()),
    });
    Ok(Loaded { space, entry, sp: start.sp, file, argv })
}

/// The path in `PT_INTERP`.
fn read_path(file: &ExecFile, offset: u64, len: usize, loader: &dyn Loader) -> Result<Vec<u8>> {
    let mut path = alloc::vec![0; len];
    if read_at(&file.object, offset, &mut path, loader)? < len || path.pop() != Some(0) {
        return Err(not_executable("bad PT_INTERP"));
    }
    if let Some(end) = path.iter().position(|byte| *byte == 0) {
        path.truncate(end);
    }
    Ok(path)
}

/// Reads bytes of a file; fewer than asked only at its end.
fn read_at(object: &Arc<dyn MemoryObject>, offset: u64, buf: &mut [u8], loader: &dyn Loader) -> Result<usize> {
    let mut done = 0;
    while let Some(mut rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match object.read(offset.saturating_add(done as u64), &mut rest)? {
            Try::Done(0) => break,
            Try::Done(n) => done += n,
            Try::Started(op) => match loader.wait_read(op) {
                // "Try again" is what an operation that brought a page says.
                Err(error) if error == Errno::EAGAIN => {}
                other => other?,
            },
            Try::WouldBlock => return Err(Error::new(Errno::EIO, "a program's file is not readable now")),
        }
    }
    Ok(done)
}

/// The name of a file mapping.
fn label(file: &ExecFile) -> Label {
    Label::File(file.label.clone())
}

/// What a stack allows.
const fn stack_prot(exec: bool) -> Prot {
    let prot = Prot::READ.union(Prot::WRITE);
    if exec { prot.union(Prot::EXEC) } else { prot }
}
