//! Every plan in `bad/` is refused with the line and the words that its first line (`# expect LINE: TEXT`) asks for, and a hint.

use std::{fs, path::Path};

#[test]
fn bad_plans_are_refused_with_line_and_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a text");
        let expect = text.lines().next().and_then(|line| line.strip_prefix("# expect ")).expect("# expect LINE: TEXT");
        let (line, what) = expect.split_once(": ").expect("# expect LINE: TEXT");
        let line: usize = line.parse().expect("a line number");
        count += 1;
        match plan::parse(&text) {
            Ok(_) => wrong.push(format!("{}: accepted", path.display())),
            Err(errors) => {
                if !errors.iter().any(|error| error.line == line && error.what.contains(what)) {
                    wrong.push(format!("{}: wanted {expect}, found {errors:#?}", path.display()));
                }
                if errors.iter().any(|error| error.hint.is_empty()) {
                    wrong.push(format!("{}: an error without a hint", path.display()));
                }
            }
        }
    }
    assert!(count >= 40, "only {count} bad plans");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
