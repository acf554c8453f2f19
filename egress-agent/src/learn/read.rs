//! Reads events of a connector: named files, or those of this host's instances.

use std::{io::BufRead as _, ops::ControlFlow, path::Path};

use anyhow::Context as _;
use jiff::Timestamp;

use super::observed::Observed;
use crate::event::{Record, sink::folder::EVENTS, tail::Tail};

/// Bytes of a line at most.
const MAX_LINE: usize = 1 << 20;

/// What was read, besides what was observed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Read {
    /// What was observed.
    pub observed: Observed,
    /// Lines that are none, or of another version.
    pub damaged: u64,
    /// Other connectors' names in it.
    pub others: std::collections::BTreeSet<String>,
}

impl Read {
    fn line(&mut self, line: &str, connector: Option<&str>, since: Option<Timestamp>) {
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            self.damaged += 1;
            return;
        };
        let Some(name) = record.body.connector() else {
            return;
        };
        if connector.is_some_and(|connector| connector != name) {
            if self.others.len() < 64 {
                self.others.insert(name.to_owned());
            }
            return;
        }
        if since.is_none_or(|since| record.time >= since) {
            self.observed.take(&record);
        }
    }
}

/// Reads files of JSON Lines in their order; none: the files of this host's instances.
pub fn read(
    files: &[impl AsRef<Path>],
    connector: Option<&str>,
    since: Option<Timestamp>,
) -> anyhow::Result<Read> {
    let mut read = Read::default();
    for file in files {
        let path = file.as_ref();
        let shown = || path.display().to_string();
        let file = std::fs::File::open(path).with_context(shown)?;
        let mut lines = std::io::BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut part = std::io::Read::take(&mut lines, MAX_LINE as u64);
            if part.read_until(b'\n', &mut line).with_context(shown)? == 0 {
                break;
            }
            match std::str::from_utf8(&line) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => read.line(text.trim_end(), connector, since),
                Err(_) => read.damaged += 1,
            }
        }
    }
    if files.is_empty() {
        let mut tail = Tail::new(Path::new(EVENTS));
        tail.read(|line| {
            read.line(&line.json, connector, since);
            ControlFlow::<()>::Continue(())
        })?;
    }
    read.observed.settle();
    Ok(read)
}
