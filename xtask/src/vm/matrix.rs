//! Several kernels' reports side by side, as the tables of `docs/kernels.md`.

use std::collections::BTreeSet;

use super::{cases::Case, verdict::Report};

/// One row a case, then one a way out that is not blocked on every kernel.
pub(crate) fn tables(reports: &[Report], cases: &[Case]) -> String {
    let releases = reports.iter().map(|report| report.kernel.clone());
    let lsm = reports.iter().map(|report| report.lsm.replace(',', ", "));
    let mut rows = vec![
        row("", releases),
        row("---", reports.iter().map(|_| "---".to_owned())),
        row("security modules", lsm),
    ];
    for case in cases {
        let cells = reports.iter().map(|report| {
            let found = report.cases.iter().find(|one| one.name == case.name);
            found.map_or("not tried".to_owned(), |one| one.verdict.to_lowercase())
        });
        rows.push(row(&format!("`{}`", case.name), cells));
    }
    let vectors: Vec<_> = reports.iter().map(Report::vectors).collect();
    let all: BTreeSet<&String> = vectors.iter().flat_map(|one| one.keys()).collect();
    rows.push(format!(
        "\n{} ways out were tried; those that are not blocked everywhere:\n",
        all.len()
    ));
    for name in all {
        let cells: Vec<&str> = vectors
            .iter()
            .map(|one| one.get(name).copied().unwrap_or("not tried"))
            .collect();
        if cells.iter().any(|cell| *cell != "BLOCKED") {
            rows.push(row(
                &format!("`{name}`"),
                cells.iter().map(|cell| cell.to_lowercase()),
            ));
        }
    }
    rows.join("\n")
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.collect();
    format!("| {name} | {} |", cells.join(" | "))
}
