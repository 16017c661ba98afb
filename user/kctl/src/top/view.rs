//! The screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span as Piece};
use ratatui::widgets::{Row, Table};

use super::sample::{KernelRow, ProcessRow, Sort, Span};
use crate::show::size;
use crate::table::{Set, align, show_list};

/// What the person has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub sort: Sort,
    /// Only processes of this kernel.
    pub only: Option<u64>,
    /// The first process that is shown.
    pub first: usize,
    /// Nothing is looked at meanwhile.
    pub paused: bool,
}

/// Cells of a bar that is full.
const BAR: usize = 10;

fn bar(percent: f64) -> String {
    let full = (percent / 100.0 * BAR as f64).round() as usize;
    format!("{:█<full$}{:░<rest$}", "", "", full = full.min(BAR), rest = BAR.saturating_sub(full))
}

/// A count a second: short, for it changes all the time.
fn rate(count: f64) -> String {
    match count {
        ..10.0 => format!("{count:.1}"),
        ..10_000.0 => format!("{count:.0}"),
        ..10_000_000.0 => format!("{:.0}k", count / 1e3),
        _ => format!("{:.0}M", count / 1e6),
    }
}

const KERNELS: [(&str, Set); 11] = [
    ("KERNEL", Set::Right),
    ("ISA", Set::Left),
    ("STATE", Set::Left),
    ("CPUS", Set::Left),
    ("BUSY", Set::Right),
    ("USED", Set::Right),
    ("OF", Set::Right),
    ("TASKS", Set::Right),
    ("OUT/s", Set::Right),
    ("IN/s", Set::Right),
    ("BELLS/s", Set::Right),
];

fn kernel(row: &KernelRow) -> Vec<String> {
    let or_dash = |text: String| if row.answers { text } else { "-".into() };
    vec![
        row.id.to_string(),
        row.isa.clone(),
        row.state.clone(),
        show_list(&row.cpus),
        or_dash(format!("{:.0} %", row.busy)),
        or_dash(size(row.memory_bytes.saturating_sub(row.free_bytes))),
        size(row.memory_bytes),
        or_dash(row.tasks.to_string()),
        or_dash(rate(row.sent)),
        or_dash(rate(row.received)),
        or_dash(rate(row.doorbells)),
    ]
}

const PROCESSES: [(&str, Set); 8] = [
    ("PID", Set::Right),
    ("KERNEL", Set::Right),
    ("ISA", Set::Left),
    ("S", Set::Left),
    ("THREADS", Set::Right),
    ("MEMORY", Set::Right),
    ("CPU", Set::Right),
    ("COMMAND", Set::Left),
];

/// A name that cannot move the cursor.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn process(row: &ProcessRow) -> Vec<String> {
    vec![
        row.pid.to_string(),
        row.kernel.map_or_else(|| "-".into(), |kernel| kernel.to_string()),
        row.isa.clone(),
        row.state.to_string(),
        row.threads.to_string(),
        size(row.resident_bytes),
        format!("{:.1} %", row.busy),
        printable(&row.name),
    ]
}

/// The same as text, once.
pub fn text(span: &Span) -> String {
    let kernels: Vec<_> = span.kernels.iter().map(kernel).collect();
    let processes: Vec<_> = span.processes.iter().map(process).collect();
    format!("{}\n{}", align(&KERNELS, &kernels), align(&PROCESSES, &processes))
}

/// A table whose columns are as wide as what is in them.
fn table<'a>(heads: &'a [(&'a str, Set)], rows: &'a [Vec<String>], style: impl Fn(usize) -> Style) -> Table<'a> {
    let width = |at: usize, head: &str| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([head.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = heads.iter().enumerate().map(|(at, (head, _))| width(at, head)).collect();
    let set = |cells: Vec<&str>| {
        let cells = cells.into_iter().zip(&widths).zip(heads).map(|((cell, width), (_, set))| match set {
            Set::Left => cell.to_owned(),
            Set::Right => format!("{cell:>width$}"),
        });
        Row::new(cells.collect::<Vec<_>>())
    };
    let head = set(heads.iter().map(|(head, _)| *head).collect()).style(Style::new().add_modifier(Modifier::REVERSED));
    let body = rows.iter().enumerate().map(|(at, row)| set(row.iter().map(String::as_str).collect()).style(style(at)));
    let body: Vec<_> = body.collect();
    let limits: Vec<_> = widths.iter().map(|width| Constraint::Length(*width as u16)).collect();
    Table::new(body, limits).column_spacing(2).header(head)
}

fn color(state: &str) -> Style {
    match state {
        "up" => Style::new(),
        "booting" | "stopping" | "suspect" => Style::new().fg(Color::Yellow),
        "off" => Style::new().fg(Color::DarkGray),
        _ => Style::new().fg(Color::Red),
    }
}

/// Draws a span.
pub fn draw(frame: &mut Frame<'_>, span: &Span, choice: Choice) {
    let kernels = span.kernels.len() as u16;
    let parts = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(kernels + 1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ]);
    let [head, upper, middle, lower, foot] = parts.areas(frame.area());
    let up = span.kernels.iter().filter(|row| row.answers).count();
    let cpus: usize = span.kernels.iter().filter(|row| row.answers).map(|row| row.cpus.len()).sum();
    let work: f64 = span.kernels.iter().map(|row| row.busy * row.cpus.len() as f64).sum();
    let busy = work / (cpus.max(1)) as f64;
    let messages: f64 = span.kernels.iter().map(|row| row.sent).sum();
    let title = Line::from(vec![
        Piece::from("kctl top").bold(),
        Piece::from(format!("  {up} of {kernels} kernels up, {cpus} CPUs ")),
        Piece::from(bar(busy)).fg(Color::Green),
        Piece::from(format!(" {busy:.0} %, {} messages/s", rate(messages))),
        Piece::from(if choice.paused { "  PAUSED" } else { "" }).bold().fg(Color::Yellow),
    ]);
    frame.render_widget(title, head);
    let rows: Vec<_> = span.kernels.iter().map(kernel).collect();
    let style = |at: usize| span.kernels.get(at).map_or_else(Style::new, |row| color(&row.state));
    frame.render_widget(table(&KERNELS, &rows, style), upper);
    let of = choice.only.map_or_else(|| "all kernels".into(), |kernel| format!("kernel {kernel}"));
    let count = span.processes.len();
    let caption = format!("{count} processes of {of}, by {}", choice.sort.name());
    frame.render_widget(Line::from(caption).bold(), middle);
    let rows: Vec<_> = span.processes.iter().skip(choice.first).map(process).collect();
    frame.render_widget(table(&PROCESSES, &rows, |_| Style::new()), lower);
    let keys = "q quit · s sort · k kernel · ↑ ↓ scroll · space pause";
    frame.render_widget(Line::from(keys).fg(Color::DarkGray), foot);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::sample::tests::moments;
    use super::*;

    fn screen(width: u16, height: u16, choice: Choice) -> Vec<String> {
        let (before, after) = moments();
        let mut span = Span::between(&before, &after);
        span.arrange(choice.sort, choice.only);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &span, choice)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    const PLAIN: Choice = Choice { sort: Sort::Busy, only: None, first: 0, paused: false };

    #[test]
    fn it_shows_kernels_and_processes() {
        let rows = screen(100, 12, PLAIN);
        assert_eq!(rows[0], "kctl top  2 of 3 kernels up, 3 CPUs ███░░░░░░░ 33 %, 1000 messages/s");
        assert_eq!(rows[1], "KERNEL  ISA      STATE  CPUS  BUSY     USED     OF  TASKS  OUT/s  IN/s  BELLS/s");
        assert_eq!(rows[3], "     1  aarch64  up     1-2   50 %    1 MiB  2 MiB      0   1000   0.0      0.0");
        assert_eq!(rows[4], "     2  riscv64  off    3        -        -  2 MiB      -      -     -        -");
        assert_eq!(rows[5], "2 processes of all kernels, by CPU");
        assert_eq!(rows[7], "  7       1  aarch64  R        3  64 KiB  50.0 %  a) (b");
        assert!(rows[11].starts_with("q quit"), "{rows:?}");
    }

    #[test]
    fn choices_are_followed() {
        let rows = screen(100, 12, Choice { only: Some(0), paused: true, ..PLAIN });
        assert!(rows[0].ends_with("PAUSED"), "{rows:?}");
        assert_eq!(rows[5], "1 processes of kernel 0, by CPU");
        let rows = screen(100, 12, Choice { first: 1, ..PLAIN });
        assert!(rows[7].starts_with("  9"), "{rows:?}");
    }

    #[test]
    fn a_small_screen_does_no_harm() {
        for (width, height) in [(1, 1), (20, 3), (80, 5)] {
            screen(width, height, PLAIN);
        }
    }

    #[test]
    fn rates_are_short() {
        let shown = [0.0, 9.9, 123.4, 12_345.0, 12_345_678.0].map(rate);
        assert_eq!(shown, ["0.0", "9.9", "123", "12k", "12M"]);
        assert_eq!([bar(0.0), bar(50.0), bar(120.0)], ["░░░░░░░░░░", "█████░░░░░", "██████████"]);
    }
}
