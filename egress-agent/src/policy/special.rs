//! Address ranges that a wider rule does not take along.
//!
//! `0.0.0.0/0` is meant as "the Internet"; nobody who writes it means the cloud's metadata
//! service, the local network's multicast or this host. A range here is permitted only by
//! rules that lie inside it. Denials cover it from outside as well.

use std::{fmt, net::Ipv6Addr};

use ipnet::IpNet;

/// A range, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Special {
    /// The range in the 128-bit space of the data plane (IPv4 below `::ffff:0:0/96`).
    pub block: Block,
    /// What it is, for messages.
    pub what: &'static str,
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

const fn v4(addr: u32, len: u8, what: &'static str) -> Special {
    let addr = MAPPED | addr as u128;
    let block = Block {
        addr,
        len: 96 + len,
    };
    Special { block, what }
}

const fn v6(high: u64, low: u64, len: u8, what: &'static str) -> Special {
    let addr = (high as u128) << 64 | low as u128;
    Special {
        block: Block { addr, len },
        what,
    }
}

/// The ranges. Sources: the IANA special-purpose address registries (RFC 6890) and, for
/// `fd00:ec2::254`, the instance metadata service of EC2.
pub const SPECIAL: &[Special] = &[
    v4(0x0000_0000, 8, "“this network” (0.0.0.0/8)"),
    v4(0x7f00_0000, 8, "loopback (127.0.0.0/8)"),
    v4(
        0xa9fe_0000,
        16,
        "link-local and cloud metadata (169.254.0.0/16)",
    ),
    v4(0xe000_0000, 4, "multicast (224.0.0.0/4)"),
    v4(0xffff_ffff, 32, "broadcast (255.255.255.255)"),
    v6(0, 0, 96, "IPv4-compatible (::/96)"),
    v6(0, 1, 128, "loopback (::1)"),
    v6(
        0x0000_0000_0000_0000,
        0xffff_0000_0000_0000,
        96,
        "IPv4-translated (::ffff:0:0:0/96)",
    ),
    v6(0x0064_ff9b_0000_0000, 0, 96, "NAT64 (64:ff9b::/96)"),
    v6(0x0064_ff9b_0001_0000, 0, 48, "local NAT64 (64:ff9b:1::/48)"),
    v6(0x2001_0000_0000_0000, 0, 32, "Teredo (2001::/32)"),
    v6(0x2002_0000_0000_0000, 0, 16, "6to4 (2002::/16)"),
    v6(
        0xfd00_0ec2_0000_0000,
        0x254,
        128,
        "cloud metadata (fd00:ec2::254)",
    ),
    v6(0xfe80_0000_0000_0000, 0, 10, "link-local (fe80::/10)"),
    v6(0xff00_0000_0000_0000, 0, 8, "multicast (ff00::/8)"),
];

/// The narrowest special range around a block.
pub fn around(block: &Block) -> Option<&'static Special> {
    SPECIAL
        .iter()
        .filter(|special| special.block.covers(block))
        .max_by_key(|special| special.block.len)
}
