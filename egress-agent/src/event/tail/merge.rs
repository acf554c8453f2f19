//! The lines of all instances, in the order of their time.

use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::source::{Faults, Line, Source};
use crate::event::sink::jsonl::{OLD_SUFFIX, SUFFIX};

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// No right to read.
    #[error("{0} may be read by root only; run this with sudo")]
    Permission(PathBuf),
    /// The system refused.
    #[error("cannot read {path}: {error}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// All instances of a folder.
#[derive(Debug)]
pub struct Tail {
    folder: PathBuf,
    sources: BTreeMap<String, Source>,
    faults: Faults,
}

impl Tail {
    /// Begins at the oldest line of every file. The folder need not be there yet.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            sources: BTreeMap::new(),
            faults: Faults::default(),
        }
    }

    /// Whether the folder is there.
    pub fn has_folder(&self) -> bool {
        self.folder.is_dir()
    }

    /// Hands on every line that is there and was not handed on yet, of all instances by
    /// time, until `each` breaks off. Lines of one instance stay in their order.
    pub fn read<B>(
        &mut self,
        mut each: impl FnMut(Line) -> ControlFlow<B>,
    ) -> Result<Option<B>, TailError> {
        self.refresh()?;
        loop {
            let mut earliest: Option<(jiff::Timestamp, &mut Source)> = None;
            for source in self.sources.values_mut() {
                let time = source.peek().map_err(|error| fail(&self.folder, error))?;
                if let Some(time) = time
                    && earliest.as_ref().is_none_or(|(best, _)| time < *best)
                {
                    earliest = Some((time, source));
                }
            }
            let Some(line) = earliest.and_then(|(_, source)| source.take()) else {
                break;
            };
            if let ControlFlow::Break(value) = each(line) {
                return Ok(Some(value));
            }
        }
        for source in self.sources.values_mut() {
            let faults = source.take_faults();
            self.faults.damaged += faults.damaged;
            self.faults.overtaken += faults.overtaken;
        }
        self.sources.retain(|_, source| !source.is_over());
        Ok(None)
    }

    /// What went wrong since this was last asked.
    pub fn take_faults(&mut self) -> Faults {
        std::mem::take(&mut self.faults)
    }

    fn refresh(&mut self) -> Result<(), TailError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(fail(&self.folder, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| fail(&self.folder, error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let base = name
                .strip_suffix(OLD_SUFFIX)
                .or_else(|| name.strip_suffix(SUFFIX));
            if let Some(base) = base
                && !self.sources.contains_key(base)
            {
                let source = Source::new(&self.folder, base);
                self.sources.insert(base.to_owned(), source);
            }
        }
        for (base, source) in &mut self.sources {
            source
                .refresh()
                .map_err(|error| fail(&self.folder.join(format!("{base}{SUFFIX}")), error))?;
        }
        Ok(())
    }
}

fn fail(path: &Path, error: io::Error) -> TailError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return TailError::Permission(path.to_owned());
    }
    TailError::Io {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
