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
        // prefix can hide any of them, and never loopback, which is the translator's own.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => match v4_of(high, low) {
            v4 if v4.is_loopback() => Place::Never,
            v4 => place_v4(v4).max(Place::Private),
        },
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

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test that panics has failed, which is what it is for"
    )]

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;

    const NEVER: &[&str] = &[
        "0.0.0.0/8",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "::/128",
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b:1::/48",
        "64:ff9b::7f00:0/104",
        "100::/64",
        "2001::/32",
        "2002::/16",
        "fe80::/10",
        "ff00::/8",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
        "fd00:c1::a9fe:a9fe/128",
    ];
    const PRIVATE: &[&str] = &[
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "::1/128",
        "64:ff9b::/96",
        "fc00::/7",
        "fec0::/10",
    ];
    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.7",
        "172.32.0.1",
        "100.128.0.1",
        "2001:db8::7",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "64:ff9c::1",
    ];

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn public_addresses_pass() {
        for text in PUBLIC {
            assert_eq!(place(text.parse().unwrap()), Place::Public, "{text}");
        }
    }

    #[test]
    fn only_private_rules_take_private_places() {
        assert!(Place::Public.admitted(false) && Place::Public.admitted(true));
        assert!(!Place::Private.admitted(false) && Place::Private.admitted(true));
        assert!(!Place::Never.admitted(false) && !Place::Never.admitted(true));
    }

    #[test]
    fn nat64_is_as_bad_as_what_is_behind_it() {
        let behind = |text: &str| place(text.parse().unwrap());
        assert_eq!(behind("64:ff9b::203.0.113.7"), Place::Private);
        assert_eq!(behind("64:ff9b::10.0.0.1"), Place::Private);
        assert_eq!(behind("64:ff9b::169.254.169.254"), Place::Never);
    }

    /// Addresses in, at the ends of and just outside a prefix.
    fn near(list: &'static [&'static str]) -> impl Strategy<Value = IpAddr> {
        (prop::sample::select(list), any::<u128>(), 0..5u8).prop_map(|(net, bits, end)| {
            let net: IpNet = net.parse().unwrap();
            let (first, last, width) = match net {
                IpNet::V4(net) => (
                    u128::from(u32::from(net.network())),
                    u128::from(u32::from(net.broadcast())),
                    32,
                ),
                IpNet::V6(net) => (u128::from(net.network()), u128::from(net.broadcast()), 128),
            };
            let value = match end {
                0 => first,
                1 => last,
                2 => first.wrapping_sub(1),
                3 => last.wrapping_add(1),
                _ => first | bits & (last ^ first),
            };
            if width == 32 {
                IpAddr::V4(u32::try_from(value & 0xffff_ffff).unwrap().into())
            } else {
                IpAddr::V6(value.into())
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// The registries as lists of prefixes, against the patterns.
        #[test]
        fn places_are_those_of_the_registries(
            address in prop_oneof![near(NEVER), near(PRIVATE), any::<u32>().prop_map(|v4| IpAddr::V4(v4.into()))]
        ) {
            let within = |list| nets(list).iter().any(|net| net.contains(&address));
            let behind = match address {
                IpAddr::V6(v6) => match v6.segments() {
                    [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(IpAddr::V4(v4_of(high, low))),
                    _ => None,
                },
                IpAddr::V4(_) => None,
            };
            let never_behind = behind.is_some_and(|v4| {
                nets(NEVER).iter().any(|net| net.contains(&v4))
            });
            let loopback_behind = behind.is_some_and(|v4| v4.is_loopback());
            let expected = if address == IpAddr::V6(Ipv6Addr::LOCALHOST) {
                Place::Private
            } else if never_behind || loopback_behind || within(NEVER) {
                Place::Never
            } else if within(PRIVATE) {
                Place::Private
            } else {
                Place::Public
            };
            // The low /64 holds no address that is in use.
            if let IpAddr::V6(v6) = address
                && v6.octets().starts_with(&[0; 8])
                && v6 != Ipv6Addr::LOCALHOST
            {
                prop_assert_eq!(place(address), Place::Never);
            } else {
                prop_assert_eq!(place(address), expected);
            }
        }
    }
}
