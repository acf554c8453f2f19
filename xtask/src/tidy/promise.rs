//! `docs/promises.md`: every promise is kept by a test or a benchmark that exists, or says
//! that it is pending.

use std::path::{Path, PathBuf};

use super::check::Fault;

/// The document that is checked.
pub(super) const FILE: &str = "docs/promises.md";

/// What a promise says that nothing keeps yet, with the reason behind it.
const PENDING: &str = "pending: ";

/// Checks the last cell of every row. `read` gives the text of a file of the checkout.
pub(super) fn check(
    text: &str,
    files: &[PathBuf],
    read: impl Fn(&Path) -> Option<String>,
    faults: &mut Vec<Fault>,
) {
    let file = Path::new(FILE);
    let mut rows = 0;
    for (cell, number) in last_cells(text) {
        rows += 1;
        let named: Vec<&str> = keepers(cell).collect();
        if named.is_empty() && !is_pending(cell) {
            let what = "names nothing that keeps the promise; write `file.rs::function`, or \
                        “pending: ” and why";
            faults.push(Fault::new(file, number, what));
        }
        for keeper in named {
            if let Err(what) = exists(keeper, files, &read) {
                faults.push(Fault::new(file, number, what));
            }
        }
    }
    if rows == 0 {
        faults.push(Fault::new(file, 0, "holds no promise"));
    }
}

/// The last cell of each row of a table, with its line. The row above a rule of hyphens is
/// the heading.
fn last_cells(text: &str) -> Vec<(&str, usize)> {
    let is_rule = |line: &str| line.starts_with("|-");
    let lines: Vec<&str> = text.lines().collect();
    let rows = lines.iter().zip(1..).filter(|(line, number)| {
        let next = lines.get(*number).copied().unwrap_or_default();
        line.starts_with('|') && !is_rule(line) && !is_rule(next)
    });
    rows.map(|(line, number)| {
        let inner = line.trim_end().trim_end_matches('|');
        (inner.rsplit('|').next().unwrap_or_default().trim(), number)
    })
    .collect()
}

/// Code spans that name a function of a file.
fn keepers(cell: &str) -> impl Iterator<Item = &str> {
    let spans = cell.split('`').skip(1).step_by(2);
    spans.filter(|span| span.contains(".rs::"))
}

fn is_pending(cell: &str) -> bool {
    cell.strip_prefix(PENDING)
        .is_some_and(|why| why.trim().len() >= 10)
}

/// Whether a function is a test, or measures against a bar.
fn exists(
    keeper: &str,
    files: &[PathBuf],
    read: &impl Fn(&Path) -> Option<String>,
) -> Result<(), String> {
    let (path, function) = keeper
        .split_once("::")
        .ok_or_else(|| format!("{keeper} is no function of a file"))?;
    let own: Vec<&PathBuf> = files.iter().filter(|file| file.ends_with(path)).collect();
    if own.is_empty() {
        return Err(format!("names {path}, which does not exist"));
    }
    let keeps = own
        .iter()
        .filter_map(|file| read(file))
        .any(|source| is_test(&source, function) || is_measured(&source, function));
    if keeps {
        return Ok(());
    }
    Err(format!(
        "{path} has no test {function}, nor a measurement of that name with a bar"
    ))
}

fn is_test(source: &str, function: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let attribute = |line: &&&str| line.starts_with("#[") || line.starts_with("///");
    lines.iter().enumerate().any(|(index, line)| {
        let above = lines.get(..index).unwrap_or_default().iter().rev();
        declares(line, function)
            && above
                .take_while(attribute)
                .any(|line| line.starts_with("#[test") || line.starts_with("#[tokio::test"))
    })
}

fn is_measured(source: &str, function: &str) -> bool {
    let declared = source
        .lines()
        .any(|line| declares(line.trim_start(), function));
    declared && source.contains("Bar::at_most(")
}

fn declares(line: &str, function: &str) -> bool {
    line.split_once("fn ").is_some_and(|(before, after)| {
        let plain = before
            .split_whitespace()
            .all(|word| word.starts_with("pub") || word == "async");
        plain
            && after
                .strip_prefix(function)
                .is_some_and(|rest| rest.starts_with(['(', '<']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#[test]\n/// Why.\nfn kept() {}\nfn helper() {}\n\
        #[tokio::test(flavor = \"current_thread\")]\nasync fn waits() {}\n";

    fn faults(rows: &str) -> Vec<String> {
        let files = ["tests/tests/a.rs", "tests/src/bench/b.rs"].map(PathBuf::from);
        let read = |path: &Path| {
            Some(match path.ends_with("a.rs") {
                true => SOURCE.to_owned(),
                false => "pub(super) fn measure(x: u8) { Bar::at_most(x) }".to_owned(),
            })
        };
        let text = format!("# Promises\n\n| promise | kept by |\n|---|---|\n{rows}\n");
        let mut faults = Vec::new();
        check(&text, &files, read, &mut faults);
        faults.into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn what_exists_keeps_a_promise() {
        let good = "| a | `tests/a.rs::kept`, `a.rs::waits` |\n| b | `bench/b.rs::measure` |\n\
                    | c | pending: no kernel for it here |";
        assert_eq!(faults(good), [""; 0]);
    }

    #[test]
    fn what_does_not_exist_is_a_fault() {
        for row in [
            "| a | `a.rs::gone` |",
            "| a | `a.rs::kep` |",
            "| a | `a.rs::helper` |",
            "| a | `c.rs::kept` |",
            "| a | `b.rs::kept` |",
            "| a | nobody |",
            "| a | pending: |",
            "| a | `a.rs` |",
        ] {
            assert_eq!(faults(row).len(), 1, "{row}");
        }
        assert_eq!(faults("").len(), 1);
    }
}
