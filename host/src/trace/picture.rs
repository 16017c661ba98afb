//! From records to the trace-event format that Perfetto and Chrome read.
//!
//! A track per CPU shows which task runs there, and the messages that are sent and handled there, with an arrow from each message's sending to its handling.
//! A track per task, under "programs", shows its system calls and page faults, on whichever kernel it was.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use plan::Isa;
use serde_json::{Value, json};
use trace::{Kind, Record, SIZE};

/// What one kernel noted.
pub struct Notes {
    pub kernel: u16,
    pub isa: Isa,
    pub bytes: Vec<u8>,
}

/// The group of the tracks of tasks; kernels have the groups from 1.
const PROGRAMS: u64 = 1_000_000;

/// A record, and where it was noted.
#[derive(Clone, Copy)]
struct Event {
    kernel: u16,
    isa: Isa,
    cpu: u32,
    record: Record,
}

/// Something that began.
struct Begun {
    at: u64,
    name: String,
    about: Value,
}

/// The picture while it is drawn.
#[derive(Default)]
pub struct Picture {
    events: Vec<Value>,
    /// The earliest moment, ns.
    start: u64,
    end: u64,
    names: BTreeMap<u32, String>,
    /// The task that runs on each CPU, and since when.
    running: BTreeMap<u32, (u32, u64)>,
    /// Messages that are being handled on each CPU.
    handling: BTreeMap<u32, Begun>,
    calls: BTreeMap<u32, Begun>,
    faults: BTreeMap<u32, Begun>,
    /// The number of the last move of each process that is on its way.
    left: BTreeMap<u32, usize>,
    tasks: BTreeSet<u32>,
    lost: Vec<(u16, u32, u64)>,
    counts: Counts,
}

/// What is told in a sentence.
#[derive(Default)]
struct Counts {
    kernels: usize,
    calls: usize,
    faults: usize,
    messages: usize,
    moves: usize,
}

fn abi(isa: Isa) -> linux_abi::Isa {
    match isa {
        Isa::X86_64 => linux_abi::Isa::X86_64,
        Isa::Aarch64 => linux_abi::Isa::Aarch64,
        Isa::Riscv64 => linux_abi::Isa::Riscv64,
    }
}

fn call_name(isa: Isa, number: u32) -> String {
    let call = linux_abi::Call::from_number(abi(isa), number as usize);
    call.map_or_else(|| format!("call {number}"), |call| call.name().to_owned())
}

/// The lane of a message record, and the name of its type.
fn message(arg: u32) -> (&'static str, String) {
    let lane = wire::Lane::ALL.get((arg >> 16) as usize).map_or("?", |lane| lane.name());
    match wire::name_of(arg as u16) {
        "?" => (lane, format!("message {:#06x}", arg as u16)),
        name => (lane, name.to_owned()),
    }
}

/// The group of a kernel's tracks.
fn group(kernel: u16) -> u64 {
    u64::from(kernel) + 1
}

/// The arrow of a message: its number is its sender's.
fn arrow(sender: u16, number: u64) -> String {
    format!("m{sender}.{number}")
}

/// The records of a kernel, and where some are lost.
fn read(notes: &Notes, events: &mut Vec<Event>, lost: &mut Vec<(u16, u32, u64)>) -> Result<()> {
    let mut cpu = None;
    for bytes in notes.bytes.chunks(SIZE) {
        let Some(record) = bytes.try_into().ok().and_then(Record::from_bytes) else {
            bail!("kernel {} noted what is no record", notes.kernel);
        };
        if record.kind == Kind::Cpu {
            cpu = Some(record.arg);
            if record.a > 0 {
                lost.push((notes.kernel, record.arg, record.a));
            }
            continue;
        }
        let Some(cpu) = cpu else { bail!("kernel {} does not say of which CPU its records are", notes.kernel) };
        events.push(Event { kernel: notes.kernel, isa: notes.isa, cpu, record });
    }
    Ok(())
}

impl Picture {
    /// Draws what the kernels noted.
    pub fn draw(notes: &[Notes]) -> Result<Self> {
        let mut picture = Self::default();
        let mut events = Vec::new();
        for one in notes {
            read(one, &mut events, &mut picture.lost)?;
            picture.name(group(one.kernel), None, &format!("kernel {} ({})", one.kernel, one.isa.name()));
        }
        picture.counts.kernels = notes.len();
        // What a CPU noted stays in its order.
        events.sort_by_key(|event| event.record.at);
        picture.start = events.first().map_or(0, |event| event.record.at);
        picture.end = events.last().map_or(0, |event| event.record.at);
        let cpus: BTreeSet<_> = events.iter().map(|event| (event.kernel, event.cpu)).collect();
        for (kernel, cpu) in &cpus {
            picture.name(group(*kernel), Some((*cpu).into()), &format!("CPU {cpu}"));
        }
        for event in &events {
            picture.add(event);
        }
        picture.finish(&cpus);
        Ok(picture)
    }

    /// Microseconds since the begin, as the format has it.
    fn micros(&self, at: u64) -> f64 {
        at.saturating_sub(self.start) as f64 / 1000.0
    }

    /// Names a group of tracks, or a track.
    fn name(&mut self, group: u64, track: Option<u64>, name: &str) {
        let what = if track.is_some() { "thread_name" } else { "process_name" };
        self.events.push(
            json!({ "ph": "M", "pid": group, "tid": track.unwrap_or(0), "name": what, "args": { "name": name } }),
        );
    }

    fn slice(&mut self, track: (u64, u64), from: u64, to: u64, name: &str, kind: &str, about: &Value) {
        let (ts, dur) = (self.micros(from), to.saturating_sub(from) as f64 / 1000.0);
        self.events.push(json!({
            "ph": "X", "pid": track.0, "tid": track.1, "ts": ts, "dur": dur, "name": name, "cat": kind, "args": about,
        }));
    }

    /// One end of an arrow, at a slice that is there at that moment.
    fn arrow(&mut self, track: (u64, u64), at: u64, id: &str, name: &str, begins: bool) {
        let mut event = json!({
            "ph": if begins { "s" } else { "f" }, "pid": track.0, "tid": track.1, "ts": self.micros(at),
            "id": id, "name": name, "cat": "flow",
        });
        if !begins {
            event["bp"] = json!("e");
        }
        self.events.push(event);
    }

    fn task_name(&self, task: u32) -> String {
        self.names.get(&task).cloned().unwrap_or_else(|| format!("task {task}"))
    }

    /// The task that runs on a CPU, as far as it was noted.
    fn task(&mut self, cpu: u32) -> Option<u32> {
        let task = self.running.get(&cpu).map(|(task, _)| *task).filter(|task| *task != 0)?;
        self.tasks.insert(task);
        Some(task)
    }

    fn add(&mut self, event: &Event) {
        let Record { at, kind, arg, a, b } = event.record;
        let track = (group(event.kernel), u64::from(event.cpu));
        match kind {
            Kind::Cpu => {}
            Kind::Name => {
                let name = event.record.name();
                let name =
                    String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
                self.names.insert(arg, name);
            }
            Kind::Switch => {
                self.rests(event.kernel, event.cpu, at);
                self.running.insert(event.cpu, (arg, at));
            }
            Kind::Enter => {
                let Some(task) = self.task(event.cpu) else { return };
                let about = json!({ "kernel": event.kernel, "cpu": event.cpu, "a0": format!("{a:#x}"), "a1": format!("{b:#x}") });
                self.calls.insert(task, Begun { at, name: call_name(event.isa, arg), about });
            }
            Kind::Exit => {
                let Some(task) = self.task(event.cpu) else { return };
                // Its begin is lost.
                let Some(Begun { at: from, name, mut about }) = self.calls.remove(&task) else { return };
                about["result"] = json!(a as i64);
                self.counts.calls += 1;
                self.slice((PROGRAMS, task.into()), from, at, &name, "call", &about);
            }
            Kind::Fault => {
                let Some(task) = self.task(event.cpu) else { return };
                let about = json!({ "kernel": event.kernel, "cpu": event.cpu, "address": format!("{a:#x}") });
                self.faults.insert(task, Begun { at, name: String::from("page fault"), about });
            }
            Kind::Faulted => {
                let Some(task) = self.task(event.cpu) else { return };
                let Some(Begun { at: from, name, about }) = self.faults.remove(&task) else { return };
                self.counts.faults += 1;
                self.slice((PROGRAMS, task.into()), from, at, &name, "fault", &about);
            }
            Kind::Send => {
                let (lane, name) = message(arg);
                self.counts.messages += 1;
                self.slice(track, at, at, &format!("{name} → {a}"), "send", &json!({ "lane": lane, "to": a }));
                if b != 0 {
                    self.arrow(track, at, &arrow(event.kernel, b), &name, true);
                }
            }
            Kind::Receive => {
                let (lane, name) = message(arg);
                if b != 0 {
                    self.arrow(track, at, &arrow(a as u16, b), &name, false);
                }
                let begun = Begun { at, name: format!("{a} → {name}"), about: json!({ "lane": lane, "from": a }) };
                self.handling.insert(event.cpu, begun);
            }
            Kind::Handled => {
                let Some(Begun { at: from, name, about }) = self.handling.remove(&event.cpu) else { return };
                self.slice(track, from, at, &name, "message", &about);
            }
            Kind::Leave => {
                self.counts.moves += 1;
                let name = format!("process {arg} goes to kernel {a}");
                self.slice(track, at, at, &name, "move", &json!({ "pid": arg, "to": a }));
                self.left.insert(arg, self.counts.moves);
                self.arrow(track, at, &format!("p{arg}.{}", self.counts.moves), "move", true);
            }
            Kind::Arrive => {
                let name = format!("process {arg} comes from kernel {a}");
                self.slice(track, at, at, &name, "move", &json!({ "pid": arg, "from": a }));
                if let Some(number) = self.left.remove(&arg) {
                    self.arrow(track, at, &format!("p{arg}.{number}"), "move", false);
                }
            }
        }
    }

    /// The task on a CPU stops running.
    fn rests(&mut self, kernel: u16, cpu: u32, at: u64) {
        if let Some((task, since)) = self.running.remove(&cpu).filter(|(task, _)| *task != 0) {
            let name = self.task_name(task);
            self.slice((group(kernel), cpu.into()), since, at, &name, "run", &json!({ "task": task }));
        }
    }

    /// What has no end yet ends where the trace does.
    fn finish(&mut self, cpus: &BTreeSet<(u16, u32)>) {
        let end = self.end;
        for (kernel, cpu) in cpus {
            self.rests(*kernel, *cpu, end);
        }
        let open = [std::mem::take(&mut self.calls), std::mem::take(&mut self.faults)];
        for (task, mut begun) in open.into_iter().flatten() {
            begun.about["unfinished"] = json!(true);
            self.slice((PROGRAMS, task.into()), begun.at, end, &begun.name, "call", &begun.about);
        }
        self.name(PROGRAMS, None, "programs");
        for task in std::mem::take(&mut self.tasks) {
            let name = self.task_name(task);
            self.name(PROGRAMS, Some(task.into()), &name);
        }
    }

    /// The file.
    pub fn json(&self) -> Value {
        json!({ "displayTimeUnit": "ns", "traceEvents": self.events })
    }

    /// What is in it, in a sentence.
    pub fn summary(&self) -> String {
        let Counts { kernels, calls, faults, messages, moves } = self.counts;
        let ms = (self.end - self.start) as f64 / 1e6;
        let mut text = format!(
            "{ms:.1} ms on {kernels} kernels: {calls} system calls, {faults} page faults, {messages} messages, {moves} moves; open it in Perfetto or chrome://tracing"
        );
        if !self.lost.is_empty() {
            let all: u64 = self.lost.iter().map(|(_, _, lost)| lost).sum();
            text += &format!("; the oldest {all} records are lost (--records makes more room)");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(cpu: u32, lost: u64, records: &[(u64, Kind, u32, u64, u64)]) -> Vec<u8> {
        let head = (0, Kind::Cpu, cpu, lost, 0);
        let all = std::iter::once(&head).chain(records);
        let words =
            all.flat_map(|(at, kind, arg, a, b)| Record { at: *at, kind: *kind, arg: *arg, a: *a, b: *b }.words());
        words.flat_map(u64::to_le_bytes).collect()
    }

    const ECHO: u32 = 0x7f01 | 2 << 16;

    /// Task 7 calls write on kernel 0, which asks kernel 1, where it goes on after that.
    fn two_kernels() -> Vec<Notes> {
        let (a, b) = Record::name_words(b"sh");
        let zero = bytes(
            0,
            3,
            &[
                (1_000, Kind::Exit, 1, 0, 0),
                (2_000, Kind::Name, 7, a, b),
                (3_000, Kind::Switch, 7, 7, 0),
                (4_000, Kind::Enter, 1, 1, 0x10),
                (5_000, Kind::Send, ECHO, 1, 4),
                (6_000, Kind::Switch, 0, 0, 0),
                (9_000, Kind::Switch, 7, 7, 0),
                (10_000, Kind::Exit, 1, 3, 0),
                (11_000, Kind::Leave, 7, 1, 0),
            ],
        );
        let one = bytes(
            1,
            0,
            &[
                (7_000, Kind::Receive, ECHO, 0, 4),
                (8_000, Kind::Handled, ECHO, 0, 4),
                (12_000, Kind::Switch, 7, 7, 0),
                (13_000, Kind::Arrive, 7, 0, 0),
                (14_000, Kind::Fault, 0, 0x1000, 0),
                (15_000, Kind::Faulted, 0, 0, 0),
                (16_000, Kind::Enter, 64, 1, 2),
            ],
        );
        vec![Notes { kernel: 0, isa: Isa::X86_64, bytes: zero }, Notes { kernel: 1, isa: Isa::Riscv64, bytes: one }]
    }

    fn find<'a>(picture: &'a Picture, phase: &str, name: &str) -> &'a Value {
        let found = picture.events.iter().find(|event| event["ph"] == phase && event["name"] == name);
        found.unwrap_or_else(|| panic!("no {phase} {name} in {:#?}", picture.events))
    }

    #[test]
    fn a_task_is_followed_over_kernels() {
        let picture = Picture::draw(&two_kernels()).expect("a picture");
        let write = find(&picture, "X", "write");
        assert_eq!((&write["pid"], &write["tid"]), (&json!(PROGRAMS), &json!(7)));
        assert_eq!((&write["ts"], &write["dur"]), (&json!(3.0), &json!(6.0)));
        assert_eq!((&write["args"]["kernel"], &write["args"]["result"]), (&json!(0), &json!(3)));
        let fault = find(&picture, "X", "page fault");
        assert_eq!((&fault["tid"], &fault["args"]["kernel"]), (&json!(7), &json!(1)));
        let runs = picture.events.iter().filter(|event| event["name"] == "sh" && event["cat"] == "run");
        let runs: Vec<_> = runs.map(|run| (&run["pid"], &run["ts"], &run["dur"])).collect();
        // The last one on kernel 0 ends with the trace.
        assert_eq!(runs.len(), 3);
        assert_eq!(runs[0], (&json!(1), &json!(2.0), &json!(3.0)));
        let unfinished = picture.events.iter().find(|event| event["args"]["unfinished"] == true).expect("one");
        assert_eq!((&unfinished["name"], &unfinished["args"]["kernel"]), (&json!("write"), &json!(1)));
    }

    #[test]
    fn arrows_lead_from_sending_to_handling() {
        let picture = Picture::draw(&two_kernels()).expect("a picture");
        for name in ["Echo", "move"] {
            let (from, to) = (find(&picture, "s", name), find(&picture, "f", name));
            assert_eq!(from["id"], to["id"]);
            assert_eq!((&from["pid"], &to["pid"]), (&json!(1), &json!(2)), "{name}");
            assert!(from["ts"].as_f64() < to["ts"].as_f64());
        }
        assert_eq!(find(&picture, "X", "0 → Echo")["dur"], json!(1.0));
        assert_eq!(find(&picture, "X", "Echo → 1")["args"]["lane"], json!("request"));
    }

    #[test]
    fn it_says_what_is_in_it() {
        let picture = Picture::draw(&two_kernels()).expect("a picture");
        let said = picture.summary();
        assert!(said.starts_with("0.0 ms on 2 kernels: 1 system calls, 1 page faults, 1 messages, 1 moves"), "{said}");
        assert!(said.contains("the oldest 3 records are lost"), "{said}");
        assert_eq!(find(&picture, "M", "thread_name")["args"]["name"], "CPU 0");
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [vec![0; SIZE], vec![1; 7], bytes(0, 0, &[])[..0].to_vec()] {
            let empty = bytes.is_empty();
            let drawn = Picture::draw(&[Notes { kernel: 0, isa: Isa::X86_64, bytes }]);
            assert_eq!(drawn.is_ok(), empty);
        }
    }
}
