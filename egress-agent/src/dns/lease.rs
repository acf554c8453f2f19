//! From a TTL to what is granted, what is told, and when to ask again. Pure.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use egress_common::{
    abi::RULE_NONE,
    key::{Addr, GrantKey},
};

use super::{
    chain::Found,
    dropped::{Dropped, Why},
    nat64,
    opening::{Opening, address_denier, place},
};
use crate::{
    grant::Lease,
    policy::model::{DnsSettings, Policy},
};

/// Most leases one answer may make. A host rule over very many ports gets fewer addresses,
/// so that one name cannot fill the kernel's table ([`egress_common::abi::MAX_GRANTS`]).
pub const MAX_LEASES: usize = 8192;

/// How long an answer is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    /// The TTL the client is told. Seconds. The grant lasts at least this long.
    pub ttl: u32,
    /// How long the grant lasts.
    pub lease: Duration,
    /// When to ask again, so that an exact name's grant does not end in between.
    pub refresh: Duration,
}

/// The term of an answer with this TTL (seconds): the TTL brought between floor and ceiling
/// is told, and the grace comes on top of it. A ceiling below the floor wins. No grant is
/// shorter than a second, else the first connection would already be late.
pub fn term(ttl: u32, settings: &DnsSettings) -> Term {
    let told = Duration::from_secs(u64::from(ttl))
        .max(settings.ttl_floor)
        .min(settings.ttl_ceiling);
    let lease = told
        .saturating_add(settings.grace)
        .max(Duration::from_secs(1));
    Term {
        // Rounded down: a client is never told longer than its grant lasts. RFC 2181
        // section 8 limits a TTL to 31 bits.
        ttl: u32::try_from(told.as_secs())
            .unwrap_or(u32::MAX)
            .min(i32::MAX.unsigned_abs()),
        lease,
        refresh: told
            .min(lease.saturating_mul(4) / 5)
            .max(Duration::from_secs(1)),
    }
}

impl Term {
    /// The TTL to tell of an answer that is so old. Seconds. An exact name is told a little
    /// longer than its TTL while it is asked for again; the grant lasts.
    pub fn left(&self, age: Duration) -> u32 {
        let told = Duration::from_secs(u64::from(self.ttl));
        // Whole seconds, up where the grant lasts that much longer.
        let age = if self.lease.saturating_sub(told) >= Duration::from_secs(1) {
            Duration::from_secs(age.as_secs())
        } else {
            age
        };
        let left = match told.checked_sub(age) {
            Some(left) => left,
            None => self.lease.saturating_sub(age).min(Duration::from_secs(1)),
        };
        u32::try_from(left.as_secs()).unwrap_or(self.ttl)
    }
}

/// Where leases are entered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Connector id.
    pub connector: u32,
    /// Slots of the rules of `allow`, in order.
    pub slots: Vec<u32>,
    /// Which of these permit their addresses only with a name in TLS.
    pub named: BTreeSet<u32>,
}

impl Holder {
    /// The slot of the rule at a place in `allow`. One without a slot gets that of no rule,
    /// which is never in force.
    pub fn slot(&self, rule: usize) -> u32 {
        self.slots.get(rule).copied().unwrap_or(RULE_NONE)
    }
}

/// Whether an address is this host's own.
pub type IsOwn = fn(IpAddr) -> bool;

/// What one answer grants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Granted {
    /// Addresses with at least one lease, in the upstream's order.
    pub addresses: Vec<IpAddr>,
    /// A lease for every rule × protocol × port × address.
    pub leases: Vec<Lease>,
    /// Addresses left out: they point inside and no rule says `private: true`, a `deny:` prefix
    /// covers them on every port, or [`MAX_LEASES`] was reached.
    pub dropped: Vec<Dropped>,
}

/// The leases for the addresses of one name, through the openings its rules leave. `is_own`:
/// whether an address is this host's.
pub fn grant(
    policy: &Policy,
    openings: &[Opening],
    found: &Found,
    holder: &Holder,
    (expires_ns, is_own): (u64, IsOwn),
) -> Granted {
    let mut granted = Granted::default();
    for &address in &found.addresses {
        let behind = nat64::behind(address, &found.nat64);
        let own = is_own(address) || behind.is_some_and(|v4| is_own(v4.into()));
        let class = place(address, behind, own);
        let mut leases = Vec::new();
        let mut outside = false;
        for opening in openings.iter().filter(|opening| opening.admits(class)) {
            outside = true;
            let key = |port| GrantKey {
                addr: canonical(address),
                connector: holder.connector,
                port,
                protocol: opening.protocol,
                pad: 0,
            };
            for span in opening.spans_to(policy, address, behind) {
                leases.extend((span.first..=span.last).map(|port| Lease {
                    key: key(port),
                    rule: holder.slot(opening.rule),
                    named: holder.named.contains(&holder.slot(opening.rule)),
                    // 0 would mean "never ends".
                    expires_ns: expires_ns.max(1),
                }));
            }
        }
        let why = if !outside {
            Why::Inside { class, own, behind }
        } else if leases.is_empty() {
            Why::Denied(address_denier(policy, address, behind).map(|rule| rule.id.clone()))
        } else if granted.leases.len() + leases.len() > MAX_LEASES {
            Why::Excess
        } else {
            granted.addresses.push(address);
            granted.leases.append(&mut leases);
            continue;
        };
        // With nothing left open for the name, no address is to blame.
        if !openings.is_empty() {
            granted.dropped.push(Dropped { address, why });
        }
    }
    granted
}

/// The address as the kernel's tables know it.
pub(super) fn canonical(address: IpAddr) -> Addr {
    match address {
        IpAddr::V4(v4) => Addr::from_v4(v4.into()),
        IpAddr::V6(v6) => Addr::from_octets(v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        dns::{
            opening::openings,
            tests::stub::{CONNECTOR, holder, host, policy},
        },
        policy::name::Name,
    };

    proptest! {
        #[test]
        fn nobody_is_told_longer_than_the_grant_lasts(
            ttl: u32, floor in 0..100_000u64, ceiling in 0..100_000u64, grace in 0..10_000u64
        ) {
            let settings = DnsSettings {
                servers: Vec::new(),
                domains: Default::default(),
                ttl_floor: Duration::from_millis(floor),
                ttl_ceiling: Duration::from_millis(ceiling),
                grace: Duration::from_millis(grace),
            };
            let term = term(ttl, &settings);
            let told = Duration::from_secs(u64::from(term.ttl));
            prop_assert!(told + settings.grace <= term.lease);
            prop_assert!(told <= settings.ttl_ceiling);
            prop_assert!(told + Duration::from_secs(1) > settings.ttl_floor.min(settings.ttl_ceiling));
            prop_assert!(term.lease >= Duration::from_secs(1));
            prop_assert!(term.lease <= settings.ttl_ceiling + settings.grace + Duration::from_secs(1));
            prop_assert!(term.refresh >= Duration::from_secs(1));
            prop_assert!(term.refresh < term.lease || term.lease < Duration::from_millis(1250));
        }
    }

    #[test]
    fn defaults_give_what_the_design_says() {
        let settings = DnsSettings::default();
        let told = |ttl| {
            let term = term(ttl, &settings);
            (term.ttl, term.lease.as_secs(), term.refresh.as_secs())
        };
        assert_eq!(told(0), (30, 60, 30));
        assert_eq!(told(300), (300, 330, 264));
        assert_eq!(told(u32::MAX), (3600, 3630, 2904));
    }

    fn granted(ports: &[(u16, u16)], addresses: &[IpAddr]) -> Granted {
        let mut rule = host("a.example.com", ports);
        rule.protocols.udp = true;
        let rules = policy(vec![host("b.example.com", &[(1, 1)]), rule]);
        let name = Name::parse("a.example.com").unwrap_or_else(|error| unreachable!("{error}"));
        grant(
            &rules,
            &openings(&rules, &name),
            &Found {
                addresses: addresses.to_vec(),
                ..Found::default()
            },
            &holder(&rules),
            (0, |_| false),
        )
    }

    #[test]
    fn every_port_protocol_and_address_gets_a_lease() {
        let two = [
            IpAddr::from([203, 0, 113, 1]),
            IpAddr::from([203, 0, 113, 2]),
        ];
        let granted = granted(&[(80, 81), (443, 443)], &two);
        assert_eq!(granted.leases.len(), 12);
        assert_eq!(granted.addresses, two);
        for lease in &granted.leases {
            assert_eq!(lease.rule, 9);
            assert_eq!(lease.key.connector, CONNECTOR);
            assert_ne!(lease.expires_ns, 0, "0 would never end");
        }
    }

    #[test]
    fn wide_rules_get_fewer_addresses_and_never_half_of_one() {
        let four = [1, 2, 3, 4].map(|host| IpAddr::from([203, 0, 113, host]));
        let granted = granted(&[(1001, 2500)], &four);
        assert_eq!(granted.addresses, &four[..2]);
        assert_eq!(granted.leases.len(), 6000);
        let why: Vec<&Why> = granted.dropped.iter().map(|one| &one.why).collect();
        assert_eq!(why, [&Why::Excess, &Why::Excess]);
    }
}
