//! The layer rule: a crate uses what stands above it in the table of `ARCHITECTURE.md`, minus its *never* words.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// A room of the house.
struct Layer {
    /// The folder, or the one above it.
    folder: &'static str,
    /// Folders that crates in it never use, though they stand above.
    never: &'static [&'static str],
}

/// From top to bottom.
const LAYERS: [Layer; 14] = [
    Layer { folder: "abi/linux", never: &["abi", "lib"] },
    Layer { folder: "abi/wire", never: &["abi", "lib"] },
    Layer { folder: "lib", never: &[] },
    Layer { folder: "hal", never: &[] },
    Layer { folder: "link", never: &[] },
    Layer { folder: "kernel", never: &["link", "abi/wire"] },
    Layer { folder: "drivers", never: &["drivers"] },
    Layer { folder: "ssi", never: &["drivers", "hal/x86_64", "hal/aarch64", "hal/riscv64"] },
    Layer { folder: "linux", never: &["link", "ssi", "drivers"] },
    Layer { folder: "boot", never: &[] },
    Layer { folder: "user", never: &["hal", "link", "kernel", "drivers", "ssi", "linux", "boot"] },
    Layer { folder: "host", never: &["hal", "link", "kernel", "drivers", "ssi", "linux", "boot"] },
    Layer { folder: "tests", never: &[] },
    Layer { folder: "bench", never: &[] },
];

/// Drivers of buses are what other drivers stand on.
const BUSES: &str = "drivers/bus";

/// Checks every crate's dependencies, but for those of its tests.
pub fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let top = metadata.get("workspace_root").and_then(Value::as_str).context("no workspace")?;
    let mut findings = Vec::new();
    for package in metadata.get("packages").and_then(Value::as_array).into_iter().flatten() {
        let Some(folder) = folder(package.get("manifest_path"), top) else { continue };
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let Some(used) = dependency.get("path").and_then(Value::as_str) else { continue };
            let used = used.strip_prefix(top).unwrap_or(used).trim_start_matches('/');
            if dependency.get("kind").and_then(Value::as_str) != Some("dev")
                && let Some(why) = forbidden(&folder, used)
            {
                let file = Path::new(&folder).join("Cargo.toml");
                findings.push(Finding { file, line: 0, what: format!("{folder} uses {used}: {why}") });
            }
        }
    }
    Ok(findings)
}

fn folder(manifest: Option<&Value>, top: &str) -> Option<String> {
    let manifest = manifest?.as_str()?.strip_prefix(top)?;
    Some(manifest.trim_start_matches('/').strip_suffix("/Cargo.toml")?.to_owned())
}

fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Why the crate in folder `from` may not use the one in `used`.
fn forbidden(from: &str, used: &str) -> Option<&'static str> {
    let place = |path| LAYERS.iter().position(|layer| is_in(path, layer.folder));
    let (Some(own), Some(other)) = (place(from), place(used)) else {
        return Some("a crate outside the folders of ARCHITECTURE.md");
    };
    if other > own {
        return Some("it stands below");
    }
    let never = LAYERS.get(own).map_or(&[][..], |layer| layer.never);
    let bus = is_in(used, BUSES) && !is_in(from, BUSES) && is_in(from, "drivers");
    (!bus && never.iter().any(|word| is_in(used, word))).then_some("its layer never does")
}

#[cfg(test)]
mod tests {
    use super::forbidden;

    #[test]
    fn the_table() {
        for (from, used) in [
            ("kernel/mm", "hal/core"),
            ("kernel/task", "kernel/mm"),
            ("link", "abi/linux"),
            ("drivers/virtio_block", "drivers/bus/pci"),
            ("boot", "hal/x86_64"),
            ("tests/sim", "ssi/names"),
            ("host", "lib/plan"),
        ] {
            assert_eq!(forbidden(from, used), None, "{from} {used}");
        }
        for (from, used) in [
            ("kernel/task", "link"),
            ("kernel/base", "abi/wire"),
            ("linux", "ssi/names"),
            ("ssi/names", "linux"),
            ("ssi/names", "hal/x86_64"),
            ("abi/wire", "abi/linux"),
            ("lib/plan", "hal/api"),
            ("drivers/a", "drivers/b"),
            ("host", "kernel/mm"),
            ("elsewhere", "lib/plan"),
        ] {
            assert!(forbidden(from, used).is_some(), "{from} {used}");
        }
    }
}
