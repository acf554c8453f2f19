//! What is wrong with a policy, where, and what to write instead.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// One fault. Its text form is `file:line:column: message; help`, on one line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Fault {
    /// The file, as it was named by the caller.
    pub file: PathBuf,
    /// Line, from 1; 1 where the fault concerns the whole file.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Fault {
    /// A fault of a whole file.
    pub fn of_file(file: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 1,
            column: 1,
            message: message.into(),
            help: help.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = quiet(&self.file.to_string_lossy());
        let Self { line, column, .. } = self;
        write!(f, "{file}:{line}:{column}: {}; {}", self.message, self.help)
    }
}

/// All faults that were found together; never empty. Its text form has one line per fault.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The faults as an error, in the order of their places; `Ok` where there is none.
    pub fn check(mut faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        Err(Self(faults))
    }

    /// The faults.
    pub fn as_slice(&self) -> &[Fault] {
        &self.0
    }

    /// The faults, by value.
    pub fn into_vec(self) -> Vec<Fault> {
        self.0
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// One step from a value of a file to a value inside it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// The value of a key.
    Key(String),
    /// An entry of a list, from 0.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The way from the top of a file to a value.
pub type Steps = Vec<Step>;

/// Which part of the value at a path a finding is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spot {
    /// The value.
    Value,
    /// The key in front of it; the number counts repeats of the key, from 0.
    Key(usize),
}

/// A fault before its place in the file is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Where, as a path of keys and indices.
    pub path: Steps,
    /// Which part of what is there.
    pub spot: Spot,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// What is wrong with a text that stands by itself, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Complaint {
    /// A complaint.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

/// Collects findings while a file's values are walked.
#[derive(Default, Debug)]
pub struct Findings {
    path: Steps,
    list: Vec<Finding>,
}

impl Findings {
    /// Runs `visit` one step further down.
    pub fn within<T>(&mut self, step: impl Into<Step>, visit: impl FnOnce(&mut Self) -> T) -> T {
        self.enter(step.into());
        let result = visit(self);
        self.leave();
        result
    }

    /// Goes one step further down, until [`Self::leave`].
    pub fn enter(&mut self, step: Step) {
        self.path.push(step);
    }

    /// Goes back up.
    pub fn leave(&mut self) {
        self.path.pop();
    }

    /// Notes a fault of the value at hand.
    pub fn note(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.push(self.path.clone(), Spot::Value, message.into(), help.into());
    }

    /// Notes a complaint about the value at hand.
    pub fn complain(&mut self, complaint: Complaint) {
        self.note(complaint.message, complaint.help);
    }

    /// Notes a fault of a key of the value at hand.
    pub fn note_key(
        &mut self,
        key: &str,
        repeat: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let mut path = self.path.clone();
        path.push(key.into());
        self.push(path, Spot::Key(repeat), message.into(), help.into());
    }

    /// The path of the value at hand.
    pub fn path(&self) -> &[Step] {
        &self.path
    }

    /// Notes a fault of a value elsewhere.
    pub fn note_at(&mut self, path: Steps, message: impl Into<String>, help: impl Into<String>) {
        self.push(path, Spot::Value, message.into(), help.into());
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What was found.
    pub fn into_vec(self) -> Vec<Finding> {
        self.list
    }

    fn push(&mut self, path: Steps, spot: Spot, message: String, help: String) {
        self.list.push(Finding {
            path,
            spot,
            message,
            help,
        });
    }
}

/// A user's text for a message: quoted, control characters escaped, at most 60 characters.
pub fn quote(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("“{}”", quiet(&short))
}

/// A text without control characters, so that it cannot move the cursor or forge a line.
pub fn quiet(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let plain = !c.is_control() && !is_reordering(c);
            let escaped = (!plain).then(|| c.escape_default());
            escaped.into_iter().flatten().chain(plain.then_some(c))
        })
        .collect()
}

/// Characters that make a terminal show text in another order than it is in.
pub(super) fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
