//! What requests are made of, without what they say: keys, names of header fields and of the query,
//! paths; and what was new in one.
//!
//! The first requests of an operation are taken for what it is. What a later one has besides is new,
//! and stays new until somebody accepts it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{document::Document, head::Head, query, service::Template};

/// Requests of an operation from which everything is taken.
pub const LEARNED_FROM: u64 = 20;
/// Operations of a connector.
const MAX_OPERATIONS: usize = 256;
/// Things of an operation, known and new.
const MAX_THINGS: usize = 1_024;
/// Things of one request.
const MAX_OF_REQUEST: usize = 2_048;
/// Bytes of one; longer names are cut.
const MAX_LENGTH: usize = 160;
/// What stands for a segment or key that is somebody's id.
const ID: &str = "{}";

/// Whether the shape of requests is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// It is not.
    #[default]
    Off,
    /// What is new is told, and kept.
    Report,
    /// What is new is refused, and nothing is learned.
    Enforce,
}

/// One request's shape: the operation, and what it is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Things {
    /// By which it is kept.
    pub operation: String,
    /// `/Bcc`, `header x-name`, `query name`, `path GET /a/{}`.
    pub things: BTreeSet<String>,
    /// There were more than are looked at.
    pub more: bool,
}

/// What was new in a request that passed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Noted {
    /// The operation, as it is kept.
    pub operation: String,
    /// What of it was not known.
    pub new: Vec<String>,
    /// In how many requests before.
    pub before: u64,
    /// The version that showed it.
    pub version: String,
    /// The operation is still learned, so that it is nothing to be told.
    pub learned: bool,
}

/// What a connector's operations have shown.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Baseline {
    /// By operation.
    pub operations: BTreeMap<String, Shown>,
}

/// What one operation has shown.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Shown {
    /// In how many requests.
    pub requests: u64,
    /// What belongs to it, each with the version that showed it first.
    pub known: BTreeMap<String, String>,
    /// What came later.
    pub new: BTreeMap<String, New>,
}

/// Something that came later.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct New {
    /// The version that showed it first.
    pub version: String,
    /// How many requests there were before it.
    pub before: u64,
    /// In how many it was.
    pub requests: u64,
}

impl Baseline {
    /// What of a request its operation has not, and how many requests never had it. Nothing while
    /// the operation is learned.
    pub fn new_of(&self, request: &Things) -> (Vec<String>, u64) {
        let shown = self.operations.get(&request.operation);
        let requests = shown.map_or(0, |shown| shown.requests);
        let known = |thing: &&String| shown.is_some_and(|it| it.known.contains_key(*thing));
        let mut new: Vec<String> = request
            .things
            .iter()
            .filter(|it| !known(it))
            .cloned()
            .collect();
        if request.more {
            new.push("more than is looked at".to_owned());
        }
        (new, requests)
    }

    /// Whether an operation is still learned.
    pub fn learns(&self, operation: &str) -> bool {
        let shown = self.operations.get(operation);
        shown.is_none_or(|shown| shown.requests < LEARNED_FROM)
    }

    /// Notes a request by what was new in it. What has no room stays new.
    pub fn note(&mut self, operation: &str, new: &[String], version: &str) {
        let learns = self.learns(operation);
        if !self.operations.contains_key(operation) && self.operations.len() >= MAX_OPERATIONS {
            return;
        }
        let shown = self.operations.entry(operation.to_owned()).or_default();
        for thing in new {
            let room = shown.known.len().saturating_add(shown.new.len()) < MAX_THINGS;
            if learns && room {
                shown.known.insert(thing.clone(), version.to_owned());
            } else if let Some(known) = shown.new.get_mut(thing) {
                known.requests = known.requests.saturating_add(1);
            } else if room {
                let new = New {
                    version: version.to_owned(),
                    before: shown.requests,
                    requests: 1,
                };
                shown.new.insert(thing.clone(), new);
            }
        }
        shown.requests = shown.requests.saturating_add(1);
    }

    /// Takes what is new for known. Answers how much it was.
    pub fn accept(&mut self, operation: Option<&str>) -> usize {
        let mut count = 0_usize;
        for (name, shown) in &mut self.operations {
            if operation.is_none_or(|own| own == name) {
                count = count.saturating_add(shown.new.len());
                let new = std::mem::take(&mut shown.new).into_iter();
                shown
                    .known
                    .extend(new.map(|(thing, new)| (thing, new.version)));
            }
        }
        count
    }

    /// Forgets an operation, or all. Answers how many.
    pub fn forget(&mut self, operation: Option<&str>) -> usize {
        let before = self.operations.len();
        self.operations
            .retain(|name, _| operation.is_some_and(|own| own != name));
        before.saturating_sub(self.operations.len())
    }
}

/// A sentence about something new.
pub fn sentence(thing: &str, operation: &str, requests: u64, version: &str) -> String {
    let version = match version {
        UNVERSIONED => String::new(),
        version => format!(" in {version}"),
    };
    format!("{thing} is new{version}: {requests} requests of operation {operation} never had it")
}

/// The version of a package that is not known.
pub const UNVERSIONED: &str = "unversioned";

impl Things {
    /// The head's part. `operation`: `None`, the table has none.
    pub(crate) fn of_head(head: &Head, operation: Option<&str>) -> Self {
        let mut own = Self {
            operation: operation.unwrap_or("unlisted").to_owned(),
            ..Self::default()
        };
        if operation.is_none() {
            own.add(format!("path {} {}", head.method, folded(&head.path)));
        }
        for (name, _) in &head.fields {
            own.add(format!("header {name}"));
        }
        for (name, _) in query::pairs(head) {
            own.add(format!("query {}", key(&name)));
        }
        own
    }

    /// The body's part.
    pub(crate) fn add_body(&mut self, document: &Document) {
        document.keys(&mut |path| {
            let path: Vec<String> = path.iter().map(|it| key(it)).collect();
            self.add(format!("/{}", path.join("/")));
        });
    }

    fn add(&mut self, mut thing: String) {
        while thing.len() > MAX_LENGTH {
            thing.pop();
        }
        if self.things.len() < MAX_OF_REQUEST {
            self.things.insert(thing);
        } else if !self.things.contains(&thing) {
            self.more = true;
        }
    }
}

/// A path without what is somebody's id.
fn folded(path: &str) -> String {
    let segments: Vec<String> = path.split('/').map(key).collect();
    let folded = segments.join("/");
    // What is no plain path has no name of its own.
    match Template::parse(&folded.replace(ID, "{id}")) {
        Ok(_) => folded,
        Err(_) => "(another)".to_owned(),
    }
}

/// A key, or what stands for all that are ids: digits alone, or letters and digits that are many.
fn key(name: &str) -> String {
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@:".contains(&byte));
    let all = !name.is_empty() && digits == name.len();
    let id = all || name.contains('@') || (name.len() >= 8 && digits >= 3 && plain);
    if id {
        return ID.to_owned();
    }
    let shown = |c: char| if c.is_control() { '?' } else { c };
    name.chars().map(shown).collect()
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
