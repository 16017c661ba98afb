//! Segments into a space.

use alloc::vec::Vec;
use core::ops::Range;

use base::{Errno, Error, Result};
use hal::addr::{PAGE_SIZE, UserAddr, user_top};
use linux_abi::Isa;
use mm::{
    Label, MapRequest, Place, Prot, Space, VmaFlags, What,
    space::{STACK_GAP, Stopped},
};

use super::{ExecFile, Loader, elf, label, not_executable, read_at, stack_prot};

const PAGE: u64 = PAGE_SIZE as u64;
/// How much of the stack is mapped at once.
const STACK_START: u64 = 132 << 10;

/// Where things go in a new space.
pub struct Layout {
    /// One past the highest byte of the stack.
    pub stack_top: u64,
    /// Mappings go below this.
    pub mmap_top: u64,
    /// A program that can be put anywhere goes here.
    pub program: u64,
    /// Between the program and its heap.
    pub brk_gap: u64,
}

impl Layout {
    /// Linux' layout, in proportion to the address space: the stack at the top, mappings below it, programs at two thirds.
    pub fn new(stack_limit: u64, random: bool) -> Self {
        let dice = |span: u64| if random { hal::cpu::entropy() % (span / PAGE) * PAGE } else { 0 };
        let stack_room = stack_limit.clamp(128 << 20, user_top() / 6 * 5);
        let stack_span = user_top() / 8192;
        let stack_top = user_top() - PAGE - dice(stack_span);
        Self {
            stack_top,
            mmap_top: (user_top()
                - PAGE
                - stack_span
                - stack_room.min(user_top() / 4)
                - STACK_GAP
                - dice(user_top() / 128))
                & !(PAGE - 1),
            program: (user_top() / 3 * 2 + dice(user_top() / 128)) & !(PAGE - 1),
            brk_gap: dice(32 << 20),
        }
    }
}

/// Which place an image that can move gets.
pub enum Where<'a> {
    /// The program's.
    Program(&'a Layout),
    /// Among the mappings.
    Anywhere,
}

/// An image in a space.
pub struct Placed {
    /// What was added to its own addresses.
    pub bias: u64,
    /// Its first instruction.
    pub entry: u64,
    /// Its program headers.
    pub headers: u64,
    /// One past its last page.
    pub end: u64,
    /// Executable bytes.
    pub code: Range<u64>,
    /// Other bytes.
    pub data: Range<u64>,
}

/// Reads the program headers of a file.
pub fn read_image(file: &ExecFile, head: elf::Head, loader: &dyn Loader) -> Result<elf::Image> {
    let mut headers: Vec<u8> = alloc::vec![0; head.headers_len()];
    if read_at(&file.object, head.headers_at, &mut headers, loader)? < headers.len() {
        return Err(not_executable("the program headers are cut off"));
    }
    elf::image(head, &headers)
}

/// Reads an interpreter, which must be one for the same ISA.
pub fn read_interpreter(file: &ExecFile, isa: Isa, loader: &dyn Loader) -> Result<elf::Image> {
    let bad = || Error::new(Errno::ELIBBAD, "the interpreter is not a program");
    let mut bytes = [0; 64];
    if read_at(&file.object, 0, &mut bytes, loader)? < bytes.len() {
        return Err(Error::new(Errno::EIO, "the interpreter is cut off"));
    }
    let head = elf::head(&bytes).ok().filter(|head| head.isa == isa).ok_or_else(bad)?;
    match read_image(file, head, loader) {
        Err(error) if error == Errno::ENOEXEC => Err(bad()),
        other => other,
    }
}

/// Maps the stack; its top.
pub fn stack(space: &Space, layout: &Layout, exec: bool) -> Result<u64> {
    space.map(MapRequest {
        place: Place::Fixed(layout.stack_top - STACK_START),
        len: STACK_START,
        prot: stack_prot(exec),
        max: Prot::all(),
        flags: VmaFlags::GROWS_DOWN,
        what: What::Anonymous,
        label: Label::Stack,
    })?;
    Ok(layout.stack_top)
}

/// Maps an image.
pub fn image(
    space: &Space,
    file: &ExecFile,
    image: &elf::Image,
    place: Where<'_>,
    loader: &dyn Loader,
) -> Result<Placed> {
    let span = image.span();
    let len = span.end - span.start;
    let base = match place {
        _ if !image.head.movable => span.start,
        Where::Program(layout) => layout.program & !(image.align - 1),
        Where::Anywhere => {
            // Room for any alignment; nobody else uses this space yet, so it stays free.
            let room = len + image.align;
            let nothing = MapRequest {
                place: Place::Hint(0),
                len: room,
                prot: Prot::empty(),
                max: Prot::all(),
                flags: VmaFlags::NO_RESERVE,
                what: What::Anonymous,
                label: Label::None,
            };
            let at = space.map(nothing)?;
            space.unmap(at, room)?;
            // As high as the alignment allows, so that no hole stays between it and what is above.
            (at + room - len) & !(image.align - 1)
        }
    };
    let bias = base.wrapping_sub(span.start);
    for segment in &image.segments {
        place_segment(space, file, segment, bias, loader)?;
    }
    let bounds = |exec: bool| {
        let mut parts = image.segments.iter().filter(|s| s.prot.contains(Prot::EXEC) == exec);
        let first = parts.next();
        let last = parts.next_back().or(first);
        match (first, last) {
            (Some(first), Some(last)) => first.at + bias..last.at + bias + last.file_len,
            _ => 0..0,
        }
    };
    Ok(Placed {
        bias,
        entry: image.head.entry.wrapping_add(bias),
        headers: image.headers_va.map_or(0, |at| at.wrapping_add(bias)),
        end: span.end.wrapping_add(bias),
        code: bounds(true),
        data: bounds(false),
    })
}

fn place_segment(space: &Space, file: &ExecFile, segment: &elf::Segment, bias: u64, loader: &dyn Loader) -> Result<()> {
    let start = segment.at.wrapping_add(bias);
    let first = start & !(PAGE - 1);
    let file_end = start + segment.file_len;
    let end = (start + segment.len).next_multiple_of(PAGE);
    // `first` is the start of the file part also where the file has nothing: then it has no pages.
    let file_pages_end = if segment.file_len > 0 { file_end.next_multiple_of(PAGE) } else { first };
    let request = |at: u64, to: u64, what: What, label: Label| MapRequest {
        place: Place::Fixed(at),
        len: to - at,
        prot: segment.prot,
        max: Prot::all(),
        flags: VmaFlags::empty(),
        what,
        label,
    };
    if file_pages_end > first {
        let what = What::Object(file.object.clone(), segment.offset & !(PAGE - 1));
        space.map(request(first, file_pages_end, what, label(file)))?;
        // What follows in the file's last page belongs to something else; memory beyond the segment's bytes is zero.
        if segment.len > segment.file_len && segment.prot.contains(Prot::WRITE) {
            let tail = (file_pages_end - file_end) as usize;
            let zeros = [0; PAGE_SIZE];
            poke(space, file_end, zeros.get(..tail).unwrap_or(&zeros), loader)?;
        }
    }
    if end > file_pages_end {
        space.map(request(file_pages_end, end, What::Anonymous, Label::None))?;
    }
    Ok(())
}

/// Stores bytes in a space that is not active yet.
pub fn poke(space: &Space, at: u64, bytes: &[u8], loader: &dyn Loader) -> Result<()> {
    let mut done = 0;
    loop {
        let poked = space.poke(UserAddr(at) + done as u64, bytes.get(done..).unwrap_or_default());
        done += poked.done;
        match poked.stopped {
            None => return Ok(()),
            Some(Stopped::Wait(op)) => loader.wait(op)?,
            Some(Stopped::NoMemory) => loader.no_memory()?,
            Some(Stopped::Violation(_)) => return Err(not_executable("the file is shorter than its headers say")),
        }
    }
}
