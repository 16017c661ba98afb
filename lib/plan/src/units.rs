//! Sizes as people write them.

use alloc::format;
use alloc::string::String;

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The bytes of `256 MiB`, `2GiB`, `4096 B` or `0x20_0000`; `None` if it is none of those or does not fit.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    for (unit, bytes) in UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return integer(number.trim_end())?.checked_mul(bytes);
        }
    }
    text.starts_with("0x").then(|| integer(text)).flatten()
}

/// A decimal or hexadecimal number, underscores allowed between digits.
pub(crate) fn integer(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        None => None,
    }
}

/// The size in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    for (unit, size) in UNITS {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{} {unit}", bytes / size);
        }
    }
    String::from("0 B")
}

#[cfg(test)]
mod tests {
    use super::{parse_size, show_size};

    #[test]
    fn sizes() {
        assert_eq!(parse_size("256 MiB"), Some(256 << 20));
        assert_eq!(parse_size("2GiB"), Some(2 << 30));
        assert_eq!(parse_size("0x20_0000"), Some(0x20_0000));
        for nonsense in ["", "256", "256 MB", "-1 MiB", "MiB", "1.5 GiB", "99999999999999 GiB", "0xg", "+1 MiB"] {
            assert_eq!(parse_size(nonsense), None, "{nonsense}");
        }
        for bytes in [1, 4096, 2 << 20, 3 << 30, 0x1234_5000] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
    }
}
