//! [`Message`] as `wire::membership` and back.

use alloc::vec::Vec;

use base::KernelId;
use link::{Incoming, Links};
use objects::{from_wire, to_wire};
use wire::{
    Field as _, Message as _, ObjectId,
    membership::{Accept, Dead, Goodbye, Install, Join, Probe, ProbeReply, Propose, Refuse, Refused, Suspect, outcome},
};

use crate::types::{Message, Outcome, View};

/// Bytes of a member.
const MEMBER: usize = 8;

fn pack(members: &[KernelId]) -> Vec<u8> {
    let mut out = alloc::vec![0; members.len() * MEMBER];
    for (slot, member) in out.chunks_exact_mut(MEMBER).zip(members) {
        to_wire(*member).put(slot);
    }
    out
}

/// The members in a payload; what is not a sorted list of kernels is refused.
fn unpack(bytes: &[u8]) -> Option<Vec<KernelId>> {
    let members: Vec<KernelId> =
        bytes.chunks(MEMBER).map(|b| wire::KernelId::get(b).map(from_wire)).collect::<Option<_>>()?;
    let sorted = members.windows(2).all(|w| matches!(w, [a, b] if a.index < b.index));
    (sorted && members.iter().all(|k| k.incarnation != 0)).then_some(members)
}

fn outcome_number(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Fenced => outcome::FENCED,
        Outcome::Parked => outcome::PARKED,
        Outcome::Lost => outcome::LOST,
    }
}

fn outcome_of(number: u8) -> Option<Outcome> {
    Some(match number {
        outcome::FENCED => Outcome::Fenced,
        outcome::PARKED => Outcome::Parked,
        outcome::LOST => Outcome::Lost,
        _ => return None,
    })
}

/// Sends a message. `is_orderly`: who has said goodbye.
///
/// # Errors
/// The link's: the peer is down or not reached.
pub fn send(
    links: &Links,
    to: KernelId,
    message: &Message,
    is_orderly: impl FnOnce(KernelId) -> bool,
) -> link::Result<()> {
    let (to, none) = (to_wire(to), ObjectId::NONE);
    match message {
        Message::Probe { nonce, epoch } => links.send(to, none, &Probe { nonce: *nonce, epoch: *epoch }, &[]),
        Message::ProbeReply { nonce, epoch } => links.send(to, none, &ProbeReply { nonce: *nonce, epoch: *epoch }, &[]),
        Message::Join { kernel } => links.send(to, none, &Join { kernel: to_wire(*kernel) }, &[]),
        Message::Refused { kernel, errno } => {
            links.send(to, none, &Refused { kernel: to_wire(*kernel), errno: *errno }, &[])
        }
        Message::Suspect { kernel, silent } => {
            links.send(to, none, &Suspect { kernel: to_wire(*kernel), silent: u8::from(*silent) }, &[])
        }
        Message::Dead { kernel, outcome } => {
            let orderly = u8::from(is_orderly(*kernel));
            links.send(to, none, &Dead { kernel: to_wire(*kernel), outcome: outcome_number(*outcome), orderly }, &[])
        }
        Message::Propose { epoch, base, members } => {
            links.send(to, none, &Propose { epoch: *epoch, base: *base }, &pack(members))
        }
        Message::Accept { epoch } => links.send(to, none, &Accept { epoch: *epoch }, &[]),
        Message::Refuse { epoch, highest, installed } => {
            let refuse = Refuse { epoch: *epoch, highest: *highest, installed: installed.epoch };
            links.send(to, none, &refuse, &pack(&installed.members))
        }
        Message::Install { view } => links.send(to, none, &Install { epoch: view.epoch }, &pack(&view.members)),
        Message::Goodbye => links.send(to, none, &Goodbye { kernel: links.me() }, &[]),
    }
}

/// Reads a message, and who is known by it to have said goodbye. `None` for a type that is not membership's or a payload that is no list of kernels.
///
/// # Errors
/// `EBADMSG`, blamed on the sender.
pub fn read(incoming: &Incoming<'_>) -> link::Result<Option<(Message, Option<KernelId>)>> {
    let kind = incoming.header.kind;
    let mut goodbye = None;
    let message = if kind == Probe::SPEC.number {
        let probe = incoming.read::<Probe>()?.0;
        Some(Message::Probe { nonce: probe.nonce, epoch: probe.epoch })
    } else if kind == ProbeReply::SPEC.number {
        let reply = incoming.read::<ProbeReply>()?.0;
        Some(Message::ProbeReply { nonce: reply.nonce, epoch: reply.epoch })
    } else if kind == Join::SPEC.number {
        Some(Message::Join { kernel: from_wire(incoming.read::<Join>()?.0.kernel) })
    } else if kind == Refused::SPEC.number {
        let refused = incoming.read::<Refused>()?.0;
        Some(Message::Refused { kernel: from_wire(refused.kernel), errno: refused.errno })
    } else if kind == Suspect::SPEC.number {
        let suspect = incoming.read::<Suspect>()?.0;
        Some(Message::Suspect { kernel: from_wire(suspect.kernel), silent: suspect.silent != 0 })
    } else if kind == Dead::SPEC.number {
        let dead = incoming.read::<Dead>()?.0;
        goodbye = Some(from_wire(dead.kernel)).filter(|_| dead.orderly != 0);
        outcome_of(dead.outcome).map(|outcome| Message::Dead { kernel: from_wire(dead.kernel), outcome })
    } else if kind == Propose::SPEC.number {
        let (propose, payload) = incoming.read::<Propose>()?;
        unpack(payload).map(|members| Message::Propose { epoch: propose.epoch, base: propose.base, members })
    } else if kind == Accept::SPEC.number {
        Some(Message::Accept { epoch: incoming.read::<Accept>()?.0.epoch })
    } else if kind == Refuse::SPEC.number {
        let (refuse, payload) = incoming.read::<Refuse>()?;
        unpack(payload).map(|members| Message::Refuse {
            epoch: refuse.epoch,
            highest: refuse.highest,
            installed: View { epoch: refuse.installed, members },
        })
    } else if kind == Install::SPEC.number {
        let (install, payload) = incoming.read::<Install>()?;
        unpack(payload).map(|members| Message::Install { view: View { epoch: install.epoch, members } })
    } else if kind == Goodbye::SPEC.number {
        incoming.read::<Goodbye>()?;
        goodbye = Some(from_wire(incoming.from));
        Some(Message::Goodbye)
    } else {
        None
    };
    Ok(message.map(|message| (message, goodbye)))
}
