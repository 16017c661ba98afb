//! `/sys`: CPUs and nodes. Each kernel is a NUMA node.

use alloc::{format, string::String, sync::Arc, vec::Vec};

use task::{Kernel, cluster::CpuFact, load::Load};

use proc::system::{cpu_list, cpu_mask};

use crate::{entry::Folder, facts, system::OfMachine};

fn list(numbers: impl Iterator<Item = u32>) -> String {
    cpu_list(&numbers.collect::<Vec<_>>())
}

fn mask(numbers: impl Iterator<Item = u32>) -> String {
    cpu_mask(&numbers.collect::<Vec<_>>())
}

fn numbers(cpus: &[CpuFact]) -> impl Iterator<Item = u32> {
    cpus.iter().map(|c| c.global)
}

/// The tree as it is now; the machine's CPUs are in the plan, so only what is online changes.
pub(crate) fn tree(kernel: &Arc<Kernel>, command_line: &str) -> Arc<Folder> {
    let root = Folder::new();
    let devices = root.dir("devices");
    let system = devices.dir("system");
    let cpus = kernel.cluster().cpus();
    cpu_dir(&system.dir("cpu"), kernel, &cpus);
    node_dir(&system.dir("node"), kernel, &cpus);
    root.dir("fs").dir("cgroup");
    root.dir("block");
    root.dir("bus");
    let class = root.dir("class");
    // Where the console is: what the command line says, as on Linux; without that the first serial line.
    let console = command_line.split_whitespace().filter_map(|word| word.strip_prefix("console=")).next_back();
    let console = format!("{}\n", console.and_then(|c| c.split(',').next()).unwrap_or("ttyS0"));
    class.dir("tty").dir("console").text("active", move || console.clone());
    class.dir("net");
    let k = root.dir("kernel");
    k.dir("mm");
    root
}

fn cpu_dir(dir: &Folder, kernel: &Arc<Kernel>, cpus: &[CpuFact]) {
    let all = list(numbers(cpus));
    for name in ["present", "possible"] {
        let all = all.clone();
        dir.text(name, move || format!("{all}\n"));
    }
    let of = kernel.clone();
    dir.text("online", move || {
        format!("{}\n", list(of.cluster().cpus().iter().filter(|c| c.online).map(|c| c.global)))
    });
    dir.text("offline", || String::from("\n"));
    let most = cpus.len().saturating_sub(1);
    dir.text("kernel_max", move || format!("{most}\n"));
    for cpu in cpus {
        let (n, node) = (cpu.global, cpu.kernel);
        let siblings: Vec<u32> = cpus.iter().filter(|c| c.kernel == node).map(|c| c.global).collect();
        let one = dir.dir(&format!("cpu{n}"));
        let of = kernel.clone();
        one.text("online", move || {
            let online = of.cluster().cpus().iter().any(|c| c.global == n && c.online);
            format!("{}\n", u8::from(online))
        });
        one.dir(&format!("node{node}"));
        let topology = one.dir("topology");
        topology.text("physical_package_id", move || format!("{node}\n"));
        topology.text("core_id", move || format!("{n}\n"));
        let own = mask(core::iter::once(n));
        for name in ["thread_siblings", "core_cpus"] {
            let own = own.clone();
            topology.text(name, move || format!("{own}\n"));
        }
        for name in ["thread_siblings_list", "core_cpus_list"] {
            topology.text(name, move || format!("{n}\n"));
        }
        let together = mask(siblings.iter().copied());
        for name in ["core_siblings", "package_cpus"] {
            let together = together.clone();
            topology.text(name, move || format!("{together}\n"));
        }
        let together = list(siblings.iter().copied());
        for name in ["core_siblings_list", "package_cpus_list"] {
            let together = together.clone();
            topology.text(name, move || format!("{together}\n"));
        }
    }
}

fn node_dir(dir: &Folder, kernel: &Arc<Kernel>, cpus: &[CpuFact]) {
    let mut nodes: Vec<u16> = cpus.iter().map(|c| c.kernel).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let all = list(nodes.iter().map(|n| u32::from(*n)));
    for name in ["possible", "has_cpu", "has_memory", "has_normal_memory"] {
        let all = all.clone();
        dir.text(name, move || format!("{all}\n"));
    }
    let of = kernel.clone();
    dir.text("online", move || {
        let mut online: Vec<u32> =
            of.cluster().cpus().iter().filter(|c| c.online).map(|c| u32::from(c.kernel)).collect();
        online.sort_unstable();
        online.dedup();
        format!("{}\n", list(online.into_iter()))
    });
    for node in &nodes {
        let own: Vec<u32> = cpus.iter().filter(|c| c.kernel == *node).map(|c| c.global).collect();
        let one = dir.dir(&format!("node{node}"));
        let text = list(own.iter().copied());
        one.text("cpulist", move || format!("{text}\n"));
        let text = mask(own.iter().copied());
        one.text("cpumap", move || format!("{text}\n"));
        // As firmware has it for neighbours; what links measure replaces it.
        let distances: Vec<String> = nodes.iter().map(|n| String::from(if n == node { "10" } else { "20" })).collect();
        let text = distances.join(" ");
        one.text("distance", move || format!("{text}\n"));
        for cpu in own {
            one.dir(&format!("cpu{cpu}"));
        }
        let node = *node;
        let make = move |loads: &[Load]| facts::node_meminfo_text(loads, node);
        one.file("meminfo", OfMachine { kernel: kernel.clone(), make });
    }
}
