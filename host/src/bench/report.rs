//! What `cob bench link` measured as a page: how the times of answers are spread, how much goes through, what large payloads take, and the limits of the
//! same run beside them. The figures of each machine are kept beside the page, which shows all that have been measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Rows, medians};

/// Bytes in front of each message.
const HEADER: f64 = wire::HEADER_SIZE as f64;
/// Pixels of a picture.
const SIZE: (u32, u32) = (560, 340);

/// How the times of some answers are spread: those that came within so many ns, and not within the ones before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Spread(BTreeMap<u64, u64>);

impl Spread {
    fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// Within how many ns this part of all came.
    fn within(&self, part: f64) -> u64 {
        let rank = (self.all() as f64 * part).ceil().max(1.0) as u64;
        let mut below = 0;
        let found = self.0.iter().find(|(_, count)| {
            below += **count;
            below >= rank
        });
        found.map_or(0, |(end, _)| *end)
    }

    /// Percent of all that came within so many ns, as corners of a line.
    fn line(&self) -> Vec<(f64, f64)> {
        let (all, mut below) = (self.all().max(1) as f64, 0);
        let corner = |(end, count): (&u64, &u64)| {
            below += count;
            (*end as f64, 100.0 * below as f64 / all)
        };
        self.0.iter().map(corner).collect()
    }
}

/// What was measured on a machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    machine: String,
    /// Its CPUs and what runs it.
    about: String,
    /// What carries messages between the two kernels.
    transport: String,
    /// The median of each row.
    pub rows: Rows,
    /// By lane, way and bytes of payload.
    spreads: BTreeMap<String, BTreeMap<String, BTreeMap<u64, Spread>>>,
    /// ns for a message of many, by lane and bytes of payload.
    through: BTreeMap<String, BTreeMap<u64, f64>>,
}

/// The figures of some runs on a machine, from what the kernels said.
pub fn figures(machine: &str, about: &str, said: &[String]) -> Figures {
    let mut figures = Figures { machine: machine.to_owned(), about: about.to_owned(), ..Figures::default() };
    let runs: Vec<Rows> = said.iter().map(|said| super::rows(said)).collect();
    figures.rows = medians(&runs);
    let mut through: BTreeMap<(String, u64), Vec<f64>> = BTreeMap::new();
    for words in said.iter().flat_map(|said| said.lines()).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        match words.as_slice() {
            ["transport", name] => figures.transport = (*name).to_owned(),
            ["through", lane, length, ns, _] => {
                if let (Ok(length), Ok(ns)) = (length.parse(), ns.parse()) {
                    through.entry(((*lane).to_owned(), length)).or_default().push(ns);
                }
            }
            ["spread", lane, length, way, _, counts @ ..] => {
                let Ok(length) = length.parse() else { continue };
                let ways = figures.spreads.entry((*lane).to_owned()).or_default();
                let spread = ways.entry((*way).to_owned()).or_default().entry(length).or_default();
                for (end, count) in counts.iter().filter_map(|pair| pair.split_once(':')) {
                    if let (Ok(end), Ok(count)) = (end.parse(), count.parse::<u64>()) {
                        *spread.0.entry(end).or_default() += count;
                    }
                }
            }
            _ => {}
        }
    }
    for ((lane, length), mut all) in through {
        all.sort_by(f64::total_cmp);
        let median = all.get(all.len() / 2).copied().unwrap_or_default();
        figures.through.entry(lane).or_default().insert(length, median);
    }
    figures
}

/// Keeps the figures in a folder and writes the page of all that are there; where it is.
pub fn write(folder: &Path, figures: &Figures) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("{}.json", figures.machine)), serde_json::to_string(figures)?)?;
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            // One of another version is of no use any more.
            all.extend(serde_json::from_str::<Figures>(&fs::read_to_string(&path)?));
        }
    }
    all.sort_by(|a, b| a.machine.cmp(&b.machine));
    let page = folder.join("index.html");
    fs::write(&page, html(&all)?).with_context(|| page.display().to_string())?;
    Ok(page)
}

const STYLE: &str = "body { font: 15px/1.5 sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: 2px 12px; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } svg { margin: 4px } h2 { margin-top: 2em; border-top: 1px solid #aaa; padding-top: 1em }";

fn html(all: &[Figures]) -> Result<String> {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Messages between kernels</title><style>{STYLE}</style>\n\
         <h1>Messages between kernels</h1><p>Kernel 0 asks kernel 1; each figure is of the whole way there and back. \
         Grey lines are what the hardware allows in the same run: a line of memory to and fro, and the same with a bell for each.</p>\n"
    );
    for figures in all {
        machine(&mut page, figures)?;
    }
    Ok(page + "</html>\n")
}

fn machine(page: &mut String, figures: &Figures) -> Result<()> {
    writeln!(page, "<h2>{}: {}</h2><p>{}</p>", figures.machine, figures.transport, figures.about)?;
    for (lane, ways) in &figures.spreads {
        for (way, lengths) in ways {
            let limit = figures.rows.get(if way == "polled" { "line" } else { "bell" }).copied();
            page.push_str(&spread_picture(&format!("lane {lane}, {way}"), lengths, limit)?);
        }
    }
    page.push_str(&through_picture(&figures.through)?);
    page.push_str("<table><tr><th>lane<th>bytes<th>CPUs<th>p50 µs<th>p99 µs<th>p99.9 µs<th>answers</tr>\n");
    for (lane, ways) in &figures.spreads {
        for (way, lengths) in ways {
            for (length, spread) in lengths {
                let us = |part| spread.within(part) as f64 / 1000.0;
                let (p50, p99, p999) = (us(0.5), us(0.99), us(0.999));
                let all = spread.all();
                writeln!(
                    page,
                    "<tr><td>{lane}<td>{length}<td>{way}<td>{p50:.1}<td>{p99:.1}<td>{p999:.1}<td>{all}</tr>"
                )?;
            }
        }
    }
    page.push_str("</table>\n");
    if let Some(rows) = payloads(&figures.rows) {
        page.push_str("<table><tr><th>a payload of 256 KiB in the asker's memory<th>µs<th>MB/s<th>of its limit</tr>\n");
        for (what, ns, part) in rows {
            let (us, rate) = (ns / 1000.0, PAYLOAD / ns * 1000.0);
            writeln!(page, "<tr><td>{what}<td>{us:.1}<td>{rate:.0}<td>{:.0} %</tr>", 100.0 * part)?;
        }
        page.push_str("</table>\n");
    }
    Ok(())
}

/// Bytes of a payload that is gathered.
const PAYLOAD: f64 = 262_144.0;

/// What payloads took: in ns, and which part of the speed of the same within one memory that is.
fn payloads(rows: &Rows) -> Option<[(&'static str, f64, f64); 4]> {
    let [place, copied, own_copied, own_summed] =
        ["bulk_in_place", "bulk_copied", "bulk_own_copied", "bulk_own_summed"].map(|name| rows.get(name).copied());
    let (place, copied, own_copied, own_summed) = (place?, copied?, own_copied?, own_summed?);
    Some([
        ("its checksum made in place", place, own_summed / place),
        ("copied to the other kernel's", copied, own_copied / copied),
        ("the limit of checksums: of own memory", own_summed, 1.0),
        ("the limit of copies: between own memory", own_copied, 1.0),
    ])
}

/// The part of a copy within one memory that a copy from the asker's has: what there is a bar for.
pub fn copied(rows: &Rows) -> Option<f64> {
    payloads(rows).map(|[_, (_, _, part), ..]| part)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

/// A picture with one line for each of some things, and what they cannot be better than.
struct Picture<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
    lines: Vec<(String, Vec<(f64, f64)>)>,
    limit: Option<f64>,
    /// Where no line is.
    names: SeriesLabelPosition,
}

impl Picture<'_> {
    fn draw<Y>(&self, across: Range<f64>, up: Y, top: f64, bottom: f64) -> Result<String>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            area.fill(&WHITE).map_err(failed)?;
            let mut builder = ChartBuilder::on(&area);
            builder.caption(self.title, ("sans-serif", 16)).margin(8).x_label_area_size(38).y_label_area_size(62);
            let mut chart = builder.build_cartesian_2d(across.log_scale(), up).map_err(failed)?;
            let mut mesh = chart.configure_mesh();
            mesh.x_labels(6).x_desc(self.x).y_desc(self.y).light_line_style(TRANSPARENT).x_label_formatter(&short);
            mesh.y_label_formatter(&short).draw().map_err(failed)?;
            if let Some(limit) = self.limit {
                let line = LineSeries::new([(limit, bottom), (limit, top)], BLACK.mix(0.4).stroke_width(2));
                chart.draw_series(line).map_err(failed)?;
            }
            for (at, (name, line)) in self.lines.iter().enumerate() {
                let colour = Palette99::pick(at).to_rgba();
                let series = LineSeries::new(line.iter().copied(), colour.stroke_width(2)).point_size(2);
                let drawn = chart.draw_series(series).map_err(failed)?;
                drawn.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
            }
            let mut labels = chart.configure_series_labels();
            labels.position(self.names.clone()).background_style(WHITE.mix(0.8)).draw().map_err(failed)?;
            area.present().map_err(failed)?;
        }
        Ok(svg)
    }
}

/// A figure at an axis.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "what draws the axis asks so")]
fn short(value: &f64) -> String {
    match *value {
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => format!("{value}"),
    }
}

fn spread_picture(title: &str, lengths: &BTreeMap<u64, Spread>, limit: Option<f64>) -> Result<String> {
    let lines: Vec<_> = lengths.iter().map(|(length, spread)| (format!("{length} bytes"), spread.line())).collect();
    let ends = lines.iter().flat_map(|(_, line)| line).map(|(end, _)| *end).chain(limit);
    let (least, most) = ends.fold((f64::MAX, 1.0_f64), |(least, most), end| (least.min(end), most.max(end)));
    let picture = Picture { title, x: "ns", y: "% within", lines, limit, names: SeriesLabelPosition::LowerRight };
    picture.draw(least.min(most) * 0.8..most * 1.25, 0.0..100.0, 100.0, 0.0)
}

fn through_picture(through: &BTreeMap<String, BTreeMap<u64, f64>>) -> Result<String> {
    let line = |lengths: &BTreeMap<u64, f64>| {
        lengths.iter().filter(|(_, ns)| **ns > 0.0).map(|(length, ns)| (*length as f64 + HEADER, 1e9 / ns)).collect()
    };
    let lines: Vec<(String, Vec<(f64, f64)>)> =
        through.iter().map(|(lane, lengths)| (format!("lane {lane}"), line(lengths))).collect();
    let rates = lines.iter().flat_map(|(_, line)| line).map(|(_, rate)| *rate);
    let most = rates.fold(1.0_f64, f64::max) * 1.1;
    let title = "questions a second, 32 under way";
    let names = SeriesLabelPosition::UpperRight;
    let picture = Picture { title, x: "bytes of a message with its header", y: "a second", lines, limit: None, names };
    picture.draw(HEADER * 0.8..(HEADER + 4096.0) * 1.25, 0.0..most, most, 0.0)
}

#[cfg(test)]
mod tests {
    use super::{copied, figures, write};

    const SAID: &str = "transport shm+ipi\nrow line 100.00 2000\nrow bell 9000.00 170\nrow bulk_in_place 2000 9\n\
        row bulk_copied 1250 9\nrow bulk_own_copied 1000 9\nrow bulk_own_summed 1900 9\n\
        spread request 256 polled 100 1000:50 2000:49 9000:1\nspread request 256 asleep 2 90000:2\n\
        spread control 0 polled nonsense 1:x :\nthrough request 256 500.00 2000\nthrough request x y z\n";

    #[test]
    fn figures_are_read_and_added_up() {
        let one = figures("duo", "two CPUs", &[SAID.to_owned(), SAID.to_owned()]);
        let spread = &one.spreads["request"]["polled"][&256];
        assert_eq!(
            (spread.all(), spread.within(0.5), spread.within(0.99), spread.within(1.0)),
            (200, 1000, 2000, 9000)
        );
        assert_eq!(spread.line(), [(1000.0, 50.0), (2000.0, 99.0), (9000.0, 100.0)]);
        assert_eq!((one.transport.as_str(), one.through["request"][&256]), ("shm+ipi", 500.0));
        assert_eq!(copied(&one.rows), Some(0.8));
    }

    #[test]
    fn a_page_shows_all_machines_that_were_measured() {
        let folder = std::env::temp_dir().join(format!("cob-report-{}", std::process::id()));
        for machine in ["duo", "apart"] {
            write(&folder, &figures(machine, "two CPUs", &[SAID.to_owned()])).unwrap();
        }
        // What is no report of this version is left out.
        std::fs::write(folder.join("old.json"), "{}").unwrap();
        let page = write(&folder, &figures("duo", "two CPUs", &[SAID.to_owned()])).unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        assert_eq!(text.matches("<h2>").count(), 2);
        assert_eq!(text.matches("<svg").count(), 2 * 4, "two lanes of which one sleeps too, and what goes through");
        for part in ["shm+ipi", "80 %", "lane request, polled", "p99.9"] {
            assert!(text.contains(part), "{part}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
