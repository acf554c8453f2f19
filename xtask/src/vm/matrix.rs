//! Several kernels' reports side by side, as the tables of `docs/kernels.md`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{results, verdict::Report};
use crate::report::Part;

/// Where the tables stand.
const TABLES: Part = Part {
    document: "docs/kernels.md",
    begin: "<!-- measured: `cargo xtask vm --write` writes this part -->\n",
    end: "<!-- end of what was measured -->",
};

/// Puts everything that was measured into the document.
pub(crate) fn write() -> Result<()> {
    TABLES.write(&tables(&results::all()?))
}

/// One row a test program, then what the ways out came to, then those that differ.
pub(crate) fn tables(reports: &[Report]) -> String {
    let mut rows = heading("test", reports);
    rows.push(row("security modules", reports, |report| {
        report.lsm.replace(',', ", ")
    }));
    let programs: BTreeSet<&str> = reports.iter().flat_map(programs).collect();
    for program in programs {
        rows.push(row(&format!("`{program}`"), reports, |report| {
            held(report, program)
        }));
    }
    let faults: Vec<String> = reports.iter().flat_map(faults).collect();
    if !faults.is_empty() {
        rows.push(format!("\nDid not hold: {}.", faults.join("; ")));
    }
    rows.push("\nWays out, each tried by an ordinary user and by root:\n".to_owned());
    rows.extend(ways_out(reports));
    rows.join("\n") + "\n"
}

fn heading(first: &str, reports: &[Report]) -> Vec<String> {
    vec![
        row(first, reports, |report| {
            let (major, minor) = report.age();
            format!("{major}.{minor}")
        }),
        row("---", reports, |_| "---".to_owned()),
    ]
}

fn programs(report: &Report) -> impl Iterator<Item = &str> {
    let names = report.cases.iter();
    names.filter_map(|case| Some(case.name.split_once('/')?.0))
}

/// A dash: what the kernel is too old for.
fn held(report: &Report, program: &str) -> String {
    let of_it = report.cases.iter().filter(|case| {
        let name = case.name.split_once('/');
        name.is_some_and(|(name, _)| name == program)
    });
    let (absent, cases): (Vec<_>, Vec<_>) = of_it.partition(|case| case.is_absent());
    let held = cases.iter().filter(|case| case.held()).count();
    let words = match (held, cases.len()) {
        (_, 0) if absent.is_empty() => "not run".to_owned(),
        (_, 0) => return "–".to_owned(),
        (held, all) if held == all => format!("held ({all})"),
        (held, all) => format!("{held} of {all} held"),
    };
    match absent.len() {
        0 => words,
        some => format!("{words}, {some} –"),
    }
}

fn faults(report: &Report) -> impl Iterator<Item = String> {
    let (major, minor) = report.age();
    let wrong = report.cases.iter().filter(|case| !case.held());
    wrong.map(move |case| {
        let verdict = case.verdict.to_lowercase();
        format!("`{}` on {major}.{minor} ({verdict})", case.name)
    })
}

fn ways_out(reports: &[Report]) -> Vec<String> {
    let vectors: Vec<_> = reports.iter().map(Report::vectors).collect();
    let mut rows = heading("", reports);
    for verdict in [
        "BLOCKED",
        "OPEN LIMIT",
        "NOT APPLICABLE",
        "UNPROVEN",
        "DELIVERED",
    ] {
        let counts: Vec<usize> = vectors
            .iter()
            .map(|one| one.values().filter(|found| **found == verdict).count())
            .collect();
        if counts.iter().any(|count| *count > 0) {
            let cells: Vec<String> = counts.iter().map(usize::to_string).collect();
            let name = verdict.to_lowercase();
            rows.push(format!("| {name} | {} |", cells.join(" | ")));
        }
    }
    rows.push(
        "\nThose that differ (a dash: the kernel, or its build, has no such way):\n".to_owned(),
    );
    rows.extend(heading("ways out", reports));
    let names: BTreeSet<&String> = vectors.iter().flat_map(|one| one.keys()).collect();
    let mut alike: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for name in names {
        let cells: Vec<&str> = vectors
            .iter()
            .map(|one| match one.get(name).copied() {
                None => "not run",
                Some("NOT APPLICABLE") => "–",
                Some(verdict) => verdict,
            })
            .collect();
        if cells.iter().any(|cell| Some(cell) != cells.first()) {
            alike.entry(cells).or_default().push(name);
        }
    }
    for (cells, names) in alike {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let cells = cells.join(" | ").to_lowercase();
        rows.push(format!("| {} | {cells} |", names.join(", ")));
    }
    rows
}

fn row(name: &str, reports: &[Report], cell: impl Fn(&Report) -> String) -> String {
    let cells: Vec<String> = reports.iter().map(cell).collect();
    format!("| {name} | {} |", cells.join(" | "))
}
