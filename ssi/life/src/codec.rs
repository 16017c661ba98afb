//! [`Message`] as `wire::resources` and back.

use alloc::vec::Vec;

use base::{Errno, KernelId};
use link::{Incoming, Links};
use objects::{from_wire, to_wire};
use wire::{
    Field as _, Message as _, ObjectId,
    resources::{LifeAsk, LifeDenied, LifeHeard, LifeHelp, LifeHelped, LifeStop, LifeTable, LifeTell, life, phase},
};

use crate::{
    rows::{Phase, Row},
    types::{Message, What},
};

/// Bytes of a row.
const ROW: usize = 16;

const PHASES: [(Phase, u8); 7] = [
    (Phase::Booting, phase::BOOTING),
    (Phase::Failed, phase::FAILED),
    (Phase::Up, phase::UP),
    (Phase::Stopping, phase::STOPPING),
    (Phase::Dead, phase::DEAD),
    (Phase::Off, phase::OFF),
    (Phase::Lost, phase::LOST),
];

fn pack(rows: &[(u16, Row)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * ROW);
    for (index, row) in rows {
        let phase = PHASES.iter().find(|(phase, _)| *phase == row.phase).map_or(0, |(_, number)| *number);
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&[phase, 0]);
        out.extend_from_slice(&row.incarnation.to_le_bytes());
        let mut by = [0; 8];
        row.by.map_or(wire::KernelId::NONE, to_wire).put(&mut by);
        out.extend_from_slice(&by);
    }
    out
}

/// The rows of a payload. `None` if they are none: the sender is to blame.
fn unpack(bytes: &[u8]) -> Option<Vec<(u16, Row)>> {
    let row = |bytes: &[u8]| {
        let index = u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?);
        let number = *bytes.get(2)?;
        let phase = PHASES.iter().find(|(_, n)| *n == number)?.0;
        let incarnation = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
        let by = wire::KernelId::get(bytes.get(8..16)?)?;
        let by = (by != wire::KernelId::NONE).then(|| from_wire(by));
        let good = usize::from(index) < wire::MAX_KERNELS && incarnation != 0;
        // Only a start has a starter: so two rows of one phase are equal.
        (good && by.is_some() == (phase == Phase::Booting)).then_some((index, Row { incarnation, phase, by }))
    };
    bytes.chunks(ROW).map(row).collect()
}

const fn number(what: What) -> u8 {
    match what {
        What::Boot => life::BOOT,
        What::Stop => life::STOP,
    }
}

const fn what(number: u8) -> Option<What> {
    match number {
        life::BOOT => Some(What::Boot),
        life::STOP => Some(What::Stop),
        _ => None,
    }
}

/// Sends a message.
///
/// # Errors
/// The link's: the peer is down or not reached.
pub fn send(links: &Links, to: KernelId, message: &Message) -> link::Result<()> {
    let (to, none) = (to_wire(to), ObjectId::NONE);
    match message {
        Message::Ask { epoch, index, what } => {
            links.send(to, none, &LifeAsk { epoch: *epoch, index: *index, what: number(*what) }, &[])
        }
        Message::Denied { index, what, errno } => {
            links.send(to, none, &LifeDenied { index: *index, what: number(*what), errno: *errno as u16 }, &[])
        }
        Message::Table { epoch, whole, rows } => {
            let table = LifeTable { epoch: epoch.unwrap_or(0), whole: u8::from(*whole) };
            links.send(to, none, &table, &pack(rows))
        }
        Message::Tell(kernel) => {
            links.send(to, none, &LifeTell { index: kernel.index, incarnation: kernel.incarnation }, &[])
        }
        Message::Heard(kernel) => {
            links.send(to, none, &LifeHeard { index: kernel.index, incarnation: kernel.incarnation }, &[])
        }
        Message::Stop(kernel) => {
            links.send(to, none, &LifeStop { index: kernel.index, incarnation: kernel.incarnation }, &[])
        }
        Message::Help { ticket, index } => links.send(to, none, &LifeHelp { ticket: *ticket, index: *index }, &[]),
        Message::Helped { ticket, result } => {
            let errno = result.map_or_else(|errno| errno as u16, |()| 0);
            links.send(to, none, &LifeHelped { ticket: *ticket, errno }, &[])
        }
    }
}

/// Reads a message. `None` for a type that is not one of these, or values that are none.
///
/// # Errors
/// `EBADMSG`, blamed on the sender.
pub fn read(incoming: &Incoming<'_>) -> link::Result<Option<Message>> {
    let kind = incoming.header.kind;
    let named = |index: u16, incarnation: u32| {
        let good = usize::from(index) < wire::MAX_KERNELS && incarnation != 0;
        good.then_some(KernelId { index, incarnation })
    };
    let errno = |number: u16| Errno::from_number(number).unwrap_or(Errno::EIO);
    Ok(if kind == LifeAsk::SPEC.number {
        let ask = incoming.read::<LifeAsk>()?.0;
        what(ask.what).map(|what| Message::Ask { epoch: ask.epoch, index: ask.index, what })
    } else if kind == LifeDenied::SPEC.number {
        let denied = incoming.read::<LifeDenied>()?.0;
        what(denied.what).map(|what| Message::Denied { index: denied.index, what, errno: errno(denied.errno) })
    } else if kind == LifeTable::SPEC.number {
        let (table, payload) = incoming.read::<LifeTable>()?;
        let epoch = Some(table.epoch).filter(|epoch| *epoch != 0);
        unpack(payload).map(|rows| Message::Table { epoch, whole: table.whole == 1, rows })
    } else if kind == LifeTell::SPEC.number {
        let tell = incoming.read::<LifeTell>()?.0;
        named(tell.index, tell.incarnation).map(Message::Tell)
    } else if kind == LifeHeard::SPEC.number {
        let heard = incoming.read::<LifeHeard>()?.0;
        named(heard.index, heard.incarnation).map(Message::Heard)
    } else if kind == LifeStop::SPEC.number {
        let stop = incoming.read::<LifeStop>()?.0;
        named(stop.index, stop.incarnation).map(Message::Stop)
    } else if kind == LifeHelp::SPEC.number {
        let help = incoming.read::<LifeHelp>()?.0;
        Some(Message::Help { ticket: help.ticket, index: help.index })
    } else if kind == LifeHelped::SPEC.number {
        let helped = incoming.read::<LifeHelped>()?.0;
        let result = if helped.errno == 0 { Ok(()) } else { Err(errno(helped.errno)) };
        Some(Message::Helped { ticket: helped.ticket, result })
    } else {
        None
    })
}

#[cfg(test)]
mod tests {
    use base::KernelId;

    use super::{pack, unpack};
    use crate::rows::{Phase, Row};

    #[test]
    fn rows_come_back_and_nonsense_does_not() {
        let by = Some(KernelId { index: 3, incarnation: 9 });
        let rows = [
            (0, Row { incarnation: 7, phase: Phase::Booting, by }),
            (63, Row { incarnation: u32::MAX, phase: Phase::Lost, by: None }),
        ];
        let bytes = pack(&rows);
        assert_eq!(unpack(&bytes).as_deref(), Some(&rows[..]));
        assert_eq!(unpack(&bytes[..31]), None, "half a row");
        for (at, value) in [(0, 64), (2, 0), (2, 8), (2, 2), (18, 1)] {
            let mut bad = bytes.clone();
            bad[at] = value;
            assert_eq!(unpack(&bad), None, "byte {at} is {value}");
        }
    }
}
