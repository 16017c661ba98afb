//! One registry, step by step.

use alloc::{vec, vec::Vec};

use base::KernelId;

use super::{Actions, Event, Message, Plan, Record, Registry, Set, Standing};

const fn kernel(index: u16, incarnation: u32) -> KernelId {
    KernelId { index, incarnation }
}

const A: KernelId = kernel(0, 1);
const B: KernelId = kernel(1, 1);
const C: KernelId = kernel(2, 1);
const AGAIN: KernelId = kernel(0, 2);
const ONE: Set = Set::one(0);

#[derive(Default)]
struct Seen {
    sent: Vec<(KernelId, Message)>,
    taken: Set,
}

impl Actions for Seen {
    fn send(&mut self, to: KernelId, message: Message) {
        self.sent.push((to, message));
    }
    fn take(&mut self, set: Set) {
        self.taken = self.taken.and(set);
    }
    fn changed(&mut self, _: Set) {}
}

fn registry(me: KernelId) -> Registry {
    Registry::new(me, vec![Plan { owner: 0, order: vec![0, 1, 2] }])
}

fn step(registry: &mut Registry, event: Event) -> Seen {
    let mut seen = Seen::default();
    registry.step(event, &mut seen);
    seen
}

fn view(registry: &mut Registry, epoch: u32, members: &[KernelId]) -> Seen {
    step(registry, Event::View { epoch, members: members.to_vec() })
}

fn hear(registry: &mut Registry, from: KernelId, message: Message) -> Seen {
    step(registry, Event::Received { from, message })
}

const fn held(owner: KernelId, term: u32) -> Message {
    Message::Is { record: Record { term, standing: Standing::Held(owner) }, set: ONE }
}

/// B in the view of A, B and C.
fn survivor() -> Registry {
    let mut b = registry(B);
    view(&mut b, 3, &[A, B, C]);
    b
}

#[test]
fn the_next_one_asks_all_and_takes() {
    let mut b = survivor();
    let seen = step(&mut b, Event::Down { kernel: A, lost: false });
    assert!(seen.sent.is_empty() && seen.taken.is_empty(), "the view still has A");
    assert_eq!(b.owner(0), None);
    assert_eq!(view(&mut b, 4, &[B, C]).sent, [(C, Message::Claim { epoch: 4, term: 4, set: ONE })]);
    assert!(view(&mut b, 5, &[B, C]).sent.is_empty(), "it has asked already");
    let seen = hear(&mut b, C, Message::Grant { term: 4, known: 0, set: ONE });
    assert_eq!(seen.taken, ONE);
    assert_eq!(b.mine(), ONE, "from here on nobody else may have it");
    let seen = step(&mut b, Event::Taken { set: ONE });
    assert_eq!(seen.sent, [(C, held(B, 4))]);
    assert_eq!(b.owner(0), Some(B));
}

#[test]
fn the_last_one_takes_at_once() {
    let mut b = registry(B);
    view(&mut b, 2, &[A, B]);
    step(&mut b, Event::Down { kernel: A, lost: false });
    assert_eq!(view(&mut b, 3, &[B]).taken, ONE);
}

#[test]
fn who_comes_again_learns_that_others_have_it() {
    let mut again = registry(AGAIN);
    let seen = view(&mut again, 9, &[AGAIN, B, C]);
    assert_eq!(seen.sent.len(), 2, "what its former life had is free, as far as it knows");
    hear(&mut again, C, Message::Grant { term: 9, known: 0, set: ONE });
    let seen = hear(&mut again, B, held(B, 3));
    assert!(seen.sent.iter().all(|(_, m)| matches!(m, Message::Yield { .. })), "{:?}", seen.sent);
    assert_eq!((again.owner(0), again.mine()), (Some(B), Set(0)));
    assert!(hear(&mut again, B, Message::Grant { term: 9, known: 0, set: ONE }).taken.is_empty(), "too late");
}

#[test]
fn an_owner_tells_those_who_come_and_refuses() {
    let mut b = survivor();
    step(&mut b, Event::Down { kernel: A, lost: false });
    view(&mut b, 4, &[B, C]);
    hear(&mut b, C, Message::Grant { term: 4, known: 0, set: ONE });
    step(&mut b, Event::Taken { set: ONE });
    let claim = Message::Claim { epoch: 5, term: 5, set: ONE };
    assert!(hear(&mut b, AGAIN, claim).sent.is_empty(), "under a view that is not here yet");
    let seen = view(&mut b, 5, &[AGAIN, B, C]);
    assert_eq!(seen.sent, [(AGAIN, held(B, 4))]);
}

#[test]
fn the_claim_of_the_earlier_term_goes_on() {
    let mut b = survivor();
    step(&mut b, Event::Down { kernel: A, lost: false });
    view(&mut b, 4, &[B, C]);
    view(&mut b, 5, &[AGAIN, B, C]);
    let later = Message::Claim { epoch: 5, term: 5, set: ONE };
    assert_eq!(hear(&mut b, AGAIN, later).sent, [(AGAIN, Message::Busy { term: 4, set: ONE })]);
    let mut again = registry(AGAIN);
    view(&mut again, 5, &[AGAIN, B, C]);
    let seen = hear(&mut again, B, Message::Claim { epoch: 4, term: 4, set: ONE });
    assert!(seen.sent.contains(&(B, Message::Grant { term: 4, known: 5, set: ONE })), "{:?}", seen.sent);
    assert!(seen.sent.contains(&(C, Message::Yield { set: ONE })), "{:?}", seen.sent);
    // It waits as long as B lives.
    step(&mut again, Event::Down { kernel: B, lost: false });
    let seen = view(&mut again, 6, &[AGAIN, C]);
    assert!(
        seen.sent.iter().any(|(to, m)| *to == C && matches!(m, Message::Claim { term: 6.., .. })),
        "{:?}",
        seen.sent
    );
}

#[test]
fn what_a_lost_kernel_had_is_lost() {
    let mut b = survivor();
    let seen = step(&mut b, Event::Down { kernel: A, lost: true });
    let told = |(_, message): &(KernelId, Message)| matches!(message, Message::Is { record, .. } if record.standing == Standing::Lost);
    assert!(seen.sent.iter().all(told) && seen.taken.is_empty());
    assert_eq!(b.record(0).map(|r| r.standing), Some(Standing::Lost));
    let claim = Message::Claim { epoch: 3, term: 7, set: ONE };
    assert!(
        matches!(hear(&mut b, C, claim).sent[..], [(C, Message::Is { record, .. })] if record.standing == Standing::Lost)
    );
}

#[test]
fn what_a_peer_makes_up_does_no_harm() {
    let mut b = survivor();
    for set in [Set(u64::MAX), Set(0)] {
        for term in [0, u32::MAX] {
            for message in [
                Message::Grant { term, known: term, set },
                Message::Busy { term, set },
                Message::Yield { set },
                Message::Claim { epoch: 0, term, set },
                Message::Is { record: Record { term, standing: Standing::Free }, set },
            ] {
                hear(&mut b, C, message);
            }
        }
    }
    assert_eq!(b.mine(), Set(0));
    step(&mut b, Event::Taken { set: Set(u64::MAX) });
    assert_eq!(b.mine(), Set(0), "nothing was given");
}
