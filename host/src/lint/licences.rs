//! Every locked crate can be used under a permissive licence.

use serde_json::Value;

use super::Finding;

const PERMISSIVE: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Checks the licence of every package.
pub fn check(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata.get("packages").and_then(Value::as_array).into_iter().flatten() {
        let text = |key| package.get(key).and_then(Value::as_str).unwrap_or_default();
        let licence = text("license");
        if !permissive(licence) {
            let what = format!("{} {} has licence {licence:?}: use another crate", text("name"), text("version"));
            findings.push(Finding { file: "Cargo.lock".into(), line: 0, what });
        }
    }
    findings
}

/// Whether an SPDX expression leaves a permissive choice. `/` is an old way to write `OR`.
fn permissive(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest) && rest.is_empty()
}

fn either(rest: &mut &[&str]) -> bool {
    let mut good = both(rest);
    while let Some((&"OR", tail)) = rest.split_first() {
        *rest = tail;
        good |= both(rest);
    }
    good
}

fn both(rest: &mut &[&str]) -> bool {
    let mut good = one(rest);
    while let Some((&"AND", tail)) = rest.split_first() {
        *rest = tail;
        good &= one(rest);
    }
    good
}

fn one(rest: &mut &[&str]) -> bool {
    let Some((word, tail)) = rest.split_first() else { return false };
    *rest = tail;
    if *word == "(" {
        let good = either(rest);
        return match rest.split_first() {
            Some((&")", tail)) => {
                *rest = tail;
                good
            }
            _ => false,
        };
    }
    let mut name = (*word).to_owned();
    if let [with @ "WITH", exception, tail @ ..] = *rest {
        name = format!("{name} {with} {exception}");
        *rest = tail;
    }
    PERMISSIVE.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::permissive;

    #[test]
    fn expressions() {
        for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR (MIT AND BSD-2-Clause)", "Apache-2.0 WITH LLVM-exception"] {
            assert!(permissive(good), "{good}");
        }
        for bad in ["", "GPL-2.0", "MIT AND GPL-2.0", "(MIT", "MIT)", "Apache-2.0 WITH Something"] {
            assert!(!permissive(bad), "{bad}");
        }
    }
}
