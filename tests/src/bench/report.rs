//! What was measured, for people and as JSON.

use std::{fs, path::Path};

use anyhow::Result;
use serde::Serialize;

use super::number::Spread;

/// The only form of the JSON so far.
const SCHEMA: &str = "egress-agent/bench/v1";

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    pub(super) kernel: String,
    pub(super) processors: usize,
    pub(super) load_before: String,
    pub(super) rounds: usize,
    pub(super) tables: Vec<Table>,
    pub(super) bars: Vec<Bar>,
}

/// One subject.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) title: String,
    unit: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Row>,
    notes: Vec<String>,
    /// How it is drawn.
    #[serde(skip)]
    pub(super) figure: Figure,
}

/// What a table is beside its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// A table.
    Table,
    /// One that another table sums up: too much for a document.
    Detail,
    /// Ratios to nothing, a column each peer.
    Peers,
    /// A column each size, and one more.
    Growth,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) about: String,
    pub(super) cells: Vec<Cell>,
}

/// One number, or none.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) enum Cell {
    /// Does not apply.
    #[serde(rename = "none")]
    None,
    /// A number that is not the middle of many.
    #[serde(rename = "value")]
    Plain(f64),
    /// Median and quartiles.
    #[serde(rename = "spread")]
    Spread(Spread),
    /// The same of a ratio.
    #[serde(rename = "ratio")]
    Ratio(Spread),
    /// Why there is no number.
    #[serde(rename = "word")]
    Word(&'static str),
}

/// A promise and whether it was kept.
#[derive(Debug, Serialize)]
pub(super) struct Bar {
    about: String,
    measured: f64,
    limit: f64,
    unit: &'static str,
    /// Whether the measured value is no more than the limit.
    pub(super) held: bool,
}

impl Bar {
    pub(super) fn at_most(about: String, measured: f64, limit: f64, unit: &'static str) -> Self {
        Self {
            about,
            measured,
            limit,
            unit,
            held: measured <= limit,
        }
    }
}

impl Bar {
    /// What it is about, what was measured, what is the limit, and whether it held.
    pub(super) fn cells(&self) -> [String; 4] {
        let amount = |value| format!("{} {}", short(value), self.unit).trim().to_owned();
        let held = if self.held { "yes" } else { "NO" };
        [
            self.about.clone(),
            amount(self.measured),
            amount(self.limit),
            held.to_owned(),
        ]
    }
}

impl Cell {
    pub(super) fn of(spread: Option<Spread>) -> Self {
        spread.map_or(Self::None, Self::Spread)
    }

    pub(super) fn ratio(spread: Option<Spread>) -> Self {
        spread.map_or(Self::None, Self::Ratio)
    }

    pub(super) fn plain(value: Option<f64>) -> Self {
        value.map_or(Self::None, Self::Plain)
    }

    /// The number, or the middle of many.
    pub(super) fn middle(&self) -> Option<f64> {
        match self {
            Self::None | Self::Word(_) => None,
            Self::Plain(value) => Some(*value),
            Self::Spread(spread) | Self::Ratio(spread) => Some(spread.median),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::None => "-".to_owned(),
            Self::Plain(value) => short(*value),
            Self::Word(word) => (*word).to_owned(),
            Self::Spread(Spread {
                median, low, high, ..
            }) => {
                format!("{} ({} - {})", short(*median), short(*low), short(*high))
            }
            Self::Ratio(Spread {
                median, low, high, ..
            }) => {
                let [median, low, high] = [median, low, high].map(|ratio| times(*ratio));
                format!("{median} ({low} - {high})")
            }
        }
    }
}

impl Table {
    pub(super) fn new(title: &str, unit: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            unit: unit.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            rows: Vec::new(),
            notes: Vec::new(),
            figure: Figure::Table,
        }
    }

    /// The same, drawn in another way.
    pub(super) fn drawn(mut self, figure: Figure) -> Self {
        self.figure = figure;
        self
    }

    /// Its heading.
    pub(super) fn heading(&self) -> String {
        match self.unit.as_str() {
            "" => self.title.clone(),
            unit => format!("{}, {unit}", self.title),
        }
    }

    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(super) fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    pub(super) fn note_once(&mut self, text: &str) {
        if !self.notes.iter().any(|note| note == text) {
            self.note(text);
        }
    }

    pub(super) fn row(&mut self, about: &str, cells: Vec<Cell>) {
        let about = about.to_owned();
        self.rows.push(Row { about, cells });
    }
}

/// A kernel's release without what its builder added: `6.1.0-50-cloud-amd64` is `6.1.0`.
fn version(release: &str) -> &str {
    release.split(['-', '+']).next().unwrap_or(release)
}

impl Report {
    pub(super) fn new(rounds: usize) -> Self {
        let read = |path| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        Self {
            schema: SCHEMA,
            kernel: version(&read("/proc/sys/kernel/osrelease")).to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            load_before: read("/proc/loadavg"),
            rounds,
            tables: Vec::new(),
            bars: Vec::new(),
        }
    }

    /// Whether every bar held.
    pub(super) fn held(&self) -> bool {
        self.bars.iter().all(|bar| bar.held)
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// All tables and bars, aligned alike.
    pub(super) fn text(&self) -> String {
        let mut lines = Vec::new();
        for table in &self.tables {
            lines.push(vec![format!("\n{}", table.heading())]);
            let head = [String::new()].into_iter().chain(table.columns.clone());
            lines.push(head.collect());
            for row in &table.rows {
                let mut line = vec![format!("  {}", row.about)];
                line.extend(row.cells.iter().map(Cell::text));
                lines.push(line);
            }
            lines.extend(table.notes.iter().map(|note| vec![format!("  {note}")]));
        }
        lines.push(vec!["\nBars".to_owned()]);
        let head = ["", "measured", "at most", "held"];
        lines.push(head.map(str::to_owned).to_vec());
        for bar in &self.bars {
            let [about, measured, limit, held] = bar.cells();
            lines.push(vec![format!("  {about}"), measured, limit, held]);
        }
        aligned(&lines)
    }
}

/// Three significant digits where there are no more before the point.
fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A ratio: two digits behind the point where they say something.
fn times(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else {
        short(value)
    }
}

/// Columns of one width for all lines with more than one cell; the others are headings.
fn aligned(lines: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines.iter().filter(|line| line.len() > 1) {
        for (column, cell) in line.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_do_not_widen_columns() {
        let line = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let text = aligned(&[
            line(&["a long heading"]),
            line(&["a", "bb"]),
            line(&["ccc", "d"]),
        ]);
        assert_eq!(text, "a long heading\na    bb\nccc  d\n");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [1234.5, 12.34, 1.234, 7.0].map(short),
            ["1234", "12.3", "1.23", "7"]
        );
    }
}
