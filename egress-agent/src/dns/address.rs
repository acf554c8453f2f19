//! Rebinding protection: what an answer may point to. Pure.
//!
//! A name's owner chooses its addresses. Without this, `api.example.com → 127.0.0.1` or
//! `→ 169.254.169.254` would turn a permission for a stranger's server into one for this
//! host, its network or the cloud's credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of place an address is, for an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// Anywhere on the Internet. Documentation ranges (RFC 5737, RFC 3849) count as such:
    /// they lead nowhere, and tests live in them.
    Public,
    /// This host or its network: loopback (127/8, ::1), RFC 1918, shared address space
    /// (100.64/10), benchmarking (198.18/15), unique local and site-local IPv6, and the NAT64
    /// prefix 64:ff9b::/96 over a public or private address. Taken from an answer for a rule
    /// that says `private: true`.
    Private,
    /// Never taken from an answer, whatever the rule says; a CIDR rule can still permit it:
    /// cloud metadata, link-local, multicast, broadcast, 0/8, reserved space, and IPv6
    /// spellings of IPv4 that hide the true destination (v4-mapped, v4-compatible, 6to4,
    /// Teredo, local NAT64 64:ff9b:1::/48).
    Never,
}

impl Place {
    /// Whether an answer may point there for a rule.
    pub fn admitted(self, private: bool) -> bool {
        match self {
            Self::Public => true,
            Self::Private => private,
            Self::Never => false,
        }
    }
}

/// Where an address leads.
pub fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(v4) => place_v4(v4),
        IpAddr::V6(v6) => place_v6(v6),
    }
}

/// Ranges from the IANA IPv4 Special-Purpose Address Registry.
fn place_v4(v4: Ipv4Addr) -> Place {
    if METADATA_V4.contains(&v4) {
        return Place::Never;
    }
    match v4.octets() {
        [0 | 224..=255, ..] | [169, 254, ..] | [192, 0, 0, _] | [192, 88, 99, _] => Place::Never,
        [10 | 127, ..]
        | [100, 64..=127, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [198, 18..=19, ..] => Place::Private,
        _ => Place::Public,
    }
}

/// Ranges from the IANA IPv6 Special-Purpose Address Registry.
fn place_v6(v6: Ipv6Addr) -> Place {
    if v6 == Ipv6Addr::LOCALHOST {
        return Place::Private;
    }
    if METADATA_V6.contains(&v6) {
        return Place::Never;
    }
    match v6.segments() {
        // ::, v4-compatible, v4-mapped and the translated form ::ffff:0:a.b.c.d.
        [0, 0, 0, 0, ..] => Place::Never,
        // NAT64 (RFC 6052): as good as the address behind it, but never public, because the
        // prefix can hide any of them.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => place_v4(v4_of(high, low)).max(Place::Private),
        [0x64, 0xff9b, 1, ..] => Place::Never,
        // Discard-only, Teredo, 6to4.
        [0x100, 0, 0, 0, ..] | [0x2001, 0, ..] | [0x2002, ..] => Place::Never,
        [0xfe80..=0xfebf, ..] | [0xff00..=0xffff, ..] => Place::Never,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Place::Private,
        _ => Place::Public,
    }
}

/// Metadata services outside link-local space: Alibaba Cloud and Azure.
const METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// Metadata services in unique local space: AWS, Google Cloud, Oracle Cloud.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

fn v4_of(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}
