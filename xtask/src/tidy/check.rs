//! Applies every rule to every file of the checkout and reports all faults at once.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{document, policy, promise, room, source, token::Source};
use crate::host;

/// What breaks a rule, and where.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Fault {
    /// Relative to the workspace.
    pub(super) file: PathBuf,
    /// From 1; 0 where it is the file as a whole.
    pub(super) line: usize,
    /// What is wrong, and what would be right.
    pub(super) what: String,
}

impl Fault {
    pub(super) fn new(file: &Path, line: usize, what: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line, what) = (self.file.display(), self.line, &self.what);
        match line {
            0 => write!(f, "{file}: {what}"),
            _ => write!(f, "{file}:{line}: {what}"),
        }
    }
}

/// Checks everything; the error counts the faults, which are printed.
pub(crate) fn run() -> Result<()> {
    let files = host::files()?;
    let mut faults = Vec::new();
    let mut notes = Vec::new();
    for file in &files {
        let path = host::workspace().join(file);
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        check(file, &text, &files, &mut faults, &mut notes)
            .with_context(|| file.display().to_string())?;
    }
    faults.sort();
    notes.sort();
    for note in &notes {
        println!("note: {note}");
    }
    for fault in &faults {
        println!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} places break the house rules", faults.len());
    }
    println!("tidy: {} files keep the house rules", files.len());
    Ok(())
}

/// Applies the rules that a file's name and place call for.
fn check(
    file: &Path,
    text: &str,
    files: &[PathBuf],
    faults: &mut Vec<Fault>,
    notes: &mut Vec<Fault>,
) -> Result<()> {
    document::words(file, text, faults);
    let extension = file.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("rs") => {
            let source = Source::read(text)?;
            source::check(file, text, &source, faults, notes);
            room::check(file, &source, faults);
        }
        Some("md") => {
            document::names(file, text, files, faults);
            if file == Path::new(promise::FILE) {
                let read = |path: &Path| fs::read_to_string(host::workspace().join(path)).ok();
                promise::check(text, files, read, faults);
            }
        }
        Some("yaml" | "yml") if file.starts_with("policies") => policy::check(file, text, faults),
        _ => {}
    }
    Ok(())
}
