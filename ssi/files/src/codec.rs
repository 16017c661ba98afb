//! The types of crate `vfs` as bytes, in the payload of the messages of `wire::files`.

use alloc::vec::Vec;

use base::{KernelId, ObjectId};
use objects::{
    codec::{Body, Coded, Reader, Short, Writer},
    coded,
};
use vfs::{
    Caller, Entry, FileKind, Ioctl, NewNode, OpenFlags, SetAttr, Stat, StatFs, Status, Time,
    ioctl::{Queues, Termios, When, WindowSize},
    lock::{Lock, Owner},
    socket::{Client, Facts},
    types::Device,
    unix::{Credentials, Kind, Name},
};

use crate::handles::FileInTransit;

/// Names the encodings of this crate.
#[derive(Clone, Copy, Debug)]
pub struct Files;

/// Encodes values one after the other.
pub fn encode(values: &[&dyn Encode]) -> Vec<u8> {
    let mut to = Writer::default();
    for value in values {
        value.encode(&mut to);
    }
    to.0
}

/// Anything that goes into a payload.
pub trait Encode {
    /// Writes it.
    fn encode(&self, to: &mut Writer);
}

impl<T: Body<Files>> Encode for T {
    fn encode(&self, to: &mut Writer) {
        self.put(to);
    }
}

/// A string of bytes with its length: a name, a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bytes(pub Vec<u8>);

impl Body<Files> for Bytes {
    fn put(&self, to: &mut Writer) {
        (self.0.len() as u32).put(to);
        to.0.extend_from_slice(&self.0);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        let len = u32::get(from)? as usize;
        Ok(Self(from.take(len)?.to_vec()))
    }
}

coded!(
    Files: Caller,
    |v, to| {
        v.uid.put(to);
        v.gid.put(to);
        // More groups than fit into a message are not sent: they can only grant less.
        let groups: Vec<u32> = v.groups.iter().copied().take(128).collect();
        groups.put(to);
        v.capabilities.put(to);
        for n in [v.umask, v.pid, v.pgid, v.sid] {
            n.put(to);
        }
        v.immune_ttin.put(to);
        v.immune_ttou.put(to);
        v.file_size_limit.put(to);
    },
    |from| {
        Caller {
            uid: Coded::get(from)?,
            gid: Coded::get(from)?,
            groups: <Vec<u32> as Coded>::get(from)?.into(),
            capabilities: Coded::get(from)?,
            umask: Coded::get(from)?,
            pid: Coded::get(from)?,
            pgid: Coded::get(from)?,
            sid: Coded::get(from)?,
            immune_ttin: Coded::get(from)?,
            immune_ttou: Coded::get(from)?,
            file_size_limit: Coded::get(from)?,
        }
    }
);

fn put_device(device: Device, to: &mut Writer) {
    device.major.put(to);
    device.minor.put(to);
}

fn get_device(from: &mut Reader<'_>) -> Result<Device, Short> {
    Ok(Device { major: Coded::get(from)?, minor: Coded::get(from)? })
}

/// The kind with this number.
///
/// # Errors
/// [`Short`] if there is none.
pub fn kind(number: u8) -> Result<FileKind, Short> {
    Ok(match number {
        1 => FileKind::Fifo,
        2 => FileKind::Char,
        4 => FileKind::Directory,
        6 => FileKind::Block,
        8 => FileKind::Regular,
        10 => FileKind::Symlink,
        12 => FileKind::Socket,
        _ => return Err(Short),
    })
}

coded!(
    Files: Stat,
    |v, to| {
        put_device(v.device, to);
        v.inode.put(to);
        (v.kind as u8).put(to);
        for n in [v.mode, v.links, v.uid, v.gid] {
            n.put(to);
        }
        put_device(v.rdev, to);
        v.size.put(to);
        v.block_size.put(to);
        v.blocks.put(to);
        for time in [v.accessed, v.modified, v.changed, v.born] {
            time.0.put(to);
        }
    },
    |from| {
        Stat {
            device: get_device(from)?,
            inode: Coded::get(from)?,
            kind: kind(u8::get(from)?)?,
            mode: Coded::get(from)?,
            links: Coded::get(from)?,
            uid: Coded::get(from)?,
            gid: Coded::get(from)?,
            rdev: get_device(from)?,
            size: Coded::get(from)?,
            block_size: Coded::get(from)?,
            blocks: Coded::get(from)?,
            accessed: Time(Coded::get(from)?),
            modified: Time(Coded::get(from)?),
            changed: Time(Coded::get(from)?),
            born: Time(Coded::get(from)?),
        }
    }
);

coded!(
    Files: StatFs,
    |v, to| {
        for n in [v.magic, v.block_size, v.blocks, v.free, v.files, v.free_files, v.name_max, v.flags] {
            n.put(to);
        }
    },
    |from| {
        StatFs {
            magic: Coded::get(from)?,
            block_size: Coded::get(from)?,
            blocks: Coded::get(from)?,
            free: Coded::get(from)?,
            files: Coded::get(from)?,
            free_files: Coded::get(from)?,
            name_max: Coded::get(from)?,
            flags: Coded::get(from)?,
        }
    }
);

coded!(
    Files: SetAttr,
    |v, to| {
        v.mode.put(to);
        v.uid.put(to);
        v.gid.put(to);
        v.accessed.map(|t| t.0).put(to);
        v.modified.map(|t| t.0).put(to);
        v.times_are_now.put(to);
        v.size.put(to);
    },
    |from| {
        SetAttr {
            mode: Coded::get(from)?,
            uid: Coded::get(from)?,
            gid: Coded::get(from)?,
            accessed: <Option<i64> as Coded>::get(from)?.map(Time),
            modified: <Option<i64> as Coded>::get(from)?.map(Time),
            times_are_now: Coded::get(from)?,
            size: Coded::get(from)?,
        }
    }
);

coded!(
    Files: NewNode,
    |v, to| {
        match v {
            NewNode::Regular => 1_u8.put(to),
            NewNode::Directory => 2_u8.put(to),
            NewNode::Symlink(target) => {
                3_u8.put(to);
                Body::put(&Bytes(target.clone()), to);
            }
            NewNode::Fifo => 4_u8.put(to),
            NewNode::Socket => 5_u8.put(to),
            NewNode::Device(kind, device) => {
                6_u8.put(to);
                (*kind as u8).put(to);
                put_device(*device, to);
            }
        }
    },
    |from| {
        match u8::get(from)? {
            1 => NewNode::Regular,
            2 => NewNode::Directory,
            3 => NewNode::Symlink(<Bytes as Body<Files>>::get(from)?.0),
            4 => NewNode::Fifo,
            5 => NewNode::Socket,
            6 => NewNode::Device(kind(u8::get(from)?)?, get_device(from)?),
            _ => return Err(Short),
        }
    }
);

coded!(
    Files: Entry,
    |v, to| {
        Body::put(&Bytes(v.name.clone()), to);
        v.inode.put(to);
        (v.kind as u8).put(to);
        v.next.put(to);
    },
    |from| {
        Entry {
            name: <Bytes as Body<Files>>::get(from)?.0,
            inode: Coded::get(from)?,
            kind: kind(u8::get(from)?)?,
            next: Coded::get(from)?,
        }
    }
);

coded!(
    Files: Termios,
    |v, to| {
        for n in [v.input, v.output, v.control, v.local, v.input_speed, v.output_speed] {
            n.put(to);
        }
        v.line.put(to);
        v.chars.put(to);
    },
    |from| {
        let [input, output, control, local, input_speed, output_speed] = [
            Coded::get(from)?,
            Coded::get(from)?,
            Coded::get(from)?,
            Coded::get(from)?,
            Coded::get(from)?,
            Coded::get(from)?,
        ];
        Termios {
            input,
            output,
            control,
            local,
            line: Coded::get(from)?,
            chars: Coded::get(from)?,
            input_speed,
            output_speed,
        }
    }
);

coded!(
    Files: WindowSize,
    |v, to| {
        for n in [v.rows, v.columns, v.width, v.height] {
            n.put(to);
        }
    },
    |from| {
        WindowSize {
            rows: Coded::get(from)?,
            columns: Coded::get(from)?,
            width: Coded::get(from)?,
            height: Coded::get(from)?,
        }
    }
);

coded!(
    Files: Ioctl,
    |v, to| {
        match *v {
            Ioctl::GetTermios => 1_u8.put(to),
            Ioctl::SetTermios(when, termios) => {
                2_u8.put(to);
                (when as u8).put(to);
                Body::put(&termios, to);
            }
            Ioctl::GetWindow => 3_u8.put(to),
            Ioctl::SetWindow(size) => {
                4_u8.put(to);
                Body::put(&size, to);
            }
            Ioctl::GetForeground => 5_u8.put(to),
            Ioctl::SetForeground(pgid) => {
                6_u8.put(to);
                pgid.put(to);
            }
            Ioctl::GetSession => 7_u8.put(to),
            Ioctl::TakeTerminal(steal) => {
                8_u8.put(to);
                steal.put(to);
            }
            Ioctl::DropTerminal => 9_u8.put(to),
            Ioctl::BytesReadable => 10_u8.put(to),
            Ioctl::BytesUnsent => 11_u8.put(to),
            Ioctl::FlushQueues(queues) => {
                12_u8.put(to);
                (queues as u8).put(to);
            }
            Ioctl::Drain => 13_u8.put(to),
            Ioctl::Suspend(on) => {
                14_u8.put(to);
                on.put(to);
            }
            Ioctl::PtyNumber => 15_u8.put(to),
            Ioctl::PtyLock(on) => {
                16_u8.put(to);
                on.put(to);
            }
            Ioctl::PtyLocked => 17_u8.put(to),
            Ioctl::PtyPeer(flags, status) => {
                18_u8.put(to);
                flags.bits().put(to);
                status.bits().put(to);
            }
            Ioctl::PacketMode(on) => {
                19_u8.put(to);
                on.put(to);
            }
            Ioctl::Exclusive(on) => {
                20_u8.put(to);
                on.put(to);
            }
            Ioctl::Insert(byte) => {
                21_u8.put(to);
                byte.put(to);
            }
            Ioctl::BlockBytes => 22_u8.put(to),
            Ioctl::SuspendInput(on) => {
                23_u8.put(to);
                on.put(to);
            }
            Ioctl::Break => 24_u8.put(to),
            Ioctl::HangUp => 25_u8.put(to),
            Ioctl::ProcessNumber => 27_u8.put(to),
            Ioctl::Other(number) => {
                26_u8.put(to);
                number.put(to);
            }
        }
    },
    |from| {
        match u8::get(from)? {
            1 => Ioctl::GetTermios,
            2 => Ioctl::SetTermios(
                match u8::get(from)? {
                    0 => When::Now,
                    1 => When::Drain,
                    2 => When::Flush,
                    _ => return Err(Short),
                },
                Body::get(from)?,
            ),
            3 => Ioctl::GetWindow,
            4 => Ioctl::SetWindow(Body::get(from)?),
            5 => Ioctl::GetForeground,
            6 => Ioctl::SetForeground(Coded::get(from)?),
            7 => Ioctl::GetSession,
            8 => Ioctl::TakeTerminal(Coded::get(from)?),
            9 => Ioctl::DropTerminal,
            10 => Ioctl::BytesReadable,
            11 => Ioctl::BytesUnsent,
            12 => Ioctl::FlushQueues(match u8::get(from)? {
                0 => Queues::Input,
                1 => Queues::Output,
                2 => Queues::Both,
                _ => return Err(Short),
            }),
            13 => Ioctl::Drain,
            14 => Ioctl::Suspend(Coded::get(from)?),
            15 => Ioctl::PtyNumber,
            16 => Ioctl::PtyLock(Coded::get(from)?),
            17 => Ioctl::PtyLocked,
            18 => Ioctl::PtyPeer(
                OpenFlags::from_bits_truncate(u32::get(from)?),
                Status::from_bits_truncate(u32::get(from)?),
            ),
            19 => Ioctl::PacketMode(Coded::get(from)?),
            20 => Ioctl::Exclusive(Coded::get(from)?),
            21 => Ioctl::Insert(Coded::get(from)?),
            22 => Ioctl::BlockBytes,
            23 => Ioctl::SuspendInput(Coded::get(from)?),
            24 => Ioctl::Break,
            25 => Ioctl::HangUp,
            26 => Ioctl::Other(Coded::get(from)?),
            27 => Ioctl::ProcessNumber,
            _ => return Err(Short),
        }
    }
);

/// The answer to an ioctl, with a file as its name and what its holder may know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done.
    Done,
    /// A number.
    Number(u64),
    /// Terminal modes.
    Termios(Termios),
    /// Window size.
    Window(WindowSize),
}

coded!(
    Files: Answer,
    |v, to| {
        match v {
            Answer::Done => 1_u8.put(to),
            Answer::Number(n) => {
                2_u8.put(to);
                n.put(to);
            }
            Answer::Termios(t) => {
                3_u8.put(to);
                Body::put(t, to);
            }
            Answer::Window(w) => {
                4_u8.put(to);
                Body::put(w, to);
            }
        }
    },
    |from| {
        match u8::get(from)? {
            1 => Answer::Done,
            2 => Answer::Number(Coded::get(from)?),
            3 => Answer::Termios(Body::get(from)?),
            4 => Answer::Window(Body::get(from)?),
            _ => return Err(Short),
        }
    }
);

// -- locks and sockets ---------------------------------------------------------------------------------------------

coded!(
    Files: Lock,
    |v, to| {
        match v.owner {
            Owner::Process(pid) => {
                0_u8.put(to);
                u64::from(pid).put(to);
                v.kernel.put(to);
            }
            Owner::File(id) | Owner::Flock(id) => {
                (if matches!(v.owner, Owner::File(_)) { 1_u8 } else { 2 }).put(to);
                id.serial.put(to);
                id.birth.put(to);
            }
        }
        v.kernel.put(to);
        v.exclusive.put(to);
        v.start.put(to);
        v.end.put(to);
    },
    |from| {
        let (sort, number, birth) = (u8::get(from)?, u64::get(from)?, KernelId::get(from)?);
        let file = ObjectId { birth, serial: number };
        let owner = match sort {
            0 => Owner::Process(u32::try_from(number).map_err(|_| Short)?),
            1 => Owner::File(file),
            2 => Owner::Flock(file),
            _ => return Err(Short),
        };
        Lock {
            owner,
            kernel: Coded::get(from)?,
            exclusive: Coded::get(from)?,
            start: Coded::get(from)?,
            end: Coded::get(from)?,
        }
    }
);

/// How a socket sends, as a number: that of `SOCK_*`.
pub const fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::Stream => 1,
        Kind::Datagram => 2,
        Kind::Packets => 5,
    }
}

fn socket_kind(number: u8) -> Result<Kind, Short> {
    [Kind::Stream, Kind::Datagram, Kind::Packets].into_iter().find(|kind| kind_number(*kind) == number).ok_or(Short)
}

fn put_credentials(v: Credentials, to: &mut Writer) {
    for n in [v.pid, v.uid, v.gid] {
        n.put(to);
    }
}

fn get_credentials(from: &mut Reader<'_>) -> Result<Credentials, Short> {
    Ok(Credentials { pid: Coded::get(from)?, uid: Coded::get(from)?, gid: Coded::get(from)? })
}

fn put_name(name: Option<&Name>, to: &mut Writer) {
    let (sort, bytes): (u8, &[u8]) = match name {
        None => (0, &[]),
        Some(Name::Path(path)) => (1, path),
        Some(Name::Abstract(name)) => (2, name),
    };
    sort.put(to);
    bytes.to_vec().put(to);
}

fn get_name(from: &mut Reader<'_>) -> Result<Option<Name>, Short> {
    let (sort, bytes) = (u8::get(from)?, <Vec<u8> as Coded>::get(from)?);
    Ok(match sort {
        0 => None,
        1 => Some(Name::Path(bytes)),
        2 => Some(Name::Abstract(bytes)),
        _ => return Err(Short),
    })
}

coded!(
    Files: Client,
    |v, to| {
        kind_number(v.kind).put(to);
        put_credentials(v.credentials, to);
        put_name(v.name.as_ref(), to);
    },
    |from| {
        Client { kind: socket_kind(Coded::get(from)?)?, credentials: get_credentials(from)?, name: get_name(from)? }
    }
);

coded!(
    Files: Facts,
    |v, to| {
        put_name(v.name.as_ref(), to);
        v.peer_name.is_some().put(to);
        put_name(v.peer_name.as_ref().and_then(Option::as_ref), to);
        put_credentials(v.peer, to);
        v.listening.put(to);
    },
    |from| {
        let (name, connected, peer) = (get_name(from)?, bool::get(from)?, get_name(from)?);
        Facts {
            name,
            peer_name: connected.then_some(peer),
            peer: get_credentials(from)?,
            listening: Coded::get(from)?,
        }
    }
);

/// What the name of a socket stands for, on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressInTransit {
    /// Its name in the machine.
    pub object: ObjectId,
    /// Its home.
    pub home: KernelId,
    /// How its socket sends.
    pub kind: Kind,
    /// Its name as programs know it.
    pub name: Option<Name>,
}

coded!(
    Files: AddressInTransit,
    |v, to| {
        v.object.put(to);
        v.home.put(to);
        kind_number(v.kind).put(to);
        put_name(v.name.as_ref(), to);
    },
    |from| {
        AddressInTransit {
            object: Coded::get(from)?,
            home: Coded::get(from)?,
            kind: socket_kind(Coded::get(from)?)?,
            name: get_name(from)?,
        }
    }
);

/// What is said of a message that was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Said {
    /// How long the packet was.
    pub length: u64,
    /// Not all of it fitted.
    pub truncated: bool,
}

/// What goes with the bytes of a message.
#[derive(Clone)]
pub struct Head {
    /// Who sent it.
    pub from: Credentials,
    /// The name of the socket that sent it.
    pub name: Option<Name>,
    /// Open files (SCM_RIGHTS).
    pub files: Vec<FileInTransit>,
    /// Where it is to go, if not to the other end.
    pub to: Option<AddressInTransit>,
    /// For one that was received.
    pub said: Said,
}

coded!(
    Files: Head,
    |v, to| {
        put_credentials(v.from, to);
        put_name(v.name.as_ref(), to);
        v.files.put(to);
        v.to.is_some().put(to);
        if let Some(address) = &v.to {
            Body::put(address, to);
        }
        v.said.length.put(to);
        v.said.truncated.put(to);
    },
    |from| {
        Head {
            from: get_credentials(from)?,
            name: get_name(from)?,
            files: Coded::get(from)?,
            to: if bool::get(from)? { Some(Body::get(from)?) } else { None },
            said: Said { length: Coded::get(from)?, truncated: Coded::get(from)? },
        }
    }
);

/// The structure in the payload of an answer.
///
/// # Errors
/// `EBADMSG`, blamed on who answered.
pub fn read_body<T: Body<Files>>(answer: &link::Incoming<'_>, payload: &[u8]) -> link::Result<T> {
    let bad = |_| link::Error::new(base::Errno::EBADMSG, "the answer does not decode", answer.from);
    T::get(&mut Reader(payload)).map_err(bad)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use objects::codec::{Body, Reader};
    use vfs::{
        Caller, Entry, FileKind, Ioctl, NewNode, SetAttr, Time,
        ioctl::{Termios, When, WindowSize},
        types::Device,
    };

    use super::{Answer, Files, encode};

    fn same<T: Body<Files> + PartialEq + core::fmt::Debug>(value: T) {
        let bytes = encode(&[&value]);
        assert_eq!(T::get(&mut Reader(&bytes)).as_ref(), Ok(&value));
        for cut in 0..bytes.len() {
            assert!(T::get(&mut Reader(&bytes[..cut])).is_err(), "{value:?} decodes from {cut} of {}", bytes.len());
        }
    }

    #[test]
    fn what_goes_out_comes_back() {
        same(Caller { uid: 5, groups: vec![1, 2].into(), pid: 9, immune_ttou: true, ..Caller::kernel() });
        same(Entry { name: b"passwd".to_vec(), inode: 5, kind: FileKind::Regular, next: 9 });
        same(NewNode::Symlink(b"/etc".to_vec()));
        same(NewNode::Device(FileKind::Char, Device { major: 5, minor: 1 }));
        same(SetAttr { mode: Some(0o644), modified: Some(Time(-5)), ..SetAttr::default() });
        let termios = Termios {
            input: 1,
            output: 2,
            control: 3,
            local: 4,
            line: 0,
            chars: [7; 19],
            input_speed: 9600,
            output_speed: 115_200,
        };
        same(Ioctl::SetTermios(When::Drain, termios));
        same(Answer::Termios(termios));
        same(Ioctl::SetWindow(WindowSize { rows: 24, columns: 80, width: 0, height: 0 }));
        same(Ioctl::Other(0x1234));
    }
}
