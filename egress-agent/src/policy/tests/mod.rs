//! Tests of the policy room as a whole, through its public functions.
#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panic"
)]

mod callers;
mod changes;
mod explained;
mod faults;
mod hostile;
mod inspect;
mod internet;
mod made;
mod meaning;
mod names;
mod oracle;
mod services;
mod services_examples;
mod shipped;
mod slips;
mod together;

use std::path::Path;

use super::{Policy, parse};

/// A policy from the lines after `version` and `connector`.
fn policy(rest: &str) -> Policy {
    match parse(Path::new("p.yaml"), &head(rest)) {
        Ok(policy) => policy,
        Err(faults) => panic!("{faults}"),
    }
}

/// The faults of such a policy, one line each.
fn faults(rest: &str) -> Vec<String> {
    faults_of(&head(rest))
}

/// The faults of a whole text.
fn faults_of(text: &str) -> Vec<String> {
    match parse(Path::new("p.yaml"), text) {
        Ok(policy) => panic!("accepted: {policy:?}"),
        Err(faults) => faults.as_slice().iter().map(ToString::to_string).collect(),
    }
}

fn head(rest: &str) -> String {
    format!("version: 1\nconnector: x\n{rest}")
}
