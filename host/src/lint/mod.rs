//! `cob lint`: the house rules that the compiler does not hold. `ARCHITECTURE.md` says why each is there.

mod layers;
mod licences;
mod source;
mod tree;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::build::host_cargo;
use crate::root::Root;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the top.
    pub file: PathBuf,
    /// The line, 0 for the whole file.
    pub line: usize,
    /// What is wrong and what to do.
    pub what: String,
}

/// Prints what breaks a rule; success if nothing does.
pub fn lint(root: &Root) -> Result<ExitCode> {
    let findings = findings(root)?;
    for Finding { file, line, what } in &findings {
        println!("{}:{line}: {what}", file.display());
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All that breaks a rule.
pub fn findings(root: &Root) -> Result<Vec<Finding>> {
    let metadata = metadata(root)?;
    let files = tree::files(root)?;
    let mut findings = layers::check(&metadata)?;
    findings.extend(licences::check(&metadata));
    findings.extend(tree::check(root, &files)?);
    findings.extend(source::check(root, &files)?);
    findings.sort();
    Ok(findings)
}

/// `cargo metadata` of the whole workspace.
fn metadata(root: &Root) -> Result<Value> {
    let output = Command::new(host_cargo())
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root.path())
        .output()
        .context("starting cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_keeps_its_rules() {
        let root = crate::root::Root::find().expect("the tree");
        let findings = super::findings(&root).expect("lints");
        let lines: Vec<String> =
            findings.iter().map(|f| format!("{}:{}: {}", f.file.display(), f.line, f.what)).collect();
        assert!(lines.is_empty(), "{}", lines.join("\n"));
    }
}
