//! Lines of the stream about a run and its policy. Pure.

use std::io::Write as _;

use crate::{
    dns::Prefetched,
    event::model::{Body, LayersFound, MissingLayer, NameUnresolved, Warning},
    host::{layers::Layers, trust::Changeable},
    policy::{
        Faults,
        model::{Mode, Policy},
    },
};

/// Faults that one line names.
const MAX_FAULTS: usize = 10;

/// Something the operator should know about a connector.
pub fn warning(connector: &str, instance: &str, topic: &str, message: String) -> Body {
    Body::Warning(Warning {
        connector: Some(connector.to_owned()),
        instance: instance.to_owned(),
        topic: topic.to_owned(),
        message,
    })
}

/// Why a policy is read once.
pub fn changeable(policy: &Policy, uid: u32, found: &Changeable) -> String {
    let file = policy.source.display();
    format!(
        "user {uid}, as whom the connector runs, {found}, so the connector can change its policy: \
         it was read once and is not read again, and a change holds from the next start on. Keep \
         it where root alone writes: sudo install -D -m 644 {file} \
         /etc/egress-agent/policies/{}.yaml",
        policy.connector
    )
}

/// Why the daemon does not go by a policy.
pub fn unguarded(policy: &Policy, uid: u32, found: &Changeable) -> String {
    let file = policy.source.display();
    format!(
        "user {uid}, as whom the connector would run, {found}, so the connector could change its \
         policy; nothing was started: let root alone write {file} and every folder on its way"
    )
}

/// What a rule for the whole public Internet means.
pub fn internet(rule: &str) -> String {
    format!(
        "rule {rule} permits every public host: the policy limits no more where data can go. \
         Private, local and metadata addresses stay closed, and every connection is logged with \
         its name"
    )
}

/// A line on standard error, for whoever still reads that.
pub fn to_caller(message: impl std::fmt::Display) {
    // A closed or full standard error is no reason to end.
    let _nobody_reads = writeln!(std::io::stderr(), "egress-agent: {message}");
}

/// Which layers of the boundary hold.
pub fn layers(connector: &str, instance: &str, layers: &Layers) -> Body {
    Body::Layers(LayersFound {
        connector: connector.to_owned(),
        instance: instance.to_owned(),
        active: layers.active().map(|layer| layer.to_string()).collect(),
        missing: layers
            .missing()
            .map(|(layer, why)| MissingLayer {
                layer: layer.to_string(),
                why: why.to_owned(),
                open: layer.open().to_owned(),
            })
            .collect(),
    })
}

/// A permitted name without an address; `None` where it has one.
pub fn unresolved(policy: &Policy, instance: &str, name: &Prefetched) -> Option<Body> {
    let error = name.result.as_ref().err()?;
    let rule = policy.rules_for(&name.name).next();
    Some(Body::NameUnresolved(NameUnresolved {
        connector: policy.connector.clone(),
        instance: instance.to_owned(),
        name: name.name.to_string(),
        rule: rule.map(|(_, rule)| rule.id.clone()),
        message: format!("{error}; it is asked for again until it has an address"),
    }))
}

/// The mode as events name it.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    }
}

/// The faults of a file on one line, each with its place.
pub fn faults(faults: &Faults) -> String {
    let all = faults.as_slice();
    let shown = all.iter().take(MAX_FAULTS).map(ToString::to_string);
    let mut shown: Vec<String> = shown.collect();
    let rest = all.len().saturating_sub(MAX_FAULTS);
    if rest > 0 {
        shown.push(format!("and {rest} more"));
    }
    shown.join(" | ")
}
