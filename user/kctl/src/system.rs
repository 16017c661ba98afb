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

/// A row of `/proc/cob/links`.
#[derive(Debug, Serialize, PartialEq)]
pub struct Link {
    pub from: u64,
    pub to: u64,
    pub transport: String,
    pub state: String,
    pub messages: u64,
    pub bytes: u64,
    pub doorbells: u64,
    pub rtt_ns: Option<u64>,
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
            rtt_ns: row.number("rtt_ns")?,
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

/// The rows of `/proc/cob/resources`.
pub fn resources(text: &str) -> Result<Vec<Resource>, String> {
    rows(text, Resource::read)
}
