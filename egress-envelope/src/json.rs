//! JSON that can be read in one way only: no key stands twice in one mapping, whatever its case.

use std::{collections::HashSet, fmt};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{keys, mime};

/// Reads a whole document.
pub(crate) fn read(body: &[u8]) -> Result<Value, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "a body that is not UTF-8")?;
    let strict: Strict = serde_json::from_str(text).map_err(
        |_| "a body that is no JSON, or one with a key that stands twice or has control characters",
    )?;
    Ok(strict.0)
}

/// Adds the texts and numbers at a place, below it, and where a part of it stands: a text where the
/// place goes on may be the value for some server. Keys count as [`keys::same`] compares them.
pub(crate) fn at(value: &Value, steps: &[String], found: &mut Vec<String>) {
    match (value, steps) {
        (Value::String(text), _) => found.push(text.clone()),
        (Value::Number(number), _) => found.push(number.to_string()),
        (Value::Null | Value::Bool(_), _) => {}
        (Value::Array(entries), [step, rest @ ..]) if step == "*" => {
            entries.iter().for_each(|entry| at(entry, rest, found));
        }
        (Value::Array(entries), [step, rest @ ..]) if index(step).is_some() => {
            let own = index(step).and_then(|at| entries.get(at));
            own.into_iter().for_each(|entry| at(entry, rest, found));
        }
        (Value::Array(entries), _) => entries.iter().for_each(|entry| at(entry, steps, found)),
        // One entry where a list may stand; some servers take that for a list of one.
        (Value::Object(entries), [step, rest @ ..]) if step == "*" || index(step).is_some() => {
            for (key, entry) in entries {
                let nested = entry.is_object() || entry.is_array();
                // Some servers take a mapping from numbers for a list.
                let numbered = key.bytes().all(|byte| byte.is_ascii_digit());
                if rest.is_empty() || nested || numbered {
                    at(entry, rest, found);
                }
            }
            if !rest.is_empty() {
                at(value, rest, found);
            }
        }
        (Value::Object(entries), [step, rest @ ..]) => {
            let same = |(key, _): &(&String, &Value)| keys::same(key, step);
            let entries = entries.iter().filter(same);
            entries.for_each(|(_, entry)| at(entry, rest, found));
        }
        (Value::Object(entries), []) => {
            // `{"bob@shop.example": "Bob"}`
            found.extend(entries.keys().filter(|key| key.contains('@')).cloned());
            entries.values().for_each(|entry| at(entry, &[], found));
        }
    }
}

/// Adds the values at a place that is written in its only way. `None`: there is none.
pub(crate) fn exactly<'a>(
    value: &'a Value,
    steps: &[String],
    found: &mut Vec<&'a Value>,
) -> Option<()> {
    let Some((step, rest)) = steps.split_first() else {
        found.push(value);
        return Some(());
    };
    match value {
        Value::Array(entries) if step == "*" => {
            let mut entries = entries.iter();
            entries.try_for_each(|entry| exactly(entry, rest, found))
        }
        Value::Array(entries) => exactly(entries.get(index(step)?)?, rest, found),
        Value::Object(entries) => exactly(entries.get(step)?, rest, found),
        _ => None,
    }
}

/// The number that a step of a place is.
fn index(step: &str) -> Option<usize> {
    step.parse()
        .ok()
        .filter(|index: &usize| index.to_string() == step)
}

/// Every text of a document, keys included, with its place.
pub(crate) fn texts<'a>(
    value: &'a Value,
    place: &mut Vec<&'a str>,
    each: &mut impl FnMut(&[&str], &str),
) {
    match value {
        Value::String(text) => each(place, text),
        Value::Array(entries) => entries.iter().for_each(|entry| texts(entry, place, each)),
        Value::Object(entries) => {
            let names = named(entries).is_some_and(mime::names_mails);
            for (key, entry) in entries {
                each(place, key);
                let is_value = names && key.eq_ignore_ascii_case("value");
                let mails = is_value && entry.as_str().is_some_and(mime::is_names);
                place.push(if mails { mime::REFERENCES } else { key });
                texts(entry, place, each);
                place.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The name of a header field, where an object is one in a list of them.
fn named(entries: &Map<String, Value>) -> Option<&str> {
    let own = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case("name");
    entries.iter().find(own)?.1.as_str()
}

/// Gives the place of every key.
pub(crate) fn keys<'a>(value: &'a Value, place: &mut Vec<&'a str>, each: &mut impl FnMut(&[&str])) {
    match value {
        Value::Array(entries) => entries.iter().for_each(|entry| keys(entry, place, each)),
        Value::Object(entries) => {
            for (key, entry) in entries {
                place.push(key);
                each(place);
                keys(entry, place, each);
                place.pop();
            }
        }
        _ => {}
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E>(self, it: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(it)))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Strict, E> {
        Ok(Strict(it.into()))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Strict, E> {
        Ok(Strict(it.into()))
    }

    fn visit_f64<E: de::Error>(self, it: f64) -> Result<Strict, E> {
        let number = Number::from_f64(it).ok_or_else(|| E::custom("a number"))?;
        Ok(Strict(Value::Number(number)))
    }

    fn visit_str<E>(self, it: &str) -> Result<Strict, E> {
        Ok(Strict(it.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(entry)) = entries.next_element()? {
            list.push(entry);
        }
        Ok(Strict(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let (mut map, mut known) = (Map::new(), HashSet::new());
        while let Some((key, Strict(entry))) = entries.next_entry::<String, Strict>()? {
            if !keys::is_plain(&key) || !known.insert(keys::folded(&key)) {
                return Err(de::Error::custom("a key twice, or with control characters"));
            }
            map.insert(key, entry);
        }
        Ok(Strict(Value::Object(map)))
    }
}
