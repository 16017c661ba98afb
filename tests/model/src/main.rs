//! Tries everything that can happen in small machines: says how many states there are, and the way to one that is wrong.

mod copies;
mod membership;
mod names;
mod pairs;
mod resources;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use stateright::{Checker, Model};

use world::{Machine, Part, State};

/// Where to stop: a model that is larger is no small machine.
const MOST: usize = 20_000_000;

/// Checks the machines of a service; whether all is well.
fn check<P: Part>(service: &str, machines: Vec<(String, Machine<P>)>) -> bool {
    check_own(service, machines, |state: &State<P>| P::wrong(state).or_else(|| P::missing(state)).unwrap_or_default())
}

/// The same of what has a machine of its own: `why` says what is wrong with a state.
fn check_own<M>(what: &str, machines: Vec<(String, M)>, why: impl Fn(&M::State) -> String) -> bool
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + std::hash::Hash + PartialEq + Send + Sync,
    M::Action: Clone + std::fmt::Debug + PartialEq + Send + Sync,
{
    let mut good = true;
    for (shape, machine) in machines {
        let began = Instant::now();
        let checker = machine.checker().threads(2).target_state_count(MOST).spawn_bfs().join();
        let states = checker.unique_state_count();
        println!("{what}: {shape}: {states} states, {:.1} s", began.elapsed().as_secs_f64());
        if states >= MOST {
            println!("  not all of them: the machine is too large");
            good = false;
        }
        for (name, path) in checker.discoveries() {
            good = false;
            println!("  not so: {name}");
            let steps = path.into_vec();
            for action in steps.iter().filter_map(|(_, action)| action.as_ref()) {
                println!("    {action:?}");
            }
            println!("  {}", steps.last().map_or_else(String::new, |(state, _)| why(state)));
        }
    }
    good
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let large = words.iter().any(|word| word == "--large");
    if let Some(word) = words.iter().find(|word| *word != "--large") {
        eprintln!("what is {word}? `model` checks the machines of a change, `model --large` those of a long run");
        return ExitCode::from(2);
    }
    // Kernels and deaths.
    let small: &[(u16, u32)] = &[(3, 1), (3, 2)];
    let all: &[(u16, u32)] = &[(3, 1), (3, 2), (4, 1), (4, 2)];
    let mut good = check_own("copies", copies::machines(large), copies::why);
    good &= check_own("membership", membership::machines(large), membership::why);
    for (kernels, crashes) in if large { all } else { small } {
        if (*kernels, *crashes) != (4, 2) {
            good &= check("names", names::machines(*kernels, *crashes));
        }
        good &= check("resources", resources::machines(*kernels, *crashes));
    }
    good &= pairs::judge();
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
