//! The compiled tables and the shared verdict against a naive reading of the model.
//!
//! The oracle shares no code with the compiler, the special ranges and the address type: it
//! works on `IpAddr`, walks every rule for every question and knows the special ranges as
//! text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_common::{
    abi::{RULE_FIRST, TCP, UDP},
    decide::{Flow, decide},
    grant::Connector,
    key::Addr,
    verdict::{Action, Layer, Reason},
};
use ipnet::IpNet;
use proptest::prelude::*;

use super::made::{installed, made, spans};
use crate::policy::{
    compile,
    model::{List, Policy, Protocols, Rule, Target},
};

pub(super) const SPECIAL: &[&str] = &[
    "0.0.0.0/8",
    "100.100.100.200/32",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/96",
    "::1/128",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2001::/32",
    "2002::/16",
    "fd00:c1::a9fe:a9fe/128",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "fe80::/10",
    "ff00::/8",
];

/// What the rules say of a destination.
#[derive(PartialEq, Debug)]
pub(super) enum Answer {
    Allowed,
    Denied,
    Unmentioned,
}

pub(super) fn oracle(policy: &Policy, addr: IpAddr, port: u16, protocol: u8) -> Answer {
    // Broadcast addresses of loopback: no rule is asked.
    if ["127.0.0.0", "127.255.255.255"].contains(&canonical(addr).to_string().as_str()) {
        return Answer::Unmentioned;
    }
    if denies(policy, addr, port, protocol) {
        return Answer::Denied;
    }
    let addr = canonical(addr);
    let explicit = |rule: &&Rule| {
        SPECIAL.iter().all(|text| {
            let special: IpNet = text.parse().unwrap_or_else(|_| panic!("{text}"));
            let Target::Cidr(net) = &rule.target else {
                return false;
            };
            !special.contains(&addr) || special.contains(net)
        })
    };
    if policy
        .allow
        .iter()
        .filter(|rule| speaks(rule, addr, port, protocol))
        .any(|rule| explicit(&rule))
    {
        return Answer::Allowed;
    }
    Answer::Unmentioned
}

/// Whether a rule of the list of denials covers a destination.
fn denies(policy: &Policy, addr: IpAddr, port: u16, protocol: u8) -> bool {
    let mut rules = policy.deny.iter();
    rules.any(|rule| speaks(rule, canonical(addr), port, protocol))
}

fn speaks(rule: &Rule, addr: IpAddr, port: u16, protocol: u8) -> bool {
    let Target::Cidr(net) = &rule.target else {
        return false;
    };
    let protocols = if protocol == TCP {
        rule.protocols.tcp
    } else {
        rule.protocols.udp
    };
    let mut spans = rule.ports.iter();
    protocols && net.contains(&addr) && spans.any(|span| (span.first..=span.last).contains(&port))
}

/// IPv4-mapped as IPv4, unspecified as loopback.
fn canonical(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    }
}

/// Addresses near which things can go wrong; the rest is random.
const EDGES: &[&str] = &[
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "1.0.0.0",
    "10.0.0.0",
    "10.0.0.1",
    "10.1.255.255",
    "100.100.100.199",
    "100.100.100.200",
    "100.100.100.201",
    "126.255.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.254.0.0",
    "168.63.129.16",
    "168.63.129.17",
    "169.254.169.254",
    "169.255.0.0",
    "192.0.2.7",
    "223.255.255.255",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::127.0.0.1",
    "::ffff:0.0.0.0",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::fffe:ffff:ffff",
    "::1:0:0:0",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "64:ff9b::1:0:0",
    "2001::1",
    "2001:db8::1",
    "2001:db8:0:1::1",
    "2002:7f00:1::",
    "2003::1",
    "fd00:c1::a9fe:a9fe",
    "fd00:ec2::253",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd20:ce::255",
    "fe7f:ffff::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "fd12:3456::1",
    "ff02::1",
];

pub(super) fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => prop::sample::select(EDGES)
            .prop_map(|text| text.parse().unwrap_or_else(|_| panic!("{text}"))),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

/// A prefix in its normal form; IPv4-mapped ones as IPv4, as lowering leaves them.
pub(super) fn prefix() -> impl Strategy<Value = IpNet> {
    let special = prop::sample::select(SPECIAL)
        .prop_map(|text| text.parse().unwrap_or_else(|_| panic!("{text}")));
    let near = (address(), any::<u8>()).prop_filter_map("no prefix", |(addr, cut)| {
        let addr = addr.to_canonical();
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        let net = IpNet::new(addr, cut % (bits + 1)).ok()?.trunc();
        let mapped = net.network().to_canonical().is_ipv4() && net.addr().is_ipv6();
        (!mapped || net.prefix_len() < 96).then_some(net)
    });
    let whole = prop::sample::select(&["0.0.0.0/0", "::/0", "128.0.0.0/1", "::/80", "::/64"][..])
        .prop_map(|text| text.parse().unwrap_or_else(|_| panic!("{text}")));
    prop_oneof![4 => near, 2 => special, 2 => whole]
}

const PORTS: &[u16] = &[1, 2, 79, 80, 81, 442, 443, 444, 8080, 65534, 65535];

pub(super) fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(PORTS)
}

pub(super) fn rule() -> impl Strategy<Value = Rule> {
    (prefix(), spans(port), 1_u8..4).prop_map(|(net, ports, protocols)| Rule {
        id: String::new(),
        target: Target::Cidr(net),
        ports,
        protocols: Protocols {
            tcp: protocols & 1 != 0,
            udp: protocols & 2 != 0,
        },
        why: None,
        private: false,
        lookups_per_minute: crate::policy::model::LOOKUPS_PER_MINUTE,
        tls: false,
        ech: false,
        inspect: None,
    })
}

pub(super) fn policies() -> impl Strategy<Value = Policy> {
    let rules = |most: usize| prop::collection::vec(rule(), 0..most);
    (rules(7), rules(4)).prop_map(|(allow, deny)| made(allow, deny, Vec::new()))
}

pub(super) const ENFORCED: Connector = Connector {
    door_v6: Addr { halves: [0, 0] },
    door_v4: 0,
    door_port: 0,
    mode: Connector::ENFORCE,
    unix: 0,
    flags: 0,
};

pub(super) fn flow(connector: u32, addr: IpAddr, port: u16, protocol: u8) -> Flow {
    let octets = match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    Flow {
        addr: Addr::from_octets(octets),
        connector,
        port,
        protocol,
        layer: Layer::Packet,
        inbound: false,
        local_port: 0,
        ifindex: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn tables_say_what_the_rules_say(
        policy in policies(),
        other in policies(),
        probes in prop::collection::vec((address(), port(), any::<bool>()), 40),
        inside in prop::collection::vec((any::<prop::sample::Index>(), any::<u128>()), 20),
    ) {
        let Some((tables, mut memory)) = installed(&policy) else {
            return Ok(());
        };
        let first = RULE_FIRST + u32::try_from(tables.rules.len()).unwrap_or(0);
        if let Ok(others) = compile(&other, 8, first) {
            memory.install(&others, ENFORCED);
        }
        let rules: Vec<Rule> = policy.allow.iter().chain(&policy.deny).cloned().collect();
        let inside = inside.iter().filter(|_| !rules.is_empty()).map(|(index, bits)| {
            (within(index.get(&rules), *bits), 443, true)
        });
        for (addr, port, tcp) in probes.iter().copied().chain(inside) {
            let protocol = if tcp { TCP } else { UDP };
            let verdict = decide(&flow(7, addr, port, protocol), &memory);
            let expected = oracle(&policy, addr, port, protocol);
            let found = match (verdict.action, verdict.reason) {
                (Action::Allow, _) => Answer::Allowed,
                (Action::Deny, Reason::DenyRule) => Answer::Denied,
                _ => Answer::Unmentioned,
            };
            prop_assert_eq!(found, expected, "{} {} {}", addr, port, protocol);
            if verdict.action == Action::Allow {
                let rule = tables.rule(verdict.rule);
                prop_assert!(rule.is_some_and(|rule| rule.list == List::Allow));
            }
            let denied = policy.address_denied(addr, protocol, port).is_some();
            prop_assert_eq!(denied, denies(&policy, addr, port, protocol));
        }
    }

    #[test]
    fn no_two_entries_have_one_key(policy in policies()) {
        let Some((tables, _)) = installed(&policy) else {
            return Ok(());
        };
        let mut keys: Vec<_> = tables.prefixes.iter().map(|(len, key, _)| (*len, *key)).collect();
        let before = keys.len();
        keys.sort();
        keys.dedup();
        prop_assert_eq!(keys.len(), before);
    }
}

/// Cases of the property tests; `PROPTEST_CASES` runs more.
pub(super) fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(400)
}

/// An address inside a rule's prefix.
pub(super) fn within(rule: &Rule, bits: u128) -> IpAddr {
    match &rule.target {
        Target::Cidr(net) => within_net(net, bits),
        Target::Host(_) | Target::Unix(_) | Target::Session(_) => Ipv4Addr::LOCALHOST.into(),
    }
}

/// An address inside a prefix.
pub(super) fn within_net(net: &IpNet, bits: u128) -> IpAddr {
    match net {
        IpNet::V4(net) => {
            let [.., a, b, c, d] = bits.to_be_bytes();
            let host = u32::from_be_bytes([a, b, c, d]) & net.hostmask().to_bits();
            Ipv4Addr::from_bits(net.network().to_bits() | host).into()
        }
        IpNet::V6(net) => {
            Ipv6Addr::from_bits(net.network().to_bits() | (bits & net.hostmask().to_bits())).into()
        }
    }
}
