//! Writes what `corpus/` begins with: `cargo run -p cob-fuzz --example corpus`. (Device trees are what QEMU has for `virt`, without their padding; programs are the first bytes of one that was at hand.)

use std::{fs, path::Path};

use agent::Message as _;
use boardctl::{Order, ether::Request};
use files::codec::encode as file;
use link::ether::frame::{BROADCAST, Head, Kind, Shown, pack};
use task::{
    children::{ChildChange, ChildEvent, Status, Usage},
    cluster::{ProcessReply, ProcessRequest},
    ids::Pid,
    limits::Resource,
    load::{CpuLoad, Load, MemoryLoad, Traffic},
    session::Sender,
    signal::{SigInfo, Signal},
};
use tasks::codec::encode as task_bytes;
use wire::{FAMILIES, Header, KernelId, ObjectId};

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), bytes).expect("a written input");
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // Every message with an empty body and with one that is as long as may be, as its header says.
    for spec in FAMILIES.iter().flat_map(|family| family.specs) {
        for (name, payload) in [("empty", 0), ("full", spec.payload.min(96))] {
            let length = spec.fixed + payload;
            let header = Header {
                kind: spec.number,
                version: spec.max,
                length: length as u32,
                fixed: spec.fixed as u16,
                sender: KernelId::new(1, 1),
                epoch: 3,
                request: 1 << 20,
                object: ObjectId { birth: KernelId::new(0, 1), serial: 9 },
                ..Header::default()
            };
            let mut bytes = zerocopy::IntoBytes::as_bytes(&header.to_raw()).to_vec();
            bytes.extend((0..length).map(|at| [1, 0, 0, 0][at % 4]));
            // A ring puts the length there.
            bytes[..4].fill(0);
            write("message", &format!("{}-{name}", spec.name), &bytes);
        }
    }
    let signs = Shown::new(KernelId::new(1, 1));
    let head = Head {
        kind: Kind::Signs,
        lane: 0,
        flags: 1,
        machine: 7,
        from: KernelId::new(1, 1),
        to: None,
        gaps: 0,
        number: 0,
        acks: [0; 4],
        rooms: [24; 4],
    };
    let mut wire_frame = Vec::new();
    pack(&mut wire_frame, BROADCAST, [2, 0, 0, 0, 0, 1], &head, &signs.to_bytes());
    write("frame", "signs", &wire_frame);
    let data = Head { kind: Kind::Data, to: Some(KernelId::new(0, 1)), ..head };
    pack(&mut wire_frame, [2, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 1], &data, &[64, 0, 0, 0, 1, 2, 3]);
    write("frame", "data", &wire_frame);
    // As the pair reads it: kind, lane, flags, gaps, number, shift, acks, shift, rooms, shift, then the piece.
    let pieces = [[0, 2, 0, 0, 0, 0], [0, 2, 0, 4, 1, 0], [1, 0, 1, 4, 0, 0]];
    let acks = [0, 0, 3, 0, 0, 24, 24, 24, 24, 0];
    let records = pieces.map(|piece| [&piece[..], &acks, &[64, 0, 0, 0], &[9; 28]].concat());
    write("frame", "pieces", &records.concat());
    let request = Request { number: 1 << 32 | 1, board: 1, order: Order::Start, starter: 0, incarnation: 2 };
    write("frame", "ask", &boardctl::ether::ask([2, 0, 0, 0, 0, 1], &request));
    write("frame", "answer", &boardctl::ether::answer([2, 0, 0, 0, 0, 1], request.number, true));
    let mut frames = Vec::new();
    for message in [agent::ToGuest::Exec(b"echo hi"), agent::ToGuest::Stdin(b"in"), agent::ToGuest::StdinEof] {
        message.encode(&mut frames);
    }
    write("agent", "to-guest", &frames);
    frames.clear();
    for message in [agent::ToHost::Ready { version: 2, kernel: 0 }, agent::ToHost::Stdout(b"x"), agent::ToHost::Exit(0)]
    {
        message.encode(&mut frames);
    }
    write("agent", "to-host", &frames);
    for name in ["duo", "trio", "solo"] {
        let text = fs::read_to_string(root.join(format!("machines/{name}.toml"))).expect("a machine");
        write("plan", name, text.as_bytes());
        let block = bootblock::BootBlock {
            index: 1,
            starter: 0,
            incarnation: 1,
            archive: (0x2000_0000, 0x100_0000),
            epoch: 1_700_000_000,
            plan: &text,
            command_line: "quiet",
        };
        write("bootblock", name, &block.encode());
    }
    write("script", "shell", b"#!/bin/sh -e\necho hi\n");
    write("script", "env", b"#! /usr/bin/env python3");
    write("symbols", "three", &symtab::encode([(0, "start"), (0x40, "task::run"), (0x1000, "end")]));
    let newc = |name: &str, mode: u32, file: &[u8]| {
        let mut out = format!("070701{:08x}{mode:08x}{:032x}{:08x}{:032x}{:08x}00000000", 1, 0, 1, 0, name.len() + 1);
        // The size of the file is the seventh number.
        out.replace_range(54..62, &format!("{:08x}", file.len()));
        let mut out = out.into_bytes();
        out.extend(name.bytes().chain([0]));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(file);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    };
    let archive = [newc("boot/machine.toml", 0o100_644, b"name = \"x\"\n"), newc("TRAILER!!!", 0, b"")].concat();
    assert!(cpio::find(&archive, "boot/machine.toml").is_some(), "it is an archive");
    write("archive", "one-file", &archive);
    let record = trace::Record { at: 1 << 30, kind: trace::Kind::ALL[0], arg: 1, a: 2, b: 3 };
    let bytes: Vec<u8> = record.words().iter().flat_map(|word| word.to_le_bytes()).collect();
    write("trace", "one", &bytes);
    write("files", "caller", &file(&[&vfs::Caller { groups: vec![1, 2].into(), ..vfs::Caller::kernel() }]));
    write(
        "files",
        "entry",
        &file(&[&vfs::Entry { name: b"passwd".to_vec(), inode: 5, kind: vfs::FileKind::Regular, next: 9 }]),
    );
    write("files", "symlink", &file(&[&vfs::NewNode::Symlink(b"/etc".to_vec())]));
    write("files", "attributes", &file(&[&vfs::SetAttr { mode: Some(0o644), ..vfs::SetAttr::default() }]));
    write("files", "ioctl", &file(&[&vfs::Ioctl::Other(0x1234)]));
    let info = SigInfo::user(Signal::TERM, Pid(7), 1000);
    write(
        "tasks",
        "signal",
        &task_bytes(&ProcessRequest::Signal { info: Some(info), from: Sender::KERNEL, thread: None }),
    );
    let limit = ProcessRequest::Limit { resource: Resource::Files, new: None, from: Sender::KERNEL };
    write("tasks", "limit", &task_bytes(&limit));
    write("tasks", "nice", &task_bytes(&ProcessReply::Nice(20)));
    let status = Status::Killed { signal: Signal::SEGV, core: true };
    let change = ChildChange::Status { status, uid: 5, usage: Usage::default() };
    write("tasks", "child", &task_bytes(&ChildEvent { pid: Pid(4), change }));
    let load = Load {
        kernel: 1,
        memory: MemoryLoad::default(),
        cpus: vec![CpuLoad::default(); 2],
        switches: 1,
        interrupts: 2,
        forks: 3,
        running: 1,
        tasks: 9,
        last_pid: 77,
        averages: [1, 2, 3],
        traffic: Traffic::default(),
    };
    write("tasks", "load", &task_bytes(&load));
}
