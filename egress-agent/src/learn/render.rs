//! A proposal → lines of YAML, with what is known about each rule in comments. Pure.

use std::path::Path;

use super::{
    observed::{Observed, Seen},
    propose::{Apart, Proposal, Proposed, To, Wildcard},
};
use crate::{event::escape::inner, policy};

/// An entry of `allow`, and what stands above it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Lines of a comment, without its sign.
    pub comment: Vec<String>,
    /// Keys and values.
    pub fields: Vec<String>,
}

/// Why something is apart.
pub fn why(apart: Apart) -> &'static str {
    match apart {
        Apart::OneOff => "in one run alone",
        Apart::Telemetry => {
            "telemetry, crash reports or feature switches: servers work without them"
        }
        Apart::Registry => {
            "a registry of packages, which takes uploads from anybody: fetch before, start offline"
        }
        Apart::Inside => "this host, or the network inside: only if that is meant",
        Apart::Nameless => "an address without a name: who answers there, and for how long?",
        Apart::Quic => "HTTP/3, into which nothing looks: programs go on with TCP",
        Apart::ActsOutside => "a server that acts outside the boundary for whoever calls it",
    }
}

/// The entry of one rule.
pub fn entry(rule: &Proposed, observed: &Observed) -> Entry {
    Entry {
        comment: vec![seen(&rule.seen, observed)],
        fields: fields(rule),
    }
}

/// Whether a policy can have such a rule.
pub fn is_usable(rule: &Proposed) -> bool {
    let entry = fields(rule).join(", ");
    let text = format!("version: 1\nconnector: a\nallow:\n  - {{ {entry} }}\n");
    policy::parse(Path::new("proposal"), &text).is_ok()
}

fn fields(rule: &Proposed) -> Vec<String> {
    let mut fields = vec![match &rule.to {
        To::Host(name) => format!("host: {}", quoted(name)),
        To::Address(ip) => format!("cidr: {}", quoted(&ip.to_string())),
        To::Unix(path) => format!("unix: {}", quoted(path)),
    }];
    if !matches!(rule.to, To::Unix(_)) {
        fields.push(format!("ports: {}", ports(&rule.ports)));
    }
    if rule.protocol == "udp" {
        fields.push("protocol: udp".to_owned());
    }
    if rule.private {
        fields.push("private: true".to_owned());
    }
    fields
}

/// Plain where that is surely a text, otherwise as JSON, which YAML reads the same.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
    let letters = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    let begins = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    if letters && begins && text.bytes().all(plain) && text.contains(['.', '/']) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

fn ports(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("[{}]", ports.join(", "))
}

/// How something was seen, in one line.
pub fn seen(seen: &Seen, observed: &Observed) -> String {
    let mut programs: Vec<(&String, &u64)> = seen.programs.iter().collect();
    programs.sort_by(|one, other| other.1.cmp(one.1).then_with(|| one.0.cmp(other.0)));
    let named: Vec<String> = programs
        .iter()
        .take(4)
        .map(|(name, times)| format!("{} {times}", inner(name)))
        .collect();
    let by = match named.as_slice() {
        [] => "by a process that was gone".to_owned(),
        named => format!("by {}", named.join(", ")),
    };
    let users = match seen.users.len() {
        0 | 1 => String::new(),
        users => format!(", {users} users"),
    };
    format!(
        "{} of {}{users}; {:.0} to {:.0}; {} times, {by}",
        seen.runs.len(),
        counted(observed.runs.len(), "run"),
        seen.first,
        seen.last,
        seen.count,
    )
}

/// `1 run`, `2 runs`.
pub fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// The rules.
pub fn entries(proposal: &Proposal, observed: &Observed) -> Vec<Entry> {
    let rules = proposal.rules.iter();
    rules.map(|rule| entry(rule, observed)).collect()
}

/// Everything that stays a comment: lines without its sign. What stands in the text as such a
/// comment already is not said again.
pub fn remarks(proposal: &Proposal, observed: &Observed, text: &str) -> Vec<String> {
    let there = |line: &str| {
        text.lines()
            .any(|other| other.trim() == format!("# {line}"))
    };
    let mut lines = Vec::new();
    for Wildcard {
        domain,
        ports: numbers,
        names,
    } in &proposal.wildcards
    {
        let rule = format!("- {{ host: \"*.{domain}\", ports: {} }}", ports(numbers));
        if !there(&rule) {
            lines.push(format!("in place of {}:", names.join(", ")));
            lines.push(rule);
        }
    }
    let mut last = None;
    for (apart, rule) in &proposal.apart {
        let text = format!("- {{ {} }}", fields(rule).join(", "));
        if there(&text) {
            continue;
        }
        if last != Some(*apart) {
            lines.push(format!("{}:", why(*apart)));
            last = Some(*apart);
        }
        lines.push(format!("  {}", seen(&rule.seen, observed)));
        lines.push(text);
    }
    lines
}
