//! The special ranges of addresses: one list, for rules by address and for answers by name.
//!
//! `0.0.0.0/0` is meant as "the Internet"; nobody who writes it means the cloud's metadata
//! service, the local network's multicast or this host. So some ranges are permitted only by
//! rules that lie inside them (`Special::apart`). Denials cover them from outside as well.
//!
//! A name's owner chooses its addresses. Without a look at them, `api.example.com → 127.0.0.1`
//! or `→ 169.254.169.254` would turn a permission for a stranger's server into one for this
//! host, its network or the cloud's credentials. So each range has a class ([`Special::class`]).

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;

/// A range, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Special {
    /// The range in the 128-bit space of the data plane (IPv4 below `::ffff:0:0/96`).
    pub block: Block,
    /// What it is, for messages.
    pub what: &'static str,
    /// What an answer that points there is.
    pub class: AddressClass,
    /// Only rules that lie inside it permit it.
    pub apart: bool,
}

/// What kind of place an address is, for an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AddressClass {
    /// Anywhere on the Internet. Documentation ranges (RFC 5737, RFC 3849) count as such:
    /// they lead nowhere, and tests live in them.
    Public,
    /// This host or its network. Taken from an answer for a rule that says `private: true`.
    Private,
    /// Never taken from an answer, whatever the rule says; a CIDR rule can still permit it.
    Never,
}

impl AddressClass {
    /// Whether an answer may point there for a rule.
    pub fn admitted(self, private: bool) -> bool {
        match self {
            Self::Public => true,
            Self::Private => private,
            Self::Never => false,
        }
    }
}

/// A prefix in the 128-bit space of the data plane. The order is that of the trie's keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Block {
    /// The address, IPv4 as `::ffff:a.b.c.d`; bits behind the length are zero.
    pub addr: u128,
    /// Bits that count, 0 to 128.
    pub len: u8,
}

const MAPPED: u128 = 0xffff_0000_0000;

impl Block {
    /// All of IPv4: `::ffff:0:0/96`.
    pub const V4: Self = Self {
        addr: MAPPED,
        len: 96,
    };

    /// The block of a prefix.
    pub fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(v4) => Self {
                addr: MAPPED | u128::from(v4.network().to_bits()),
                len: 96 + v4.prefix_len(),
            },
            IpNet::V6(v6) => Self {
                addr: v6.network().to_bits(),
                len: v6.prefix_len(),
            },
        }
    }

    /// Whether every address of `other` is in this block.
    pub const fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && (self.addr ^ other.addr) & mask(self.len) == 0
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = Ipv6Addr::from_bits(self.addr);
        match addr.to_ipv4_mapped() {
            Some(v4) if self.len >= 96 => write!(f, "{v4}/{}", self.len - 96),
            _ => write!(f, "{addr}/{}", self.len),
        }
    }
}

const fn mask(len: u8) -> u128 {
    match len {
        0 => 0,
        1..=127 => u128::MAX << (128 - len),
        _ => u128::MAX,
    }
}

use AddressClass::{Never, Private};

const fn v4(addr: u32, len: u8, what: &'static str, class: AddressClass) -> Special {
    Special {
        block: Block {
            addr: MAPPED | addr as u128,
            len: 96 + len,
        },
        what,
        class,
        apart: false,
    }
}

const fn v6(high: u64, low: u64, len: u8, what: &'static str, class: AddressClass) -> Special {
    Special {
        block: Block {
            addr: (high as u128) << 64 | low as u128,
            len,
        },
        what,
        class,
        apart: false,
    }
}

impl Special {
    const fn apart(self) -> Self {
        Self {
            apart: true,
            ..self
        }
    }
}

/// The ranges. Sources: the IANA special-purpose address registries (RFC 6890), and what the
/// clouds document of their metadata services: 169.254.169.254 and `fd00:ec2::254` (EC2),
/// 100.100.100.200 (Alibaba Cloud), 168.63.129.16 (Azure), `fd20:ce::254` (Google Cloud),
/// `fd00:c1::a9fe:a9fe` (Oracle Cloud).
pub const SPECIAL: &[Special] = &[
    v4(0, 8, "“this network” (0.0.0.0/8)", Never).apart(),
    v4(0x0a00_0000, 8, "a private network (10.0.0.0/8)", Private),
    v4(
        0x6440_0000,
        10,
        "shared address space (100.64.0.0/10)",
        Private,
    ),
    v4(0x6464_64c8, 32, "cloud metadata (100.100.100.200)", Never).apart(),
    v4(0x7f00_0000, 8, "loopback (127.0.0.0/8)", Private).apart(),
    v4(0xa83f_8110, 32, "cloud metadata (168.63.129.16)", Never).apart(),
    v4(
        0xa9fe_0000,
        16,
        "link-local and cloud metadata (169.254.0.0/16)",
        Never,
    )
    .apart(),
    v4(
        0xac10_0000,
        12,
        "a private network (172.16.0.0/12)",
        Private,
    ),
    v4(
        0xc000_0000,
        24,
        "IETF protocol assignments (192.0.0.0/24)",
        Never,
    ),
    v4(0xc058_6300, 24, "6to4 relays (192.88.99.0/24)", Never),
    v4(
        0xc0a8_0000,
        16,
        "a private network (192.168.0.0/16)",
        Private,
    ),
    v4(0xc612_0000, 15, "benchmarking (198.18.0.0/15)", Private),
    v4(0xe000_0000, 4, "multicast (224.0.0.0/4)", Never).apart(),
    v4(0xf000_0000, 4, "reserved (240.0.0.0/4)", Never),
    v4(0xffff_ffff, 32, "broadcast (255.255.255.255)", Never).apart(),
    v6(0, 0, 96, "IPv4-compatible (::/96)", Never).apart(),
    v6(0, 1, 128, "loopback (::1)", Private).apart(),
    v6(
        0,
        0xffff_0000_0000_0000,
        96,
        "IPv4-translated (::ffff:0:0:0/96)",
        Never,
    )
    .apart(),
    v6(
        0x0064_ff9b_0000_0000,
        0,
        96,
        "NAT64 (64:ff9b::/96)",
        Private,
    )
    .apart(),
    v6(
        0x0064_ff9b_0001_0000,
        0,
        48,
        "local NAT64 (64:ff9b:1::/48)",
        Never,
    )
    .apart(),
    v6(0x0100_0000_0000_0000, 0, 64, "discard (100::/64)", Never),
    v6(0x2001_0000_0000_0000, 0, 32, "Teredo (2001::/32)", Never).apart(),
    v6(0x2002_0000_0000_0000, 0, 16, "6to4 (2002::/16)", Never).apart(),
    v6(
        0xfc00_0000_0000_0000,
        0,
        7,
        "a private network (fc00::/7)",
        Private,
    ),
    v6(
        0xfd00_00c1_0000_0000,
        0xa9fe_a9fe,
        128,
        "cloud metadata (fd00:c1::a9fe:a9fe)",
        Never,
    )
    .apart(),
    v6(
        0xfd00_0ec2_0000_0000,
        0x254,
        128,
        "cloud metadata (fd00:ec2::254)",
        Never,
    )
    .apart(),
    v6(
        0xfd20_00ce_0000_0000,
        0x254,
        128,
        "cloud metadata (fd20:ce::254)",
        Never,
    )
    .apart(),
    v6(
        0xfe80_0000_0000_0000,
        0,
        10,
        "link-local (fe80::/10)",
        Never,
    )
    .apart(),
    v6(
        0xfec0_0000_0000_0000,
        0,
        10,
        "a site-local network (fec0::/10)",
        Private,
    ),
    v6(0xff00_0000_0000_0000, 0, 8, "multicast (ff00::/8)", Never).apart(),
];

/// The ranges that wider rules do not take along.
pub fn apart() -> impl Iterator<Item = &'static Special> {
    SPECIAL.iter().filter(|special| special.apart)
}

/// The narrowest range around a block that wider rules do not take along.
pub fn around(block: &Block) -> Option<&'static Special> {
    narrowest(apart(), block)
}

/// The narrowest range around an address, whatever wider rules do.
pub fn of(addr: IpAddr) -> Option<&'static Special> {
    narrowest(SPECIAL.iter(), &Block::of(&addr.into()))
}

fn narrowest(
    ranges: impl Iterator<Item = &'static Special>,
    block: &Block,
) -> Option<&'static Special> {
    ranges
        .filter(|special| special.block.covers(block))
        .max_by_key(|special| special.block.len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_a_prefix_once_and_says_which() {
        for (index, special) in SPECIAL.iter().enumerate() {
            let block = special.block;
            assert_eq!(block.addr & !mask(block.len), 0, "{}", special.what);
            let again = SPECIAL.iter().skip(index + 1);
            assert!(again.clone().all(|other| other.block != block));
            let shown = block.to_string();
            let shown = shown.trim_end_matches("/32").trim_end_matches("/128");
            assert!(special.what.contains(shown), "{} {shown}", special.what);
        }
    }

    /// What an answer never leads to, a wide rule never leads to either; and so for loopback.
    #[test]
    fn metadata_is_for_neither_answers_nor_wide_rules() {
        for text in [
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
        ] {
            let addr: IpAddr = text.parse().unwrap_or_else(|error| unreachable!("{error}"));
            assert_eq!(of(addr).map(|it| it.class), Some(Never), "{text}");
            let around = around(&Block::of(&addr.into()));
            assert!(
                around.is_some_and(|it| it.what.contains("metadata")),
                "{text}"
            );
        }
    }
}
