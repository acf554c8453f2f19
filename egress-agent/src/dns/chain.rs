//! From the asked name along its aliases to the addresses at the end. Pure.

use std::net::IpAddr;

use hickory_proto::rr::{Name as WireName, RData, Record};

use super::{nat64::Prefix, verdict::Family};
use crate::policy::name::Name;

/// Longest chain of aliases that is followed.
pub const MAX_ALIASES: usize = 16;

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
}

/// Walks from the asked name along its aliases to the addresses at the end. Records of other
/// names are passed over. `None`: there is no address at the end of the chain.
pub fn follow(asked: &WireName, family: Family, records: &[Record]) -> Option<Found> {
    let mut name = asked;
    let mut found = Found {
        ttl: u32::MAX,
        ..Found::default()
    };
    for _ in 0..=MAX_ALIASES {
        let mut target = None;
        for record in records.iter().filter(|record| record.name == *name) {
            let address = match (&record.data, family) {
                (RData::A(a), Family::V4) => IpAddr::V4(a.0),
                (RData::AAAA(aaaa), Family::V6) => IpAddr::V6(aaaa.0),
                (RData::CNAME(alias), _) => {
                    target = Some(&alias.0);
                    found.ttl = found.ttl.min(record.ttl);
                    continue;
                }
                _ => continue,
            };
            found.ttl = found.ttl.min(record.ttl);
            if !found.addresses.contains(&address) {
                found.addresses.push(address);
            }
        }
        match target {
            Some(next) if found.addresses.is_empty() => {
                // A target that is no host name cannot be in a policy either.
                found.aliases.extend(host_name(next));
                name = next;
            }
            _ => break,
        }
    }
    (!found.addresses.is_empty()).then_some(found)
}

/// The alias at the end of what the records say, where it has no records of its own: the name
/// to ask for next. `None`: there is no alias, they go round, or it is no host name.
pub fn unfinished(asked: &WireName, records: &[Record]) -> Option<Name> {
    let mut name = asked;
    for _ in 0..=MAX_ALIASES {
        let target = records.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == *name => Some(&alias.0),
            _ => None,
        });
        match target {
            Some(next) => name = next,
            None if name == asked => return None,
            None => return host_name(name),
        }
    }
    None
}

/// A wire name as a policy knows it. From its labels, because the text form escapes some.
fn host_name(name: &WireName) -> Option<Name> {
    let labels: Vec<&[u8]> = name.iter().collect();
    if labels.iter().any(|label| label.contains(&b'.')) {
        return None;
    }
    Name::from_ascii(&labels.join(&b'.')).ok()
}
