//! From TOML to plain values that remember their line. Knows the words of a plan; what they mean together is `check`'s business.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{Device, Isa, Joined, MODELS, Model, PlanError, parse_size};

/// A value and its line.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub line: usize,
}

/// A `[[board]]`.
#[derive(Debug)]
pub struct RawBoard {
    pub line: usize,
    pub model: &'static Model,
    pub memory: At<u64>,
    pub archive: At<u64>,
}

/// A CPU; without a hardware id its place on the board tells it.
#[derive(Clone, Copy, Debug)]
pub struct RawCpu {
    pub id: u32,
    pub hardware: Option<u32>,
}

/// A piece of memory.
#[derive(Clone, Copy, Debug)]
pub struct RawRange {
    pub start: u64,
    pub size: u64,
}

/// The word behind `boot =`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootWord {
    Firmware,
    Auto,
    Manual,
}

/// A `[[kernel]]`.
#[derive(Debug)]
pub struct RawKernel {
    pub line: usize,
    pub board: At<usize>,
    pub cpus: At<Vec<At<RawCpu>>>,
    pub memory: At<Vec<At<RawRange>>>,
    pub boot: At<BootWord>,
    pub booter: Option<At<u16>>,
    pub devices: Vec<At<Device>>,
}

/// A `[[link]]`.
#[derive(Debug)]
pub struct RawLink {
    pub between: At<(u16, u16)>,
    pub distance: At<u8>,
}

/// The `[membership]`.
#[derive(Debug)]
pub struct RawMembership {
    pub line: usize,
    pub probe_ms: Option<At<u32>>,
    pub probes: Option<At<u32>>,
    pub dead_after_ms: Option<At<u32>>,
}

/// A whole plan, unchecked.
#[derive(Debug)]
pub struct RawPlan {
    pub name: String,
    pub about: String,
    pub joined: Joined,
    pub boards: Vec<RawBoard>,
    pub kernels: Vec<RawKernel>,
    pub links: Vec<RawLink>,
    pub membership: Option<RawMembership>,
    pub console: Option<At<Vec<At<u16>>>>,
}

type Value<'a, 'i> = &'a Spanned<DeValue<'i>>;

/// A table with its name in sentences and its line.
struct Table<'a, 'i> {
    name: &'static str,
    line: usize,
    table: &'a DeTable<'i>,
}

/// Reads and collects what is wrong.
pub struct Reader<'t> {
    text: &'t str,
    pub errors: Vec<PlanError>,
}

impl<'t> Reader<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, errors: Vec::new() }
    }

    /// The plan, unless something in it could not be read.
    pub fn read(&mut self) -> Option<RawPlan> {
        let (document, syntax) = DeTable::parse_recoverable(self.text);
        for error in syntax {
            let line = self.line_at(error.span().map_or(self.text.len(), |span| span.start));
            self.fail(line, format!("not TOML: {}", error.message()), "mend the syntax (toml.io describes it)");
        }
        if !self.errors.is_empty() {
            return None;
        }
        let top = Table { name: "a plan", line: 1, table: document.get_ref() };
        self.keys(&top, &["name", "about", "joined", "console", "board", "kernel", "link", "membership"]);
        let name = self.required(&top, "name", "add `name = \"...\"`", Self::name);
        let about = self.optional(&top, "about", Self::string);
        let joined = self.optional(&top, "joined", Self::joined).map(|at| at.value).unwrap_or_default();
        let console = self.optional(&top, "console", |r, v| r.list(v, Self::index));
        let boards = self.tables(&top, "board", "[[board]]", Self::board);
        let kernels = self.tables(&top, "kernel", "[[kernel]]", Self::kernel);
        let links = self.tables(&top, "link", "[[link]]", Self::link);
        let membership = self.optional(&top, "membership", Self::membership);
        if boards.is_empty() && top.get("board").is_none() {
            self.fail(1, "no board", "add a [[board]] with `model` and `memory`");
        }
        if kernels.is_empty() && top.get("kernel").is_none() {
            self.fail(1, "no kernel", "add a [[kernel]] with `cpus`, `memory` and `boot = \"firmware\"`");
        }
        let about = about.map(|at| at.value).unwrap_or_default();
        let membership = membership.map(|at| at.value);
        let plan = RawPlan { name: name?.value, about, joined, boards, kernels, links, membership, console };
        self.errors.is_empty().then_some(plan)
    }

    fn fail(&mut self, line: usize, what: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(PlanError { line, what: what.into(), hint: hint.into() });
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn line(&self, value: Value<'_, '_>) -> usize {
        self.line_at(value.span().start)
    }

    /// Refuses keys that are not words of this table.
    fn keys(&mut self, table: &Table<'_, '_>, known: &[&str]) {
        for key in table.table.keys() {
            let word: &str = key.get_ref();
            if !known.contains(&word) {
                let line = self.line_at(key.span().start);
                let hint = format!("{} knows {}", table.name, quoted(known));
                self.fail(line, format!("unknown key `{word}`"), hint);
            }
        }
    }

    fn optional<T>(
        &mut self,
        table: &Table<'_, '_>,
        key: &str,
        read: impl FnOnce(&mut Self, Value<'_, '_>) -> Option<T>,
    ) -> Option<At<T>> {
        let value = table.get(key)?;
        let line = self.line(value);
        read(self, value).map(|value| At { value, line })
    }

    fn required<T>(
        &mut self,
        table: &Table<'_, '_>,
        key: &str,
        hint: &str,
        read: impl FnOnce(&mut Self, Value<'_, '_>) -> Option<T>,
    ) -> Option<At<T>> {
        if table.get(key).is_none() {
            self.fail(table.line, format!("{} without `{key}`", table.name), hint);
            return None;
        }
        self.optional(table, key, read)
    }

    /// An array of tables; none if the key is absent.
    fn tables<T>(
        &mut self,
        top: &Table<'_, '_>,
        key: &str,
        name: &'static str,
        mut read: impl FnMut(&mut Self, Table<'_, '_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = top.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            let line = self.line(value);
            self.fail(line, format!("`{key}` is not a list of tables"), format!("write {name}, with two brackets"));
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in array.iter() {
            let line = self.line(item);
            match item.get_ref() {
                DeValue::Table(table) => out.extend(read(self, Table { name, line, table })),
                _ => self.fail(line, format!("`{key}` is not a list of tables"), format!("write {name}")),
            }
        }
        out
    }

    fn list<T>(
        &mut self,
        value: Value<'_, '_>,
        mut read: impl FnMut(&mut Self, Value<'_, '_>) -> Option<T>,
    ) -> Option<Vec<At<T>>> {
        let DeValue::Array(array) = value.get_ref() else {
            return self.wrong_type(value, "a list", "write it in [brackets]");
        };
        let mut out = Vec::new();
        for item in array.iter() {
            let line = self.line(item);
            out.push(At { value: read(self, item)?, line });
        }
        Some(out)
    }

    fn wrong_type<T>(&mut self, value: Value<'_, '_>, wanted: &str, hint: &str) -> Option<T> {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let line = self.line(value);
        self.fail(line, format!("{found} where {wanted} belongs"), hint);
        None
    }

    fn string(&mut self, value: Value<'_, '_>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref().to_owned()),
            _ => self.wrong_type(value, "a string", "write it in \"quotes\""),
        }
    }

    fn name(&mut self, value: Value<'_, '_>) -> Option<String> {
        let name = self.string(value)?;
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(good) {
            let line = self.line(value);
            self.fail(line, format!("{name:?} is no name"), "use 1 to 32 of a-z, 0-9 and -");
            return None;
        }
        Some(name)
    }

    fn joined(&mut self, value: Value<'_, '_>) -> Option<Joined> {
        let word = self.string(value)?;
        let joined = Joined::from_name(&word);
        if joined.is_none() {
            let line = self.line(value);
            self.fail(line, format!("boards are not joined by {word:?}"), quoted(&Joined::ALL.map(Joined::name)));
        }
        joined
    }

    fn number(&mut self, value: Value<'_, '_>) -> Option<u64> {
        let DeValue::Integer(integer) = value.get_ref() else {
            return self.wrong_type(value, "a number", "write a number without quotes");
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        if number.is_none() {
            let line = self.line(value);
            self.fail(line, format!("{integer} is not a number from 0 to 2^64 - 1"), "change the number");
        }
        number
    }

    fn small<T: TryFrom<u64>>(&mut self, value: Value<'_, '_>) -> Option<T> {
        let number = self.number(value)?;
        let small = T::try_from(number).ok();
        if small.is_none() {
            let line = self.line(value);
            self.fail(line, format!("{number} is far too large"), "change the number");
        }
        small
    }

    fn index(&mut self, value: Value<'_, '_>) -> Option<u16> {
        self.small(value)
    }

    fn size(&mut self, value: Value<'_, '_>) -> Option<u64> {
        if let DeValue::String(text) = value.get_ref() {
            let size = parse_size(text);
            if size.is_none() {
                let line = self.line(value);
                self.fail(line, format!("{text:?} is no size"), "write for example \"256 MiB\", \"2 GiB\" or 0x200000");
            }
            return size;
        }
        self.number(value)
    }

    /// One of a few words.
    fn word<T: Copy>(&mut self, value: Value<'_, '_>, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(value)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let line = self.line(value);
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fail(line, format!("unknown {what} {text:?}"), format!("use one of {}", quoted(&known)));
        }
        found
    }

    fn board(&mut self, table: Table<'_, '_>) -> Option<RawBoard> {
        self.keys(&table, &["isa", "model", "memory", "archive"]);
        let isas = Isa::ALL.map(|isa| (isa.name(), isa));
        let models: Vec<(&str, &'static Model)> = MODELS.iter().map(|model| (model.name, model)).collect();
        let isa = self.required(&table, "isa", "add `isa = \"x86_64\"`", |r, v| r.word(v, "ISA", &isas));
        let model = self.required(&table, "model", "add `model = \"q35\"`", |r, v| r.word(v, "board model", &models));
        let memory = self.required(&table, "memory", "add `memory = \"512 MiB\"`", Self::size);
        let archive = self.optional(&table, "archive", Self::size);
        let (isa, mut model) = (isa?, model?);
        if let Some(same) = model.value.with_isa(isa.value) {
            model.value = same;
        } else {
            let what = format!("a {} has no {} CPUs", model.value.name, isa.value.name());
            self.fail(isa.line, what, format!("write `isa = \"{}\"`", model.value.isa.name()));
            return None;
        }
        let archive = archive.unwrap_or(At { value: DEFAULT_ARCHIVE, line: table.line });
        Some(RawBoard { line: table.line, model: model.value, memory: memory?, archive })
    }

    fn kernel(&mut self, table: Table<'_, '_>) -> Option<RawKernel> {
        self.keys(&table, &["board", "cpus", "memory", "boot", "booter", "devices"]);
        let boots = [("firmware", BootWord::Firmware), ("auto", BootWord::Auto), ("manual", BootWord::Manual)];
        let devices: Vec<(&str, Device)> = Device::ALL.iter().map(|device| (device.name(), *device)).collect();
        let board = self.optional(&table, "board", Self::small::<usize>);
        let cpus = self.required(&table, "cpus", "add `cpus = [0]`", |r, v| r.list(v, Self::cpu));
        let hint = "add `memory = [{ at = \"2 MiB\", size = \"256 MiB\" }]`";
        let memory = self.required(&table, "memory", hint, |r, v| r.list(v, Self::range));
        let hint = "add `boot = \"firmware\"`, \"auto\" or \"manual\"";
        let boot = self.required(&table, "boot", hint, |r, v| r.word(v, "way to boot", &boots));
        let booter = self.optional(&table, "booter", Self::index);
        let owned = self.optional(&table, "devices", |r, v| r.list(v, |r, v| r.word(v, "device", &devices)));
        Some(RawKernel {
            line: table.line,
            board: board.unwrap_or(At { value: 0, line: table.line }),
            cpus: cpus?,
            memory: memory?,
            boot: boot?,
            booter,
            devices: owned.map(|at| at.value).unwrap_or_default(),
        })
    }

    fn cpu(&mut self, value: Value<'_, '_>) -> Option<RawCpu> {
        let DeValue::Table(table) = value.get_ref() else {
            return Some(RawCpu { id: self.small(value)?, hardware: None });
        };
        let table = Table { name: "a CPU", line: self.line(value), table };
        self.keys(&table, &["id", "hw"]);
        let id = self.required(&table, "id", "write `{ id = 0, hw = 0 }`", Self::small::<u32>);
        let hardware = self.optional(&table, "hw", Self::small::<u32>).map(|at| at.value);
        Some(RawCpu { id: id?.value, hardware })
    }

    fn range(&mut self, value: Value<'_, '_>) -> Option<RawRange> {
        let hint = "write `{ at = \"2 MiB\", size = \"256 MiB\" }`";
        let DeValue::Table(table) = value.get_ref() else {
            return self.wrong_type(value, "a piece of memory", hint);
        };
        let table = Table { name: "a piece of memory", line: self.line(value), table };
        self.keys(&table, &["at", "size"]);
        let start = self.required(&table, "at", hint, Self::size);
        let size = self.required(&table, "size", hint, Self::size);
        Some(RawRange { start: start?.value, size: size?.value })
    }

    fn link(&mut self, table: Table<'_, '_>) -> Option<RawLink> {
        self.keys(&table, &["between", "distance"]);
        let hint = "add `between = [0, 1]`";
        let between = self.required(&table, "between", hint, |r, v| match r.list(v, Self::index)?.as_slice() {
            [a, b] => Some((a.value, b.value)),
            _ => {
                let line = r.line(v);
                r.fail(line, "a link is between two kernels", "write `between = [0, 1]`");
                None
            }
        });
        let distance = self.required(&table, "distance", "add `distance = 20`", Self::small::<u8>);
        Some(RawLink { between: between?, distance: distance? })
    }

    fn membership(&mut self, value: Value<'_, '_>) -> Option<RawMembership> {
        let DeValue::Table(table) = value.get_ref() else {
            return self.wrong_type(value, "a table", "write [membership]");
        };
        let table = Table { name: "[membership]", line: self.line(value), table };
        self.keys(&table, &["probe_ms", "probes", "dead_after_ms"]);
        Some(RawMembership {
            line: table.line,
            probe_ms: self.optional(&table, "probe_ms", Self::small::<u32>),
            probes: self.optional(&table, "probes", Self::small::<u32>),
            dead_after_ms: self.optional(&table, "dead_after_ms", Self::small::<u32>),
        })
    }
}

/// The reserve of a board that says nothing about it.
const DEFAULT_ARCHIVE: u64 = 64 << 20;

impl<'a, 'i> Table<'a, 'i> {
    fn get(&self, key: &str) -> Option<Value<'a, 'i>> {
        self.table.iter().find(|(known, _)| known.get_ref() == key).map(|(_, value)| value)
    }
}

fn quoted(words: &[&str]) -> String {
    let mut out = String::new();
    for (i, word) in words.iter().enumerate() {
        out.push_str(if i == 0 { "`" } else { ", `" });
        out.push_str(word);
        out.push('`');
    }
    out
}
