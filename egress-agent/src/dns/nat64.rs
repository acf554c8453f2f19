//! IPv4 behind IPv6: the address that a NAT64 translator makes of an IPv6 one. Pure.
//!
//! On a network with IPv6 alone, its DNS64 answers `prefix + IPv4 address` for hosts that have
//! only IPv4 (RFC 6147), and a translator sends on to the IPv4 address (RFC 6146). So where an
//! address has such a prefix, what counts is the IPv4 address behind it: a public one is
//! public, and a private one does not become public by being written so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The name that tells a network's prefixes: it has IPv4 addresses alone, so IPv6 ones in an
/// answer come from DNS64. RFC 7050 section 3.
pub const KNOWN_NAME: &str = "ipv4only.arpa";
/// Its IPv4 addresses. RFC 7050 section 8.2.
const KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];
/// Lengths a prefix may have. RFC 6052 section 2.2.
const LENGTHS: [u8; 6] = [96, 64, 56, 48, 40, 32];
/// Prefixes of one network that are kept.
const MAX_PREFIXES: usize = 8;

/// A prefix of translated addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Prefix {
    /// Host bits are zero.
    net: Ipv6Addr,
    /// One of [`LENGTHS`].
    length: u8,
}

/// 64:ff9b::/96, which every network may use. RFC 6052 section 2.1.
pub const WELL_KNOWN: Prefix = Prefix {
    net: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
    length: 96,
};

/// The IPv4 address that a translator makes of this one, on a network with these prefixes of
/// its own. The longest prefix counts.
pub fn behind(address: IpAddr, own: &[Prefix]) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    own.iter()
        .chain([&WELL_KNOWN])
        .filter(|prefix| prefix.holds(v6))
        .max_by_key(|prefix| prefix.length)
        .map(|prefix| embedded(v6, prefix.length))
}

/// A network's own prefixes, from the IPv6 addresses that its server answers for
/// [`KNOWN_NAME`]. RFC 7050 section 3.
pub fn prefixes(answer: &[IpAddr]) -> Vec<Prefix> {
    let mut found = Vec::new();
    for address in answer {
        let IpAddr::V6(v6) = address else {
            continue;
        };
        let Some(&length) = LENGTHS.iter().find(|&&length| {
            // The rest behind the IPv4 address is zero (RFC 6052 section 2.2), or a prefix
            // would be read out of an address by chance.
            let known = embedded(*v6, length);
            KNOWN.contains(&known) && written(*v6, length, known) == *v6
        }) else {
            continue;
        };
        let prefix = Prefix {
            net: masked(*v6, length),
            length,
        };
        if found.len() < MAX_PREFIXES && !found.contains(&prefix) {
            found.push(prefix);
        }
    }
    found
}

impl Prefix {
    fn holds(&self, address: Ipv6Addr) -> bool {
        masked(address, self.length) == self.net
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.net, self.length)
    }
}

/// The four bytes behind a prefix; byte 8 is passed over. RFC 6052 section 2.2.
fn embedded(address: Ipv6Addr, length: u8) -> Ipv4Addr {
    let octets = address.octets();
    let mut places = places(length);
    let mut next = || {
        let place = places.next().unwrap_or(0);
        octets.get(place).copied().unwrap_or(0)
    };
    Ipv4Addr::new(next(), next(), next(), next())
}

/// An address with this prefix and these four bytes behind it, and nothing else.
fn written(address: Ipv6Addr, length: u8, v4: Ipv4Addr) -> Ipv6Addr {
    let mut octets = masked(address, length).octets();
    for (place, byte) in places(length).zip(v4.octets()) {
        if let Some(octet) = octets.get_mut(place) {
            *octet = byte;
        }
    }
    Ipv6Addr::from(octets)
}

fn places(length: u8) -> impl Iterator<Item = usize> {
    (usize::from(length / 8)..16)
        .filter(|&place| place != 8)
        .take(4)
}

fn masked(address: Ipv6Addr, length: u8) -> Ipv6Addr {
    let kept = u128::MAX
        .checked_shl(128_u32.saturating_sub(length.into()))
        .unwrap_or(0);
    Ipv6Addr::from(u128::from(address) & kept)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The table of RFC 6052 section 2.4: 192.0.2.33 below each length.
    const EXAMPLES: [(&str, u8, &str); 6] = [
        ("2001:db8::", 32, "2001:db8:c000:221::"),
        ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
        ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100:0"),
        ("2001:db8:122:344::", 96, "2001:db8:122:344::c000:221"),
    ];

    #[test]
    fn every_length_of_the_standard() {
        for (net, length, text) in EXAMPLES {
            let prefix = Prefix {
                net: net.parse().unwrap(),
                length,
            };
            let found = behind(ip(text), &[prefix]);
            assert_eq!(found, Some(Ipv4Addr::new(192, 0, 2, 33)), "{prefix}");
            let known = written(prefix.net, length, Ipv4Addr::new(192, 0, 0, 170));
            assert_eq!(prefixes(&[known.into()]), [prefix]);
        }
    }

    #[test]
    fn the_well_known_prefix_needs_no_telling() {
        assert_eq!(
            behind(ip("64:ff9b::c633:640a"), &[]),
            Some(Ipv4Addr::new(198, 51, 100, 10))
        );
        for text in [
            "64:ff9b:1::c633:640a",
            "64:ff9b::1:c633:640a",
            "2001:db8::1",
            "198.51.100.10",
        ] {
            assert_eq!(behind(ip(text), &[]), None, "{text}");
        }
    }

    #[test]
    fn answers_that_are_no_prefix() {
        let none = [
            "2001:db8::1",
            "2001:db8::c000:a9",
            "192.0.0.170",
            "::",
            "2001:db8:c000:aa:1::",
        ];
        assert_eq!(prefixes(&none.map(ip)), []);
        let many: Vec<IpAddr> = (0..99_u16)
            .map(|n| Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0xc000, 0xaa).into())
            .collect();
        assert_eq!(prefixes(&many).len(), MAX_PREFIXES);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(net: u128, v4: u32, index in 0..LENGTHS.len()) {
            let length = *LENGTHS.get(index).unwrap();
            let prefix = Prefix { net: masked(net.into(), length), length };
            let v4 = Ipv4Addr::from(v4);
            let address = written(prefix.net, length, v4);
            prop_assert!(prefix.holds(address));
            prop_assert_eq!(behind(address.into(), &[prefix]), Some(v4));
        }
    }
}
