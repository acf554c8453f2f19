//! Rebinding protection: what an answer may point to. Pure.
//!
//! The ranges are those of [`crate::policy::special`]; here is what an IPv6 spelling of an
//! IPv4 address is taken for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::policy::special::{self, AddressClass};

/// Where an address leads; `behind`: the IPv4 address that a translator makes of it
/// ([`super::nat64::behind`]). It is as good as the worse of the two.
pub fn class(address: IpAddr, behind: Option<Ipv4Addr>) -> AddressClass {
    let own = match address {
        // What is known to be translated leads nowhere else. RFC 6052, RFC 8215.
        IpAddr::V6(v6) if behind.is_some() && is_translation(v6) => AddressClass::Public,
        IpAddr::V6(v6) => class_v6(v6),
        IpAddr::V4(_) => listed(address),
    };
    match behind {
        None => own,
        // The translator's own.
        Some(v4) if v4.is_loopback() => AddressClass::Never,
        Some(v4) => own.max(listed(v4.into())),
    }
}

/// The ranges that are for translation to IPv4 and nothing else.
fn is_translation(v6: Ipv6Addr) -> bool {
    matches!(
        v6.segments(),
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, ..]
    )
}

fn class_v6(v6: Ipv6Addr) -> AddressClass {
    if v6 == Ipv6Addr::LOCALHOST {
        return AddressClass::Private;
    }
    match v6.segments() {
        // ::, v4-compatible, v4-mapped, the translated form ::ffff:0:a.b.c.d, and what is
        // assigned to nobody around them: no AAAA record means any of it.
        [0, 0, 0, 0, ..] => AddressClass::Never,
        _ => listed(v6.into()),
    }
}

fn listed(address: IpAddr) -> AddressClass {
    special::of(address).map_or(AddressClass::Public, |special| special.class)
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
    use crate::dns::nat64;

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
            assert_eq!(
                class(text.parse().unwrap(), None),
                AddressClass::Public,
                "{text}"
            );
        }
    }

    #[test]
    fn only_private_rules_take_private_places() {
        assert!(AddressClass::Public.admitted(false) && AddressClass::Public.admitted(true));
        assert!(!AddressClass::Private.admitted(false) && AddressClass::Private.admitted(true));
        assert!(!AddressClass::Never.admitted(false) && !AddressClass::Never.admitted(true));
    }

    #[test]
    fn nat64_is_as_bad_as_what_is_behind_it() {
        let class = |text: &str, own: &[_]| {
            let address = text.parse().unwrap();
            class(address, nat64::behind(address, own))
        };
        let own = |known: &str| nat64::prefixes(&[known.parse().unwrap()]);
        let public = own("2001:db8:64::192.0.0.170");
        let local = own("64:ff9b:1:2::192.0.0.171");
        let unique = own("fd00:64::192.0.0.170");
        let mapped = own("::ffff:192.0.0.170");
        for (prefix, own) in [
            ("64:ff9b::", &[][..]),
            ("2001:db8:64::", &public),
            ("64:ff9b:1:2::", &local),
        ] {
            let at = |v4: &str| class(&format!("{prefix}{v4}"), own);
            assert_eq!(at("203.0.113.7"), AddressClass::Public, "{prefix}");
            for private in ["10.0.0.1", "192.168.1.1", "100.64.0.1"] {
                assert_eq!(at(private), AddressClass::Private, "{prefix}{private}");
            }
            for never in ["169.254.169.254", "127.0.0.1", "0.0.0.0", "224.0.0.1"] {
                assert_eq!(at(never), AddressClass::Never, "{prefix}{never}");
            }
        }
        // Nobody has told that these are translated.
        assert_eq!(class("64:ff9b:1:2::203.0.113.7", &[]), AddressClass::Never);
        assert_eq!(
            class("64:ff9b:1:3::203.0.113.7", &local),
            AddressClass::Never
        );
        assert_eq!(
            class("2001:db8:65::10.0.0.1", &public),
            AddressClass::Public
        );
        // A server that tells such prefixes opens nothing.
        assert_eq!(
            class("fd00:64::203.0.113.7", &unique),
            AddressClass::Private
        );
        assert_eq!(class("::ffff:203.0.113.7", &mapped), AddressClass::Never);
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
            address in prop_oneof![near(NEVER), near(PRIVATE), near(&["64:ff9b::/96"]), any::<u32>().prop_map(|v4| IpAddr::V4(v4.into()))]
        ) {
            let within = |list| nets(list).iter().any(|net| net.contains(&address));
            let behind = match address {
                IpAddr::V6(v6) if v6.octets().starts_with(b"\0\x64\xff\x9b\0\0\0\0\0\0\0\0") => {
                    Some(Ipv4Addr::from_bits(u32::try_from(v6.to_bits() & 0xffff_ffff).unwrap()))
                }
                _ => None,
            };
            let behind_in = |list| behind.is_some_and(|v4| {
                nets(list).iter().any(|net| net.contains(&IpAddr::V4(v4)))
            });
            let class_of = |address| class(address, nat64::behind(address, &[]));
            let loopback_behind = behind.is_some_and(|v4| v4.is_loopback());
            let expected = if address == IpAddr::V6(Ipv6Addr::LOCALHOST) {
                AddressClass::Private
            } else if behind_in(NEVER) || loopback_behind || within(NEVER) {
                AddressClass::Never
            } else if within(PRIVATE) || behind_in(PRIVATE) {
                AddressClass::Private
            } else {
                AddressClass::Public
            };
            // The low /64 holds no address that is in use.
            if let IpAddr::V6(v6) = address
                && v6.octets().starts_with(&[0; 8])
                && v6 != Ipv6Addr::LOCALHOST
            {
                prop_assert_eq!(class_of(address), AddressClass::Never);
            } else {
                prop_assert_eq!(class_of(address), expected);
            }
        }
    }
}
