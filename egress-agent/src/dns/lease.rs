//! From a TTL to what is granted, what is told, and when to ask again. Pure.

use std::{net::IpAddr, time::Duration};

use egress_common::key::{Addr, GrantKey};

use super::opening::Opening;
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

/// Where leases are entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Connector id.
    pub connector: u32,
    /// Slot of the first rule of `allow`; the others follow in order.
    pub first_rule: u32,
}

/// What one answer grants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Granted {
    /// Addresses with at least one lease, in the upstream's order.
    pub addresses: Vec<IpAddr>,
    /// A lease for every rule × protocol × port × address.
    pub leases: Vec<Lease>,
    /// Addresses left out because they point inside and no rule says `private: true`.
    pub inside: usize,
    /// Addresses left out because a `deny:` prefix covers them on every port.
    pub denied: usize,
    /// Addresses left out because [`MAX_LEASES`] was reached.
    pub excess: usize,
}

/// The leases for the addresses of one name, through the openings its rules leave.
pub fn grant(
    policy: &Policy,
    openings: &[Opening],
    addresses: &[IpAddr],
    holder: Holder,
    expires_ns: u64,
) -> Granted {
    let mut granted = Granted::default();
    for &address in addresses {
        let mut leases = Vec::new();
        let mut outside = false;
        for opening in openings.iter().filter(|opening| opening.admits(address)) {
            outside = true;
            let key = |port| GrantKey {
                addr: canonical(address),
                connector: holder.connector,
                port,
                protocol: opening.protocol,
                pad: 0,
            };
            let rule = u32::try_from(opening.rule).unwrap_or(u32::MAX);
            for span in opening.spans_to(policy, address) {
                leases.extend((span.first..=span.last).map(|port| Lease {
                    key: key(port),
                    rule: holder.first_rule.saturating_add(rule),
                    // 0 would mean "never ends".
                    expires_ns: expires_ns.max(1),
                }));
            }
        }
        if !outside {
            granted.inside += 1;
        } else if leases.is_empty() {
            granted.denied += 1;
        } else if granted.leases.len() + leases.len() > MAX_LEASES {
            granted.excess += 1;
        } else {
            granted.addresses.push(address);
            granted.leases.append(&mut leases);
        }
    }
    granted
}

/// The address as the kernel's tables know it.
fn canonical(address: IpAddr) -> Addr {
    match address {
        IpAddr::V4(v4) => Addr::from_v4(v4.into()),
        IpAddr::V6(v6) => Addr::from_octets(v6.octets()),
    }
}
