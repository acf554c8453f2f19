//! What an upstream server sends: its records, the chain of aliases, the addresses.

use std::{collections::BTreeSet, net::IpAddr};

use egress_agent::{
    dns::{
        address::class,
        chain::{Found, MAX_ALIASES, follow},
        nat64,
        verdict::Family,
    },
    policy::special::AddressClass,
};
use hickory_proto::{
    op::Message,
    rr::{Name, RData, Record},
};

/// Only addresses that the asked name's chain leads to come out, with no TTL above those on
/// the way; none that an answer may never point to passes for public.
pub fn run(data: &[u8]) {
    let Ok(message) = Message::from_vec(data) else {
        return;
    };
    let asked = match message.queries.first() {
        Some(query) => query.name().clone(),
        None => Name::root(),
    };
    for family in Family::ALL {
        let found = follow(&asked, family, &message.answers);
        let reached = reached(&asked, &message.answers);
        let possible = addresses(family, &reached, &message.answers);
        match found {
            Some(found) => check(&found, &possible, &message.answers),
            // One alias for each name, and a chain that is not too long: then it is found.
            None => assert!(possible.is_empty() || is_tangled(&reached, &message.answers)),
        }
    }
}

fn check(found: &Found, possible: &BTreeSet<IpAddr>, records: &[Record]) {
    assert!(!found.addresses.is_empty() && found.aliases.len() <= MAX_ALIASES + 1);
    let distinct: BTreeSet<IpAddr> = found.addresses.iter().copied().collect();
    assert_eq!(distinct.len(), found.addresses.len(), "an address twice");
    assert!(distinct.is_subset(possible), "an address off the chain");
    assert!(records.iter().any(|record| record.ttl == found.ttl));
    for address in &found.addresses {
        let public = class(*address, nat64::behind(*address, &[])) == AddressClass::Public;
        assert!(
            !public || !is_inside(*address),
            "{address} passes for public"
        );
    }
}

/// The asked name and all that its aliases lead to.
fn reached(asked: &Name, records: &[Record]) -> Vec<Name> {
    let mut names = vec![asked.clone()];
    let mut at = 0;
    while at < names.len() {
        for record in records {
            if let RData::CNAME(alias) = &record.data
                && record.name == names[at]
                && !names.contains(&alias.0)
            {
                names.push(alias.0.clone());
            }
        }
        at += 1;
    }
    names
}

fn addresses(family: Family, names: &[Name], records: &[Record]) -> BTreeSet<IpAddr> {
    let own = records.iter().filter(|record| names.contains(&record.name));
    own.filter_map(|record| match (&record.data, family) {
        (RData::A(a), Family::V4) => Some(IpAddr::V4(a.0)),
        (RData::AAAA(aaaa), Family::V6) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    })
    .collect()
}

/// Whether some name has two aliases, or the chain is longer than is followed.
fn is_tangled(reached: &[Name], records: &[Record]) -> bool {
    let aliases = |name: &Name| {
        let own = records.iter().filter(|record| record.name == *name);
        own.filter(|record| matches!(record.data, RData::CNAME(_)))
            .count()
    };
    reached.len() > MAX_ALIASES || reached.iter().any(|name| aliases(name) > 1)
}

/// This host, its network and what never leads out, as the standard library knows them.
fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.to_ipv4().is_some()
        }
    }
}
