//! What was named in this session, and by whom: the memory that provenance is judged by.
//!
//! A value in a request came from somewhere if the client named it in a call, if the operator wrote
//! it, or if the service itself answered with it. Sources have ranks: of a value with several, the
//! first in this order is told:
//!
//! 1. a call of this session, the latest that named it;
//! 2. the operator: the connector's environment and arguments;
//! 3. an answer of the service, which counts only where a table says so.
//!
//! A value is named only as a whole: an argument that says it and nothing else, or an argument that
//! is nothing but a list of such (mail addresses). A part of an argument names nothing, an address
//! in the middle of a text neither: the text of a mail quotes what strangers wrote.
//!
//! The session counts, not the call: servers send later, and with what earlier calls said. A call
//! that was withdrawn has still named its values.
//!
//! Memory is bounded. What is forgotten is not found, so it is refused, and [`Ledger::forgotten`]
//! says that there was more.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    judge::Origin,
    mcp::{Call, Id, MAX_OPEN},
    value::{Kind, canonical},
};

/// Values of calls in each of two generations.
const MAX_VALUES: usize = 8192;
/// Bytes of them in each.
const MAX_BYTES: usize = 512 << 10;
/// Values of the operator's.
const MAX_OPERATOR: usize = 4096;
/// Values that the service answered with, in each generation.
const MAX_ANSWERS: usize = 4096;
/// Bytes of one value of a call. The operator's may be longer: tokens are among them.
const MAX_VALUE: usize = 512;

/// A call, as it is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallRef {
    /// The tool that was called.
    pub tool: String,
    /// The request's id, where it had one.
    pub id: Option<Id>,
}

/// What was named in this session.
#[derive(Debug, Default)]
pub struct Ledger {
    calls: Generations<Named>,
    /// By canonical form, the kinds of values that it is, bit by bit.
    operator: HashMap<String, u8>,
    service: Generations<u8>,
    flight: VecDeque<Arc<CallRef>>,
    forgotten: u64,
}

#[derive(Clone, Debug)]
struct Named {
    kinds: u8,
    call: Arc<CallRef>,
    place: Arc<str>,
}

impl Ledger {
    /// Nothing was named yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a text of the operator's: the value of a variable of the connector's environment, or
    /// one of its arguments. Its parts apart by blanks, `,`, `;` and `=` count as well, since it
    /// has no other way to name several values.
    pub fn operator(&mut self, text: &str) {
        let parts = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '='));
        for part in std::iter::once(text).chain(parts) {
            for (form, kinds) in forms(part, usize::MAX) {
                if let Some(known) = self.operator.get_mut(&form) {
                    *known |= kinds;
                } else if self.operator.len() < MAX_OPERATOR {
                    self.operator.insert(form, kinds);
                } else {
                    self.forgotten = self.forgotten.saturating_add(1);
                }
            }
        }
    }

    /// Notes a call, before the connector knows of it.
    pub fn called(&mut self, call: Call) {
        let told = Arc::new(CallRef {
            tool: call.tool,
            id: call.id,
        });
        for leaf in call.named {
            let place: Arc<str> = leaf.place.into();
            for (form, kinds) in forms(&leaf.text, MAX_VALUE) {
                let known = self.calls.get(&form).map_or(0, |named| named.kinds);
                let named = Named {
                    kinds: kinds | known,
                    call: Arc::clone(&told),
                    place: Arc::clone(&place),
                };
                let forgotten = self.calls.insert(form, named, MAX_VALUES);
                self.forgotten = self.forgotten.saturating_add(forgotten);
            }
        }
        self.forgotten = self.forgotten.saturating_add(call.left_out as u64);
        if told.id.is_some() {
            if self.flight.len() == MAX_OPEN {
                self.flight.pop_front();
            }
            self.flight.push_back(told);
        }
    }

    /// Notes the end of a call. What it named stays named.
    pub fn ended(&mut self, id: &Id) {
        self.flight.retain(|call| call.id.as_ref() != Some(id));
    }

    /// Notes values that passed unread: a message that was too long, or is none.
    pub fn missed(&mut self) {
        self.forgotten = self.forgotten.saturating_add(1);
    }

    /// Notes a value of an answer of the service's.
    pub fn answered(&mut self, kind: Kind, canonical: &str) {
        let known = self.service.get(canonical).copied().unwrap_or_default();
        self.service
            .insert(canonical.to_owned(), known | kind.bit(), MAX_ANSWERS);
    }

    /// Where a value in its canonical form came from; `None`: from nowhere, or it was forgotten.
    pub fn find(&self, kind: Kind, canonical: &str) -> Option<Origin> {
        let named = self.calls.get(canonical);
        if let Some(named) = named.filter(|named| named.kinds & kind.bit() != 0) {
            return Some(Origin::Call {
                tool: named.call.tool.clone(),
                id: named.call.id.clone(),
                place: named.place.to_string(),
            });
        }
        if self.is_operators(kind, canonical) {
            return Some(Origin::Operator);
        }
        let answered = self.service.get(canonical);
        let answered = answered.filter(|kinds| **kinds & kind.bit() != 0);
        answered.map(|_| Origin::Service)
    }

    /// Whether a value is one of the operator's own, as what authenticates has to be.
    pub fn is_operators(&self, kind: Kind, canonical: &str) -> bool {
        let kinds = self.operator.get(canonical);
        kinds.is_some_and(|kinds| kinds & kind.bit() != 0)
    }

    /// The calls under way, the latest first.
    pub fn in_flight(&self) -> impl Iterator<Item = &CallRef> {
        self.flight.iter().rev().map(AsRef::as_ref)
    }

    /// How many values were named that are not known any more. Where it is not 0, a value that is
    /// not found may be one of them.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// Values by their canonical form, those that were named lately for sure: when there are many, a
/// new generation begins, and what was not named again in the one before is forgotten with the
/// next.
#[derive(Debug)]
struct Generations<T> {
    young: HashMap<String, T>,
    old: HashMap<String, T>,
    bytes: usize,
}

impl<T> Default for Generations<T> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            bytes: 0,
        }
    }
}

impl<T> Generations<T> {
    fn get(&self, form: &str) -> Option<&T> {
        self.young.get(form).or_else(|| self.old.get(form))
    }

    /// Answers how many values were forgotten for it.
    fn insert(&mut self, form: String, value: T, most: usize) -> u64 {
        self.old.remove(&form);
        if let Some(known) = self.young.get_mut(&form) {
            *known = value;
            return 0;
        }
        let bytes = form.len();
        let mut forgotten = 0;
        if self.young.len() >= most || self.bytes.saturating_add(bytes) > MAX_BYTES {
            forgotten = self.old.len() as u64;
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.young.insert(form, value);
        forgotten
    }
}

/// Everything that a text can be as a whole: canonical forms, each with its kinds.
fn forms(text: &str, most: usize) -> BTreeMap<String, u8> {
    let mut forms = BTreeMap::new();
    for kind in Kind::ALL {
        for form in canonical(kind, text) {
            if form.len() <= most {
                *forms.entry(form).or_default() |= kind.bit();
            }
        }
    }
    forms
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
