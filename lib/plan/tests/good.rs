//! The plans that come with the system, and properties of whatever is accepted.

use std::collections::BTreeSet;
use std::{fs, path::Path};

use plan::{Boot, Device, GRAIN, MIB, Owner, Plan};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_oneof, proptest};

fn machine(name: &str) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../machines").join(name).with_extension("toml");
    plan::parse(&fs::read_to_string(path).expect("a machine")).expect("a good plan")
}

#[test]
fn the_machines_are_what_they_say() {
    let machines =
        [("duo", vec![1, 1]), ("uni", vec![1]), ("solo", vec![2]), ("clustered", vec![2, 2]), ("octo", vec![1; 8])];
    let of = |isa: &str| {
        [("uni", vec![1]), ("duo", vec![1, 1]), ("clustered", vec![2, 2])]
            .map(|(name, cpus)| (format!("{name}-{isa}"), cpus))
    };
    let machines = machines.map(|(name, cpus)| (name.to_owned(), cpus)).into_iter();
    for (name, cpus) in machines.chain(of("aarch64")).chain(of("riscv64")) {
        let name = name.as_str();
        let plan = machine(name);
        assert_eq!(plan.name, name);
        assert_eq!(plan.kernels.iter().map(|kernel| kernel.cpus.len()).collect::<Vec<_>>(), cpus);
        assert_eq!(plan.primary(0).map(|kernel| kernel.index), Some(0));
        assert!(plan.kernels.iter().all(|kernel| kernel.boot != Boot::Manual));
    }
}

#[test]
fn questions_are_answered() {
    let duo = machine("duo");
    assert_eq!(duo.owner(0, 0x20_0000), Owner::Kernel(0));
    assert_eq!(duo.owner(0, 256 * MIB), Owner::Kernel(1));
    assert_eq!(duo.owner(0, 0x9fff), Owner::LowPage(1));
    assert_eq!(duo.owner(0, 575 * MIB), Owner::Archive);
    assert_eq!(duo.owner(0, 0), Owner::Nobody);
    assert_eq!(duo.owner(1, 256 * MIB), Owner::Nobody);
    assert_eq!(duo.cpu(1).map(|(kernel, cpu)| (kernel.index, cpu.hardware)), Some((1, 1)));
    assert_eq!(duo.cpu(2), None);
    assert_eq!(duo.distance(0, 1), Some(20));
    assert_eq!(duo.distance(1, 1), Some(10));
    assert_eq!(duo.distance(0, 2), None);
    assert_eq!(duo.device_owner(0, Device::Com1).map(|kernel| kernel.index), Some(0));
    let kernel = duo.kernel(1).expect("kernel 1");
    assert_eq!((kernel.base(), kernel.image_base()), (0x1000_0000, 0x1020_0000));
    assert_eq!((kernel.low_page, kernel.log_port), (Some(0x9000), Some(0x1e01)));
    assert_eq!(machine("octo").starts(1).map(|kernel| kernel.index).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn boards_that_share_nothing() {
    let apart = machine("apart");
    assert!(apart.is_apart() && !apart.is_mixed());
    assert_eq!([0, 1].map(|board| apart.primary(board).map(|kernel| kernel.index)), [Some(0), Some(3)]);
    assert_eq!(apart.kernels[1].boot, Boot::Auto { by: 3 });
    assert!(apart.share_memory(1, 3) && !apart.share_memory(1, 2) && !apart.share_memory(1, 9));
    assert_eq!([0, 1, 2, 3, 4].map(|index| apart.card_slot(index)), [Some(8), Some(8), Some(9), Some(9), None]);
    let trio = machine("trio");
    assert!(trio.is_mixed() && trio.share_memory(0, 2));
}

#[test]
fn memory_above_the_hole() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../machines/duo.toml")).expect("duo");
    let high = text.replace("\"576 MiB\"", "\"6 GiB\"").replace("at = \"256 MiB\"", "at = 0x1_0000_0000");
    let plan = plan::parse(&high).expect("a good plan");
    assert_eq!(plan.owner(0, 0x1_0000_0000), Owner::Kernel(1));
    assert_eq!(plan.boards[0].archive.end(), 0x8000_0000);
}

/// A kernel as text: some wrong, so that acceptance means something.
fn kernel(index: usize) -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec((0..40u64, 1..20u64, prop_oneof![9 => Just(0), 1 => Just(1u64)]), 1..3);
    let cpus = prop::collection::vec(0..6u32, 1..3);
    (pieces, cpus, any::<bool>()).prop_map(move |(pieces, cpus, shifted)| {
        let memory: Vec<String> = pieces
            .iter()
            .enumerate()
            .map(|(place, (slot, size, odd))| {
                let first = index == 0 && place == 0;
                let at = if first { GRAIN } else { slot * 16 * MIB + odd * 4096 };
                format!("{{ at = {at:#x}, size = {:#x} }}", size * 8 * MIB)
            })
            .collect();
        // Half of the time CPUs that fit, so that whole plans are accepted often enough.
        let cpus = if shifted { vec![index as u32] } else { cpus };
        let boot = if index == 0 { "firmware" } else { "auto" };
        format!("[[kernel]]\ncpus = {cpus:?}\nmemory = [{}]\nboot = \"{boot}\"\n", memory.join(", "))
    })
}

fn machine_text() -> impl Strategy<Value = String> {
    (1..5usize).prop_flat_map(|count| (0..count).map(kernel).collect::<Vec<_>>()).prop_map(|kernels| {
        let board = "[[board]]\nisa = \"x86_64\"\nmodel = \"q35\"\nmemory = \"704 MiB\"\narchive = \"64 MiB\"\n";
        format!("name = \"any\"\n{board}{}", kernels.concat())
    })
}

proptest! {
    #![proptest_config(prop::test_runner::Config { cases: 4096, failure_persistence: None, ..Default::default() })]

    #[test]
    fn accepted_plans_never_overlap(text in machine_text()) {
        let Ok(plan) = plan::parse(&text) else { return Ok(()) };
        let (mut cpus, mut hardware, mut pages, mut ports) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut memory = vec![(None, plan.boards[0].archive)];
        for kernel in &plan.kernels {
            memory.extend(kernel.memory.iter().map(|range| (Some(kernel.index), *range)));
            prop_assert!(pages.insert(kernel.low_page) && ports.insert(kernel.log_port));
            for cpu in &kernel.cpus {
                prop_assert!(cpus.insert(cpu.global) && hardware.insert(cpu.hardware));
                prop_assert!(cpu.global < plan.cpu_count() && cpu.hardware < plan.boards[0].cpus);
            }
            prop_assert!(kernel.boot_block().end() <= kernel.image_base());
        }
        for (place, (owner, range)) in memory.iter().enumerate() {
            prop_assert!(range.start % GRAIN == 0 && range.size % GRAIN == 0);
            prop_assert!(plan.boards[0].ram().iter().any(|ram| ram.covers(range)));
            prop_assert!(pages.iter().flatten().all(|page| !range.contains(*page)));
            for (_, other) in &memory[..place] {
                prop_assert!(!range.overlaps(other), "{range:?} {other:?}");
            }
            for address in [range.start, range.end() - 1] {
                prop_assert!(plan.owner(0, address) == owner.map_or(Owner::Archive, Owner::Kernel));
            }
        }
    }

    /// Whatever the text is, there is an answer and errors have a line of the text.
    #[test]
    fn any_text_has_an_answer(text in machine_text(), at in any::<prop::sample::Index>(), with in "[ -~\n]{0,6}") {
        let mut text = text;
        let place = at.index(text.len());
        text.insert_str(place, &with);
        if let Err(errors) = plan::parse(&text) {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|error| error.line >= 1 && error.line <= text.lines().count() + 1));
        }
    }
}

#[test]
fn random_plans_are_accepted_often_enough() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let accepted = (0..1000)
        .filter(|_| plan::parse(&machine_text().new_tree(&mut runner).expect("a text").current()).is_ok())
        .count();
    assert!(accepted >= 50, "only {accepted} of 1000");
}

/// What `docs/machines.md` shows as a plan is one.
#[test]
fn the_documentation_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/machines.md");
    let text = fs::read_to_string(path).expect("the page");
    let plans: Vec<&str> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(plan, _)| plan).collect();
    assert_eq!(plans.len(), 1);
    assert_eq!(plan::parse(plans[0]).expect("a good plan").kernels.len(), 3);
}
