//! Copies that the kernel makes, for listeners on this host, of datagrams to groups and broadcast
//! addresses. The token is written backwards, so that nobody on the wire knows it: what arrives
//! was a copy.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use libc::{AF_INET, AF_INET6, SOCK_DGRAM};

use super::{
    Attempt, Job, Stop, Vector, squatter,
    sys::{self, address},
};
use crate::{process::patient, zone};

/// The host's network in the embedded internet has 24 bits.
const SUBNET: Ipv4Addr = Ipv4Addr::from_bits(zone::HOST.to_bits() | 0xff);

macro_rules! copies {
    ($($name:literal, $about:literal, $to:expr, $way:expr;)*) => {
        pub(super) const VECTORS: &[Vector] = &[$(
            Vector::new($name, $about, |job| copy(job, $to, $way)).controlled(),
        )*];
    };
}

copies! {
    "copy-broadcast", "everybody", v4(Ipv4Addr::BROADCAST), unconnected;
    "copy-broadcast-connected", "everybody, connected", v4(Ipv4Addr::BROADCAST), connected;
    "copy-subnet", "everybody on the network", v4(SUBNET), unconnected;
    "copy-subnet-connected", "everybody on the network, connected", v4(SUBNET), connected;
    "copy-subnet-late", "connected before the socket may broadcast", v4(SUBNET), late;
    "copy-subnet-mapped", "everybody on the network, as an IPv6 address", mapped(SUBNET), connected;
    "copy-group", "a group", v4(squatter::GROUP), unconnected;
    "copy-group-connected", "a group, connected", v4(squatter::GROUP), connected;
    "copy-group-mapped", "a group, as an IPv6 address", mapped(squatter::GROUP), connected;
    "copy-all-nodes", "every IPv6 node", ALL_NODES, unconnected;
    "copy-all-nodes-connected", "every IPv6 node, connected", ALL_NODES, connected;
}

const ALL_NODES: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));

const fn v4(to: Ipv4Addr) -> IpAddr {
    IpAddr::V4(to)
}

const fn mapped(to: Ipv4Addr) -> IpAddr {
    IpAddr::V6(to.to_ipv6_mapped())
}

/// Sends, in one way, to somebody who listens on this host. In the control run the same socket
/// sends the token as it is to the declared address.
fn copy(job: &Job, to: IpAddr, way: fn(&OwnedFd, &[u8], &[u8]) -> Attempt) -> Attempt {
    let any: IpAddr = match to {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_none() => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let free = sys::bound(SOCK_DGRAM, (any, 0).into()).map_err(Stop::set_up)?;
    let port = sys::place_of(&free).map_err(Stop::set_up)?.port();
    drop(free);
    let domain = if to.is_ipv4() { AF_INET } else { AF_INET6 };
    let out = sys::socket(domain, SOCK_DGRAM, 0)?;
    let by = if job.is_control() {
        let permitted: SocketAddr = match to {
            IpAddr::V4(_) => job.permitted.into(),
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => job.mapped(),
            IpAddr::V6(_) => job.permitted6.into(),
        };
        return way(&out, &address(permitted), job.bytes());
    } else {
        sys::interface("up0").map_err(Stop::set_up)?
    };
    squatter::ask(job, SOCK_DGRAM, (any, port).into())?.is_there()?;
    let to = match to {
        IpAddr::V4(ip) => (ip, port).into(),
        IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, by)),
    };
    let backwards: Vec<u8> = job.bytes().iter().rev().copied().collect();
    way(&out, &address(to), &backwards)?;
    thread::sleep(patient(Duration::from_millis(300)));
    Ok(())
}

fn may_broadcast(out: &OwnedFd) -> Attempt {
    let on = 1i32.to_ne_bytes();
    Ok(sys::set(out, libc::SOL_SOCKET, libc::SO_BROADCAST, &on)?)
}

fn unconnected(out: &OwnedFd, to: &[u8], data: &[u8]) -> Attempt {
    may_broadcast(out)?;
    Ok(sys::send(out, data, 0, to)?)
}

fn connected(out: &OwnedFd, to: &[u8], data: &[u8]) -> Attempt {
    may_broadcast(out)?;
    sys::connect(out, to)?;
    Ok(sys::send(out, data, 0, &[])?)
}

fn late(out: &OwnedFd, to: &[u8], data: &[u8]) -> Attempt {
    // The kernel refuses this first one by itself (EACCES).
    let first = sys::connect(out, to);
    may_broadcast(out)?;
    first.or_else(|_| sys::connect(out, to))?;
    Ok(sys::send(out, data, 0, &[])?)
}
