//! Archives in the "new ASCII" format of cpio (`Documentation/driver-api/early-userspace/buffer-format.rst` in Linux): what
//! firmware loads beside a kernel. An archive is records and a trailer; records may be added behind others. A later record replaces
//! an earlier one of the same name.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// What comes out has a length that is a multiple of this.
const BLOCK: usize = 512;

/// Collects files. The same calls give the same bytes: owner 0, time 0, inode numbers in order.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that goes on behind the records of another.
    pub fn after(records: Vec<u8>) -> Self {
        // Inode numbers that no record has: there are fewer than one per 110 bytes.
        let entries = (records.len() / 110) as u32;
        Self { bytes: records, entries }
    }

    /// A folder; its parents must come before it.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(path.as_bytes(), DIRECTORY | mode, &[])
    }

    /// A file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path.as_bytes(), FILE | mode, content)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path.as_bytes(), LINK | 0o777, target.as_bytes())
    }

    /// A host file or folder with all in it, with its modes, as `path`. Parents of `path` are made.
    pub fn put(&mut self, from: &Path, path: &str) -> Result<()> {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.directory(&path[..at], 0o755)?;
        }
        self.copy(from, path.as_bytes(), |mode| mode)
    }

    /// A host folder with all in it, as the top of the tree; of the modes only whether a file is a program.
    pub fn put_tree(&mut self, from: &Path) -> Result<()> {
        let plain = |mode| if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        for entry in sorted(from)? {
            self.copy(&from.join(&entry), entry.as_bytes(), plain)?;
        }
        Ok(())
    }

    fn copy(&mut self, from: &Path, path: &[u8], modes: fn(u32) -> u32) -> Result<()> {
        let wrong = || format!("putting {} into the tree", from.display());
        let meta = fs::symlink_metadata(from).with_context(wrong)?;
        let mode = modes(meta.permissions().mode() & 0o7777);
        if meta.is_symlink() {
            let target = fs::read_link(from).with_context(wrong)?;
            self.entry(path, LINK | 0o777, target.as_os_str().as_bytes())
        } else if meta.is_dir() {
            self.entry(path, DIRECTORY | mode, &[])?;
            for name in sorted(from)? {
                let inner = [path, b"/", name.as_bytes()].concat();
                self.copy(&from.join(&name), &inner, modes)?;
            }
            Ok(())
        } else if meta.is_file() {
            if meta.size() > u64::from(u32::MAX) {
                bail!("{} is too large: files of the tree have less than 4 GiB", from.display());
            }
            self.entry(path, FILE | mode, &fs::read(from).with_context(wrong)?)
        } else {
            bail!("{} is neither a file nor a folder", from.display())
        }
    }

    fn entry(&mut self, path: &[u8], mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        self.record(self.entries, path, mode, links, content)
    }

    fn record(&mut self, inode: u32, path: &[u8], mode: u32, links: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).context("a file of 4 GiB or more")?;
        let name = u32::try_from(path.len() + 1)?;
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, mtime, size, device, special device, name's size, checksum (unused)
        for field in [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path);
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
        Ok(())
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// The records without the trailer: others can follow.
    pub fn records(self) -> Vec<u8> {
        self.bytes
    }

    /// The archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.record(0, b"TRAILER!!!", 0, 1, &[])?;
        self.pad(BLOCK);
        Ok(self.bytes)
    }
}

fn sorted(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>()?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn the_format_is_newc() {
        let mut archive = Archive::new();
        archive.directory("bin", 0o755).expect("a folder");
        archive.file("bin/x", 0o4755, b"abcde").expect("a file");
        archive.link("bin/y", "x").expect("a link");
        let bytes = archive.finish().expect("an archive");
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        // 110 bytes of header, "bin/x" and its zero, two bytes up to a multiple of four.
        let file = text.find("bin/x").expect("the file");
        assert_eq!(&bytes[file + 6..file + 14], b"abcde\0\0\0".as_slice());
        assert!(text.contains("TRAILER!!!"));
    }
}
