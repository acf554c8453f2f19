//! From the asked name along its aliases to what stands at the end. Pure.

use std::net::IpAddr;

use hickory_proto::rr::{Name as WireName, RData, Record};

use super::{nat64::Prefix, service::Service, verdict::Family};
use crate::policy::name::Name;

/// Longest chain of aliases that is followed. More than any resolver brings: BIND follows 11,
/// 16 before 9.18.29 (`max-query-restarts`), unbound 11, systemd-resolved 16
/// (`CNAME_REDIRECTS_MAX`); C libraries take whatever stands in the answer. Each alias is looked
/// up in `deny`, so there is a bound.
pub const MAX_ALIASES: usize = 64;

/// The addresses a name leads to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Names on the way (CNAME targets) that are host names, in order.
    pub aliases: Vec<Name>,
    /// The addresses at the end, in the upstream's order, without repeats.
    pub addresses: Vec<IpAddr>,
    /// The lowest TTL on the way. Seconds.
    pub ttl: u32,
    /// Prefixes by which the network translates to IPv4, besides the well-known one.
    pub nat64: Vec<Prefix>,
    /// Where the name really is, where `addresses` only stand for it.
    pub real: Vec<IpAddr>,
}

/// The services a name leads to (RFC 2782).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offers {
    /// Names on the way (CNAME targets) that are host names, in order.
    pub aliases: Vec<Name>,
    /// The services at the end, in the upstream's order.
    pub services: Vec<Service>,
    /// The lowest TTL on the way. Seconds.
    pub ttl: u32,
}

/// What stands at the end of a chain of aliases.
struct End<'a> {
    aliases: Vec<Name>,
    data: Vec<&'a RData>,
    ttl: u32,
}

/// Walks from the asked name along its aliases to the addresses at the end. Records of other
/// names are passed over. `None`: there is no address at the end of the chain.
pub fn follow(asked: &WireName, family: Family, records: &[Record]) -> Option<Found> {
    let address = |data: &RData| match (data, family) {
        (RData::A(a), Family::V4) => Some(IpAddr::V4(a.0)),
        (RData::AAAA(aaaa), Family::V6) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    };
    let end = walk(asked, records, |data| address(data).is_some())?;
    let mut found = Found {
        aliases: end.aliases,
        ttl: end.ttl,
        ..Found::default()
    };
    for address in end.data.into_iter().filter_map(address) {
        if !found.addresses.contains(&address) {
            found.addresses.push(address);
        }
    }
    Some(found)
}

/// The same, to the services at the end. A target of the root alone says that there is none
/// (RFC 2782), and is passed over.
pub fn offers(asked: &WireName, records: &[Record]) -> Option<Offers> {
    let end = walk(asked, records, |data| matches!(data, RData::SRV(_)))?;
    let service = |data: &RData| match data {
        RData::SRV(srv) if !srv.target.is_root() => Some(Service {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: host_name(&srv.target).ok_or_else(|| srv.target.to_ascii()),
        }),
        _ => None,
    };
    let services: Vec<Service> = end.data.into_iter().filter_map(service).collect();
    (!services.is_empty()).then_some(Offers {
        aliases: end.aliases,
        services,
        ttl: end.ttl,
    })
}

fn walk<'a>(
    asked: &'a WireName,
    records: &'a [Record],
    wanted: impl Fn(&RData) -> bool,
) -> Option<End<'a>> {
    let mut name = asked;
    let mut end = End {
        aliases: Vec::new(),
        data: Vec::new(),
        ttl: u32::MAX,
    };
    for _ in 0..=MAX_ALIASES {
        let mut target = None;
        for record in records.iter().filter(|record| record.name == *name) {
            if let RData::CNAME(alias) = &record.data {
                target = Some(&alias.0);
            } else if wanted(&record.data) {
                end.data.push(&record.data);
            } else {
                continue;
            }
            end.ttl = end.ttl.min(record.ttl);
        }
        if !end.data.is_empty() {
            return Some(end);
        }
        name = target?;
        // A target that is no host name cannot be in a policy either.
        end.aliases.extend(host_name(name));
    }
    None
}

/// What is left to ask for after what the records say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rest {
    /// The alias at the end has no records of its own: the name to ask for next.
    Alias(Name),
    /// There is no alias, they go round, or the last one is no host name.
    Nothing,
    /// There are more than [`MAX_ALIASES`].
    TooLong,
}

/// Looks for the alias at the end of what the records say.
pub fn rest(asked: &WireName, records: &[Record]) -> Rest {
    let mut passed = vec![asked];
    let mut name = asked;
    while passed.len() <= MAX_ALIASES + 1 {
        let target = records.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == *name => Some(&alias.0),
            _ => None,
        });
        match target {
            Some(next) if passed.contains(&next) => return Rest::Nothing,
            Some(next) => {
                name = next;
                passed.push(next);
            }
            None if name == asked => return Rest::Nothing,
            None => return host_name(name).map_or(Rest::Nothing, Rest::Alias),
        }
    }
    Rest::TooLong
}

/// A wire name as a policy knows it. From its labels, because the text form escapes some.
fn host_name(name: &WireName) -> Option<Name> {
    let labels: Vec<&[u8]> = name.iter().collect();
    if labels.iter().any(|label| label.contains(&b'.')) {
        return None;
    }
    Name::from_ascii(&labels.join(&b'.')).ok()
}
