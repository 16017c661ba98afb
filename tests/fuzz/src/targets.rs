//! What is given nonsense.

use std::fmt::Debug;

use files::codec::{Answer, Files};
use link::{
    Incoming,
    ether::{
        frame::{Head, Kind, Shown, unpack},
        pair,
    },
};
use objects::codec::{Body, Reader};
use task::{
    children::{ChildEvent, ChildRecord},
    cluster::{ProcessReply, ProcessRequest},
    image::TaskImage,
    load::Load,
};
use vfs::socket::{Client, Facts};
use wire::{Header, KernelId, Lane, table};

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    ("agent", agent),
    ("archive", archive),
    ("bootblock", bootblock),
    ("devicetree", devicetree),
    ("files", files),
    ("frame", frame),
    ("message", message),
    ("plan", plan),
    ("program", program),
    ("script", script),
    ("symbols", symbols),
    ("tasks", tasks),
    ("trace", trace),
];

/// What is understood can at least be shown.
fn show(value: &impl Debug) {
    assert!(!format!("{value:?}").is_empty());
}

fn agent(input: &[u8]) {
    let mut guest = agent::Decoder::new();
    let mut host = agent::Decoder::new();
    // What comes before it is ignored.
    let mut sync = Vec::new();
    agent::sync(&mut sync);
    guest.push(&sync);
    host.push(&sync);
    for piece in input.chunks(7) {
        guest.push(piece);
        host.push(piece);
        while let Ok(Some(message)) = guest.next::<agent::ToGuest<'_>>() {
            show(&message);
        }
        while let Ok(Some(message)) = host.next::<agent::ToHost<'_>>() {
            show(&message);
        }
    }
}

fn archive(input: &[u8]) {
    for entry in cpio::entries(input) {
        show(&entry);
    }
    let _ = cpio::find(input, "boot/machine.toml");
}

fn bootblock(input: &[u8]) {
    if let Some(block) = bootblock::BootBlock::decode(input) {
        // What was understood is what is written.
        let again = block.encode();
        assert_eq!(bootblock::BootBlock::decode(&again).map(|again| again.encode()), Some(again));
    }
}

fn devicetree(input: &[u8]) {
    let _ = devicetree::length(input);
    let Some(tree) = devicetree::Tree::new(input) else { return };
    for device in tree.devices(&["pci-host-ecam-generic", "arm,gic-v3", "riscv,imsics"]) {
        let _ = device.cell("interrupts", 1);
    }
    let _ = tree.device(&["arm,pl011"], 0);
    let _ = tree.interrupt(&["arm,pl011"], 0);
    let _ = (tree.text("/chosen", "bootargs"), tree.number("/cpus", "timebase-frequency"));
}

/// A frame of links or of the board controller, and, as a checksum keeps nobody who means it from sending anything, what a pair makes of frames that say whatever they say.
fn frame(input: &[u8]) {
    struct Nowhere;
    impl pair::Send for Nowhere {
        fn send(&mut self, frame: pair::Outline, _: &[u8]) {
            show(&frame);
        }
    }
    let from = KernelId::new(1, 1);
    if let Ok((_, head, carried)) = unpack(input, 7) {
        show(&head);
        show(&Shown::from_bytes(head.from, carried).map(|shown| shown.reason()));
    }
    // The board controller's, on the same wire.
    show(&(boardctl::ether::asked(input), boardctl::ether::answered(input)));
    let mut pair = pair::Pair::new(from);
    let mut out = Vec::new();
    let _ = pair.say(Lane::Request, &[1; wire::HEADER_SIZE], &[&[2; 4000]]);
    pair.pump(0, &mut Nowhere);
    for (now, frame) in (0..).zip(input.chunks(48)) {
        let byte = |at: usize| frame.get(at).copied().unwrap_or(0);
        let head = Head {
            kind: [Kind::Data, Kind::Acks][usize::from(byte(0) & 1)],
            lane: byte(1),
            flags: byte(2),
            machine: 7,
            from,
            to: Some(KernelId::new(0, 1)),
            gaps: byte(3),
            number: u64::from(byte(4)) << (byte(5) & 63),
            acks: [byte(6), byte(7), byte(8), byte(9)].map(|ack| u64::from(ack) << (byte(10) & 63)),
            rooms: [byte(11), byte(12), byte(13), byte(14)].map(|room| u16::from(room) << (byte(15) & 15)),
        };
        let _ = pair.came(now * 10_000_000, &head, frame.get(16..).unwrap_or_default(), &mut Nowhere);
        for lane in Lane::ALL {
            let _ = pair.take(lane, &mut out);
        }
        pair.tick(now * 10_000_000, &mut Nowhere);
        pair.rest(&mut Nowhere);
    }
}

fn body<B, T: Body<B> + Debug>(input: &[u8]) {
    if let Ok(value) = T::get(&mut Reader(input)) {
        show(&value);
    }
}

fn files(input: &[u8]) {
    body::<Files, vfs::Caller>(input);
    body::<Files, vfs::Stat>(input);
    body::<Files, vfs::SetAttr>(input);
    body::<Files, vfs::NewNode>(input);
    body::<Files, vfs::Entry>(input);
    body::<Files, vfs::Ioctl>(input);
    body::<Files, Answer>(input);
    body::<Files, Client>(input);
    body::<Files, Facts>(input);
}

fn tasks(input: &[u8]) {
    body::<tasks::codec::Tasks, ProcessRequest>(input);
    body::<tasks::codec::Tasks, ProcessReply>(input);
    body::<tasks::codec::Tasks, ChildEvent>(input);
    body::<tasks::codec::Tasks, ChildRecord>(input);
    body::<tasks::codec::Tasks, Load>(input);
    body::<tasks::codec::Tasks, TaskImage>(input);
}

/// A record as it comes out of a ring.
fn message(input: &[u8]) {
    for entry in table::parse(input) {
        show(&table::compare(entry));
    }
    let Ok((header, body)) = Header::parse(input) else { return };
    show(&header);
    let incoming = Incoming { from: header.sender, lane: Lane::Control, header, body };
    if let Ok(Some(message)) = membership::codec::read(&incoming) {
        show(&message);
    }
    if let Ok(Some(message)) = life::codec::read(&incoming) {
        show(&message);
    }
    files(body);
    tasks(body);
}

fn plan(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        match plan::parse(text) {
            Ok(plan) => show(&plan),
            Err(errors) => assert!(!errors.is_empty(), "a bad plan has a reason"),
        }
    }
}

fn program(input: &[u8]) {
    let Ok(head) = task::exec::elf::head(input) else { return };
    let from = usize::try_from(head.headers_at).unwrap_or(usize::MAX);
    if let Some(headers) = input.get(from..)
        && let Ok(image) = task::exec::elf::image(head, headers)
    {
        show(&image);
    }
}

fn script(input: &[u8]) {
    if let Some(line) = task::exec::script::parse(input) {
        show(&line);
    }
}

fn symbols(input: &[u8]) {
    if let Some(table) = symtab::SymbolTable::parse(input) {
        for offset in [0, 1, 0x1000, u32::MAX] {
            let _ = table.lookup(offset);
        }
    }
    let _ = symtab::from_elf(input, 0xffff_ffff_8000_0000, ToString::to_string);
}

fn trace(input: &[u8]) {
    for event in input.as_chunks::<{ trace::SIZE }>().0 {
        if let Some(event) = trace::Record::from_bytes(event) {
            show(&event);
        }
    }
}
