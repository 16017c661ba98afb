//! The tables of `/proc/cob` (`docs/proc-cob.md`) and aligned columns for people.

/// A table as read: columns are found by name.
#[derive(Debug)]
pub struct Table<'a> {
    columns: Vec<&'a str>,
    rows: Vec<Vec<&'a str>>,
}

/// One row of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    columns: &'a [&'a str],
    cells: &'a [&'a str],
}

impl<'a> Table<'a> {
    /// Reads the text of a file.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let columns = lines.next().filter(|c| !c.is_empty()).ok_or("the table is empty")?;
        let rows: Vec<_> = lines.filter(|cells| !cells.is_empty()).collect();
        match rows.iter().position(|cells| cells.len() != columns.len()) {
            Some(at) => Err(format!("row {} has not as many words as there are columns", at + 1)),
            None => Ok(Self { columns, rows }),
        }
    }

    /// The rows, top to bottom.
    pub fn rows(&'a self) -> impl Iterator<Item = Row<'a>> {
        self.rows.iter().map(|cells| Row { columns: &self.columns, cells })
    }
}

impl<'a> Row<'a> {
    /// The word in this column; none if it is `-`.
    pub fn word(&self, column: &str) -> Result<Option<&'a str>, String> {
        let at = self.columns.iter().position(|c| *c == column).ok_or_else(|| format!("no column `{column}`"))?;
        Ok(self.cells.get(at).copied().filter(|word| *word != "-"))
    }

    /// The word in this column, which must be there.
    pub fn text(&self, column: &str) -> Result<String, String> {
        self.word(column)?.map(String::from).ok_or_else(|| format!("no value in column `{column}`"))
    }

    /// The number in this column; none if it is `-`.
    pub fn number(&self, column: &str) -> Result<Option<u64>, String> {
        let read = |word: &str| word.parse().map_err(|_| format!("column `{column}`: `{word}` is not a number"));
        self.word(column)?.map(read).transpose()
    }

    /// The number in this column, which must be there.
    pub fn need(&self, column: &str) -> Result<u64, String> {
        self.number(column)?.ok_or_else(|| format!("no value in column `{column}`"))
    }

    /// The list of numbers in this column, such as `0-3,8`.
    pub fn list(&self, column: &str) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        for part in self.word(column)?.unwrap_or_default().split(',').filter(|p| !p.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse::<u64>(), last.parse::<u64>()) {
                (Ok(first), Ok(last)) if first <= last && last - first < 1 << 16 => numbers.extend(first..=last),
                _ => return Err(format!("column `{column}`: `{part}` is not a range of numbers")),
            }
        }
        Ok(numbers)
    }
}

/// Numbers as `0-3,8`; `-` if there are none.
pub fn show_list(numbers: &[u64]) -> String {
    let mut text = String::new();
    let mut rest = numbers;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|(n, want)| **n == *want).count();
        let comma = if text.is_empty() { "" } else { "," };
        match run {
            1 => text += &format!("{comma}{first}"),
            _ => text += &format!("{comma}{first}-{}", first + run as u64 - 1),
        }
        rest = rest.get(run..).unwrap_or_default();
    }
    if text.is_empty() { "-".into() } else { text }
}

/// How a column of [`align`] is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Left,
    Right,
}

/// Lines with columns under their heads, two blanks apart.
pub fn align(heads: &[(&str, Set)], rows: &[Vec<String>]) -> String {
    let width = |at: usize, head: &str| {
        rows.iter().filter_map(|r| r.get(at)).map(|c| c.chars().count()).chain([head.chars().count()]).max()
    };
    let widths: Vec<usize> = heads.iter().enumerate().map(|(at, (head, _))| width(at, head).unwrap_or(0)).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for ((cell, width), (_, set)) in cells.zip(&widths).zip(heads) {
            match set {
                Set::Left => out += &format!("{cell:<width$}  "),
                Set::Right => out += &format!("{cell:>width$}  "),
            }
        }
        text += out.trim_end();
        text.push('\n');
    };
    line(&mut heads.iter().map(|(head, _)| *head));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let table = Table::parse("b new a\n1 x 0-2,5\n- y -\n").expect("a table");
        let rows: Vec<Row<'_>> = table.rows().collect();
        assert_eq!((rows[0].number("b"), rows[1].number("b")), (Ok(Some(1)), Ok(None)));
        assert_eq!((rows[0].list("a"), rows[1].list("a")), (Ok(vec![0, 1, 2, 5]), Ok(vec![])));
        assert_eq!(rows[0].need("c"), Err("no column `c`".into()));
        assert!(rows[0].need("new").is_err() && rows[1].need("b").is_err());
    }

    #[test]
    fn broken_tables_are_refused() {
        assert!(Table::parse("").is_err());
        assert!(Table::parse("a b\n1\n").is_err());
        let table = Table::parse("a\n3-1\n").expect("a table");
        assert!(table.rows().all(|row| row.list("a").is_err()));
    }

    #[test]
    fn lists_are_short() {
        assert_eq!(show_list(&[]), "-");
        assert_eq!(show_list(&[4]), "4");
        assert_eq!(show_list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["0".into(), "x86_64".into()], vec!["10".into(), "-".into()]];
        assert_eq!(align(&[("id", Set::Right), ("isa", Set::Left)], &rows), "id  isa\n 0  x86_64\n10  -\n");
    }
}
