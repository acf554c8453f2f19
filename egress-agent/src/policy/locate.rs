//! Where the values of a text stand. Decides nothing: it only turns paths into places.
//!
//! serde_yaml forgets where a value came from, so a second parser that keeps positions
//! (saphyr-parser) walks the same text. It runs only where serde_yaml has found the text to
//! be YAML and something is wrong with it. Where the two disagree, the place is that of the
//! nearest value around it, at last the start of the file.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, Span};

use super::fault::{Spot, Step, Steps};

/// Events to walk at most; more than the values a file may hold, with its structure.
const MAX_EVENTS: usize = 100_000;
/// Nesting to follow at most.
const MAX_DEPTH: usize = 32;

/// A place in a text, from 1; columns count characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// The places of a text's keys and values.
#[derive(Default, Debug)]
pub struct Places {
    values: HashMap<Steps, Place>,
    keys: HashMap<Steps, Vec<Place>>,
}

impl Places {
    /// Walks a text. What cannot be walked stays without a place.
    pub fn of(text: &str) -> Self {
        let mut walk = Walk::default();
        let mut parser = Parser::new_from_str(text);
        for _ in 0..MAX_EVENTS {
            match parser.next_event() {
                Some(Ok((Event::StreamEnd | Event::DocumentEnd, _))) | Some(Err(_)) | None => break,
                Some(Ok((event, span))) => {
                    if walk.step(&event, span).is_none() {
                        break;
                    }
                }
            }
        }
        walk.places
    }

    /// The place of a value or key, or of the nearest value around it.
    pub fn find(&self, path: &[Step], spot: Spot) -> Place {
        if let Spot::Key(repeat) = spot
            && let Some(places) = self.keys.get(path)
            && let Some(&place) = places.get(repeat).or(places.last())
        {
            return place;
        }
        let mut path = path;
        loop {
            if let Some(&place) = self.values.get(path) {
                return place;
            }
            match path.split_last() {
                Some((_, rest)) => path = rest,
                None => return Place { line: 1, column: 1 },
            }
        }
    }
}

/// A collection that is being walked.
#[derive(Debug)]
enum Open {
    List {
        next: usize,
    },
    /// `key` is the one whose value comes next.
    Map {
        key: Option<String>,
    },
    /// A collection used as a key: serde_yaml's side refuses it; here it only has to end.
    Skipped,
}

#[derive(Default)]
struct Walk {
    places: Places,
    path: Steps,
    open: Vec<Open>,
}

impl Walk {
    /// Takes an event in; `None` ends the walk.
    fn step(&mut self, event: &Event<'_>, span: Span) -> Option<()> {
        let place = Place {
            line: span.start.line().max(1),
            column: span.start.col() + 1,
        };
        match event {
            Event::Scalar(text, ..) => self.scalar(text, place),
            Event::Alias(_) => self.scalar("", place),
            Event::SequenceStart(..) => self.begin(Open::List { next: 0 }, place)?,
            Event::MappingStart(..) => self.begin(Open::Map { key: None }, place)?,
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Some(())
    }

    fn scalar(&mut self, text: &str, place: Place) {
        match self.open.last_mut() {
            Some(Open::Map { key: key @ None }) => {
                *key = Some(text.to_owned());
                self.path.push(text.into());
                let path = self.path.clone();
                self.places.keys.entry(path).or_default().push(place);
                self.path.pop();
            }
            Some(Open::Skipped) => {}
            _ => {
                self.descend();
                self.value(place);
                self.ascend();
            }
        }
    }

    fn begin(&mut self, open: Open, place: Place) -> Option<()> {
        if self.open.len() >= MAX_DEPTH {
            return None;
        }
        match self.open.last() {
            Some(Open::Map { key: None } | Open::Skipped) => self.open.push(Open::Skipped),
            _ => {
                self.descend();
                self.value(place);
                self.open.push(open);
            }
        }
        Some(())
    }

    fn end(&mut self) {
        match self.open.pop() {
            Some(Open::Skipped) => {
                if let Some(Open::Map { key: key @ None }) = self.open.last_mut() {
                    *key = Some(String::new());
                }
            }
            _ => self.ascend(),
        }
    }

    /// Notes where the value at hand stands; of a repeated key, the first value counts.
    fn value(&mut self, place: Place) {
        self.places.values.entry(self.path.clone()).or_insert(place);
    }

    /// Extends the path by the step to the value that comes now.
    fn descend(&mut self) {
        match self.open.last_mut() {
            Some(Open::List { next }) => {
                self.path.push((*next).into());
                *next += 1;
            }
            Some(Open::Map { key }) => {
                let key = key.take().unwrap_or_default();
                self.path.push(Step::Key(key));
            }
            Some(Open::Skipped) | None => {}
        }
    }

    /// Takes the step of the value that just ended back.
    fn ascend(&mut self) {
        if !self.open.is_empty() {
            self.path.pop();
        }
    }
}
