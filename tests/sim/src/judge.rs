//! What must hold, by name: the rules of `docs/simulator.md`.

use std::collections::BTreeSet;

macro_rules! rules {
    ($($rule:ident $name:literal $what:literal,)*) => {
        /// Something that must hold.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Rule {
            $(#[doc = $what] $rule,)*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$rule,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$rule => $name,)*
                }
            }

            /// What it says.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$rule => $what,)*
                }
            }
        }
    };
}

rules! {
    NoPanic "no-panic" "A state machine has no impossible states: none panics.",
    Calm "calm" "A machine gets quiet: a seed ends after less than two million steps.",
    ViewsWithMe "views-with-me" "A kernel enters only views that it is in.",
    OneViewAnEpoch "one-view-an-epoch" "Two kernels that enter an epoch enter the same view.",
    EpochsGrow "epochs-grow" "Epochs grow on every kernel.",
    OneViewInTheEnd "one-view-in-the-end" "When all is quiet all running kernels are in one view, which is exactly the running kernels.",
    DeadAreStopped "dead-are-stopped" "With shared memory nobody is called dead before it is stopped.",
    NobodyParks "nobody-parks" "With shared memory nobody parks itself.",
    LostAreAlone "lost-are-alone" "Of boards that are not cut off nobody is lost whom a member of its own board, which is well, could stop.",
    RoomForSuccessors "room-for-successors" "Nobody is refused because an earlier incarnation of it is not known to be dead.",
    FencesTheSick "fences-the-sick" "Nobody fences a kernel that is well, or one that has gone already.",
    OneFencer "one-fencer" "Two kernels that run never fence the same victim.",
    FreedUnmapped "freed-unmapped" "What a dead kernel had is used again only when no running kernel maps it.",
    LinksOfNow "links-of-now" "Who is in a view with a kernel has no link to an earlier incarnation of it.",
    HangNoticed "hang-noticed" "When all is quiet nobody hangs unnoticed.",
    GuiltyStopped "guilty-stopped" "When all is quiet nobody runs who has sent garbage to a member.",
    RequestsKept "requests-kept" "A request ends at most once, and none is lost: begun = ended + waiting.",
    Quiet "quiet" "When all is quiet nothing is under way.",
    CountedOnce "counted-once" "An addition takes effect, and ends, at most once.",
    OneHome "one-home" "An object is served by one kernel at most.",
    NoCircle "no-circle" "No request runs in a circle of homes.",
    AcknowledgedKept "acknowledged-kept" "What was acknowledged is there, unless the object died with its home.",
    ReferencesCovered "references-covered" "No holder has more references than the home granted it.",
    ReferencesConserved "references-conserved" "When all is quiet the references of a file are granted = received.",
    LentIsThere "lent-is-there" "Who has a reference that its home counts finds the object; what comes home is there.",
    UndoneOnce "undone-once" "A request that is abandoned was under way, and is undone once.",
    OneLock "one-lock" "Of all who believe that they hold an exclusive lock on a living kernel's object there is one.",
    KeptForSomebody "kept-for-somebody" "What nobody holds is gone.",
    WatchedForSomebody "watched-for-somebody" "Nobody watches for somebody who does not want to know.",
    ToldOfAll "told-of-all" "Whoever subscribed and looked whenever it was woken has seen all that happened.",
    WatchLives "watch-lives" "Nobody waits for what is not watched.",
    HomeRemembered "home-remembered" "Who maps an object knows its home.",
    DeadUnmapped "dead-unmapped" "Nobody maps pages of a kernel that it was told is dead.",
    MappedNotFree "mapped-not-free" "A frame is free only when no running kernel maps it.",
    MappedKnown "mapped-known" "The home's directory knows every page that a kernel maps, and for whom.",
    FramesConserved "frames-conserved" "Frames are neither lost nor invented.",
    AsksEnd "asks-end" "Every question about memory is answered; so is who wants to leave a queue.",
    NoLostWakeup "no-lost-wakeup" "Nobody sleeps at a word that was stored to since, unless who stored it died before waking.",
    QueuesTrue "queues-true" "Who was woken or has left is in no queue.",
    MapsAreNow "maps-are-now" "When all is quiet what is mapped is what the object has.",
    OpensAgree "opens-agree" "Home and holder agree on what is open.",
    ToldTheOwner "told-the-owner" "Who is said to have a resource has it.",
    OneOwner "one-owner" "At most one kernel that runs has a resource, or takes it over just now.",
    OwnersAgree "owners-agree" "When all is quiet all agree who has a resource.",
    OwnerHasIt "owner-has-it" "When all is quiet who holds a resource has it.",
    SomebodyOwns "somebody-owns" "When all is quiet every resource has an owner that runs, unless it is lost.",
}

/// Which rules are judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judge {
    /// These are not.
    pub without: BTreeSet<Rule>,
}

impl Judge {
    /// A rule is broken.
    ///
    /// # Errors
    /// Its name and what was seen, unless it is not judged.
    pub fn broken(&self, rule: Rule, seen: impl FnOnce() -> String) -> Result<(), String> {
        if self.without.contains(&rule) { Ok(()) } else { Err(format!("[{}] {}", rule.name(), seen())) }
    }
}

#[cfg(test)]
mod tests {
    use super::Rule;

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len());
    }
}
