//! What `/proc/cob` says, as values.

use serde::Serialize;

use crate::table::{Row, Table};

/// A row of `/proc/cob/kernels`.
#[derive(Debug, Serialize, PartialEq)]
pub struct Kernel {
    pub id: u64,
    pub isa: String,
    pub cpus: Vec<u64>,
    pub memory_bytes: u64,
    pub state: String,
    /// Seconds.
    pub uptime: Option<f64>,
    pub incarnation: u64,
    pub here: bool,
}

impl Kernel {
    fn read(row: Row<'_>) -> Result<Self, String> {
        Ok(Self {
            id: row.need("id")?,
            isa: row.text("isa")?,
            cpus: row.list("cpus")?,
            memory_bytes: row.need("memory_bytes")?,
            state: row.text("state")?,
            uptime: row.number("uptime_ms")?.map(|ms| ms as f64 / 1000.0),
            incarnation: row.need("incarnation")?,
            here: row.need("here")? == 1,
        })
    }
}

/// A row of `/proc/cob/links`, with those of `/proc/cob/lanes` that belong to it.
#[derive(Debug, Serialize, PartialEq)]
pub struct Link {
    pub from: u64,
    pub to: u64,
    pub transport: String,
    pub state: String,
    pub messages: u64,
    pub bytes: u64,
    pub doorbells: u64,
    pub polls: u64,
    pub delayed: u64,
    pub rtt_ns: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<Lane>,
}

/// A row of `/proc/cob/lanes`.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Lane {
    #[serde(skip)]
    pub from: u64,
    #[serde(skip)]
    pub to: u64,
    pub lane: String,
    pub sent: u64,
    pub sent_bytes: u64,
    pub received: u64,
    pub received_bytes: u64,
    pub depth_bytes: u64,
    pub waiting: u64,
    pub answered: u64,
    pub p50_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    pub p999_ns: Option<u64>,
}

impl Lane {
    fn read(row: Row<'_>) -> Result<Self, String> {
        Ok(Self {
            from: row.need("from")?,
            to: row.need("to")?,
            lane: row.text("lane")?,
            sent: row.need("sent")?,
            sent_bytes: row.need("sent_bytes")?,
            received: row.need("received")?,
            received_bytes: row.need("received_bytes")?,
            depth_bytes: row.need("depth_bytes")?,
            waiting: row.need("waiting")?,
            answered: row.need("answered")?,
            p50_ns: row.number("p50_ns")?,
            p99_ns: row.number("p99_ns")?,
            p999_ns: row.number("p999_ns")?,
        })
    }
}

impl Link {
    fn read(row: Row<'_>) -> Result<Self, String> {
        Ok(Self {
            from: row.need("from")?,
            to: row.need("to")?,
            transport: row.text("transport")?,
            state: row.text("state")?,
            messages: row.need("messages")?,
            bytes: row.need("bytes")?,
            doorbells: row.need("doorbells")?,
            polls: row.need("polls")?,
            delayed: row.need("delayed")?,
            rtt_ns: row.number("rtt_ns")?,
            lanes: Vec::new(),
        })
    }
}

/// A row of `/proc/cob/resources`.
#[derive(Debug, Serialize, PartialEq)]
pub struct Resource {
    pub kind: String,
    pub name: String,
    pub owner: Option<u64>,
    pub access: String,
    pub holder: Option<u64>,
}

impl Resource {
    fn read(row: Row<'_>) -> Result<Self, String> {
        Ok(Self {
            kind: row.text("kind")?,
            name: row.text("name")?,
            owner: row.number("owner")?,
            access: row.text("access")?,
            holder: row.number("holder")?,
        })
    }
}

/// A row of `/proc/cob/services`.
#[derive(Debug, Serialize, PartialEq)]
pub struct Service {
    pub service: String,
    pub kernel: Option<u64>,
    /// So many of all its parts.
    pub part: u64,
    pub of: u64,
}

impl Service {
    fn read(row: Row<'_>) -> Result<Self, String> {
        let count = |name| row.number(name)?.ok_or_else(|| format!("{name} is no number"));
        Ok(Self {
            service: row.text("service")?,
            kernel: row.number("kernel")?,
            part: count("part")?,
            of: count("of")?,
        })
    }
}

/// A row of `/proc/cob/loads`.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    pub id: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    pub idle_ns: u64,
    pub free_bytes: u64,
    pub running: u64,
    pub tasks: u64,
    pub sent: u64,
    pub sent_bytes: u64,
    pub received: u64,
    pub doorbells: u64,
}

impl Load {
    fn read(row: Row<'_>) -> Result<Self, String> {
        Ok(Self {
            id: row.need("id")?,
            user_ns: row.need("user_ns")?,
            system_ns: row.need("system_ns")?,
            idle_ns: row.need("idle_ns")?,
            free_bytes: row.need("free_bytes")?,
            running: row.need("running")?,
            tasks: row.need("tasks")?,
            sent: row.need("sent")?,
            sent_bytes: row.need("sent_bytes")?,
            received: row.need("received")?,
            doorbells: row.need("doorbells")?,
        })
    }
}

/// Reads all rows of a table.
fn rows<T>(text: &str, read: fn(Row<'_>) -> Result<T, String>) -> Result<Vec<T>, String> {
    Table::parse(text)?.rows().map(read).collect()
}

/// The rows of `/proc/cob/kernels`.
pub fn kernels(text: &str) -> Result<Vec<Kernel>, String> {
    rows(text, Kernel::read)
}

/// The rows of `/proc/cob/links`.
pub fn links(text: &str) -> Result<Vec<Link>, String> {
    rows(text, Link::read)
}

/// The rows of `/proc/cob/lanes`.
pub fn lanes(text: &str) -> Result<Vec<Lane>, String> {
    rows(text, Lane::read)
}

/// Gives each link its lanes. A link that was opened between the two reads has none yet.
pub fn join(links: &mut [Link], lanes: &[Lane]) {
    for link in links {
        link.lanes = lanes.iter().filter(|lane| (lane.from, lane.to) == (link.from, link.to)).cloned().collect();
    }
}

/// The rows of `/proc/cob/loads`.
pub fn loads(text: &str) -> Result<Vec<Load>, String> {
    rows(text, Load::read)
}

/// The rows of `/proc/cob/services`.
pub fn services(text: &str) -> Result<Vec<Service>, String> {
    rows(text, Service::read)
}

/// The rows of `/proc/cob/resources`.
pub fn resources(text: &str) -> Result<Vec<Resource>, String> {
    rows(text, Resource::read)
}
