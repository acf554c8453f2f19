//! Taking a value for what it should be, or noting what it is instead.

use schemars::JsonSchema;
use serde_yaml::Value;

use crate::policy::{
    fault::{Findings, quote},
    schema::{self, Loose, Unknown},
};

/// The value of a key if it is there and of its kind; otherwise, if it is there, a finding.
pub(super) fn field<'a, T>(
    key: &str,
    value: &'a Option<Loose<T>>,
    expected: &str,
    findings: &mut Findings,
) -> Option<&'a T> {
    match value.as_ref()? {
        Loose::Good(value) => Some(value),
        Loose::Bad(value) => {
            findings.within(key, |findings| {
                findings.note(format!("“{key}” is {}", kind(value)), expected);
            });
            None
        }
    }
}

/// An entry of a list, likewise.
pub(super) fn entry<'a, T>(
    what: &str,
    value: &'a Loose<T>,
    expected: &str,
    findings: &mut Findings,
) -> Option<&'a T> {
    match value {
        Loose::Good(value) => Some(value),
        Loose::Bad(value) => {
            findings.note(format!("{what} is {}", kind(value)), expected);
            None
        }
    }
}

/// Notes keys that the mapping does not have, and the key that was probably meant.
pub(super) fn unknown<T: JsonSchema>(place: &str, unknown: &Unknown, findings: &mut Findings) {
    if unknown.is_empty() {
        return;
    }
    let known = schema::keys::<T>();
    for key in unknown.keys() {
        let help = match nearest(key, &known) {
            Some(meant) => format!("did you mean “{meant}:”?"),
            None => format!("remove it; known here: {}", known.join(", ")),
        };
        let message = format!("unknown key {} in {place}", quote(key));
        findings.note_key(key, 0, message, help);
    }
}

/// The one of some words that was probably meant.
pub(super) fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    if key.len() > 32 {
        return None;
    }
    let key = key.to_ascii_lowercase();
    known
        .iter()
        .map(|known| (strsim::osa_distance(&key, known), known.as_str()))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| known)
}

/// What a value is, for a message.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "empty".into(),
        Value::Bool(value) => format!("the truth value {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(value) => quote(value),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a mapping".into(),
        Value::Tagged(_) => "a tagged value".into(),
    }
}
