//! JSON that can be read in one way only: no key stands twice in one mapping, whatever its case.

use std::{collections::HashSet, fmt};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a whole document.
pub(crate) fn read(body: &[u8]) -> Result<Value, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "a body that is not UTF-8")?;
    let strict: Strict = serde_json::from_str(text)
        .map_err(|_| "a body that is no JSON, or one with a key that stands twice")?;
    Ok(strict.0)
}

/// Adds the texts and numbers at a place, and below it. Keys count whatever their case.
pub(crate) fn at(value: &Value, steps: &[String], found: &mut Vec<String>) {
    match (value, steps) {
        (Value::Array(entries), [step, rest @ ..]) if step == "*" => {
            entries.iter().for_each(|entry| at(entry, rest, found));
        }
        // One entry where a list may stand; some servers take that for a list of one.
        (Value::Object(entries), [step, rest @ ..]) if step == "*" => {
            entries.values().for_each(|entry| at(entry, rest, found));
            at(value, rest, found);
        }
        (_, [step, rest @ ..]) if step == "*" => at(value, rest, found),
        (Value::Object(entries), [step, rest @ ..]) => {
            for (key, entry) in entries {
                if key.eq_ignore_ascii_case(step) {
                    at(entry, rest, found);
                }
            }
        }
        (Value::String(text), []) => found.push(text.clone()),
        (Value::Number(number), []) => found.push(number.to_string()),
        (Value::Array(entries), _) => entries.iter().for_each(|entry| at(entry, steps, found)),
        (Value::Object(entries), []) => entries.values().for_each(|entry| at(entry, &[], found)),
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
        let (mut map, mut keys) = (Map::new(), HashSet::new());
        while let Some((key, Strict(entry))) = entries.next_entry::<String, Strict>()? {
            if !keys.insert(key.to_lowercase()) {
                return Err(de::Error::custom("a key twice"));
            }
            map.insert(key, entry);
        }
        Ok(Strict(Value::Object(map)))
    }
}
