//! Addresses in their one canonical form, and the keys of the grant maps.

/// An address as the verdict sees it: 16 bytes, network order, IPv4 as `::ffff:a.b.c.d`.
///
/// `0.0.0.0` and `::` become the loopback address they mean to Linux as a destination
/// (`net/ipv4/route.c` `ip_route_output_key_hash_rcu`, `net/ipv6/tcp_ipv6.c`
/// `tcp_v6_connect`), so no decision ever meets two spellings of one destination.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Addr {
    /// The address as two 64-bit halves, each in network byte order.
    pub halves: [u64; 2],
}

const MAPPED_PREFIX: u64 = 0x0000_ffff;
const V4_LOOPBACK: u32 = 0x7f00_0001;

impl Addr {
    /// An IPv4 address, given in host order.
    #[inline(always)]
    pub const fn from_v4(host_order: u32) -> Self {
        let v4 = if host_order == 0 {
            V4_LOOPBACK
        } else {
            host_order
        };
        Self {
            halves: [0, (MAPPED_PREFIX << 32 | v4 as u64).to_be()],
        }
    }

    /// An IPv6 address as two halves in host order; IPv4-mapped addresses become IPv4.
    #[inline(always)]
    pub const fn from_v6(high: u64, low: u64) -> Self {
        if high != 0 {
            return Self {
                halves: [high.to_be(), low.to_be()],
            };
        }
        if low >> 32 == MAPPED_PREFIX {
            return Self::from_v4((low & 0xffff_ffff) as u32);
        }
        let low = if low == 0 { 1 } else { low };
        Self {
            halves: [0, low.to_be()],
        }
    }

    /// The canonical form of 16 bytes in network order.
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self::from_v6(
            u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        )
    }

    /// The 16 bytes in network order.
    pub const fn octets(&self) -> [u8; 16] {
        ((self.high() as u128) << 64 | self.low() as u128).to_be_bytes()
    }

    /// The upper half in host order.
    #[inline(always)]
    pub const fn high(&self) -> u64 {
        u64::from_be(self.halves[0])
    }

    /// The lower half in host order.
    #[inline(always)]
    pub const fn low(&self) -> u64 {
        u64::from_be(self.halves[1])
    }

    /// The IPv4 address in host order, if this is one.
    #[inline(always)]
    pub const fn v4(&self) -> Option<u32> {
        if self.halves[0] == 0 && self.low() >> 32 == MAPPED_PREFIX {
            Some((self.low() & 0xffff_ffff) as u32)
        } else {
            None
        }
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        match self.v4() {
            Some(v4) => v4 >> 24 == 127,
            None => self.halves[0] == 0 && self.low() == 1,
        }
    }

    /// A broadcast address of loopback: `127.255.255.255`, and before Linux 5.14 `127.0.0.0`
    /// (`net/ipv4/fib_frontend.c` `fib_add_ifaddr`).
    #[inline(always)]
    pub const fn is_loopback_broadcast(&self) -> bool {
        self.halves[0] == 0 && {
            let low = self.low();
            low == MAPPED_PREFIX << 32 | 0x7fff_ffff || low == MAPPED_PREFIX << 32 | 0x7f00_0000
        }
    }

    /// `169.254.0.0/16`, `fe80::/10` or the metadata address `fd00:ec2::254`.
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        match self.v4() {
            Some(v4) => v4 >> 16 == 0xa9fe,
            None => {
                self.high() >> 54 == 0x3fa
                    || (self.high() == 0xfd00_0ec2_0000_0000 && self.low() == 0x254)
            }
        }
    }

    /// Whether the address means something on every link, so that a program has to choose one:
    /// groups, the limited broadcast address, `fe80::/10`.
    #[inline(always)]
    pub const fn is_of_every_link(&self) -> bool {
        self.is_multicast() || self.high() >> 54 == 0x3fa
    }

    /// `224.0.0.0/4`, `ff00::/8` or the limited broadcast address.
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        match self.v4() {
            Some(v4) => v4 >> 28 == 14 || v4 == u32::MAX,
            None => self.high() >> 56 == 0xff,
        }
    }
}

/// Key of an exact grant. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct GrantKey {
    /// Destination.
    pub addr: Addr,
    /// Connector id.
    pub connector: u32,
    /// Destination port, host order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Data of a prefix key, in the order in which the trie compares bits. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PrefixKey {
    /// Connector id; always compared whole.
    pub connector: u32,
    /// IP protocol number; always compared whole. With [`PrefixKey::INBOUND`] the entry says
    /// who may call in, and its ports are local ones.
    pub protocol: u32,
    /// Address, of which the prefix length says how much counts.
    pub addr: Addr,
}

impl PrefixKey {
    /// Marks the protocol of an entry about callers.
    pub const INBOUND: u32 = 0x100;
    /// Bits before the address: connector and protocol.
    pub const FIXED_BITS: u32 = 64;
    /// Bits of a key that names one address.
    pub const HOST_BITS: u32 = Self::FIXED_BITS + 128;
}

/// Data of a key of the routes, in the order in which the trie compares bits. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RouteKey {
    /// Connector id; always compared whole.
    pub connector: u32,
    /// Interface; always compared whole.
    pub ifindex: u32,
    /// Address, of which the prefix length says how much counts.
    pub addr: Addr,
}

impl RouteKey {
    /// Bits before the address: connector and interface.
    pub const FIXED_BITS: u32 = 64;
    /// Bits of a key that names one address.
    pub const HOST_BITS: u32 = Self::FIXED_BITS + 128;
    /// Value of an entry: the host sends by the interface. Anything else: it does not.
    pub const LEADS: u32 = 1;
}
