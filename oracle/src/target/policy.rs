//! The text of a policy, from bytes to verdicts.

use std::{net::IpAddr, path::Path};

use egress_agent::policy::{
    self, Policy,
    model::{Protocols, Target},
};
use egress_common::abi::{RULE_FIRST, TCP, UDP};

use crate::{
    draw::{Bytes, Draw as _},
    flow,
    policy::{CONNECTOR, Plain, decided, installed, says},
};

/// Faults have places and readable text; what is accepted fits the tables, and its verdicts
/// are those of a naive reading of its rules.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match policy::parse(Path::new("p.yaml"), text) {
        Ok(policy) => accepted(&policy, data),
        Err(faults) => {
            assert!(!faults.as_slice().is_empty());
            for fault in faults.as_slice() {
                assert!(fault.line <= text.lines().count() + 1, "{fault}");
                let shown = fault.to_string();
                assert!(!shown.contains(char::is_control), "{shown:?}");
            }
        }
    }
}

fn accepted(policy: &Policy, data: &[u8]) {
    let tables = policy::compile(policy, CONNECTOR, RULE_FIRST).expect("what is parsed fits");
    let memory = installed(&tables);
    let rules = plain(policy);
    let bases: Vec<IpAddr> = rules.iter().map(|rule| rule.addr).collect();
    let mut ports: Vec<u16> = vec![1, 80, 443];
    for (first, last) in rules.iter().flat_map(|rule| rule.spans.iter().copied()) {
        ports.extend([first, last, first.saturating_sub(1), last.saturating_add(1)]);
    }
    ports.truncate(200);
    let mut edges = flow::edges();
    edges.extend(&bases);
    edges.truncate(200);
    // The text itself chooses what is asked.
    let mut draw = Bytes(data);
    for _ in 0..24 {
        let to = flow::address(&mut draw, &edges, &bases);
        let (port, protocol) = (draw.pick(&ports), draw.pick(&[TCP, UDP]));
        let found = decided(&memory, &tables, to, port, protocol);
        let expected = says(&rules, to, port, protocol);
        assert_eq!(found, expected, "{to} {port} {protocol} in {policy:#?}");
    }
}

/// The prefix rules of a policy.
fn plain(policy: &Policy) -> Vec<Plain> {
    let allow = policy.allow.iter().map(|rule| (rule, false));
    let deny = policy.deny.iter().map(|rule| (rule, true));
    let mut rules = Vec::new();
    for (rule, deny) in allow.chain(deny) {
        let Target::Cidr(net) = &rule.target else {
            continue;
        };
        let Protocols { tcp, udp } = rule.protocols;
        let named = [(tcp, TCP), (udp, UDP)].into_iter();
        rules.push(Plain {
            deny,
            addr: net.addr(),
            length: net.prefix_len().into(),
            spans: rule
                .ports
                .iter()
                .map(|span| (span.first, span.last))
                .collect(),
            protocols: named
                .filter(|(set, _)| *set)
                .map(|(_, number)| number)
                .collect(),
        });
    }
    rules
}
