//! The entries of the table of names: what may be said in a TLS ClientHello, port by port.
//!
//! As in the table of prefixes, the longest entry alone answers; so each holds the ranges of
//! every rule that covers all its names, denials first, then narrow rules before wide ones.
//! The table is only asked about ports on which some rule checks names. Permissions for other
//! ports are left out, because a rule may have very many; denials never are.

use std::{cmp::Reverse, collections::BTreeSet};

use egress_common::{
    abi::MAX_RANGES,
    grant::{PortRange, PrefixRules},
    sni::NameKey,
};

use super::{
    compile::{CompiledRule, Misfit},
    fault::Complaint,
    model::{List, Policy, PortSpan, Target},
    name::HostPattern,
};

/// An entry: length in bits, key, value.
type Entry = (u32, NameKey, PrefixRules);

/// A rule about a host.
struct Line<'a> {
    /// Place of the rule in all lists together.
    index: usize,
    pattern: &'a HostPattern,
    deny: bool,
    slot: u32,
    id: &'a str,
    ports: Vec<PortSpan>,
}

/// The entries of a policy, or what does not fit.
pub(super) fn entries(
    connector: u32,
    policy: &Policy,
    rules: &[CompiledRule],
) -> Vec<Result<Entry, Misfit>> {
    let lines = lines(policy, rules);
    let patterns: BTreeSet<&HostPattern> = lines.iter().map(|line| line.pattern).collect();
    let entries = patterns.into_iter().filter_map(|pattern| {
        let (length, key) = key(connector, pattern)?;
        Some(ranges(pattern, &lines).map(|value| (length, key, value)))
    });
    entries.collect()
}

fn lines<'a>(policy: &'a Policy, rules: &'a [CompiledRule]) -> Vec<Line<'a>> {
    let named = policy.allow.iter().filter(|rule| rule.tls);
    let checked: Vec<PortSpan> = named.flat_map(|rule| rule.ports.clone()).collect();
    if checked.is_empty() {
        return Vec::new();
    }
    let is_checked = |span: &&PortSpan| checked.iter().any(|other| other.meets(span));
    let all = rules.iter().zip(policy.allow.iter().chain(&policy.deny));
    let mut lines: Vec<Line<'a>> = all
        .enumerate()
        .filter(|(_, (_, rule))| rule.protocols.tcp)
        .filter_map(|(index, (compiled, rule))| {
            let Target::Host(pattern) = &rule.target else {
                return None;
            };
            let deny = compiled.list == List::Deny;
            let spans = rule.ports.iter();
            let ports: Vec<PortSpan> = spans
                .filter(|span| deny || is_checked(span))
                .copied()
                .collect();
            (!ports.is_empty()).then_some(Line {
                index,
                pattern,
                deny,
                slot: compiled.slot,
                id: &compiled.id,
                ports,
            })
        })
        .collect();
    lines.sort_by_key(|line| (!line.deny, width(line.pattern), line.slot));
    lines
}

/// Narrow patterns first.
fn width(pattern: &HostPattern) -> (bool, Reverse<usize>) {
    match pattern {
        HostPattern::Exact(name) => (false, Reverse(name.as_str().len())),
        HostPattern::Below(suffix) => (true, Reverse(suffix.as_str().len())),
    }
}

/// Whether a pattern covers every name of another one.
fn covers(pattern: &HostPattern, other: &HostPattern) -> bool {
    match (pattern, other) {
        (_, HostPattern::Exact(name)) => pattern.covers(name),
        (HostPattern::Exact(_), HostPattern::Below(_)) => false,
        (HostPattern::Below(suffix), HostPattern::Below(other)) => {
            suffix == other || pattern.covers(other)
        }
    }
}

fn ranges(pattern: &HostPattern, lines: &[Line<'_>]) -> Result<PrefixRules, Misfit> {
    let speaking = lines.iter().filter(|line| covers(line.pattern, pattern));
    let wanted = speaking
        .clone()
        .flat_map(|line| line.ports.iter().map(move |span| (line, span)));
    let count = wanted.clone().count();
    if count > MAX_RANGES {
        let mut ids: Vec<&str> = speaking.clone().map(|line| line.id).take(5).collect();
        if let Some(fifth) = ids.get_mut(4) {
            *fifth = "…";
        }
        return Err(Misfit {
            rule: speaking.map(|line| line.index).max(),
            complaint: Complaint::new(
                format!(
                    "{count} port ranges meet for the name {pattern}; at most {MAX_RANGES} fit \
                     (rules: {})",
                    ids.join(", "),
                ),
                "join ranges, or write “tls: off” where no TLS is spoken",
            ),
        });
    }
    let mut value = PrefixRules {
        count: 0,
        ranges: [PortRange::EMPTY; MAX_RANGES],
    };
    for (range, (line, span)) in value.ranges.iter_mut().zip(wanted) {
        *range = PortRange {
            first: span.first,
            last: span.last,
            effect: if line.deny {
                PortRange::DENY
            } else {
                PortRange::ALLOW
            },
            ifindex: 0,
            rule: line.slot,
        };
        value.count += 1;
    }
    Ok(value)
}

/// The trie's key; `None` for a wildcard so long that no name lies below it.
fn key(connector: u32, pattern: &HostPattern) -> Option<(u32, NameKey)> {
    let connector = u16::try_from(connector).ok()?;
    match pattern {
        HostPattern::Exact(name) => NameKey::exact(connector, name.as_str().as_bytes()),
        HostPattern::Below(suffix) => NameKey::wildcard(connector, suffix.as_str().as_bytes()),
    }
}
