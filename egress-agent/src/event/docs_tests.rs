//! `docs/events.md` says what the code does.

#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use std::collections::BTreeSet;

use egress_common::verdict::{Layer, Reason};
use serde_json::Value;

use super::{
    model::{SCHEMA, tests::every_kind},
    sink::{jsonl, text},
};

const DOCS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md"));

fn mentions(name: &str) -> bool {
    DOCS.contains(&format!("`{name}`"))
}

/// Whether a table has a row that begins with the name.
fn has_row(name: &str) -> bool {
    DOCS.lines()
        .any(|line| line.starts_with(&format!("| `{name}` |")))
}

#[test]
fn every_layer_and_reason_has_a_row() {
    for layer in Layer::ALL {
        assert!(has_row(layer.as_str()), "layer {}", layer.as_str());
    }
    for reason in Reason::ALL {
        assert!(has_row(reason.as_str()), "reason {}", reason.as_str());
    }
    for reason in egress_envelope::judge::Reason::ALL {
        let reason = serde_json::to_value(reason).unwrap();
        assert!(has_row(reason.as_str().unwrap()), "reason {reason}");
    }
}

/// Keys of an object and of the objects in it, joined by dots.
fn keys(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                let path = format!("{prefix}{key}");
                found.insert(path.clone());
                // Their keys are reasons.
                if !["denied", "not_shown"].contains(&key.as_str()) {
                    keys(inner, &format!("{path}."), found);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|item| keys(item, prefix, found)),
        _ => {}
    }
}

#[test]
fn every_key_and_kind_is_described() {
    for record in every_kind() {
        let value = serde_json::to_value(&record).unwrap();
        let kind = value.get("kind").unwrap().as_str().unwrap();
        assert!(mentions(kind), "{kind}");
        let mut found = BTreeSet::new();
        keys(&value, "", &mut found);
        for key in found {
            let last = key.rsplit('.').next().unwrap();
            let through_its_parts = DOCS.contains(&format!("`{key}."));
            assert!(
                mentions(&key) || mentions(last) || through_its_parts,
                "{kind}: {key}"
            );
        }
    }
    assert!(mentions(SCHEMA) && mentions("destination.query"));
}

#[test]
fn the_example_is_what_the_code_writes() {
    let record = every_kind().remove(0);
    let json = serde_json::to_string(&record).unwrap();
    assert!(DOCS.contains(&format!("\n{json}\n")), "{json}");
    let line = text::line(&record, false);
    assert!(DOCS.contains(&format!("\n{line}\n")), "{line}");
}

#[test]
fn the_numbers_are_those_of_the_code() {
    let mebibytes = jsonl::MAX_BYTES >> 20;
    assert!(DOCS.contains(&format!("at most {mebibytes} MiB")));
    assert!(DOCS.contains(&format!("never takes more than {} MiB", 2 * mebibytes)));
    assert!(DOCS.contains(&format!("last {} instances", jsonl::MAX_ENDED)));
    assert!(DOCS.contains(super::sink::folder::EVENTS));
    assert!(DOCS.contains("at most once a second"));
    assert_eq!(egress_common::abi::REPEAT_WINDOW_NS, 1_000_000_000);
}
