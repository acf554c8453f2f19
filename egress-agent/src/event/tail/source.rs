//! The lines of one instance, across its rotated files.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Deserialize;

use super::reader::{FileId, Reader};
use crate::event::{
    codes,
    sink::jsonl::{OLD_SUFFIX, SUFFIX},
};

/// A line, read as far as it is needed to sort and choose it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// When it happened.
    pub time: Timestamp,
    /// Name of the connector.
    pub connector: Option<String>,
    /// The kind, also one that this version does not know.
    pub kind: String,
    /// The whole line without its line end.
    pub json: String,
}

#[derive(Deserialize)]
struct Head {
    #[serde(with = "codes::time")]
    time: Timestamp,
    #[serde(default)]
    connector: Option<String>,
    kind: String,
}

impl Line {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let json = String::from_utf8(bytes).ok()?;
        let head: Head = serde_json::from_str(&json).ok()?;
        Some(Self {
            time: head.time,
            connector: head.connector,
            kind: head.kind,
            json,
        })
    }
}

/// What went wrong without ending anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Lines that cannot be read.
    pub damaged: u64,
    /// Times a file was rotated more than once between two looks.
    pub overtaken: u64,
}

/// One instance's lines.
#[derive(Debug)]
pub struct Source {
    current: PathBuf,
    old: PathBuf,
    /// Files to read, oldest first; the last one is read on as it grows.
    readers: VecDeque<Reader>,
    head: Option<Line>,
    /// Of this and the reader before it.
    faults: Faults,
    gone: bool,
}

impl Source {
    /// The instance whose files in `folder` begin with `base`.
    pub fn new(folder: &Path, base: &str) -> Self {
        Self {
            current: folder.join(format!("{base}{SUFFIX}")),
            old: folder.join(format!("{base}{OLD_SUFFIX}")),
            readers: VecDeque::new(),
            head: None,
            faults: Faults::default(),
            gone: false,
        }
    }

    /// Looks whether the file was rotated, and takes new ones up.
    pub fn refresh(&mut self) -> io::Result<()> {
        // The newer one first: rotated in between, it is met again as the older one.
        let current = Reader::open(&self.current)?;
        let old = Reader::open(&self.old)?;
        let known: Vec<FileId> = self.readers.iter().map(Reader::id).collect();
        let is_new = |reader: &Reader| !known.contains(&reader.id());
        self.gone = current.is_none() && old.is_none();
        let begins = known.is_empty();
        let Some(current) = current else {
            // Between the two steps of a rotation, or left so by a crash.
            if begins {
                self.readers.extend(old);
            }
            return Ok(());
        };
        if !is_new(&current) {
            return Ok(());
        }
        if let Some(old) = old.filter(|old| is_new(old) && old.id() != current.id()) {
            self.faults.overtaken += u64::from(!begins);
            self.readers.push_back(old);
        }
        self.readers.push_back(current);
        Ok(())
    }

    /// The time of the next line, if one is there.
    pub fn peek(&mut self) -> io::Result<Option<Timestamp>> {
        if self.head.is_none() {
            self.head = self.read()?;
        }
        Ok(self.head.as_ref().map(|line| line.time))
    }

    /// The next line that [`Source::peek`] saw.
    pub fn take(&mut self) -> Option<Line> {
        self.head.take()
    }

    /// Whether everything was read and the files are removed.
    pub fn is_over(&self) -> bool {
        self.gone && self.head.is_none()
    }

    /// What went wrong since this was last asked.
    pub fn take_faults(&mut self) -> Faults {
        std::mem::take(&mut self.faults)
    }

    fn read(&mut self) -> io::Result<Option<Line>> {
        while let Some(reader) = self.readers.front_mut() {
            while let Some(bytes) = reader.next_line()? {
                match Line::parse(bytes) {
                    Some(line) => return Ok(Some(line)),
                    None => self.faults.damaged += 1,
                }
            }
            self.faults.damaged += reader.take_passed();
            if self.readers.len() == 1 {
                break;
            }
            // A rotated file grows no more.
            self.readers.pop_front();
        }
        Ok(None)
    }
}
