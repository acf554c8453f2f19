//! Below and beside TCP and UDP: raw, ping and packet sockets, rarer protocols.

use std::{
    net::{SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
};

use libc::{AF_INET, AF_INET6, IPPROTO_RAW, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};
use nix::errno::Errno;

use super::{
    Attempt, Evidence, Job, Stop, Vector,
    sys::{self, UDP_LITE, address},
};

const ICMP: i32 = 1;
const ICMP6: i32 = 58;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("udplite4", "UDP-Lite, unconnected", |job| {
        lite(job, AF_INET, job.target, false)
    }),
    Vector::new("udplite6", "UDP-Lite over IPv6", |job| {
        lite(job, AF_INET6, job.target6, false)
    }),
    Vector::new(
        "udplite4-connected",
        "UDP-Lite, connected: no address hook runs",
        |job| lite(job, AF_INET, job.target, true),
    ),
    Vector::new(
        "udplite6-connected",
        "UDP-Lite over IPv6, connected",
        |job| lite(job, AF_INET6, job.target6, true),
    ),
    Vector::new(
        "ping4",
        "a ping socket with the token as its payload",
        |job| {
            let data = [&[8, 0, 0, 0, 0, 0, 0, 0], job.bytes()].concat();
            let socket = sys::socket(AF_INET, SOCK_DGRAM, ICMP)?;
            Ok(sys::send(&socket, &data, 0, &address(job.target))?)
        },
    ),
    Vector::new("ping6", "the same over IPv6", |job| {
        let data = [&[128, 0, 0, 0, 0, 0, 0, 0], job.bytes()].concat();
        let socket = sys::socket(AF_INET6, SOCK_DGRAM, ICMP6)?;
        Ok(sys::send(&socket, &data, 0, &address(job.target6))?)
    }),
    Vector::new("raw4", "a raw socket, protocol 253", |job| {
        let socket = sys::socket(AF_INET, SOCK_RAW, 253)?;
        Ok(sys::send(&socket, job.bytes(), 0, &address(job.target))?)
    })
    .by_root(),
    Vector::new("raw6", "a raw socket over IPv6", |job| {
        let socket = sys::socket(AF_INET6, SOCK_RAW, 253)?;
        let to = std::net::SocketAddrV6::new(*job.target6.ip(), 0, 0, 0);
        Ok(sys::send(&socket, job.bytes(), 0, &address(to))?)
    })
    .by_root(),
    Vector::new(
        "raw-header",
        "the address in a header of its own, another one for the call",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_RAW, IPPROTO_RAW)?;
            Ok(sys::send(
                &socket,
                &packet(job, 17),
                0,
                &address(job.permitted),
            )?)
        },
    )
    .by_root(),
    Vector::new("sctp", "SCTP, one to one", |job| {
        rare(job, SOCK_STREAM, 132)
    })
    .optional(),
    Vector::new("sctp-many", "SCTP, one to many", |job| {
        rare(job, SOCK_SEQPACKET, 132)
    })
    .optional(),
    Vector::new("dccp", "DCCP", |job| rare(job, 6, 33)).optional(),
    Vector::new("vsock", "to the hypervisor", |_| {
        match sys::socket_plain(libc::AF_VSOCK, SOCK_STREAM, 0) {
            Err(Errno::EAFNOSUPPORT) => super::missing("this kernel does not have the family"),
            // Nobody is called: the other end would be outside the suite's world.
            socket => {
                drop(socket?);
                Err(Stop::Reached("the socket can be made".to_owned()))
            }
        }
    })
    .proven_by(Evidence::Reached),
    Vector::new("smc", "SMC, which falls back to TCP", |job| {
        let socket = match sys::socket(43, SOCK_STREAM, 0) {
            Err(Errno::EAFNOSUPPORT) => {
                return super::missing("this kernel does not have the family");
            }
            socket => socket?,
        };
        sys::connect(&socket, &address(job.target))?;
        Ok(sys::send(&socket, job.bytes(), 0, &[])?)
    })
    .optional(),
    Vector::new("smc-inet", "SMC as a protocol of IPv4", |job| {
        rare(job, SOCK_STREAM, 256)
    })
    .optional(),
    Vector::new("ping-declared", "a ping to the declared address", |job| {
        let data = [&[8, 0, 0, 0, 0, 0, 0, 0], job.bytes()].concat();
        let socket = sys::socket(AF_INET, SOCK_DGRAM, ICMP)?;
        Ok(sys::send(&socket, &data, 0, &address(job.permitted))?)
    }),
    Vector::new("raw-fragment", "a fragment that is not the first", |job| {
        let mut packet = packet(job, 17);
        // Offset 8 bytes and no more behind it: no port can be read.
        packet[7] = 1;
        let socket = sys::socket(AF_INET, SOCK_RAW, IPPROTO_RAW)?;
        Ok(sys::send(&socket, &packet, 0, &address(job.permitted))?)
    })
    .by_root(),
    Vector::new("raw6-header", "an own IPv6 header", |job| {
        let socket = sys::socket(AF_INET6, SOCK_RAW, IPPROTO_RAW)?;
        let length = u16::try_from(8 + job.bytes().len()).unwrap_or(u16::MAX);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([17, 64]);
        packet.extend(crate::zone::HOST6.octets());
        packet.extend(job.target6.ip().octets());
        packet.extend([0x30, 0x39, 0x27, 0x0f]);
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(job.bytes());
        let to = std::net::SocketAddrV6::new(*job.permitted6.ip(), 0, 0, 0);
        Ok(sys::send(&socket, &packet, 0, &address(to))?)
    })
    .by_root(),
];

fn lite(job: &Job, domain: i32, to: impl Into<SocketAddr>, connected: bool) -> Attempt {
    let socket = existing(domain, SOCK_DGRAM, UDP_LITE)?;
    let to = address(to);
    if connected {
        sys::connect(&socket, &to)?;
        return Ok(sys::send(&socket, job.bytes(), 0, &[])?);
    }
    Ok(sys::send(&socket, job.bytes(), 0, &to)?)
}

fn rare(job: &Job, kind: i32, protocol: i32) -> Attempt {
    let socket = existing(AF_INET, kind, protocol)?;
    sys::connect(&socket, &address(job.target))?;
    Ok(sys::send(&socket, job.bytes(), 0, &[])?)
}

/// A socket of a protocol that not every kernel has.
fn existing(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Stop> {
    match sys::socket(domain, kind, protocol) {
        Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) => {
            let why = "this kernel does not have the protocol";
            Err(Stop::NotApplicable(why.to_owned()))
        }
        socket => Ok(socket?),
    }
}

/// An IPv4 packet with the token behind a UDP header; the kernel fills in the checksum.
pub(super) fn packet(job: &Job, protocol: u8) -> Vec<u8> {
    let to: SocketAddrV4 = job.target;
    let length = 28 + job.bytes().len();
    let total = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    packet.extend(crate::zone::HOST.octets());
    packet.extend(to.ip().octets());
    let udp = u16::try_from(length - 20).unwrap_or(u16::MAX).to_be_bytes();
    let port = to.port().to_be_bytes();
    packet.extend([0x30, 0x39, port[0], port[1], udp[0], udp[1], 0, 0]);
    packet.extend(job.bytes());
    packet
}

/// The checksum of an IPv4 header whose own field is zero, RFC 1071.
pub(super) fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}
