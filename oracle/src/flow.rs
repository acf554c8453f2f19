//! A flow as the oracle sees it, and the addresses near which verdicts turn.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_common::{decide::Flow, key::Addr, verdict::Layer};

use crate::draw::Draw;

/// An attempt to send something somewhere, in the words of the standard library.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Destination, in any spelling.
    pub to: IpAddr,
    /// Connector id.
    pub connector: u32,
    /// Destination port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The hook that asks.
    pub layer: Layer,
    /// It answers somebody who called in.
    pub inbound: bool,
    /// Local port.
    pub local_port: u16,
    /// Outgoing interface; 0 = not known.
    pub interface: u32,
}

impl Attempt {
    /// As the shared function takes it.
    pub fn flow(&self) -> Flow {
        Flow {
            addr: match self.to {
                IpAddr::V4(v4) => Addr::from_v4(v4.to_bits()),
                IpAddr::V6(v6) => Addr::from_octets(v6.octets()),
            },
            connector: self.connector,
            port: self.port,
            protocol: self.protocol,
            layer: self.layer,
            inbound: self.inbound,
            local_port: self.local_port,
            ifindex: self.interface,
        }
    }
}

/// What Linux makes of a destination: a mapped address is the IPv4 one, and the unspecified
/// address is this host.
pub fn canonical(to: IpAddr) -> IpAddr {
    let to = match to {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(to, IpAddr::V4),
        IpAddr::V4(_) => to,
    };
    if to.is_unspecified() {
        return match to {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
    }
    to
}

/// An address as one number, IPv4 in its mapped form.
pub fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Addresses near which things can go wrong.
pub const EDGES: [&str; 55] = [
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "1.0.0.0",
    "9.255.255.255",
    "10.0.0.0",
    "10.0.0.1",
    "10.255.255.255",
    "11.0.0.0",
    "126.255.255.255",
    "127.0.0.1",
    "127.0.0.53",
    "127.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "169.255.0.0",
    "192.0.2.7",
    "203.0.113.7",
    "223.255.255.255",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::127.0.0.1",
    "::ffff:0:7f00:1",
    "::fffe:ffff:ffff",
    "::1:0:0:0",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "64:ff9b::1:0:0",
    "2001::1",
    "2001:db8::1",
    "2001:db8:0:1::1",
    "2002:7f00:1::",
    "2003::1",
    "100.100.100.200",
    "100.100.100.201",
    "168.63.129.16",
    "fd00:c1::a9fe:a9fe",
    "fd00:ec2::253",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe7f:ffff::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "fd12:3456::1",
    "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "ff02::1",
];

/// The addresses of [`EDGES`].
pub fn edges() -> Vec<IpAddr> {
    let parsed = EDGES.iter().map(|text| text.parse());
    parsed
        .map(|addr| addr.expect("an edge is an address"))
        .collect()
}

/// Ports near which verdicts turn.
pub const PORTS: [u16; 16] = [
    0, 1, 2, 22, 52, 53, 54, 79, 80, 81, 442, 443, 444, 8080, 65534, 65535,
];

/// An address: an edge, one that shares bits with a base, or any; IPv4 at times in its mapped
/// form.
pub fn address(draw: &mut impl Draw, edges: &[IpAddr], bases: &[IpAddr]) -> IpAddr {
    let addr = match draw.below(8) {
        0..=2 => draw.pick(edges),
        3..=5 if !bases.is_empty() => near(draw, bases),
        6 => Ipv4Addr::from_bits(draw.bits32()).into(),
        _ => Ipv6Addr::from_bits(draw.bits128()).into(),
    };
    match addr {
        IpAddr::V4(v4) if draw.one_in(4) => v4.to_ipv6_mapped().into(),
        other => other,
    }
}

/// A base with its last bits drawn anew.
fn near(draw: &mut impl Draw, bases: &[IpAddr]) -> IpAddr {
    match draw.pick(bases) {
        IpAddr::V4(v4) => {
            let low = draw.bits32().checked_shr(draw.below(33) as u32);
            Ipv4Addr::from_bits(v4.to_bits() ^ low.unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            let low = draw.bits128().checked_shr(draw.below(129) as u32);
            Ipv6Addr::from_bits(v6.to_bits() ^ low.unwrap_or(0)).into()
        }
    }
}
