//! Hello: who I am and what I speak. The first message of both sides on a link; nothing waits for it.

use alloc::{boxed::Box, vec::Vec};

use linux_abi::Errno;
use wire::{
    membership::{Hello, HelloReply},
    table::{self, Verdict},
};

use crate::{
    error::{Error, Result},
    links::Links,
    peer::Peer,
    service::{Facts, Guilt, Incoming},
};

/// How long a kernel may take to answer, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// What this kernel speaks: the table, and a digest of it. Kernels that are built from the same sources know by the digest that they agree; only others
/// send the table.
pub(crate) struct Spoken {
    table: Vec<u8>,
    digest: [u8; 8],
}

impl Spoken {
    pub fn new() -> Self {
        let table: Vec<u8> = table::entries().flat_map(table::Entry::to_bytes).collect();
        // FNV-1a, 64 bits.
        let hash = table.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self { table, digest: hash.to_le_bytes() }
    }
}

/// Says hello to a peer whose link was opened.
pub(crate) fn say(links: &Links, peer: &Peer) -> Result<()> {
    let facts = links.hooks().facts();
    let hello = Hello {
        kernel: links.me(),
        epoch: facts.epoch,
        isa: facts.isa,
        cpus: facts.cpus,
        memory: facts.memory,
        plan: facts.plan,
    };
    let deadline = links.hooks().now() + PATIENCE;
    let then = Box::new(move |links: &Links, answer: Result<Incoming<'_>>| {
        // No answer: whoever sends requests finds out, and suspects the peer.
        if let Ok(message) = answer
            && let Ok((reply, theirs)) = message.read::<HelloReply>()
            && let Some(peer) = links.peer(message.from)
        {
            learn(links, &peer, theirs);
            if reply.refused == 0 {
                let facts = Facts {
                    isa: reply.isa,
                    cpus: reply.cpus,
                    memory: reply.memory,
                    plan: facts.plan,
                    epoch: reply.epoch,
                };
                links.hooks().hello(peer.id, facts);
            } else {
                links.hooks().guilty(peer.id, Guilt::OtherPlan);
            }
        }
    });
    links.request(peer.id, wire::ObjectId::NONE, &hello, &links.spoken.digest, deadline, then);
    Ok(())
}

/// A peer said hello.
pub(crate) fn heard(links: &Links, peer: &Peer, message: &Incoming<'_>) -> Result<()> {
    let (hello, theirs) = message.read::<Hello>()?;
    if hello.kernel != message.from {
        return Err(Error::new(Errno::EBADMSG, "it says hello for another kernel", message.from));
    }
    // Who speaks something else hears all of it; its own table comes with the answer to our hello.
    let ours = if theirs == links.spoken.digest { links.spoken.digest.as_slice() } else { &links.spoken.table };
    learn(links, peer, theirs);
    let facts = links.hooks().facts();
    let other_plan = hello.plan != facts.plan;
    let reply = HelloReply {
        kernel: links.me(),
        epoch: facts.epoch,
        isa: facts.isa,
        cpus: facts.cpus,
        memory: facts.memory,
        refused: if other_plan { Errno::EINVAL as u16 } else { 0 },
        because: 0,
    };
    links.answer(message.answer_to(), &reply, ours)?;
    if other_plan {
        links.hooks().guilty(peer.id, Guilt::OtherPlan);
    } else {
        let facts =
            Facts { isa: hello.isa, cpus: hello.cpus, memory: hello.memory, plan: hello.plan, epoch: hello.epoch };
        links.hooks().hello(peer.id, facts);
    }
    Ok(())
}

/// Compares what the peer speaks with what we speak.
fn learn(links: &Links, peer: &Peer, theirs: &[u8]) {
    if theirs.len() == links.spoken.digest.len() || theirs == links.spoken.table {
        return;
    }
    for entry in table::parse(theirs) {
        match table::compare(entry) {
            Verdict::Speak => {}
            Verdict::Without => peer.refuse_type(entry.number),
            Verdict::OtherLayout { name, version } => {
                if !peer.refuses(entry.number) {
                    peer.refuse_type(entry.number);
                    links.hooks().guilty(peer.id, Guilt::OtherLayout { name, version });
                }
            }
        }
    }
}
