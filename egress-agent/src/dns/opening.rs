//! Which ports the rules leave open for a name, and of those for an address. Pure.
//!
//! The kernel looks at exact grants before prefixes, so what `deny:` takes away must never
//! become a grant: it is subtracted here, host rules by name and prefixes by address.

use std::net::{IpAddr, Ipv4Addr};

use egress_common::abi::{TCP, UDP};
use ipnet::IpNet;

use super::address::class;
use crate::{
    host::switch::{self, Part},
    policy::{
        model::{Policy, PortSpan, Rule, Target},
        name::Name,
        special::AddressClass,
    },
};

/// What one rule of `allow` leaves open for a name over one protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opening {
    /// Place of the rule in `allow`.
    pub rule: usize,
    /// IP protocol number.
    pub protocol: u8,
    /// Ports that no `deny:` host rule takes away; never empty.
    pub spans: Vec<PortSpan>,
    /// Whether answers may point inside.
    pub private: bool,
}

/// The openings for a name. Empty where no rule covers it, or `deny:` takes all of it.
pub fn openings(policy: &Policy, name: &Name) -> Vec<Opening> {
    policy
        .rules_for(name)
        .flat_map(|(index, rule)| {
            protocols(rule).map(move |protocol| Opening {
                rule: index,
                protocol,
                spans: rule.ports.clone(),
                private: rule.private,
            })
        })
        .filter_map(|opening| opening.without_name(policy, name))
        .collect()
}

/// What an answer's address is; `behind`: what a translator makes of it; `own`: one of the two is
/// this host's, which is as good as private.
pub fn place(address: IpAddr, behind: Option<Ipv4Addr>, own: bool) -> AddressClass {
    let class = class(address, behind);
    if own {
        class.max(AddressClass::Private)
    } else {
        class
    }
}

/// The `deny:` rule that covers an address, for the report.
pub fn address_denier(policy: &Policy, address: IpAddr, behind: Option<Ipv4Addr>) -> Option<&Rule> {
    policy
        .deny
        .iter()
        .find(|rule| covers(rule, address, behind))
}

/// The `deny:` rule that names a host, for the report.
pub fn denier<'a>(policy: &'a Policy, name: &Name) -> Option<&'a Rule> {
    policy.deny.iter().find(|rule| covers_name(rule, name))
}

impl Opening {
    /// What is left when the name of an alias on the way is looked up in `deny:` too: a host
    /// that is denied is not reached under another name. `None`: nothing is left.
    pub fn without_name(mut self, policy: &Policy, name: &Name) -> Option<Self> {
        for rule in &policy.deny {
            if covers_name(rule, name) && covers_protocol(rule, self.protocol) {
                self.spans = subtract(&self.spans, rule);
            }
        }
        (!self.spans.is_empty()).then_some(self)
    }

    /// Whether the rule takes an answer that points to such a place.
    pub fn admits(&self, class: AddressClass) -> bool {
        class.admitted(self.private) || switch::is_off(Part::Rebinding)
    }

    /// The ports to an address: what is left after the `deny:` prefixes that cover it, or what
    /// a translator makes of it.
    pub fn spans_to(
        &self,
        policy: &Policy,
        address: IpAddr,
        behind: Option<Ipv4Addr>,
    ) -> Vec<PortSpan> {
        policy
            .deny
            .iter()
            .filter(|rule| covers(rule, address, behind) && covers_protocol(rule, self.protocol))
            .fold(self.spans.clone(), |spans, rule| subtract(&spans, rule))
    }
}

fn protocols(rule: &Rule) -> impl Iterator<Item = u8> + use<> {
    let protocols = rule.protocols;
    [(TCP, protocols.tcp), (UDP, protocols.udp)]
        .into_iter()
        .filter_map(|(protocol, on)| on.then_some(protocol))
}

fn covers_protocol(rule: &Rule, protocol: u8) -> bool {
    protocols(rule).any(|own| own == protocol)
}

fn covers_name(rule: &Rule, name: &Name) -> bool {
    match &rule.target {
        Target::Host(pattern) => pattern.covers(name),
        Target::Cidr(_) | Target::Unix(_) | Target::Session(_) => false,
    }
}

fn covers(rule: &Rule, address: IpAddr, behind: Option<Ipv4Addr>) -> bool {
    covers_address(rule, address) || behind.is_some_and(|v4| covers_address(rule, v4.into()))
}

fn covers_address(rule: &Rule, address: IpAddr) -> bool {
    match &rule.target {
        Target::Cidr(net) => contains(net, address),
        Target::Host(_) | Target::Unix(_) | Target::Session(_) => false,
    }
}

/// A prefix in v4-mapped notation covers the IPv4 addresses it means.
fn contains(net: &IpNet, address: IpAddr) -> bool {
    net.contains(&address)
        || match (net, address) {
            (IpNet::V6(net), IpAddr::V4(v4)) => net.contains(&v4.to_ipv6_mapped()),
            _ => false,
        }
}

/// Spans less the ports of a rule. A rule without ports takes all of them.
fn subtract(spans: &[PortSpan], rule: &Rule) -> Vec<PortSpan> {
    if rule.ports.is_empty() {
        return Vec::new();
    }
    let mut left = spans.to_vec();
    for hole in &rule.ports {
        left = left.iter().flat_map(|span| around(*span, *hole)).collect();
    }
    left
}

/// The parts of a span below and above a hole.
fn around(span: PortSpan, hole: PortSpan) -> impl Iterator<Item = PortSpan> {
    let below = PortSpan {
        first: span.first,
        last: span.last.min(hole.first.saturating_sub(1)),
    };
    let above = PortSpan {
        first: span.first.max(hole.last.saturating_add(1)),
        last: span.last,
    };
    // At the ends of the port range saturation would turn "nothing" into one port.
    let below = (hole.first > 0 && below.first <= below.last).then_some(below);
    let above = (hole.last < u16::MAX && above.first <= above.last).then_some(above);
    below.into_iter().chain(above)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dns::tests::stub::{cidr, host, policy};

    fn span((a, b): (u16, u16)) -> PortSpan {
        PortSpan {
            first: a.min(b),
            last: a.max(b),
        }
    }

    fn pairs() -> impl Strategy<Value = Vec<(u16, u16)>> {
        let port = || prop_oneof![Just(0), Just(1), Just(u16::MAX), 0..40u16, any::<u16>()];
        prop::collection::vec((port(), port()), 1..4).prop_map(|pairs| {
            pairs
                .into_iter()
                .map(|pair| (pair.0.min(pair.1), pair.0.max(pair.1)))
                .collect()
        })
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap_or_else(|error| unreachable!("{text} {error}"))
    }

    proptest! {
        #[test]
        fn subtraction_is_that_of_sets(spans in pairs(), holes in pairs()) {
            let rule = host("x.example", &holes);
            let spans: Vec<PortSpan> = spans.into_iter().map(span).collect();
            let left = subtract(&spans, &rule);
            let within = |list: &[PortSpan], port| {
                list.iter().any(|span| span.first <= port && port <= span.last)
            };
            for port in 0..=u16::MAX {
                let expected = within(&spans, port) && !within(&rule.ports, port);
                prop_assert_eq!(within(&left, port), expected, "port {}", port);
            }
        }
    }

    #[test]
    fn a_denial_of_all_ports_closes_a_name() {
        let mut rules = policy(vec![host("*.example.com", &[(443, 443)])]);
        assert_eq!(openings(&rules, &name("a.example.com")).len(), 1);
        rules.deny = vec![host("a.example.com", &[(1, 65535)])];
        assert!(openings(&rules, &name("a.example.com")).is_empty());
        assert_eq!(openings(&rules, &name("b.example.com")).len(), 1);
        assert!(openings(&rules, &name("example.com")).is_empty());
    }

    #[test]
    fn a_denial_of_another_port_or_protocol_leaves_it_open() {
        let mut rules = policy(vec![host("a.example.com", &[(443, 443)])]);
        rules.deny = vec![host("a.example.com", &[(80, 80)])];
        assert_eq!(openings(&rules, &name("a.example.com")).len(), 1);
        let mut udp = host("a.example.com", &[(443, 443)]);
        udp.protocols = crate::policy::model::Protocols {
            tcp: false,
            udp: true,
        };
        rules.deny = vec![udp];
        assert_eq!(openings(&rules, &name("a.example.com")).len(), 1);
    }

    #[test]
    fn a_denied_prefix_in_mapped_notation_covers_ipv4() {
        let mut rules = policy(vec![host("a.example.com", &[(443, 443)])]);
        rules.deny = vec![cidr("::ffff:203.0.113.0/120", &[(1, 65535)])];
        let open = openings(&rules, &name("a.example.com"));
        let spans = |text: [u8; 4]| -> usize {
            open.iter()
                .map(|opening| opening.spans_to(&rules, IpAddr::from(text), None).len())
                .sum()
        };
        assert_eq!(spans([203, 0, 113, 7]), 0);
        assert_eq!(spans([198, 51, 100, 7]), 1);
    }
}
