//! From text to values, by serde_yaml, within bounds of size and depth.
//!
//! serde_yaml stops at a duplicate key and follows aliases to any amount of memory; the
//! visitor here notes the one and bounds the other.

use std::{cell::RefCell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Mapping, Value};

use super::fault::{Findings, Step, quiet, quote};

/// Values a file may hold, aliases followed. A large policy has some thousand.
const MAX_VALUES: usize = 20_000;
/// Lists and mappings inside each other. A policy has four levels.
const MAX_DEPTH: usize = 16;

/// Why a text is no YAML, with the place where the parser knows it (line and column from 1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyntaxFault {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// The values of a text that holds exactly one YAML document. Duplicate keys (the first one
/// counts), keys that are no texts, and tags are noted in `findings`.
pub fn values(text: &str, findings: &mut Findings) -> Result<Value, SyntaxFault> {
    let shared = RefCell::new(Shared {
        findings: std::mem::take(findings),
        left: MAX_VALUES,
        exceeded: None,
    });
    let seed = Node {
        shared: &shared,
        depth: 0,
    };
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let result = match documents.next() {
        Some(document) => seed
            .deserialize(document)
            .map_err(|error| bare_star(text).unwrap_or_else(|| syntax(&error))),
        None => Ok(Value::Null),
    };
    let more = result.is_ok() && documents.next().is_some();
    let shared = shared.into_inner();
    *findings = shared.findings;
    if let Some((message, help)) = shared.exceeded {
        return Err(SyntaxFault {
            line: 1,
            column: 1,
            message,
            help,
        });
    }
    if more {
        return Err(SyntaxFault {
            line: 1,
            column: 1,
            message: "the file holds more than one YAML document".into(),
            help: "put each policy in a file of its own, without “---” between them".into(),
        });
    }
    result
}

/// A wildcard without quotes. In YAML a `*` begins an alias, and the parser speaks of those.
fn bare_star(text: &str) -> Option<SyntaxFault> {
    text.lines().enumerate().find_map(|(index, line)| {
        let (before, rest) = line.split_once('*')?;
        let starts_value = before.trim_end().ends_with([':', '-', '[', ',', '{']);
        let ends = |c: char| c.is_whitespace() || c.is_control() || ",]}#".contains(c);
        let end = rest.find(ends).unwrap_or(rest.len());
        let name = quiet(rest.get(..end).unwrap_or_default());
        let wildcard = name.starts_with(['.', ':', '*']) || name.is_empty();
        (starts_value && wildcard && !before.contains(['#', '"', '\''])).then(|| SyntaxFault {
            line: index + 1,
            column: before.chars().count() + 1,
            message: format!(
                "{} stands without quotes, and in YAML a “*” begins an alias",
                quote(&format!("*{name}"))
            ),
            help: format!("write it in quotes: {}", format_args!("\"*{name}\"")),
        })
    })
}

fn syntax(error: &serde_yaml::Error) -> SyntaxFault {
    let (line, column) = error
        .location()
        .map_or((1, 1), |place| (place.line().max(1), place.column().max(1)));
    let message = error.to_string();
    let tab = message.contains("cannot start any token");
    SyntaxFault {
        line,
        column,
        message: format!("not valid YAML: {}", quiet(&message)),
        help: if tab {
            "indent with spaces, never tabs, and quote texts that start with a sign such as * or @"
                .into()
        } else {
            "correct the YAML at or shortly before this place".into()
        },
    }
}

struct Shared {
    findings: Findings,
    left: usize,
    exceeded: Option<(String, String)>,
}

#[derive(Clone, Copy)]
struct Node<'a> {
    shared: &'a RefCell<Shared>,
    depth: usize,
}

impl Node<'_> {
    fn below(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }

    fn enter(self, step: Step) {
        self.shared.borrow_mut().findings.enter(step);
    }

    fn leave(self) {
        self.shared.borrow_mut().findings.leave();
    }

    fn note(self, message: &str, help: &str) {
        self.shared.borrow_mut().findings.note(message, help);
    }

    fn note_key(self, key: &str, message: String, help: &str) {
        let mut shared = self.shared.borrow_mut();
        shared.findings.note_key(key, 1, message, help);
    }

    fn spend<E: de::Error>(self) -> Result<(), E> {
        let mut shared = self.shared.borrow_mut();
        let Some(left) = shared.left.checked_sub(1) else {
            shared.exceeded = Some((
                format!("the file holds more than {MAX_VALUES} values, aliases followed"),
                "shorten the policy; write repeated parts out instead of nesting aliases".into(),
            ));
            return Err(E::custom("too many values"));
        };
        shared.left = left;
        if self.depth > MAX_DEPTH {
            shared.exceeded = Some((
                format!("lists and mappings are nested more than {MAX_DEPTH} deep"),
                "a policy needs at most four levels; compare docs/policy.md".into(),
            ));
            return Err(E::custom("nested too deeply"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.spend()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    // No field takes so large a number; as a float it stays one that every field refuses.
    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        Ok(Value::from(f64::NEG_INFINITY))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        Ok(Value::from(f64::INFINITY))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            self.enter(values.len().into());
            let next = list.next_element_seed(self.below());
            self.leave();
            match next? {
                Some(value) => values.push(value),
                None => return Ok(Value::Sequence(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Mapping::new();
        while let Some(key) = map.next_key_seed(self.below())? {
            let Value::String(key) = key else {
                self.note(
                    "a key is no text",
                    "write keys as plain words, such as “host”",
                );
                map.next_value_seed(self.below())?;
                continue;
            };
            let seen = values.contains_key(key.as_str());
            if seen {
                self.note_key(
                    &key,
                    format!("the key {} appears twice", quote(&key)),
                    "keep one of the two; lists such as “allow:” take several entries",
                );
            }
            self.enter(key.as_str().into());
            let value = map.next_value_seed(self.below());
            self.leave();
            let value = value?;
            if !seen {
                values.insert(Value::String(key), value);
            }
        }
        Ok(Value::Mapping(values))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        self.note("a YAML tag (“!name”) has no meaning here", "remove the tag");
        let (_tag, content) = tagged.variant_seed(self.below())?;
        de::VariantAccess::newtype_variant_seed(content, self.below())?;
        Ok(Value::Null)
    }
}
