//! What met what: in which situation each state machine got which event. A pair that no seed reaches is either listed in `unreached.txt` with the reason, or
//! something that the simulator does not try.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

/// A service, with the situations and the events of its state machine.
#[derive(Debug)]
pub struct Machine {
    /// The service.
    pub name: &'static str,
    /// What it can be in the middle of.
    pub situations: &'static [&'static str],
    /// What can happen.
    pub events: &'static [&'static str],
}

/// Those that are looked at.
pub const MACHINES: [Machine; 2] = [
    Machine {
        name: "membership",
        situations: &["outside", "entering", "member", "proposing", "accepting", "fencing", "leaving", "parked"],
        events: &[
            "Found",
            "Enter",
            "Tick",
            "Beat",
            "Overdue",
            "Dying",
            "Guilty",
            "Fenced",
            "Prepared",
            "Hold",
            "Leave",
            "Probe",
            "ProbeReply",
            "Join",
            "Refused",
            "Suspect",
            "Dead",
            "Propose",
            "Accept",
            "Refuse",
            "Install",
            "Goodbye",
        ],
    },
    Machine {
        name: "resources",
        situations: &["outside", "without", "owning", "claiming", "taking"],
        events: &["View", "Down", "Taken", "Claim", "Grant", "Busy", "Yield", "Is"],
    },
];

/// Pairs that cannot be, each with the reason: `SERVICE SITUATION EVENT WHY`. `*` stands for every event or situation.
const UNREACHED: &str = include_str!("../unreached.txt");

/// Takes the first word that is written.
struct Name(String);

impl fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        self.0.push_str(word);
        if word.len() < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Service, situation, event.
pub type Pair = (&'static str, &'static str, &'static str);

/// How often each pair was met.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<Pair, u64>);

impl Coverage {
    /// An event, or the message that came, in a situation. Its name is how it is shown.
    pub fn met(&mut self, service: &'static str, situation: &'static str, event: &dyn fmt::Debug) {
        let machine = MACHINES.iter().find(|machine| machine.name == service);
        let mut name = Name(String::new());
        // It ends early, with an error.
        let _ = write!(name, "{event:?}");
        let known = machine.and_then(|machine| machine.events.iter().find(|known| **known == name.0));
        *self.0.entry((service, situation, known.unwrap_or(&"an event without a name"))).or_default() += 1;
    }

    /// How many pairs of a service were met.
    pub fn count(&self, service: &str) -> usize {
        self.0.keys().filter(|pair| pair.0 == service).count()
    }

    /// Pairs that are listed as impossible, and were met.
    pub fn impossible(&self) -> Vec<Pair> {
        let listed = listed();
        self.0.keys().filter(|pair| listed.contains(*pair)).copied().collect()
    }

    /// What another run met.
    pub fn add(&mut self, other: &Self) {
        for (pair, count) in &other.0 {
            *self.0.entry(*pair).or_default() += count;
        }
    }

    /// What is not as it should be: pairs that were not met and are not listed, and listed ones that were met.
    pub fn surprises(&self) -> Vec<String> {
        let listed = listed();
        let named = |(service, situation, event): &&Pair| {
            MACHINES.iter().any(|m| m.name == *service && m.situations.contains(situation) && m.events.contains(event))
        };
        let unknown = self.0.keys().filter(|pair| !named(pair));
        let mut out: Vec<String> = unknown.map(|(name, s, e)| format!("{name} got {e} while {s}: add it")).collect();
        for machine in &MACHINES {
            for situation in machine.situations {
                for event in machine.events {
                    let pair = (machine.name, *situation, *event);
                    match (self.0.contains_key(&pair), listed.contains(&pair)) {
                        (false, false) => out.push(format!("{} never got {event} while {situation}", machine.name)),
                        (true, true) => {
                            out.push(format!("{} got {event} while {situation}: not so unreached", machine.name));
                        }
                        _ => {}
                    }
                }
            }
        }
        out
    }
}

/// The pairs of the list.
fn listed() -> BTreeSet<Pair> {
    let mut out = BTreeSet::new();
    for line in UNREACHED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let [service, situation, event] = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
        let Some(machine) = MACHINES.iter().find(|machine| machine.name == service) else { continue };
        let fits = |word: &str, name: &str| word == "*" || word == name;
        for s in machine.situations.iter().filter(|name| fits(situation, name)) {
            for e in machine.events.iter().filter(|name| fits(event, name)) {
                out.insert((machine.name, *s, *e));
            }
        }
    }
    out
}

impl fmt::Display for Coverage {
    /// A line per service: how many pairs were met, and how many are listed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = listed();
        for (i, machine) in MACHINES.iter().enumerate() {
            let of = |pair: &&Pair| pair.0 == machine.name;
            let (all, met) = (machine.situations.len() * machine.events.len(), self.count(machine.name));
            let cannot = listed.iter().filter(of).count();
            let comma = if i > 0 { "; " } else { "" };
            write!(f, "{comma}{}: {met} of {all} pairs of situation and event met, {cannot} cannot be", machine.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{MACHINES, UNREACHED};

    #[test]
    fn every_line_of_the_list_names_something_and_says_why() {
        for line in UNREACHED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let machine = MACHINES.iter().find(|machine| machine.name == words[0]).expect(line);
            assert!(words[1] == "*" || machine.situations.contains(&words[1]), "{line}");
            assert!(words[2] == "*" || machine.events.contains(&words[2]), "{line}");
            assert!(words.len() > 4, "why? {line}");
        }
    }
}
