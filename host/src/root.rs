//! Where things are in the tree.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// The top of the source tree.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// `$COB_ROOT`, or the folder above the current one that has `machines/` and a workspace.
    pub fn find() -> Result<Self> {
        if let Some(path) = env::var_os("COB_ROOT") {
            return Ok(Self { path: PathBuf::from(path) });
        }
        let here = env::current_dir().context("the current folder")?;
        match here.ancestors().find(|path| path.join("machines").is_dir() && path.join("Cargo.lock").is_file()) {
            Some(path) => Ok(Self { path: path.to_owned() }),
            None => bail!("{} is not inside a Cob source tree", here.display()),
        }
    }

    /// A path below the top.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    /// The top itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is built and kept.
    pub fn target(&self) -> PathBuf {
        self.path.join("target")
    }

    /// One folder per run of a machine.
    pub fn runs(&self) -> PathBuf {
        self.target().join("runs")
    }

    /// The runs that are kept, oldest first.
    pub fn kept_runs(&self) -> Vec<PathBuf> {
        let mut runs: Vec<PathBuf> = fs::read_dir(self.runs())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.is_dir())
            .collect();
        runs.sort();
        runs
    }
}
