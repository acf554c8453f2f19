//! The entries of the table of names: what may be said in a TLS ClientHello, port by port.
//!
//! As in the table of prefixes, the longest entry alone answers; so each holds the ranges of
//! every rule that covers all its names, denials first, then narrow rules before wide ones.
//! The table is only asked about ports on which some rule checks names. Permissions for other
//! ports are left out, because a rule may have very many; denials never are.

use std::{cmp::Reverse, collections::BTreeSet};

use egress_common::{grant::PrefixRules, sni::NameKey};

use super::{
    compile::{CompiledRule, Misfit},
    model::{List, Policy, PortSpan, Target},
    name::HostPattern,
    ranges::{self, Saying},
};

/// An entry: length in bits, key, value.
type Entry = (u32, NameKey, PrefixRules);

/// A rule about a host.
struct Line<'a> {
    pattern: &'a HostPattern,
    saying: Saying<'a>,
}

/// The entries of a policy, or what does not fit.
pub(super) fn entries(
    connector: u32,
    policy: &Policy,
    rules: &[CompiledRule],
) -> Vec<Result<Entry, Misfit>> {
    let lines = lines(policy, rules);
    let mut patterns: BTreeSet<&HostPattern> = lines.iter().map(|line| line.pattern).collect();
    // Names that are judged may be said to the envelope proxy alone, which checks them itself: not
    // at an address that another rule permits.
    let judged: BTreeSet<&HostPattern> = judged(policy).collect();
    patterns.extend(&judged);
    let entries = patterns.into_iter().filter_map(|pattern| {
        let (length, key) = key(connector, pattern)?;
        let value = ranges(pattern, &lines, judged.contains(pattern));
        Some(value.map(|value| (length, key, value)))
    });
    entries.collect()
}

fn judged(policy: &Policy) -> impl Iterator<Item = &HostPattern> {
    let rules = policy.allow.iter().filter(|rule| rule.inspect.is_some());
    rules.filter_map(|rule| match &rule.target {
        Target::Host(pattern) => Some(pattern),
        _ => None,
    })
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
            (!ports.is_empty()).then(|| Line {
                pattern,
                saying: Saying::new(index, compiled, ports),
            })
        })
        .collect();
    lines.sort_by_key(|line| (!line.saying.deny, width(line.pattern), line.saying.slot));
    lines
}

/// Narrow patterns first.
fn width(pattern: &HostPattern) -> (bool, Reverse<usize>) {
    match pattern {
        HostPattern::Exact(name) => (false, Reverse(name.as_str().len())),
        HostPattern::Below(suffix) => (true, Reverse(suffix.as_str().len())),
        HostPattern::Public => (true, Reverse(0)),
    }
}

/// Whether a pattern covers every name of another one.
fn covers(pattern: &HostPattern, other: &HostPattern) -> bool {
    match (pattern, other) {
        (_, HostPattern::Exact(name)) => pattern.covers(name),
        // A wildcard has two labels at least, and its names end as it does.
        (HostPattern::Public, HostPattern::Below(suffix)) => pattern.covers(suffix),
        (HostPattern::Public, HostPattern::Public) => true,
        (_, HostPattern::Public) => false,
        (HostPattern::Exact(_), HostPattern::Below(_)) => false,
        (HostPattern::Below(suffix), HostPattern::Below(other)) => {
            suffix == other || pattern.covers(other)
        }
    }
}

/// `closed`: only denials count.
fn ranges(pattern: &HostPattern, lines: &[Line<'_>], closed: bool) -> Result<PrefixRules, Misfit> {
    let speaking = lines.iter().filter(|line| covers(line.pattern, pattern));
    let speaking = speaking.filter(|line| line.saying.deny || !closed);
    ranges::ranges(
        speaking.map(|line| &line.saying),
        &format_args!("for the name {pattern}"),
        "join ranges, or write “tls: off” where no TLS is spoken",
    )
}

/// The length in bits and the trie's key of a name or wildcard; `None` for a wildcard so long that
/// no name lies below it.
pub fn key(connector: u32, pattern: &HostPattern) -> Option<(u32, NameKey)> {
    let connector = u16::try_from(connector).ok()?;
    match pattern {
        HostPattern::Exact(name) => NameKey::exact(connector, name.as_str().as_bytes()),
        HostPattern::Below(suffix) => NameKey::wildcard(connector, suffix.as_str().as_bytes()),
        HostPattern::Public => Some(NameKey::any(connector)),
    }
}
