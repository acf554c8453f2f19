//! Every table keeps the rules of tables, and says of the services' own published examples what they
//! are and who they go to.
//!
//! The examples are read here by a small reader of their own, which shares nothing with the one that
//! judges.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, io};

use egress_envelope::service::{Body, OperationRule, Place, Template};
use serde_json::Value;

use super::services_examples::{EXAMPLES, UNLISTED};
use crate::policy::{
    name::HostPattern,
    services::{TEXTS, find, names, read},
};

#[test]
fn every_table_can_be_read_and_is_known_by_its_name() -> io::Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/services");
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        files.extend(
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned()),
        );
    }
    assert_eq!(
        files,
        names().map(str::to_owned).collect(),
        "each file is a table"
    );
    for (name, text) in TEXTS {
        let table = read(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(table.service, name);
        assert_eq!(find(name), Some(&table));
        assert!(
            text.starts_with("# ") && text.contains("# Source: "),
            "{name} says no source"
        );
        assert!(
            text.contains("Not listed, so refused") || text.contains("Not\n# listed, so refused"),
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn every_table_keeps_the_rules_of_tables() {
    for table in names().filter_map(find) {
        let name = &table.service;
        assert!(!table.credentials.is_empty(), "{name} marks no credentials");
        for host in &table.hosts {
            let plain = host.replace('*', "x");
            let parsed = crate::policy::lower::host(&plain);
            let is_one = matches!(
                parsed,
                Ok(crate::policy::model::Target::Host(HostPattern::Exact(_)))
            );
            assert!(is_one, "{name}: {host}");
        }
        let mut all: Vec<(&OperationRule, Template)> = Vec::new();
        for operation in &table.operations {
            let what = format!("{name}: {} {}", operation.method, operation.path);
            let template =
                Template::parse(&operation.path).unwrap_or_else(|error| panic!("{what} {error}"));
            let credentials = table.credentials.iter().map(String::as_str);
            for place in operation
                .places()
                .map(|(_, place)| place)
                .chain(credentials)
            {
                let parsed =
                    Place::parse(place).unwrap_or_else(|error| panic!("{what}: {place} {error}"));
                if let (Place::Path(variable), false) =
                    (&parsed, table.credentials.iter().any(|own| own == place))
                {
                    assert!(
                        template.variables().any(|known| known == variable),
                        "{what}: {place}"
                    );
                }
            }
            for (_, place) in operation.places() {
                let in_body = Place::parse(place).is_ok_and(|place| place.is_in_body());
                assert!(
                    !in_body || !matches!(operation.body, Body::None | Body::Any),
                    "{what}: {place}"
                );
            }
            assert_eq!(
                operation.rpc.is_some(),
                operation.body == Body::JsonRpc,
                "{what}"
            );
            let reads = matches!(operation.method.as_str(), "GET" | "HEAD");
            assert!(!reads || operation.body == Body::None, "{what} has a body");
            for (other, like) in &all {
                let same = like.is_like(&template)
                    && (&other.method, other.body, &other.rpc)
                        == (&operation.method, operation.body, &operation.rpc);
                assert!(!same, "{what} stands here twice");
            }
            all.push((operation, template));
        }
    }
}

#[test]
fn published_examples_are_what_they_are() {
    for example in EXAMPLES {
        let what = format!("{} {}", example.service, example.request);
        let table = find(example.service).unwrap_or_else(|| panic!("{what}"));
        let (method, path) = example
            .request
            .split_once(' ')
            .unwrap_or_else(|| panic!("{what}"));
        let (body, text) = example.body;
        let value = naive(body, text);
        let mut candidates = table.candidates(method, path);
        candidates.retain(|operation| operation.body == body);
        if body == Body::JsonRpc {
            let called = value
                .get("method")
                .and_then(Value::as_str)
                .map(str::to_owned);
            candidates.retain(|operation| operation.rpc == called);
        }
        match candidates.as_slice() {
            [] => assert_eq!(example.is, "", "{what} is not listed"),
            [operation] => {
                assert_eq!(operation.id, example.is, "{what}");
                let mut found: Vec<String> = Vec::new();
                for place in operation.recipients.values().flatten() {
                    found.extend(at(place, &value, operation, path));
                }
                assert_eq!(found, example.to, "{what}");
            }
            several => panic!("{what} is several: {several:?}"),
        }
    }
}

#[test]
fn ways_to_send_elsewhere_or_later_are_not_listed() {
    for (service, request) in UNLISTED {
        let table = find(service).unwrap_or_else(|| panic!("{service}"));
        let (method, path) = request
            .split_once(' ')
            .unwrap_or_else(|| panic!("{request}"));
        let found = table.candidates(method, path);
        assert!(
            found.is_empty(),
            "{service}: {request} is {:?}",
            found.iter().map(|one| &one.id).collect::<Vec<_>>()
        );
    }
}

fn naive(body: Body, text: &str) -> Value {
    match body {
        Body::Json | Body::JsonRpc => {
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
        }
        Body::Form | Body::Multipart => {
            let mut fields = serde_json::Map::new();
            for (name, value) in text.split('&').filter_map(|field| field.split_once('=')) {
                let list = fields
                    .entry(name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                list.as_array_mut()
                    .into_iter()
                    .for_each(|list| list.push(value.into()));
            }
            Value::Object(fields)
        }
        _ => Value::Null,
    }
}

fn at(place: &str, body: &Value, operation: &OperationRule, path: &str) -> Vec<String> {
    match Place::parse(place) {
        Ok(Place::Field(steps)) => {
            let mut found = vec![body];
            for step in steps {
                found = found
                    .into_iter()
                    .flat_map(|value| below(value, &step))
                    .collect();
            }
            let leaf = |value: &Value| match value {
                Value::Array(list) => list.iter().map(text).collect(),
                other => vec![text(other)],
            };
            found.into_iter().flat_map(leaf).collect()
        }
        Ok(Place::Path(variable)) => {
            let template = Template::parse(&operation.path).ok();
            let found = template
                .as_ref()
                .and_then(|template| template.matches(path))
                .unwrap_or_default();
            let found = found.into_iter().filter(|(name, _)| *name == variable);
            found.map(|(_, value)| value.to_owned()).collect()
        }
        Ok(Place::Mime(steps)) => vec![format!("mime of {}", steps.join("/"))]
            .into_iter()
            .filter(|_| {
                steps
                    .iter()
                    .try_fold(body, |value, step| value.get(step))
                    .is_some()
            })
            .collect(),
        Ok(Place::Transaction(_)) => vec!["transaction".to_owned()],
        _ => Vec::new(),
    }
}

fn below<'a>(value: &'a Value, step: &str) -> Vec<&'a Value> {
    match (value, step) {
        (Value::Array(list), "*") => list.iter().collect(),
        (Value::Array(list), step) => step
            .parse()
            .ok()
            .and_then(|index: usize| list.get(index))
            .into_iter()
            .collect(),
        (Value::Object(map), "*") => map.values().collect(),
        (Value::Object(map), step) => map.get(step).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
