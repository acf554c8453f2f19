//! The JSON form of what `learn` and `diff` say: `egress-agent/learn/v1`. Pure.

use serde::Serialize;

use crate::learn::{
    observed::{Observed, Seen},
    propose::{Apart, Proposal, Proposed, To},
};

/// The document of `learn`.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    schema: &'static str,
    connector: &'a str,
    policy: &'a str,
    written: bool,
    runs: usize,
    rules: Vec<RuleReport<'a>>,
    apart: Vec<RuleReport<'a>>,
    wildcards: Vec<WildcardReport<'a>>,
    asked: Vec<ThingReport<'a>>,
    never: Vec<ThingReport<'a>>,
    requests: Vec<RequestReport<'a>>,
    not_shown: u64,
    diff: &'a str,
}

#[derive(Serialize)]
pub(super) struct RuleReport<'a> {
    why: Option<&'static str>,
    host: Option<&'a str>,
    address: Option<String>,
    unix: Option<&'a str>,
    ports: &'a [u16],
    protocol: &'a str,
    private: bool,
    seen: SeenReport<'a>,
}

#[derive(Serialize)]
struct WildcardReport<'a> {
    host: String,
    ports: &'a [u16],
    names: &'a [String],
}

#[derive(Serialize)]
pub(super) struct ThingReport<'a> {
    what: &'a str,
    seen: SeenReport<'a>,
}

#[derive(Serialize)]
struct SeenReport<'a> {
    runs: usize,
    users: Vec<u32>,
    first: String,
    last: String,
    count: u64,
    programs: &'a std::collections::BTreeMap<String, u64>,
    refused: bool,
}

#[derive(Serialize)]
struct RequestReport<'a> {
    host: &'a str,
    port: u16,
    operation: &'a str,
    count: u64,
    runs: usize,
    reasons: &'a std::collections::BTreeMap<String, u64>,
}

fn seen_report(seen: &Seen) -> SeenReport<'_> {
    SeenReport {
        runs: seen.runs.len(),
        users: seen.users.iter().copied().collect(),
        first: format!("{:.9}", seen.first),
        last: format!("{:.9}", seen.last),
        count: seen.count,
        programs: &seen.programs,
        refused: seen.refused,
    }
}

/// One rule for programs.
pub(super) fn rule_report(why: Option<Apart>, rule: &Proposed) -> RuleReport<'_> {
    RuleReport {
        why: why.map(name),
        host: match &rule.to {
            To::Host(name) => Some(name),
            _ => None,
        },
        address: match &rule.to {
            To::Address(ip) => Some(ip.to_string()),
            _ => None,
        },
        unix: match &rule.to {
            To::Unix(path) => Some(path),
            _ => None,
        },
        ports: &rule.ports,
        protocol: &rule.protocol,
        private: rule.private,
        seen: seen_report(&rule.seen),
    }
}

/// Things and how they were seen, for programs.
pub(super) fn things_report(things: &[(String, Seen)]) -> Vec<ThingReport<'_>> {
    things
        .iter()
        .map(|(what, seen)| ThingReport {
            what,
            seen: seen_report(seen),
        })
        .collect()
}

fn name(apart: Apart) -> &'static str {
    match apart {
        Apart::OneOff => "one-off",
        Apart::Telemetry => "telemetry",
        Apart::Registry => "registry",
        Apart::Inside => "inside",
        Apart::Nameless => "nameless",
        Apart::Quic => "quic",
        Apart::ActsOutside => "acts-outside",
    }
}

/// What was proposed, for programs.
pub(super) fn report<'a>(
    connector: &'a str,
    policy: &'a str,
    proposal: &'a Proposal,
    observed: &'a Observed,
    diff: &'a str,
    written: bool,
) -> Report<'a> {
    let apart = proposal.apart.iter();
    let requests = observed.requests.iter();
    Report {
        schema: "egress-agent/learn/v1",
        connector,
        policy,
        written,
        runs: observed.runs.len(),
        rules: proposal
            .rules
            .iter()
            .map(|rule| rule_report(None, rule))
            .collect(),
        apart: apart
            .map(|(why, rule)| rule_report(Some(*why), rule))
            .collect(),
        wildcards: proposal
            .wildcards
            .iter()
            .map(|wildcard| WildcardReport {
                host: format!("*.{}", wildcard.domain),
                ports: &wildcard.ports,
                names: &wildcard.names,
            })
            .collect(),
        asked: things_report(&proposal.asked),
        never: things_report(&proposal.never),
        requests: requests
            .map(|((host, port, operation), seen)| RequestReport {
                host,
                port: *port,
                operation,
                count: seen.count,
                runs: seen.runs.len(),
                reasons: &seen.reasons,
            })
            .collect(),
        not_shown: observed.unseen.saturating_add(observed.beyond),
        diff,
    }
}
