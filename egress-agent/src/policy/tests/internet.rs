//! `internet:`: the whole public Internet, by name.

use egress_common::{
    abi::RULE_FIRST,
    grant::Rule,
    sni::{NameQuery, by_name},
    verdict::{Action, Reason},
};

use super::{faults, policy};
use crate::policy::{
    compile, explain,
    model::{PortSpan, Protocols, Target},
    name::{HostPattern, Name},
    tables::Memory,
};

const RULE: &str = "allow:\n  - internet: [443]\n    why: it fetches what it is told\n";

fn covers(name: &str) -> bool {
    Name::parse(name).is_ok_and(|name| HostPattern::Public.covers(&name))
}

#[test]
fn it_means_public_names_over_tls() {
    let policy = policy(RULE);
    let rule = &policy.allow[0];
    assert_eq!(policy.allow.len(), 1);
    assert_eq!(rule.id, "internet:443/tcp");
    assert_eq!(rule.target, Target::Host(HostPattern::Public));
    assert_eq!(rule.protocols, Protocols::TCP);
    let https = PortSpan {
        first: 443,
        last: 443,
    };
    assert_eq!(rule.ports, [https]);
    assert!(rule.tls && !rule.private && !rule.ech);
}

#[test]
fn other_ports_ask_for_no_name_in_tls() {
    let policy = policy(&RULE.replace("[443]", "[443, 80, \"8000-8010\"]"));
    let tls: Vec<bool> = policy.allow.iter().map(|rule| rule.tls).collect();
    assert_eq!(tls, [true, false]);
    assert!(!policy.allow[1].takes(443, 6));
}

#[test]
fn names_of_networks_of_ones_own_are_not_public() {
    for name in [
        "example.org",
        "a.b.c.example.com",
        "xn--bcher-kva.example",
        "docs.rs",
        "zip.dev",
    ] {
        assert!(covers(name), "{name}");
    }
    for name in [
        "router",
        "metadata.google.internal",
        "nas.local",
        "db.corp",
        "printer.lan",
        "x.home.arpa",
        "7.113.0.203.in-addr.arpa",
        "hidden.onion",
        "a.localhost",
    ] {
        assert!(!covers(name), "{name}");
    }
}

#[test]
fn what_does_not_go_with_it_is_said() {
    for (rest, says) in [
        ("allow:\n  - internet: [443]\n", "says why"),
        (
            "allow:\n  - { internet: [443], why: x, ports: [80] }\n",
            "has no “ports”",
        ),
        (
            "allow:\n  - { internet: [443], why: x, private: true }\n",
            "has no “private”",
        ),
        (
            "allow:\n  - { internet: [443], why: x, protocol: any }\n",
            "TCP alone",
        ),
        (
            "allow:\n  - { internet: [443], why: x, host: a.example }\n",
            "more than one",
        ),
        ("deny:\n  - { internet: [443], why: x }\n", "“allow” only"),
        ("allow:\n  - { internet: all, why: x }\n", "internet: [443]"),
        ("allow:\n  - { internet: [53], why: x }\n", "53"),
        (
            "allow:\n  - { internet: [\"1-65535\"], why: x }\n",
            "at most 256",
        ),
        ("allow: [\"*:443\"]\n", "internet: [443]"),
    ] {
        let found = faults(rest).join("\n");
        assert!(found.contains(says), "{rest}: {found}");
    }
}

/// In TLS every readable name passes, and none that `deny` covers.
#[test]
fn denials_hold_within_it() {
    let policy = policy(&format!(
        "{RULE}deny: [\"*.evil.example:443\", \"bad.example:443\"]\n"
    ));
    let tables = compile(&policy, 1, RULE_FIRST).unwrap_or_else(|faults| panic!("{faults}"));
    let mut memory = Memory {
        names: tables.names.clone(),
        ..Memory::default()
    };
    for rule in &tables.rules {
        memory.active.insert(rule.slot);
        memory.flags.insert(rule.slot, rule.flags);
    }
    let says = |name: &str, port, encrypted| {
        let query = NameQuery::of(1, name.as_bytes()).unwrap_or_else(|| panic!("{name}"));
        let verdict = by_name(&query, port, encrypted, &memory);
        (verdict.action, verdict.reason)
    };
    for name in ["a.example", "evil.example", "www.anything.org"] {
        assert_eq!(says(name, 443, false).0, Action::Allow, "{name}");
        assert_eq!(says(name, 443, true).1, Reason::SniEncrypted, "{name}");
        assert_eq!(says(name, 444, false).1, Reason::SniStranger, "{name}");
    }
    for name in ["x.evil.example", "a.b.evil.example", "bad.example"] {
        assert_eq!(says(name, 443, false).1, Reason::DenyRule, "{name}");
    }
    // Another connector has nothing of it.
    let other = NameQuery::of(2, b"a.example").unwrap_or_else(|| panic!());
    assert_eq!(
        by_name(&other, 443, false, &memory).reason,
        Reason::SniStranger
    );
    assert!(tables.rules[0].flags & Rule::TLS != 0);
    assert!(tables.prefixes.is_empty(), "no address without a name");
    assert!(tables.names.len() <= tables.rules.len());
}

#[test]
fn explain_answers_for_it() {
    let policy = policy(RULE);
    for (to, action) in [
        ("www.example.org:443", "allow"),
        ("www.example.org:80", "deny"),
        ("nas.local:443", "deny"),
        ("198.51.100.7:443", "deny"),
        ("169.254.169.254:443", "deny"),
    ] {
        let dest = explain::Dest::parse(to).unwrap_or_else(|fault| panic!("{to} {fault}"));
        let told =
            explain::explain(&policy, &dest, None).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(told.answers[0].action, action, "{to}");
    }
}
