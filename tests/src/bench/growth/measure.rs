//! Fills, measures, and says whether it stays flat.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{
    entries::{Entries, Grants, Prefixes},
    planes::{Planes, available},
};
use crate::bench::{
    cost::one,
    job::Job,
    number::Spread,
    plan::{Extent, Progress},
    plane::{Account, pins_of_agent},
    report::{Bar, Cell, Figure, Report, Table},
    scene::{AGENT, CONNECTOR, NAMED, NAMED6, RANGED, Scene, at},
    server::{CLOSE, SINK},
};

/// What counts as flat.
const FLAT: f64 = 1.10;

/// What is looked at: name, job, hook.
const LINES: [(&str, usize, &str); 4] = [
    ("packet, IPv4", 0, "egress"),
    ("packet, IPv6", 1, "egress"),
    ("connect4, by name", 2, "connect4"),
    ("connect4, by range", 3, "connect4"),
];

/// Nanoseconds a run of each line.
type Seen = [f64; LINES.len()];

/// Measures; adds tables and bars.
pub(in crate::bench) fn measure(
    scene: &mut Scene,
    extent: &Extent,
    report: &mut Report,
) -> Result<()> {
    let _on = Account::open()?;
    let pins = pins_of_agent(&scene.instance(CONNECTOR))?;
    let grants = [1, 10, 100, 1000, 10_000, 100_000];
    let prefixes = [1, 10, 100, 1000, 10_000];
    entries(
        scene,
        extent,
        report,
        "grants",
        &grants,
        &mut Grants::open(&pins)?,
    )?;
    let mut table = Prefixes::open(&pins)?;
    entries(scene, extent, report, "CIDRs", &prefixes, &mut table)?;
    connectors(scene, extent, report)
}

/// All sizes in each round.
fn entries(
    scene: &mut Scene,
    extent: &Extent,
    report: &mut Report,
    what: &'static str,
    sizes: &[u32],
    table: &mut impl Entries,
) -> Result<()> {
    let jobs = jobs(extent);
    let mut progress = Progress::new(what, extent.rounds);
    let mut seen: Vec<Vec<Seen>> = Vec::new();
    for round in 0..=extent.rounds {
        let (mut have, mut all) = (0, Vec::new());
        for size in sizes {
            table.grow(have, *size)?;
            have = *size;
            all.push(look(scene, &jobs)?);
        }
        table.clear(have)?;
        if round > 0 {
            seen.push(all);
        }
        progress.round(round);
    }
    let labels: Vec<String> = sizes.iter().map(u32::to_string).collect();
    tell(report, what, &labels, &seen);
    Ok(())
}

/// One size after the other: a connector takes as long to load as a start.
fn connectors(scene: &mut Scene, extent: &Extent, report: &mut Report) -> Result<()> {
    let jobs = jobs(extent);
    let mut planes = Planes::default();
    let mut labels = Vec::new();
    let mut seen = vec![Vec::new(); extent.rounds];
    let before = available()?;
    let most = extent.connectors;
    let sizes = [1, 10, 100].into_iter().filter(|size| *size < most);
    for size in sizes.chain([most]) {
        // The one that is measured is one of them.
        let have = planes.grow(size - 1)? + 1;
        if labels.last() == Some(&have.to_string()) {
            break;
        }
        labels.push(have.to_string());
        eprintln!("with {have} connectors");
        let mut progress = Progress::new("connectors", extent.rounds);
        look(scene, &jobs)?;
        for (round, seen) in seen.iter_mut().enumerate() {
            seen.push(look(scene, &jobs)?);
            progress.round(round);
        }
    }
    let each = before.saturating_sub(available()?) as f64 / 1024.0;
    let count: f64 = labels.last().map_or(Ok(1.0), |label| label.parse())?;
    tell(report, "connectors", &labels, &seen);
    let mut table = Table::new(
        "Growth: what the kernel holds for a connector",
        "MiB",
        &["each"],
    );
    let each = (count > 1.0).then(|| each / (count - 1.0));
    table.row("maps, programs, cgroups", vec![Cell::plain(each)]);
    table.note("Free memory of the host before and after: on one that does nothing else.");
    report.tables.push(table);
    Ok(())
}

fn jobs(extent: &Extent) -> Vec<Job> {
    let (packets, connects) = (extent.scale(10_000), extent.scale(1000));
    let stream = |to| Job::Stream {
        to,
        count: packets,
        size: 64,
        name: None,
    };
    let connect = |to| Job::Connect {
        to,
        count: connects,
    };
    vec![
        stream(at(NAMED, SINK)),
        stream(at(NAMED6, SINK)),
        connect(at(NAMED, CLOSE)),
        connect(at(RANGED, CLOSE)),
    ]
}

fn look(scene: &mut Scene, jobs: &[Job]) -> Result<Seen> {
    let mut each: Vec<BTreeMap<&str, f64>> = Vec::new();
    for job in jobs {
        each.push(one(scene, AGENT, job)?);
    }
    let mut seen = Seen::default();
    for (place, (about, job, hook)) in LINES.iter().enumerate() {
        let value = each[*job].get(hook).copied();
        seen[place] = value.with_context(|| format!("{about} did not run"))?;
    }
    Ok(seen)
}

/// A table of nanoseconds, and a bar for each line: the largest against the smallest size.
fn tell(report: &mut Report, what: &str, labels: &[String], seen: &[Vec<Seen>]) {
    let last = labels.len() - 1;
    let mut columns: Vec<&str> = labels.iter().map(String::as_str).collect();
    columns.push("last of first");
    let title = format!("Growth: 1 to {} {what}", labels[last]);
    let mut table = Table::new(&title, "ns per run", &columns).drawn(Figure::Growth);
    for (place, (about, ..)) in LINES.iter().enumerate() {
        let column = |size: usize| Spread::of(seen.iter().map(|round| round[size][place]));
        let mut cells: Vec<Cell> = (0..=last).map(|size| Cell::of(column(size))).collect();
        let ratios = seen
            .iter()
            .map(|round| round[last][place] / round[0][place]);
        let ratio = Spread::of(ratios);
        cells.push(Cell::ratio(ratio));
        table.row(about, cells);
        if let Some(ratio) = ratio {
            let about = format!("{about}: flat to {} {what}", labels[last]);
            report
                .bars
                .push(Bar::at_most(about, ratio.median, FLAT, "x"));
        }
    }
    report.tables.push(table);
}
