//! `listen:`: who may call in.

use std::net::IpAddr;

use egress_common::{
    abi::{TCP, UDP},
    decide::{Flow, decide},
    verdict::{Action, Reason},
};
use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    faults,
    made::{installed, made, spans},
    oracle::{SPECIAL, address, cases, flow, port, prefix, rule, within_net},
    policy,
};
use crate::policy::{
    Policy,
    explain::{Call, explain_call},
    model::Listen,
};

/// A rule about callers.
pub(super) fn listen() -> impl Strategy<Value = Listen> {
    let from = prop::collection::vec(prefix(), 1..3);
    (from, spans(port)).prop_map(|(from, ports)| Listen {
        id: String::new(),
        ports,
        from,
        why: None,
    })
}

/// Whether a policy lets an address call a port: a naive reading.
pub(super) fn lets_in(policy: &Policy, caller: IpAddr, port: u16) -> bool {
    let caller = caller.to_canonical();
    let special = |net: &IpNet| {
        SPECIAL.iter().all(|text| {
            let special: IpNet = text.parse().unwrap_or_else(|_| panic!("{text}"));
            !special.contains(&caller) || special.contains(net)
        })
    };
    policy.listen.iter().any(|rule| {
        let ports = &rule.ports;
        ports
            .iter()
            .any(|span| (span.first..=span.last).contains(&port))
            && rule
                .from
                .iter()
                .any(|net| net.contains(&caller) && special(net))
    })
}

/// The answer to a caller.
pub(super) fn call(connector: u32, caller: IpAddr, local_port: u16) -> Flow {
    Flow {
        inbound: true,
        local_port,
        port: 0,
        ..flow(connector, caller, 0, TCP)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn tables_let_in_whom_the_rules_let_in(
        listen in prop::collection::vec(listen(), 0..5),
        allow in prop::collection::vec(rule(), 0..3),
        probes in prop::collection::vec((address(), port()), 20),
        inside in prop::collection::vec((any::<prop::sample::Index>(), any::<u128>(), port()), 20),
    ) {
        let policy = made(allow, Vec::new(), listen);
        let Some((_, memory)) = installed(&policy) else {
            return Ok(());
        };
        let nets: Vec<IpNet> = policy.listen.iter().flat_map(|rule| rule.from.clone()).collect();
        let inside = inside.iter().filter(|_| !nets.is_empty())
            .map(|(index, bits, port)| (within_net(index.get(&nets), *bits), *port));
        for (caller, port) in probes.iter().copied().chain(inside) {
            let verdict = decide(&call(7, caller, port), &memory);
            // `::` and `0.0.0.0` are loopback as destinations, from where everybody may call.
            let loopback = call(7, caller, port).addr.is_loopback();
            let expected = loopback || lets_in(&policy, caller, port);
            prop_assert_eq!(verdict.action == Action::Allow, expected, "{} {}", caller, port);
            if !expected {
                prop_assert_eq!(verdict.reason, Reason::Inbound);
            }
            let datagram = Flow { protocol: UDP, ..call(7, caller, port) };
            prop_assert_eq!(decide(&datagram, &memory).action, Action::Deny);
            let outbound = Flow { inbound: false, ..call(7, caller, port) };
            prop_assert_eq!(decide(&outbound, &memory).action, Action::Deny, "no way out");
        }
    }
}

#[test]
fn every_spelling_has_one_id() {
    let ids = |rest: &str| policy(rest).listen[0].id.clone();
    let short = ids("listen: [8080 from 10.0.0.0/8]\n");
    assert_eq!(short, "listen:8080/tcp:10.0.0.0/8");
    assert_eq!(
        ids("listen: [{ports: [\"8080\"], from: \"::ffff:10.0.0.0/104\", protocol: tcp}]\n"),
        short
    );
    assert_eq!(
        ids(
            "listen: [{ports: [9, \"3-4\"], from: [\"2001:db8::/32\", 10.0.0.1], why: the proxy}]\n"
        ),
        "listen:3-4,9/tcp:10.0.0.1,2001:db8::/32"
    );
    let own = policy("listen: [{id: x, ports: [1], from: 10.0.0.1, why: the proxy}]\n");
    assert_eq!(own.listen[0].why.as_deref(), Some("the proxy"));
    assert_eq!(own.listen[0].id, "x");
    assert!(policy("listen: []\n").listen.is_empty());
}

#[test]
fn each_fault_is_found_and_says_what_to_write() {
    for (rule, expected) in [
        ("\"8080\"", "does not say who may call"),
        ("8080", "is the number 8080; write “8080 from 10.0.0.0/8”"),
        ("8080 from", "does not say who may call"),
        ("8080 from 10.0.0.1 10.0.0.2", "several go into a mapping"),
        ("8080/udp from 10.0.0.1", "UDP knows no connections"),
        ("0 from 10.0.0.1", "is no port"),
        ("8080 from everybody", "is no address prefix"),
        (
            "8080 from 10.0.0.1/8",
            "has bits set behind its prefix length",
        ),
        (
            "8080 from 127.0.0.0/8",
            "from where everybody may call; remove it",
        ),
        ("8080 from ::1", "from where everybody may call; remove it"),
        ("8080 from 0.0.0.0", "means this host itself"),
        ("{from: 10.0.0.1}", "has no “ports”"),
        ("{ports: [1]}", "does not say “from” where"),
        ("{ports: [1], from: []}", "it takes 1 to 256"),
        ("{ports: [], from: 10.0.0.1}", "“ports” is an empty list"),
        ("{ports: [1], from: 5}", "“from” is the number 5"),
        (
            "{ports: [1], from: [10.0.0.0/8, 10.1.0.0/16]}",
            "name each address once",
        ),
        (
            "{ports: [1], from: 10.0.0.1, protocol: udp}",
            "permit those under “allow”",
        ),
        ("{ports: [1], form: 10.0.0.1}", "did you mean “from:”?"),
        ("{port: 1, from: 10.0.0.1}", "did you mean “ports:”?"),
        ("[1]", "a rule is a list"),
    ] {
        let found = faults(&format!("listen:\n  - {rule}\n"));
        let hit = found
            .iter()
            .any(|fault| fault.contains(expected) && fault.contains("p.yaml:4:"));
        assert!(hit, "{rule}: {found:#?}");
    }
    let twice = faults("listen: [8080 from 10.0.0.1, {ports: [8080], from: [10.0.0.1]}]\n");
    assert!(
        twice[0].contains("says the same as entry 1 of “listen”"),
        "{twice:?}"
    );
    let ids = faults(
        "allow: [{id: x, host: a.example, ports: [1]}]\nlisten: [{id: x, ports: [1], from: 10.0.0.1}]\n",
    );
    assert!(
        ids[0].contains("the id “x” is that of entry 1 of “allow”"),
        "{ids:?}"
    );
    let full: Vec<String> = (0..20)
        .map(|n| format!("{} from 10.0.0.0/8", n * 2 + 1))
        .collect();
    let full = faults(&format!("listen: [{}]\n", full.join(", ")));
    assert!(
        full[0].contains("20 port ranges meet under 10.0.0.0/8"),
        "{full:?}"
    );
}

#[test]
fn explained() {
    let policy = policy(
        "allow: [{cidr: 0.0.0.0/0, ports: [443]}]\nlisten:\n  - {ports: [8080], from: 10.0.0.0/8, why: the proxy}\n  - 9000 from 0.0.0.0/0\n",
    );
    let ask = |port: &str, from: &str| {
        let call = Call::parse(port, from).unwrap_or_else(|complaint| panic!("{complaint}"));
        explain_call(&policy, &call)
            .unwrap_or_else(|faults| panic!("{faults}"))
            .to_string()
    };
    let says = |port: &str, from: &str, expected: &[&str]| {
        let text = ask(port, from);
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    };
    says(
        ":8080",
        "10.1.2.3",
        &[
            "x ← 10.1.2.3 to port 8080/tcp: allowed",
            "by rule listen:8080/tcp:10.0.0.0/8 (the proxy)",
        ],
    );
    says(
        "8080",
        "192.0.2.1",
        &[
            "denied",
            "inbound",
            "lets others call that port, not 192.0.2.1",
        ],
    );
    says(
        ":443",
        "192.0.2.1",
        &["denied", "lets 192.0.2.1 call port 9000"],
    );
    says(
        ":9000",
        "169.254.1.1",
        &["denied", "is too wide to take link-local"],
    );
    says(
        ":1/tcp",
        "::ffff:127.0.0.1",
        &["allowed", "callers on loopback are always let in"],
    );
    for (port, from) in [
        ("", "10.0.0.1"),
        (":0", "10.0.0.1"),
        ("a:1", "10.0.0.1"),
        (":1/udp", "10.0.0.1"),
        (":1", "a.example"),
        (":1", "10.0.0.0/8"),
    ] {
        assert!(Call::parse(port, from).is_err(), "{port} {from}");
    }
}
