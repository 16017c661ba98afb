//! tmpfs for mount(2), with its options; tmpfs(5).

use alloc::sync::Arc;

use base::{Errno, Error, Result};

use super::{Limits, PAGE, Tmpfs};
use crate::{Inode, Vfs, mounts::FsType};

/// `tmpfs` for mount(2).
#[derive(Debug)]
pub struct TmpfsType(pub &'static str);

impl FsType for TmpfsType {
    fn name(&self) -> &str {
        self.0
    }

    fn mount(&self, vfs: &Arc<Vfs>, _: &str, options: &str) -> Result<Arc<dyn Inode>> {
        let (mut mode, mut owner) = (0o1777, (0, 0));
        let mut limits = Limits::of_memory();
        // 0 is no limit.
        let limit = |n: u64| (n != 0).then_some(n);
        for option in options.split(',').filter(|o| !o.is_empty()) {
            let bad = || Error::new(Errno::EINVAL, "unknown option of tmpfs");
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "mode" => mode = u32::from_str_radix(value, 8).map_err(|_| bad())? & 0o7777,
                "size" => limits.bytes = limit(parse_size(value).ok_or_else(bad)?),
                "nr_blocks" => {
                    limits.bytes = limit(parse_size(value).and_then(|n| n.checked_mul(PAGE)).ok_or_else(bad)?);
                }
                "nr_inodes" => limits.files = limit(parse_size(value).ok_or_else(bad)?),
                "uid" => owner.0 = value.parse().map_err(|_| bad())?,
                "gid" => owner.1 = value.parse().map_err(|_| bad())?,
                // Advice about the sizes of pages; and what the flags of the mount say.
                "huge" | "rw" | "ro" => {}
                _ => return Err(bad()),
            }
        }
        let root = Tmpfs::new(vfs, mode, limits);
        {
            let mut meta = root.meta.lock();
            (meta.uid, meta.gid) = owner;
        }
        Ok(root)
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.char_indices().last()? {
        (at, c) if c.is_ascii_alphabetic() || c == '%' => (text.get(..at)?, c),
        _ => (text, ' '),
    };
    let n: u64 = digits.parse().ok()?;
    match unit {
        'k' | 'K' => n.checked_mul(1 << 10),
        'm' | 'M' => n.checked_mul(1 << 20),
        'g' | 'G' => n.checked_mul(1 << 30),
        '%' => Some(hal::frame::stats().total as u64 * PAGE / 100 * n.min(100)),
        ' ' => Some(n),
        _ => None,
    }
}
