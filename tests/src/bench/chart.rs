//! The report's picture, `docs/benchmarks.svg`: how far each peer is from nothing at all, and
//! what grows. Logarithmic, readable on light and dark ground.

use super::report::{Figure, Report, Table};

const WIDTH: f64 = 900.0;
/// Where the axes begin.
const LEFT: f64 = 230.0;
const RIGHT: f64 = 870.0;
const ROW: f64 = 30.0;
const PANEL: f64 = 190.0;
/// Colours that differ in lightness, too, for those who see few of them.
const COLORS: [&str; 9] = [
    "#0a7d4f", "#8a8f98", "#3b6fd4", "#7fb2ff", "#c2571a", "#8b1e3f", "#d99a00", "#9a5cc7",
    "#5b4636",
];
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}\
.quiet{fill:#59636e}.line{stroke:#d1d9e0;stroke-width:1}.one{stroke:#59636e;stroke-width:1.5}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}\
.line{stroke:#3d444d}.one{stroke:#9198a1}.ground{fill:#0d1117}}\
.title{font-weight:600;font-size:15px}.ground{fill:#fff}\
@media(prefers-color-scheme:dark){.ground{fill:#0d1117}}";

/// An SVG document.
pub(super) fn draw(report: &Report) -> String {
    let mut canvas = Canvas::default();
    for table in &report.tables {
        match table.figure {
            Figure::Peers => peers(&mut canvas, table),
            Figure::Growth => growth(&mut canvas, table),
            Figure::Table | Figure::Detail => {}
        }
    }
    canvas.done()
}

/// One row a case, one dot a peer, by its ratio to nothing.
fn peers(canvas: &mut Canvas, table: &Table) {
    canvas.title("Time, as ratio to that without anything (log scale; further left is quicker)");
    let names = table.columns.get(1..).unwrap_or_default();
    canvas.legend(names);
    let ratios = || {
        let cells = table.rows.iter().flat_map(|row| row.cells.iter().skip(1));
        cells.filter_map(|cell| cell.middle())
    };
    let axis = Axis {
        low: ratios().fold(0.5, f64::min),
        high: ratios().fold(2.0, f64::max) * 1.2,
    };
    let top = canvas.y;
    let bottom = top + ROW * table.rows.len() as f64;
    for tick in axis.ticks() {
        let class = if tick == 1.0 { "one" } else { "line" };
        canvas.rule(axis.place(tick), top, bottom, class);
        canvas.text(
            axis.place(tick),
            bottom + 16.0,
            "middle",
            "quiet",
            &format!("{tick}×"),
        );
    }
    for row in &table.rows {
        let middle = canvas.y + ROW / 2.0;
        let about = row
            .about
            .rsplit_once(',')
            .map_or(&*row.about, |(about, _)| about);
        canvas.text(LEFT - 12.0, middle + 4.0, "end", "", about);
        for (place, cell) in row.cells.iter().skip(1).enumerate() {
            if let Some(value) = cell.middle() {
                let label = format!("{}: {value:.2}", names[place]);
                // Those that lie on each other are still seen.
                let off = (place % 3) as f64 * 5.0 - 5.0;
                canvas.dot(axis.place(value), middle + off, place, &label);
            }
        }
        canvas.y += ROW;
    }
    canvas.y += 50.0;
}

/// Sizes from left to right, nanoseconds upwards.
fn growth(canvas: &mut Canvas, table: &Table) {
    canvas.title(&table.heading());
    let names: Vec<String> = table.rows.iter().map(|row| row.about.clone()).collect();
    canvas.legend(&names);
    let sizes: Vec<f64> = table
        .columns
        .iter()
        .filter_map(|size| size.parse().ok())
        .collect();
    let axis = Axis {
        low: 1.0,
        high: sizes.iter().copied().fold(10.0, f64::max),
    };
    let values = |row: usize| -> Vec<f64> {
        let cells = table.rows[row].cells.iter().take(sizes.len());
        cells.filter_map(|cell| cell.middle()).collect()
    };
    let highest = (0..names.len()).flat_map(values).fold(100.0, f64::max);
    let step = if highest > 400.0 { 200.0 } else { 100.0 };
    let bottom = canvas.y + PANEL;
    let height = |value: f64| bottom - value / highest * (PANEL - 10.0);
    for line in 0..=(highest / step) as usize {
        let value = line as f64 * step;
        canvas.text(
            LEFT - 12.0,
            height(value) + 4.0,
            "end",
            "quiet",
            &format!("{value} ns"),
        );
        canvas.level(height(value));
    }
    for size in &sizes {
        canvas.text(
            axis.place(*size),
            bottom + 18.0,
            "middle",
            "quiet",
            &format!("{size}"),
        );
    }
    for (place, name) in names.iter().enumerate() {
        let points: Vec<(f64, f64)> = sizes
            .iter()
            .zip(values(place))
            .map(|(size, value)| (axis.place(*size), height(value)))
            .collect();
        canvas.path(&points, place);
        for ((x, y), value) in points.iter().zip(values(place)) {
            canvas.dot(*x, *y, place, &format!("{name}: {value:.0} ns"));
        }
    }
    canvas.y = bottom + 50.0;
}

/// A logarithmic one from [`LEFT`] to [`RIGHT`].
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let part = (value / self.low).ln() / (self.high / self.low).ln();
        LEFT + part * (RIGHT - LEFT)
    }

    /// Powers of ten.
    fn ticks(&self) -> Vec<f64> {
        let powers = self.low.log10().ceil() as i32..=self.high.log10().floor() as i32;
        powers.map(|power| 10_f64.powi(power)).collect()
    }
}

#[derive(Default)]
struct Canvas {
    body: String,
    y: f64,
}

impl Canvas {
    fn title(&mut self, text: &str) {
        self.y += 30.0;
        self.text(20.0, self.y, "start", "title", text);
        self.y += 12.0;
    }

    /// Names with their colours, as many a line as fit.
    fn legend(&mut self, names: &[String]) {
        let (mut x, mut y) = (24.0, self.y + 14.0);
        for (place, name) in names.iter().enumerate() {
            let wide = 30.0 + name.chars().count() as f64 * 7.4;
            if x + wide > WIDTH - 10.0 {
                (x, y) = (24.0, y + 20.0);
            }
            self.dot(x, y - 4.0, place, name);
            self.text(x + 9.0, y, "start", "", name);
            x += wide;
        }
        self.y = y + 18.0;
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        self.body += &format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>\n",
            escaped(text)
        );
    }

    fn rule(&mut self, x: f64, top: f64, bottom: f64, class: &str) {
        self.body += &format!("<path class=\"{class}\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>\n");
    }

    fn level(&mut self, y: f64) {
        self.body += &format!("<path class=\"line\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\n");
    }

    fn path(&mut self, points: &[(f64, f64)], place: usize) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.body += &format!(
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\" points=\"{}\"/>\n",
            COLORS[place % COLORS.len()],
            points.join(" ")
        );
    }

    fn dot(&mut self, x: f64, y: f64, place: usize, title: &str) {
        self.body += &format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{}\"><title>{}</title></circle>\n",
            COLORS[place % COLORS.len()],
            escaped(title)
        );
    }

    fn done(self) -> String {
        let height = self.y.max(10.0);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             role=\"img\" aria-label=\"What confinement costs\">\n<style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n{}</svg>\n",
            self.body
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_as_much_is_as_far_everywhere() {
        let axis = Axis {
            low: 1.0,
            high: 1000.0,
        };
        let first = axis.place(10.0) - axis.place(1.0);
        let last = axis.place(1000.0) - axis.place(100.0);
        assert!((first - last).abs() < 0.001);
        assert_eq!(axis.ticks(), [1.0, 10.0, 100.0, 1000.0]);
    }
}
