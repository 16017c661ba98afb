//! What a kernel wants to know of the flattened device tree that firmware leaves (Devicetree Specification 0.4): memory, command line, and where
//! its few devices are. Read once at boot, in place, without allocating; what is not there is `None`.
#![no_std]
#![forbid(unsafe_code)]

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};

/// A piece of the address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// The host bridge of PCI (`pci-host-ecam-generic`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pci {
    /// Configuration space.
    pub ecam: Range,
    /// Where 32-bit memory BARs go.
    pub memory32: Range,
    /// Where 64-bit memory BARs may go.
    pub memory64: Range,
}

/// A device of the tree.
#[derive(Clone, Copy)]
pub struct Device<'a>(FdtNode<'a>);

impl Device<'_> {
    /// Register range `index`.
    pub fn register(&self, index: usize) -> Option<Range> {
        register(&self.0, index)
    }

    /// Cell `index` of a property.
    pub fn cell(&self, property: &str, index: usize) -> Option<u32> {
        cells(&self.0, property, index)
    }
}

/// A tree that can be asked.
#[derive(Clone, Copy)]
pub struct Tree<'a>(Fdt<'a>);

/// How long the tree says it is, from its first 8 bytes; `None` if they are not those of a tree.
pub fn length(head: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
    (word(0)? == 0xd00d_feed).then(|| word(4))?.map(|len| len as usize)
}

impl<'a> Tree<'a> {
    /// Looks whether the bytes are a tree.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Fdt::new(bytes).ok().map(Self)
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> &'a str {
        self.text("/chosen", "bootargs").unwrap_or("")
    }

    /// Calls `f` with every piece of RAM.
    pub fn memory(&self, mut f: impl FnMut(Range)) {
        for node in self.0.root().children().filter(|node| node.name_without_address() == "memory") {
            let mut i = 0;
            while let Some(range) = register(&node, i) {
                f(range);
                i += 1;
            }
        }
    }

    /// The devices with one of these names (`compatible`), anywhere up to two levels below the top.
    pub fn devices(&self, names: &[&str]) -> impl Iterator<Item = Device<'a>> {
        let root = self.0.root();
        root.children()
            .chain(root.children().flat_map(|node| node.children()))
            .filter(move |node| is(node, names))
            .map(Device)
    }

    /// Register range `index` of the first device with one of these names.
    pub fn device(&self, names: &[&str], index: usize) -> Option<Range> {
        register(&self.find(names)?, index)
    }

    /// Cell `index` of the first interrupt of that device.
    pub fn interrupt(&self, names: &[&str], index: usize) -> Option<u32> {
        cells(&self.find(names)?, "interrupts", index)
    }

    /// The text of a property of the node at a path.
    pub fn text(&self, path: &str, property: &str) -> Option<&'a str> {
        let node = self.0.find_node(path)?;
        let value = node.properties().find(|p| p.name() == property)?;
        value.value_as::<&str>().ok()
    }

    /// A number that is a property of the node at a path.
    pub fn number(&self, path: &str, property: &str) -> Option<u32> {
        cells(&self.0.find_node(path)?, property, 0)
    }

    /// The PCI host bridge.
    pub fn pci(&self) -> Option<Pci> {
        let node = self.find(&["pci-host-ecam-generic"])?;
        let mut pci = Pci { ecam: register(&node, 0)?, ..Pci::default() };
        // A range is: kind, PCI address (2 cells), CPU address (2 cells), size (2 cells).
        let wide =
            |at: usize| Some(u64::from(cells(&node, "ranges", at)?) << 32 | u64::from(cells(&node, "ranges", at + 1)?));
        for at in (0..).step_by(7) {
            let Some(kind) = cells(&node, "ranges", at) else { break };
            let (Some(start), Some(size)) = (wide(at + 3), wide(at + 5)) else { break };
            match kind >> 24 & 3 {
                2 => pci.memory32 = Range { start, size },
                3 => pci.memory64 = Range { start, size },
                _ => {}
            }
        }
        Some(pci)
    }

    fn find(&self, names: &[&str]) -> Option<FdtNode<'a>> {
        self.devices(names).next().map(|device| device.0)
    }
}

/// Whether a node has one of these names.
fn is(node: &FdtNode<'_>, names: &[&str]) -> bool {
    let value = node.properties().find(|p| p.name() == "compatible");
    value.is_some_and(|value| {
        value.value().split(|byte| *byte == 0).any(|name| names.iter().any(|n| n.as_bytes() == name))
    })
}

/// A cell of a property.
fn cells(node: &FdtNode<'_>, property: &str, index: usize) -> Option<u32> {
    let value = node.properties().find(|p| p.name() == property)?;
    Some(u32::from_be_bytes(value.value().get(index * 4..index * 4 + 4)?.try_into().ok()?))
}

fn register(node: &FdtNode<'_>, index: usize) -> Option<Range> {
    let reg = (*node).reg().ok()??.nth(index)?;
    Some(Range { start: reg.address().ok()?, size: reg.size().ok()? })
}

#[cfg(test)]
mod tests {
    use super::{Pci, Range, Tree, length};

    /// The trees of QEMU's `virt` boards (`-M virt,dumpdtb=...`, 576 MiB, one CPU).
    const ARM: &[u8] = include_bytes!("../tests/virt-aarch64.dtb");
    const RISCV: &[u8] = include_bytes!("../tests/virt-riscv64.dtb");

    #[test]
    fn an_arm_board() {
        let tree = Tree::new(&ARM[..length(ARM).expect("a tree")]).expect("a tree");
        let mut ram = Range::default();
        tree.memory(|range| ram = range);
        assert_eq!(ram, Range { start: 0x4000_0000, size: 576 << 20 });
        assert_eq!(tree.command_line(), "cob.machine=test");
        assert_eq!(tree.device(&["arm,cortex-a15-gic"], 0).map(|r| r.start), Some(0x800_0000));
        assert_eq!(tree.device(&["arm,gic-v2m-frame"], 0).map(|r| r.start), Some(0x802_0000));
        assert_eq!(tree.device(&["arm,pl011"], 0).map(|r| r.start), Some(0x900_0000));
        assert_eq!(tree.interrupt(&["arm,pl011"], 1), Some(1));
        assert_eq!(tree.device(&["arm,gic-v3"], 0), None);
        assert_eq!(tree.text("/psci", "method"), Some("hvc"));
        let pci = tree.pci().expect("a bridge");
        assert_eq!(pci.ecam, Range { start: 0x40_1000_0000, size: 0x1000_0000 });
        assert_eq!(pci.memory32, Range { start: 0x1000_0000, size: 0x2eff_0000 });
        assert_eq!(pci.memory64, Range { start: 0x80_0000_0000, size: 0x80_0000_0000 });
    }

    #[test]
    fn a_riscv_board() {
        let tree = Tree::new(&RISCV[..length(RISCV).expect("a tree")]).expect("a tree");
        let mut ram = Range::default();
        tree.memory(|range| ram = range);
        assert_eq!(ram, Range { start: 0x8000_0000, size: 576 << 20 });
        assert_eq!(tree.device(&["ns16550a"], 0).map(|r| r.start), Some(0x1000_0000));
        assert_eq!(tree.number("/cpus", "timebase-frequency"), Some(10_000_000));
        assert_eq!(tree.pci().map(|Pci { ecam, .. }| ecam.start), Some(0x3000_0000));
        // One of several devices of a kind is known by a cell.
        let mut places = tree.devices(&["virtio,mmio"]).filter_map(|device| device.register(0)).map(|r| r.start);
        assert!(places.any(|start| start == 0x1000_8000));
        let eighth = tree.devices(&["virtio,mmio"]).find(|device| device.cell("interrupts", 0) == Some(8));
        assert_eq!(eighth.and_then(|device| device.register(0)).map(|r| r.start), Some(0x1000_8000));
        assert!(tree.devices(&["nothing,such"]).next().is_none());
    }

    #[test]
    fn nonsense_is_no_tree() {
        assert_eq!(length(b"12345678"), None);
        assert_eq!(length(b""), None);
        assert!(Tree::new(b"12345678").is_none());
        assert!(Tree::new(&ARM[..200]).is_none());
    }
}
