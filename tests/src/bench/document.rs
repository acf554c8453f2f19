//! The report as the tables of `docs/benchmarks.md`.

use super::report::{Figure, Report, Table};

/// Everything but what another table sums up, then the bars.
pub(super) fn tables(report: &Report) -> String {
    let load = report.load_before.split(' ').next().unwrap_or_default();
    let mut text = format!(
        "Linux {}, {} processors, load {load} before; {} rounds. Medians, quartiles in brackets.\n",
        report.kernel, report.processors, report.rounds
    );
    let told = report.tables.iter();
    for table in told.filter(|table| table.figure != Figure::Detail) {
        text += &one(table);
    }
    text += "\n### Bars\n\n| bar | measured | at most | held |\n|---|---|---|---|\n";
    for bar in &report.bars {
        text += &row(&bar.cells());
    }
    text
}

fn one(table: &Table) -> String {
    let mut text = format!("\n### {}\n\n", table.heading());
    let mut head = vec![String::new()];
    head.extend(table.columns.iter().cloned());
    text += &row(&head);
    text += &format!("{}|\n", "|---".repeat(head.len()));
    for line in &table.rows {
        let mut cells = vec![line.about.clone()];
        cells.extend(
            line.cells
                .iter()
                .map(|cell| cell.text().replace(" - ", "–")),
        );
        text += &row(&cells);
    }
    if !table.notes().is_empty() {
        text += &format!("\n{}\n", table.notes().join(" "));
    }
    text
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Cell;

    #[test]
    fn a_table_has_as_many_cells_as_columns() {
        let mut table = Table::new("about", "ms", &["one", "two"]);
        table.row("a", vec![Cell::plain(Some(1.0)), Cell::Word("not offered")]);
        let text = one(&table);
        assert!(text.contains("### about, ms\n"), "{text}");
        assert!(
            text.contains("|---|---|---|\n| a | 1 | not offered |\n"),
            "{text}"
        );
    }
}
