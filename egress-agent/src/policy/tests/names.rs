//! Names in TLS: on which ports they are checked, and what the table says of them.

use egress_common::{
    abi::RULE_FIRST,
    grant,
    sni::{NameKey, NameQuery, by_name},
    verdict::{Action, Reason},
};
use proptest::prelude::*;

use super::{
    made::{installed, made, spans},
    oracle::{ENFORCED, cases},
    policy,
};
use crate::host::layers::Layer;
use crate::policy::{
    Policy, compile,
    model::{Protocols, Rule, Target},
    name::{HostPattern, Name},
    tables::Memory,
};

/// What the table says of a name at a port.
pub(super) fn asked(memory: &Memory, connector: u16, name: &Name, port: u16) -> (Action, Reason) {
    let Some((_, key)) = NameKey::exact(connector, name.as_str().as_bytes()) else {
        panic!("{name} fits no key");
    };
    let query = NameQuery {
        bits: NameKey::ALL_BITS,
        key,
    };
    let verdict = by_name(&query, port, false, memory);
    (verdict.action, verdict.reason)
}

/// Whether the rules let a name be said at a port: a naive reading, label by label.
pub(super) fn permits(policy: &Policy, name: &Name, port: u16) -> bool {
    let speaks = |rule: &&Rule| {
        let Target::Host(pattern) = &rule.target else {
            return false;
        };
        let labels = |name: &Name| -> Vec<String> {
            let labels = name.as_str().rsplit('.');
            labels.map(str::to_owned).collect()
        };
        let asked = labels(name);
        let covered = match pattern {
            HostPattern::Exact(own) => labels(own) == asked,
            HostPattern::Below(own) => {
                let own = labels(own);
                asked.len() > own.len() && asked.starts_with(&own)
            }
            HostPattern::Public => true,
        };
        let ports = rule.ports.iter();
        covered
            && rule.protocols.tcp
            && ports
                .clone()
                .any(|span| (span.first..=span.last).contains(&port))
    };
    policy.allow.iter().any(|rule| speaks(&rule)) && !policy.deny.iter().any(|rule| speaks(&rule))
}

/// Whether some rule checks names at a port.
fn is_checked(policy: &Policy, port: u16) -> bool {
    let named = policy.allow.iter().filter(|rule| rule.tls);
    let mut spans = named.flat_map(|rule| &rule.ports);
    spans.any(|span| (span.first..=span.last).contains(&port))
}

const LABELS: &[&str] = &["a", "b", "ab", "xn--a"];
const PORTS: &[u16] = &[80, 442, 443, 444, 8443];

/// Few names, near to each other, so that they meet.
pub(super) fn name() -> impl Strategy<Value = Name> {
    let labels = prop::collection::vec(prop::sample::select(LABELS), 1..4);
    labels.prop_map(|labels| {
        Name::parse(&format!("{}.example", labels.join("."))).unwrap_or_else(|e| panic!("{e}"))
    })
}

pub(super) fn checked_port() -> impl Strategy<Value = u16> {
    prop::sample::select(PORTS)
}

/// A rule about a host, with or without a check of names.
pub(super) fn host_rule() -> impl Strategy<Value = Rule> {
    let pattern = (name(), any::<bool>()).prop_map(|(name, wide)| {
        if wide {
            HostPattern::Below(name)
        } else {
            HostPattern::Exact(name)
        }
    });
    let rest = (spans(checked_port), any::<bool>(), 0_u8..4);
    (pattern, rest).prop_map(|(pattern, (ports, tls, udp))| Rule {
        id: String::new(),
        target: Target::Host(pattern),
        ports,
        protocols: match udp {
            0 => Protocols::UDP,
            1 => Protocols::ANY,
            _ => Protocols::TCP,
        },
        why: None,
        private: false,
        lookups_per_minute: crate::policy::model::LOOKUPS_PER_MINUTE,
        tls,
        ech: false,
        inspect: None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn the_table_says_what_the_rules_say(
        allow in prop::collection::vec(host_rule(), 0..7),
        deny in prop::collection::vec(host_rule(), 0..3),
        probes in prop::collection::vec((name(), checked_port()), 40),
    ) {
        let policy = made(allow, deny, Vec::new());
        let Some((tables, memory)) = installed(&policy) else {
            return Ok(());
        };
        let mut keys: Vec<_> = tables.names.iter().map(|(bits, key, _)| (*bits, *key)).collect();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), tables.names.len());
        for (name, port) in &probes {
            let (action, reason) = asked(&memory, 7, name, *port);
            let expected = permits(&policy, name, *port);
            if is_checked(&policy, *port) {
                prop_assert_eq!(action == Action::Allow, expected, "{} {}", name, port);
            }
            // On ports where nobody asks, the table may say less, never more.
            prop_assert!(expected || action != Action::Allow, "{} {}", name, port);
            let known = [Reason::None, Reason::SniStranger, Reason::DenyRule];
            prop_assert!(known.contains(&reason));
            prop_assert_eq!(asked(&memory, 8, name, *port).0, Action::Deny, "another connector");
        }
    }
}

fn parts(rest: &str) -> Vec<(String, String, bool, bool)> {
    let policy = policy(rest);
    let rules = policy.allow.into_iter();
    rules
        .map(|rule| {
            let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
            (rule.id, ports.join(","), rule.tls, rule.ech)
        })
        .collect()
}

#[track_caller]
fn becomes(rule: &str, expected: &[(&str, bool, bool)]) {
    let found = parts(&format!("allow: [{rule}]\n"));
    let found: Vec<_> = found
        .iter()
        .map(|(_, ports, tls, ech)| (ports.as_str(), *tls, *ech))
        .collect();
    assert_eq!(found, expected, "{rule}");
}

#[test]
fn names_are_checked_on_port_443_unless_the_rule_says_otherwise() {
    becomes("a.example:443", &[("443", true, false)]);
    becomes("'*.b.example:443/any'", &[("443", true, false)]);
    becomes("a.example:8443", &[("8443", false, false)]);
    becomes("a.example:443/udp", &[("443", false, false)]);
    becomes("10.0.0.1:443", &[("443", false, false)]);
    let rule = |rest: &str| format!("{{host: a.example, {rest}}}");
    becomes(&rule("ports: [443]"), &[("443", true, false)]);
    becomes(&rule("ports: [443], tls: off"), &[("443", false, false)]);
    becomes(&rule("ports: [443], ech: allow"), &[("443", true, true)]);
    becomes(&rule("ports: [443], ech: refuse"), &[("443", true, false)]);
    becomes(
        &rule("ports: [8443], tls: require"),
        &[("8443", true, false)],
    );
    becomes(
        &rule("ports: [80, 443], tls: require, ech: allow"),
        &[("80,443", true, true)],
    );
    becomes(
        &rule("ports: [80, \"440-445\", 8080], ech: allow"),
        &[
            ("443", true, true),
            ("80,440-442,444-445,8080", false, false),
        ],
    );
}

#[test]
fn a_rule_that_insists_requires_the_layer() {
    let required =
        |rest: &str| policy(&format!("allow:\n  - {{host: a.example, {rest}}}\n")).require;
    assert_eq!(required("ports: [443], tls: require"), [Layer::Sni]);
    assert_eq!(required("ports: [443]"), []);
    assert_eq!(required("ports: [443], tls: off"), []);
    let both = "require: [sni]\nallow:\n  - {host: a.example, ports: [443], tls: require}\n";
    assert_eq!(policy(both).require, [Layer::Sni]);
}

#[test]
fn a_rule_in_two_parts_is_one_rule() {
    let rules = "allow:\n  - {host: a.example, ports: [80, 443]}\n  - b.example:443\n";
    let ids: Vec<_> = parts(rules).into_iter().map(|(id, ..)| id).collect();
    let one = "a.example:80,443/tcp";
    assert_eq!(ids, [one, one, "b.example:443/tcp"]);
    assert_eq!(policy(rules).written().count(), 2);
    let tables = compile(&policy(rules), 1, RULE_FIRST).unwrap_or_else(|e| panic!("{e}"));
    let flags: Vec<u16> = tables.rules.iter().map(|rule| rule.flags).collect();
    assert_eq!(flags, [grant::Rule::TLS, 0, grant::Rule::TLS]);
}

#[test]
fn denied_names_are_refused_under_a_permitted_wildcard() {
    let policy = policy(
        "allow: ['*.example.org:443', 'api.example.org:443']\ndeny: [{host: bad.example.org}, {host: '*.api.example.org', ports: [443]}]\n",
    );
    let tables = compile(&policy, 7, RULE_FIRST).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::default();
    memory.install(&tables, ENFORCED);
    let says = |text: &str, expected: (Action, Reason)| {
        let name = Name::parse(text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(asked(&memory, 7, &name, 443), expected, "{text}");
    };
    let (allow, deny) = (
        (Action::Allow, Reason::None),
        (Action::Deny, Reason::DenyRule),
    );
    let stranger = (Action::Deny, Reason::SniStranger);
    says("www.example.org", allow);
    says("a.b.example.org", allow);
    says("api.example.org", allow);
    says("bad.example.org", deny);
    says("x.api.example.org", deny);
    says("example.org", stranger);
    says("badexample.org", stranger);
    says("api.example.org.evil.example", stranger);
}

#[test]
fn many_ports_fit_where_no_name_is_asked_for() {
    let ports: Vec<String> = (0..40).map(|n| (1000 + 2 * n).to_string()).collect();
    let ports = ports.join(", ");
    policy(&format!(
        "allow: [{{host: a.example, ports: [443, {ports}]}}]\n"
    ));
    let full = super::faults(&format!(
        "allow:\n  - {{host: b.example, ports: [80, 443]}}\n  - {{host: a.example, ports: [{ports}], tls: require}}\n"
    ));
    let expected = "p.yaml:5:5: 40 port ranges meet for the name a.example; at most 16 fit";
    assert!(full[0].contains(expected), "{full:?}");
}

#[test]
fn a_judged_name_is_said_to_nobody_but_the_envelope_proxy() {
    let judged = policy(
        "allow:\n  - { host: a.example.com, ports: [443], inspect: { unlisted: report, mode: report } }\n  \
         - b.example.com:443\n",
    );
    let Some((tables, memory)) = installed(&judged) else {
        panic!("it does not fit");
    };
    let flags: Vec<u16> = tables.rules.iter().map(|rule| rule.flags).collect();
    assert_eq!(flags, [0, grant::Rule::TLS], "the proxy checks its names");
    let said = |text: &str| match Name::parse(text) {
        Ok(name) => asked(&memory, 7, &name, 443).0,
        Err(error) => panic!("{text} {error}"),
    };
    assert_eq!(said("b.example.com"), Action::Allow);
    assert_eq!(said("a.example.com"), Action::Deny);
}
