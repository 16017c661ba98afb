//! What the words of a plan mean together: nothing is owned twice, everything lies in RAM, every kernel can be started.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::read::{At, BootWord, RawKernel, RawPlan, RawRange};
use crate::{
    Board, Boot, Cpu, Device, GRAIN, Isa, Joined, Kernel, Link, MAX_BOARDS, MAX_CPUS_PER_KERNEL, MAX_KERNELS,
    MAX_RANGES, MIN_ARCHIVE, MIN_KERNEL_MEMORY, Membership, Plan, PlanError, Range, show_size,
};

/// The plan, if it is consistent; what is wrong goes to `errors`.
pub fn check(raw: &RawPlan, errors: &mut Vec<PlanError>) -> Option<Plan> {
    let mut check = Check { raw, errors };
    if raw.kernels.len() > MAX_KERNELS {
        let line = raw.kernels.get(MAX_KERNELS).map_or(1, |kernel| kernel.line);
        check.fail(line, format!("more than {MAX_KERNELS} kernels"), "leave some out");
        return None;
    }
    let boards = check.boards();
    // Everything else counts on the boards.
    if !check.errors.is_empty() {
        return None;
    }
    check.memory(&boards);
    check.devices(&boards);
    let cpus = check.cpus(&boards);
    let boots = check.boots();
    let console = check.console();
    let links = check.links();
    let membership = check.membership();
    if !errors.is_empty() {
        return None;
    }
    let kernels = raw.kernels.iter().zip(cpus).zip(boots).enumerate().map(|(index, ((kernel, cpus), boot))| {
        let index = index as u16;
        let model = boards.get(kernel.board.value)?.model;
        Some(Kernel {
            index,
            board: kernel.board.value,
            isa: model.isa,
            cpus,
            memory: sorted(&kernel.memory.value),
            boot,
            devices: kernel.devices.iter().map(|device| device.value).collect(),
            low_page: model.low_pages.map(|first| first + 0x1000 * u64::from(index)),
            log_port: model.log_ports.map(|first| first + index),
        })
    });
    let kernels: Option<Vec<Kernel>> = kernels.collect();
    let (name, about) = (raw.name.clone(), raw.about.clone());
    Some(Plan { name, about, joined: raw.joined, boards, kernels: kernels?, links, membership, console })
}

/// The first piece stays first, for it is the base; the others follow in order.
fn sorted(memory: &[At<RawRange>]) -> Vec<Range> {
    let mut ranges: Vec<Range> = memory.iter().map(|at| Range::new(at.value.start, at.value.size)).collect();
    if let Some(rest) = ranges.get_mut(1..) {
        rest.sort_unstable();
    }
    ranges
}

struct Check<'a> {
    raw: &'a RawPlan,
    errors: &'a mut Vec<PlanError>,
}

impl<'a> Check<'a> {
    fn fail(&mut self, line: usize, what: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(PlanError { line, what: what.into(), hint: hint.into() });
    }

    fn kernels(&self) -> impl Iterator<Item = (usize, &'a RawKernel)> + use<'a> {
        self.raw.kernels.iter().enumerate()
    }

    /// Whether each board starts by itself.
    fn is_apart(&self) -> bool {
        self.raw.joined == Joined::Ethernet
    }

    fn exists(&self, kernel: u16) -> bool {
        usize::from(kernel) < self.raw.kernels.len()
    }

    fn no_kernel(&mut self, line: usize, kernel: u16) {
        let hint =
            format!("kernels are numbered from 0 to {}, in the order of their tables", self.raw.kernels.len() - 1);
        self.fail(line, format!("there is no kernel {kernel}"), hint);
    }

    fn boards(&mut self) -> Vec<Board> {
        let raw = self.raw;
        let mut boards = Vec::new();
        if let Some(board) = raw.boards.get(MAX_BOARDS) {
            let what = format!("a machine has {} boards", raw.boards.len());
            self.fail(board.line, what, format!("{MAX_BOARDS} are the most: leave some out"));
        }
        for board in &raw.boards {
            let (memory, archive) = (board.memory.value, board.archive.value);
            for (at, what) in [(&board.memory, "the memory of the board"), (&board.archive, "the archive reserve")] {
                if !at.value.is_multiple_of(GRAIN) {
                    self.fail(at.line, format!("{what} is not a multiple of 2 MiB"), "round it up");
                }
            }
            if archive < MIN_ARCHIVE {
                let what = format!("{} are too little for the archive", show_size(archive));
                self.fail(board.archive.line, what, format!("reserve at least {}", show_size(MIN_ARCHIVE)));
            }
            let low = board.model.ram(memory)[0];
            let before = board.model.primary_base - board.model.ram_base;
            let least = before.saturating_add(MIN_KERNEL_MEMORY).saturating_add(archive);
            if low.size < least {
                let what = format!("{} are too little for the board", show_size(memory));
                let hint = format!("a kernel and the archive reserve need {}", show_size(least));
                self.fail(board.memory.line, what, hint);
                continue;
            }
            let archive = Range::new(low.end() - archive, archive);
            boards.push(Board { model: board.model, memory, archive, cpus: 0 });
        }
        for (index, kernel) in self.kernels() {
            if kernel.board.value >= raw.boards.len() {
                let what = format!("kernel {index} is on board {}, which does not exist", kernel.board.value);
                let hint = format!("boards are numbered from 0 to {}", raw.boards.len().saturating_sub(1));
                self.fail(kernel.board.line, what, hint);
            }
        }
        for (index, board) in raw.boards.iter().enumerate() {
            if !raw.kernels.iter().any(|kernel| kernel.board.value == index) {
                self.fail(board.line, format!("board {index} has no kernel"), "give it one or leave it out");
            }
        }
        if self.errors.is_empty() {
            for (index, board) in boards.iter_mut().enumerate() {
                let here = raw.kernels.iter().filter(|kernel| kernel.board.value == index);
                board.cpus = here.map(|kernel| kernel.cpus.value.len() as u32).sum();
            }
        }
        boards
    }

    fn memory(&mut self, boards: &[Board]) {
        // All pieces that were good so far, per board: a new one must not touch them.
        let mut taken: Vec<(usize, Range, usize)> = Vec::new();
        for (index, kernel) in self.kernels() {
            let Some(board) = boards.get(kernel.board.value) else { continue };
            let pieces = &kernel.memory.value;
            if pieces.is_empty() {
                self.fail(kernel.memory.line, format!("kernel {index} has no memory"), "give it a piece");
            }
            if pieces.len() > MAX_RANGES {
                let what = format!("kernel {index} has {} pieces of memory", pieces.len());
                self.fail(kernel.memory.line, what, format!("join them; {MAX_RANGES} are the most"));
            }
            for (place, piece) in pieces.iter().enumerate() {
                let RawRange { start, size } = piece.value;
                let range = Range::new(start, size);
                let shown = format!("{start:#x}..{:#x} of kernel {index}", range.end());
                if !start.is_multiple_of(GRAIN) {
                    let what = format!("{shown} begins between 2 MiB boundaries");
                    let next = start.checked_next_multiple_of(GRAIN).unwrap_or(0);
                    self.fail(piece.line, what, format!("write `at = {next:#x}`"));
                } else if !size.is_multiple_of(GRAIN) {
                    let hint = format!("write `size = {}`", quoted_size(size));
                    self.fail(piece.line, format!("the size of {shown} is not a multiple of 2 MiB"), hint);
                } else if size == 0 {
                    self.fail(piece.line, format!("{shown} is empty"), "give it a size or leave it out");
                } else if place == 0 && size < MIN_KERNEL_MEMORY {
                    let what = format!("{} are too little for kernel {index}", show_size(size));
                    self.fail(piece.line, what, format!("its first piece needs {}", show_size(MIN_KERNEL_MEMORY)));
                } else {
                    self.place_range(board, kernel, index, place, piece, &shown, &mut taken);
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one loop, apart only to keep the loop short")]
    fn place_range(
        &mut self,
        board: &Board,
        kernel: &RawKernel,
        index: usize,
        place: usize,
        piece: &At<RawRange>,
        shown: &str,
        taken: &mut Vec<(usize, Range, usize)>,
    ) {
        let range = Range::new(piece.value.start, piece.value.size);
        let first = board.model.primary_base;
        let ram = board.ram();
        if range.start < first {
            let what = format!("{shown} takes what is below {}", show_size(first));
            self.fail(piece.line, what, format!("begin at {} or higher", quoted_size(first)));
        } else if !ram.iter().any(|part| part.covers(&range)) {
            let parts: Vec<String> = ram
                .iter()
                .filter(|part| part.size > 0)
                .map(|part| format!("{:#x}..{:#x}", part.start, part.end()))
                .collect();
            let hint = format!("the board has RAM at {}; move the piece or enlarge the board", parts.join(" and "));
            self.fail(piece.line, format!("{shown} is not all RAM"), hint);
        } else if board.archive.overlaps(&range) {
            let what = format!("{shown} overlaps the archive reserve {}", hex(&board.archive));
            self.fail(piece.line, what, "end the piece before it or enlarge the board");
        } else if kernel.boot.value == BootWord::Firmware && place == 0 && range.start != first {
            let what = format!("kernel {index} is started by firmware but begins at {:#x}", range.start);
            self.fail(piece.line, what, format!("firmware loads it at {0}: write `at = {0}`", quoted_size(first)));
        } else if kernel.board.value > 0 && !self.is_apart() && place == 0 && range.start != first {
            let what = format!("kernel {index} is alone on its board but begins at {:#x}", range.start);
            self.fail(piece.line, what, format!("its board starts it at {0}: write `at = {0}`", quoted_size(first)));
        } else if let Some((owner, other, _)) =
            taken.iter().find(|(_, other, on)| *on == kernel.board.value && other.overlaps(&range))
        {
            let what = format!("{shown} overlaps {} of kernel {owner}", hex(other));
            let hint = format!("begin at {:#x}, for example, or shorten the other", other.end());
            self.fail(piece.line, what, hint);
        } else {
            taken.push((index, range, kernel.board.value));
        }
    }

    fn devices(&mut self, boards: &[Board]) {
        let mut owners: BTreeMap<(usize, Device), usize> = BTreeMap::new();
        for (index, kernel) in self.kernels() {
            let Some(board) = boards.get(kernel.board.value) else { continue };
            for device in &kernel.devices {
                let name = device.value.name();
                if !board.model.devices.contains(&device.value) {
                    let what = format!("a {} has no device {name:?}", board.model.name);
                    self.fail(device.line, what, "leave it out");
                } else if let Some(owner) = owners.insert((kernel.board.value, device.value), index) {
                    let what = format!("device {name:?} of kernel {index} belongs to kernel {owner} already");
                    self.fail(device.line, what, "name it once; others reach it through its owner");
                }
            }
        }
    }

    fn cpus(&mut self, boards: &[Board]) -> Vec<Vec<Cpu>> {
        let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
        for (index, kernel) in self.kernels() {
            let cpus = &kernel.cpus.value;
            if cpus.is_empty() {
                self.fail(kernel.cpus.line, format!("kernel {index} has no CPU"), "give it one: `cpus = [0]`");
            }
            if cpus.len() > MAX_CPUS_PER_KERNEL {
                let what = format!("kernel {index} has {} CPUs", cpus.len());
                self.fail(kernel.cpus.line, what, format!("give some to others; {MAX_CPUS_PER_KERNEL} are the most"));
            }
            for cpu in cpus {
                if let Some(owner) = owners.insert(cpu.value.id, index) {
                    let what = format!("CPU {} of kernel {index} belongs to kernel {owner} already", cpu.value.id);
                    self.fail(cpu.line, what, "a CPU has one kernel: change one of the lists");
                }
            }
        }
        for (expected, (cpu, owner)) in owners.iter().enumerate() {
            if *cpu != expected as u32 {
                let line = self.raw.kernels.get(*owner).map_or(1, |kernel| kernel.cpus.line);
                let what = format!("CPU {cpu} exists but CPU {expected} does not");
                self.fail(line, what, "number the CPUs of the machine from 0 without gaps");
                break;
            }
        }
        for (index, board) in boards.iter().enumerate() {
            if board.cpus as usize > board.model.max_cpus {
                let line = self.raw.boards.get(index).map_or(1, |board| board.line);
                let what = format!("board {index} has {} CPUs", board.cpus);
                self.fail(line, what, format!("a {} can have {}", board.model.name, board.model.max_cpus));
            }
        }
        self.hardware(boards)
    }

    /// Gives every CPU its hardware id.
    fn hardware(&mut self, boards: &[Board]) -> Vec<Vec<Cpu>> {
        let mut ranks: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
        for (_, kernel) in self.kernels() {
            ranks.entry(kernel.board.value).or_default().extend(kernel.cpus.value.iter().map(|cpu| cpu.value.id));
        }
        let mut owners: BTreeMap<(usize, u32), u32> = BTreeMap::new();
        let mut all = Vec::new();
        for (index, kernel) in self.kernels() {
            let on = kernel.board.value;
            let Some(board) = boards.get(on) else { continue };
            let mut cpus = Vec::new();
            for cpu in &kernel.cpus.value {
                let global = cpu.value.id;
                let rank = ranks.get(&on).map_or(0, |ids| ids.range(..global).count() as u32);
                let hardware = cpu.value.hardware.unwrap_or(rank);
                if hardware >= board.cpus {
                    let what = format!("CPU {global} cannot have hardware id {hardware}");
                    let hint = format!("the board has {} CPUs: their ids are below that", board.cpus);
                    self.fail(cpu.line, what, hint);
                } else if let Some(other) = owners.insert((on, hardware), global).filter(|other| *other != global) {
                    let what = format!("CPU {global} has hardware id {hardware}, as CPU {other} has");
                    self.fail(cpu.line, what, "give every CPU of a board its own `hw`");
                }
                cpus.push(Cpu { global, hardware });
            }
            let boots = cpus.first().is_some_and(|cpu| cpu.hardware == board.model.boot_cpu);
            let id = board.model.boot_cpu;
            if kernel.boot.value == BootWord::Firmware && !boots && !cpus.is_empty() {
                let what = format!("kernel {index} is started by firmware, but not on the boot CPU (hardware id {id})");
                self.fail(kernel.cpus.line, what, "list the boot CPU first in its `cpus`");
            } else if on > 0 && !self.is_apart() && !boots && !cpus.is_empty() {
                let what = format!("kernel {index} does not begin on the boot CPU of its board (hardware id {id})");
                self.fail(kernel.cpus.line, what, "list the boot CPU first in its `cpus`");
            }
            all.push(cpus);
        }
        all
    }

    fn boots(&mut self) -> Vec<Boot> {
        let raw = self.raw;
        let shared = raw.boards.len() > 1 && !self.is_apart();
        for (index, board) in raw.boards.iter().enumerate() {
            let here: Vec<_> = self.kernels().filter(|(_, kernel)| kernel.board.value == index).collect();
            if self.is_apart()
                && let Some((_, kernel)) = here.get(Plan::CARDS)
            {
                let what =
                    format!("board {index} has more than {} kernels, which need a network card each", Plan::CARDS);
                self.fail(kernel.board.line, what, "give some CPUs to fewer of them, or to another board");
            }
            if self.is_apart()
                && board.model.isa == Isa::Aarch64
                && let [(first, _), (second, kernel), ..] = here.as_slice()
            {
                // What turns a device's message into an interrupt (the ITS, or the frame of a GICv2) has one user.
                let what =
                    format!("kernels {first} and {second} share board {index}, where one can have a network card");
                self.fail(
                    kernel.board.line,
                    what,
                    "give the CPUs of an aarch64 board to one kernel, or split the board",
                );
            }
            if shared && let [(first, _), (second, kernel), ..] = here.as_slice() {
                // A board is switched off and on as a whole.
                let what = format!("kernels {first} and {second} share a board, and there are other boards");
                self.fail(kernel.board.line, what, "give each a board of its own, or all CPUs to one of them");
            }
            if shared
                && let [_, high] = board.model.ram(board.memory.value)
                && high.size > 0
            {
                let what = format!("board {index} has RAM in two pieces, which other boards cannot see as one");
                self.fail(board.memory.line, what, "give it less memory, or leave it alone in its machine");
            }
            let mut firmware = self
                .kernels()
                .filter(|(_, kernel)| kernel.board.value == index && kernel.boot.value == BootWord::Firmware);
            let (first, second) = (firmware.next(), firmware.next());
            if index > 0 && shared {
                if !board.model.waits {
                    let what = format!("board {index} is a {}, which cannot wait for another kernel", board.model.name);
                    self.fail(board.line, what, "make it the first board");
                }
                if let Some((first, kernel)) = first {
                    let what = format!("firmware does not start kernel {first}: its board waits for another kernel");
                    self.fail(kernel.boot.line, what, "write `boot = \"auto\"`");
                }
                continue;
            }
            if first.is_none() {
                let what = format!("no kernel of board {index} is started by firmware");
                self.fail(board.line, what, "write `boot = \"firmware\"` in the kernel that has the boot CPU");
            }
            if let (Some((first, _)), Some((second, kernel))) = (first, second) {
                let what = format!("firmware cannot start kernel {second} too; it starts kernel {first}");
                self.fail(kernel.boot.line, what, "write `boot = \"auto\"`");
            }
        }
        let mut boots = Vec::new();
        for (index, kernel) in self.kernels() {
            let near = |other: &RawKernel| !self.is_apart() || other.board.value == kernel.board.value;
            let primary = raw.kernels.iter().position(|other| other.boot.value == BootWord::Firmware && near(other));
            let by = kernel.booter.as_ref().map_or(primary.unwrap_or(0) as u16, |at| at.value);
            boots.push(match kernel.boot.value {
                BootWord::Firmware => Boot::Firmware,
                BootWord::Auto => Boot::Auto { by },
                BootWord::Manual => Boot::Manual,
            });
            let Some(booter) = &kernel.booter else { continue };
            let target = raw.kernels.get(usize::from(booter.value));
            if kernel.boot.value != BootWord::Auto {
                let what = format!("kernel {index} has a booter but is not booted by a kernel");
                self.fail(booter.line, what, "write `boot = \"auto\"` or leave `booter` out");
            } else if usize::from(booter.value) == index {
                self.fail(booter.line, format!("kernel {index} cannot boot itself"), "name another kernel");
            } else if let Some(target) = target {
                if self.is_apart() && target.board.value != kernel.board.value {
                    let what = format!("kernel {} is on another board than kernel {index}", booter.value);
                    self.fail(booter.line, what, "let a kernel of its own board boot it: nobody else can");
                }
                if target.boot.value == BootWord::Manual {
                    let what = format!("kernel {} boots kernel {index} but nobody boots it", booter.value);
                    self.fail(booter.line, what, "boot that one automatically or this one manually too");
                }
            } else {
                self.no_kernel(booter.line, booter.value);
            }
        }
        self.cycles(&boots);
        boots
    }

    /// Every automatic kernel must hang off one that firmware starts.
    fn cycles(&mut self, boots: &[Boot]) {
        for (index, kernel) in self.kernels() {
            let mut at = index;
            for _ in 0..boots.len() {
                match boots.get(at) {
                    Some(Boot::Auto { by }) if usize::from(*by) != at => at = usize::from(*by),
                    _ => break,
                }
            }
            if matches!(boots.get(at), Some(Boot::Auto { by }) if usize::from(*by) != at) {
                let line = kernel.booter.as_ref().map_or(kernel.line, |at| at.line);
                let what = format!("the booters of kernel {index} go round in a circle");
                self.fail(line, what, "let one of them be booted by the kernel that firmware starts");
            }
        }
    }

    fn console(&mut self) -> Vec<u16> {
        let Some(list) = &self.raw.console else {
            return (0..self.raw.kernels.len() as u16).collect();
        };
        let mut seen = BTreeSet::new();
        for entry in &list.value {
            if !self.exists(entry.value) {
                self.no_kernel(entry.line, entry.value);
            } else if !seen.insert(entry.value) {
                let what = format!("kernel {} stands twice in the console order", entry.value);
                self.fail(entry.line, what, "name it once");
            }
        }
        if let Some(first) = list.value.first() {
            let owner = self.kernels().find(|(_, kernel)| kernel.devices.iter().any(|d| d.value == Device::Com1));
            if let Some((owner, _)) = owner.filter(|(owner, _)| *owner != usize::from(first.value)) {
                let what = format!("the console begins at kernel {}, but kernel {owner} has com1", first.value);
                self.fail(first.line, what, format!("put {owner} first or give `com1` to kernel {}", first.value));
            }
        } else {
            self.fail(list.line, "nobody may own the console", "name at least one kernel");
        }
        list.value.iter().map(|at| at.value).collect()
    }

    fn links(&mut self) -> Vec<Link> {
        let mut seen = BTreeSet::new();
        let mut links = Vec::new();
        for link in &self.raw.links {
            let (a, b) = link.between.value;
            let between = (a.min(b), a.max(b));
            if !self.exists(between.1) {
                self.no_kernel(link.between.line, between.1);
            } else if a == b {
                let what = format!("a link from kernel {a} to itself");
                self.fail(link.between.line, what, "name two kernels");
            } else if !seen.insert(between) {
                let what = format!("kernels {} and {} have a link already", between.0, between.1);
                self.fail(link.between.line, what, "describe a pair once");
            }
            if link.distance.value <= Plan::LOCAL_DISTANCE || link.distance.value == u8::MAX {
                let what = format!("{} is no distance", link.distance.value);
                self.fail(link.distance.line, what, "use 11 to 254; 10 is a kernel's distance to itself");
            }
            links.push(Link { between, distance: link.distance.value });
        }
        links
    }

    fn membership(&mut self) -> Membership {
        let mut out = Membership::default();
        let Some(raw) = &self.raw.membership else { return out };
        let parts = [
            (&raw.probe_ms, &mut out.probe_ms, "probe_ms"),
            (&raw.probes, &mut out.probes, "probes"),
            (&raw.dead_after_ms, &mut out.dead_after_ms, "dead_after_ms"),
        ];
        for (given, value, name) in parts {
            let Some(given) = given else { continue };
            *value = given.value;
            if given.value == 0 {
                let what = format!("`{name}` is 0: every kernel would be dead at once");
                self.errors.push(PlanError { line: given.line, what, hint: String::from("use at least 1") });
            }
        }
        if u64::from(out.probe_ms) * u64::from(out.probes) > u64::from(out.dead_after_ms) {
            let line = raw.dead_after_ms.as_ref().map_or(raw.line, |at| at.line);
            let what = format!("{} probes do not fit in {} ms", out.probes, out.dead_after_ms);
            let least = u64::from(out.probe_ms) * u64::from(out.probes);
            self.fail(line, what, format!("write `dead_after_ms = {least}` or more, or probe faster"));
        }
        out
    }
}

fn hex(range: &Range) -> String {
    format!("{:#x}..{:#x}", range.start, range.end())
}

/// A size as it stands in a plan, rounded up to what is allowed.
fn quoted_size(bytes: u64) -> String {
    format!("\"{}\"", show_size(bytes.checked_next_multiple_of(GRAIN).unwrap_or(bytes)))
}
