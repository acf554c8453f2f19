//! Which way this host sends.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use egress_common::key::Addr;
use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};

/// `LOOPBACK_IFINDEX`, `include/net/flow.h`: the same in every network namespace.
const LOOPBACK: u32 = 1;

/// The interface by which this host sends to an address now, whatever rules and tables its
/// routing has: the kernel is asked by connecting a UDP socket, which sends nothing, and the
/// source address it chose tells the interface. `None` where there is no route, or where the
/// source address is on no interface or on several.
pub fn interface_to(addr: &Addr) -> Option<u32> {
    let ip = IpAddr::from(addr.octets()).to_canonical();
    let any: SocketAddr = match ip {
        IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        IpAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    // Any port: nothing is sent.
    socket.connect((ip, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    if source == ip {
        // One of this host's own addresses: what is sent there goes round by loopback
        // (`net/ipv4/route.c` `ip_route_output_key_hash_rcu`), whichever device has it.
        return Some(LOOPBACK);
    }
    let mut found = None;
    for interface in getifaddrs().ok()? {
        let address = interface.address.as_ref().and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        });
        if address == Some(source) {
            let index = if_nametoindex(interface.interface_name.as_str()).ok()?;
            if found.is_some_and(|other| other != index) {
                return None;
            }
            found = Some(index);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_by_its_own_interface() {
        let lo = if_nametoindex("lo").ok();
        assert_eq!(interface_to(&Addr::from_v4(0x7f00_0001)), lo);
        // So are all addresses of this host.
        let all = getifaddrs().into_iter().flatten();
        let own = all.filter_map(|it| Some(it.address?.as_sockaddr_in()?.ip()));
        for address in own {
            assert_eq!(
                interface_to(&Addr::from_v4(address.to_bits())),
                lo,
                "{address}"
            );
        }
    }
}
