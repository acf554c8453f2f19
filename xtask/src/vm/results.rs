//! What machines reported, kept by kernel, so that a long matrix can be measured in parts and
//! the document is written from what was seen.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::verdict::Report;

/// One file a kernel, in the form in which `vm-init` reports.
fn folder() -> PathBuf {
    super::task::folder().join("results")
}

/// Adds a report to what is known of its kernel: a case that was tried again counts anew.
pub(crate) fn keep(report: &Report) -> Result<()> {
    if report.kernel.is_empty() {
        return Ok(());
    }
    let file = folder().join(format!("{}.log", report.kernel));
    let mut known =
        fs::read_to_string(&file).map_or_else(|_| Report::default(), |text| read(&text));
    known.take(report);
    fs::create_dir_all(folder())?;
    fs::write(&file, known.to_string()).with_context(|| file.display().to_string())
}

/// Everything that is known, by the age of the kernels.
pub(crate) fn all() -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for entry in fs::read_dir(folder()).into_iter().flatten().flatten() {
        reports.push(read(&fs::read_to_string(entry.path())?));
    }
    reports.sort_by_key(Report::age);
    Ok(reports)
}

fn read(text: &str) -> Report {
    let mut report = Report::default();
    for line in text.lines() {
        report.line(line);
    }
    report
}
