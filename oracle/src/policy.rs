//! Drawn policies: written as YAML, read and compiled by the agent, and decided by the shared
//! function; the oracle reads the plain rules that the text was written from.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use egress_agent::policy::{self, Tables, model::List, tables::Memory};
use egress_common::{
    abi::{RULE_FIRST, TCP, UDP},
    decide::decide,
    verdict::{Action, Layer, Reason},
};

use crate::{
    draw::Draw,
    flow::{self, Attempt, canonical, number},
    world::{Member, first_bits},
};

/// A rule about a prefix, as a person would say it.
#[derive(Clone, Debug)]
pub struct Plain {
    /// Whether it refuses.
    pub deny: bool,
    /// The prefix's address.
    pub addr: IpAddr,
    /// Its length, counted as its family counts.
    pub length: u32,
    /// First and last port of its ranges.
    pub spans: Vec<(u16, u16)>,
    /// IP protocol numbers.
    pub protocols: Vec<u8>,
}

/// What the rules say of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Some rule permits it and none denies it.
    Allowed,
    /// A rule of `deny` covers it.
    Denied,
    /// No rule speaks of it.
    Unmentioned,
}

/// The connector's number in these tables.
pub const CONNECTOR: u32 = 7;

/// Draws a policy and attempts and compares. Answers how many attempts there were: none
/// where the agent refuses the policy. Panics where the readings differ.
pub fn compare(draw: &mut impl Draw, edges: &[IpAddr], attempts: usize) -> u64 {
    let rules = rules(draw, edges);
    let text = yaml(&rules);
    let Ok(policy) = policy::parse(Path::new("drawn.yaml"), &text) else {
        return 0;
    };
    let tables = policy::compile(&policy, CONNECTOR, RULE_FIRST).expect("what is parsed fits");
    let memory = installed(&tables);
    let bases: Vec<IpAddr> = rules.iter().map(|rule| rule.addr).collect();
    for _ in 0..attempts {
        let to = flow::address(draw, edges, &bases);
        let (port, protocol) = (draw.pick(&PORTS), draw.pick(&[TCP, UDP]));
        let expected = says(&rules, to, port, protocol);
        let found = decided(&memory, &tables, to, port, protocol);
        assert_eq!(found, expected, "{to} {port} {protocol} in\n{text}");
    }
    attempts as u64
}

/// The tables of one enforced connector without a door.
pub fn installed(tables: &Tables) -> Memory {
    let member = Member {
        id: CONNECTOR,
        mode: 1,
        door: None,
    };
    let mut memory = Memory::default();
    memory.install(tables, member.record());
    memory
}

/// The shared function's verdict as an answer. What it permits, it permits by a rule of
/// `allow`.
pub fn decided(memory: &Memory, tables: &Tables, to: IpAddr, port: u16, protocol: u8) -> Answer {
    let attempt = Attempt {
        to,
        connector: CONNECTOR,
        port,
        protocol,
        layer: Layer::Packet,
        inbound: false,
        local_port: 0,
        interface: 0,
    };
    let verdict = decide(&attempt.flow(), memory);
    match (verdict.action, verdict.reason) {
        (Action::Allow, _) => {
            let rule = tables.rule(verdict.rule).expect("a rule permits");
            assert_eq!(rule.list, List::Allow, "{rule:?} permits");
            Answer::Allowed
        }
        (Action::Deny, Reason::DenyRule) => Answer::Denied,
        (Action::Deny, _) => Answer::Unmentioned,
        other => panic!("{other:?} for {attempt:?}"),
    }
}

/// The answer by walking every rule.
pub fn says(rules: &[Plain], to: IpAddr, port: u16, protocol: u8) -> Answer {
    let to = canonical(to);
    // Loopback's broadcast addresses are nobody's: no rule is asked.
    if [[127, 0, 0, 0], [127, 255, 255, 255]]
        .map(IpAddr::from)
        .contains(&to)
    {
        return Answer::Unmentioned;
    }
    let speaks = |rule: &&Plain| {
        rule.protocols.contains(&protocol)
            && rule.addr.is_ipv4() == to.is_ipv4()
            && holds(rule.addr, rule.length, to)
            && rule
                .spans
                .iter()
                .any(|&(first, last)| first <= port && port <= last)
    };
    let mut speaking = rules.iter().filter(speaks);
    if speaking.clone().any(|rule| rule.deny) {
        return Answer::Denied;
    }
    if speaking.any(|rule| reaches_in(rule, to)) {
        return Answer::Allowed;
    }
    Answer::Unmentioned
}

/// Prefixes that wide rules leave out, as `docs/policy.md` lists them. One that lies inside
/// such a range counts there.
const LEFT_OUT: [(&str, u32); 19] = [
    ("0.0.0.0", 8),
    ("100.100.100.200", 32),
    ("127.0.0.0", 8),
    ("168.63.129.16", 32),
    ("169.254.0.0", 16),
    ("224.0.0.0", 4),
    ("255.255.255.255", 32),
    ("::", 96),
    ("::1", 128),
    ("::ffff:0:0:0", 96),
    ("64:ff9b::", 96),
    ("64:ff9b:1::", 48),
    ("2001::", 32),
    ("2002::", 16),
    ("fd00:c1::a9fe:a9fe", 128),
    ("fd00:ec2::254", 128),
    ("fd20:ce::254", 128),
    ("fe80::", 10),
    ("ff00::", 8),
];

/// Whether a rule that permits lies inside every special range in which the address lies.
fn reaches_in(rule: &Plain, to: IpAddr) -> bool {
    LEFT_OUT.iter().all(|&(special, length)| {
        let special: IpAddr = special.parse().expect("an address");
        let around = special.is_ipv4() == to.is_ipv4() && holds(special, length, to);
        !around || (rule.length >= length && holds(special, length, rule.addr))
    })
}

/// Whether an address lies in a prefix of its own family.
fn holds(net: IpAddr, length: u32, addr: IpAddr) -> bool {
    let length = if net.is_ipv4() { 96 + length } else { length };
    first_bits(number(addr), length) == first_bits(number(net), length)
}

/// Ports that attempts and rules use; never 53, which no rule may name.
const PORTS: [u16; 12] = [1, 2, 79, 80, 81, 442, 443, 444, 8080, 8081, 65534, 65535];

fn rules(draw: &mut impl Draw, edges: &[IpAddr]) -> Vec<Plain> {
    let count = draw.below(8);
    (0..count).map(|_| rule(draw, edges)).collect()
}

fn rule(draw: &mut impl Draw, edges: &[IpAddr]) -> Plain {
    let (addr, length) = match draw.below(6) {
        0 => draw.pick(&[(IpAddr::from([0; 4]), 0), (IpAddr::from([0; 16]), 0)]),
        1 => {
            let (addr, length) = draw.pick(&LEFT_OUT);
            (addr.parse().expect("an address"), length)
        }
        _ => {
            let addr = canonical(flow::address(draw, edges, &[]));
            let most = if addr.is_ipv4() { 33 } else { 129 };
            (addr, draw.below(most) as u32)
        }
    };
    let (one, other) = (draw.pick(&PORTS[..6]), draw.pick(&PORTS[..6]));
    let (low, high) = (one.min(other), one.max(other));
    // What lies on both sides of 53 would hold it.
    let mut spans = match draw.below(3) {
        0 if low > 53 || high < 53 => vec![(low, high)],
        _ => vec![(low, low)],
    };
    if draw.one_in(3) {
        spans.push((draw.pick(&PORTS[6..9]), draw.pick(&PORTS[9..])));
    }
    Plain {
        deny: draw.one_in(3),
        addr: network(addr, length),
        length,
        spans,
        protocols: draw.pick(&[&[TCP][..], &[UDP], &[TCP, UDP]]).to_vec(),
    }
}

/// The first address of a prefix.
fn network(addr: IpAddr, length: u32) -> IpAddr {
    let length = if addr.is_ipv4() { 96 + length } else { length };
    let first = Ipv6Addr::from_bits(first_bits(number(addr), length));
    match addr {
        IpAddr::V4(_) => first.to_canonical(),
        IpAddr::V6(_) => first.into(),
    }
}

fn yaml(rules: &[Plain]) -> String {
    let mut text = "version: 1\nconnector: drawn\n".to_owned();
    for (list, deny) in [("allow", false), ("deny", true)] {
        if !rules.iter().any(|rule| rule.deny == deny) {
            continue;
        }
        text += list;
        text += ":\n";
        for (rule, number) in rules.iter().zip(0..).filter(|(rule, _)| rule.deny == deny) {
            let protocol = match rule.protocols[..] {
                [TCP] => "tcp",
                [UDP] => "udp",
                _ => "any",
            };
            let spans: Vec<String> = rule.spans.iter().map(span).collect();
            let Plain { addr, length, .. } = rule;
            text += &format!(
                "  - id: rule-{number}\n    cidr: \"{addr}/{length}\"\n    \
                 ports: [{}]\n    protocol: {protocol}\n",
                spans.join(", ")
            );
        }
    }
    text
}

fn span((first, last): &(u16, u16)) -> String {
    if first == last {
        return first.to_string();
    }
    format!("\"{first}-{last}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Random;

    #[test]
    fn most_drawn_policies_are_accepted() {
        let edges = flow::edges();
        let accepted = (0..500).filter(|&seed| compare(&mut Random(seed), &edges, 1) == 1);
        assert!(accepted.count() > 250);
    }
}
