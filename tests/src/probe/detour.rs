//! The declared address by another way: an accomplice on a second wire claims it. What arrives
//! there is the accomplice's, whatever the destination says. Also headers that name a second
//! destination.

use std::{os::fd::OwnedFd, thread, time::Duration};

use libc::{AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET};

use super::{
    Attempt, Job, Stop, Vector,
    accomplice::DETOUR,
    since,
    sys::{self, Message, address},
};

const UNICAST_IF: i32 = 50;
const UNICAST_IF6: i32 = 76;
/// The host of the suite routes packets with this mark to the second wire.
const MARK: u32 = 0x77;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("detour-pktinfo4", "IP_PKTINFO names the interface", |job| {
        let info = [sys::interface(DETOUR)?.to_ne_bytes(), [0; 4], [0; 4]].concat();
        with_control(job, AF_INET, IPPROTO_IP, libc::IP_PKTINFO, &info)
    }),
    Vector::new(
        "detour-pktinfo-wake",
        "the same, at once after datagrams that named none",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            let to = address(job.permitted);
            for _ in 0..8 {
                sys::send(&socket, b".", 0, &to)?;
            }
            let info = [sys::interface(DETOUR)?.to_ne_bytes(), [0; 4], [0; 4]].concat();
            let control = sys::control(IPPROTO_IP, libc::IP_PKTINFO, &info);
            message(&socket, job, &to, &control)
        },
    ),
    Vector::new(
        "detour-pktinfo6",
        "IPV6_PKTINFO names the interface",
        |job| {
            with_control(
                job,
                AF_INET6,
                IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                &pktinfo6()?,
            )
        },
    ),
    Vector::new(
        "detour-pktinfo-mapped",
        "IPV6_PKTINFO on a socket for both families, IPv4 destination",
        |job| {
            let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
            // Here the source has to be an IPv4 one, too: ::ffff:0.0.0.0.
            let mut info = pktinfo6()?;
            info[10..12].copy_from_slice(&[0xff; 2]);
            let control = sys::control(IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            let mapped = (job.permitted.ip().to_ipv6_mapped(), job.permitted.port());
            let to = address(mapped);
            message(&socket, job, &to, &control)
        },
    ),
    Vector::new(
        "detour-pktinfo-connected",
        "IP_PKTINFO on a connected socket",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::connect(&socket, &address(job.permitted))?;
            let info = [sys::interface(DETOUR)?.to_ne_bytes(), [0; 4], [0; 4]].concat();
            let control = sys::control(IPPROTO_IP, libc::IP_PKTINFO, &info);
            message(&socket, job, &[], &control)
        },
    ),
    Vector::new(
        "detour-sticky-pktinfo6",
        "IPV6_PKTINFO as an option",
        |job| {
            with_option(
                job,
                AF_INET6,
                IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                &pktinfo6()?,
            )
        },
    ),
    Vector::new("detour-unicast-if4", "IP_UNICAST_IF", |job| {
        let index = sys::interface(DETOUR)?.to_be_bytes();
        with_option(job, AF_INET, IPPROTO_IP, UNICAST_IF, &index)
    }),
    Vector::new("detour-unicast-if6", "IPV6_UNICAST_IF", |job| {
        let index = sys::interface(DETOUR)?.to_be_bytes();
        with_option(job, AF_INET6, IPPROTO_IPV6, UNICAST_IF6, &index)
    }),
    Vector::new(
        "detour-unicast-if-connected",
        "IP_UNICAST_IF after connect, and connected again",
        |job| {
            since(6, 0, "IP_UNICAST_IF for connected sockets")?;
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::connect(&socket, &address(job.permitted))?;
            let index = sys::interface(DETOUR)?.to_be_bytes();
            sys::set(&socket, IPPROTO_IP, UNICAST_IF, &index)?;
            sys::connect(&socket, &address(job.permitted))?;
            Ok(sys::send(&socket, job.bytes(), 0, &[])?)
        },
    ),
    Vector::new("detour-bind-device", "SO_BINDTODEVICE, UDP", |job| {
        let name = DETOUR.as_bytes();
        with_option(job, AF_INET, SOL_SOCKET, libc::SO_BINDTODEVICE, name)
    }),
    Vector::new(
        "detour-bind-device6",
        "SO_BINDTODEVICE, UDP over IPv6",
        |job| {
            let name = DETOUR.as_bytes();
            with_option(job, AF_INET6, SOL_SOCKET, libc::SO_BINDTODEVICE, name)
        },
    ),
    Vector::new("detour-bind-ifindex", "SO_BINDTOIFINDEX, UDP", |job| {
        let index = sys::interface(DETOUR)?.to_ne_bytes();
        with_option(job, AF_INET, SOL_SOCKET, libc::SO_BINDTOIFINDEX, &index)
    }),
    Vector::new(
        "detour-bind-device-fastopen",
        "SO_BINDTODEVICE, TCP with data in the first segment",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
            // A connection that is not answered carries nothing but this.
            sys::set(&socket, libc::IPPROTO_TCP, 34, &1i32.to_ne_bytes())?;
            let name = DETOUR.as_bytes();
            sys::set(&socket, SOL_SOCKET, libc::SO_BINDTODEVICE, name)?;
            let to = address(job.permitted);
            let _ = sys::send(&socket, job.bytes(), libc::MSG_FASTOPEN, &to);
            thread::sleep(Duration::from_millis(200));
            Ok(())
        },
    ),
    Vector::new("detour-dontroute", "SO_DONTROUTE", |job| {
        let one = 1i32.to_ne_bytes();
        with_option(job, AF_INET, SOL_SOCKET, libc::SO_DONTROUTE, &one)
    }),
    Vector::new("detour-dontroute-flag", "MSG_DONTROUTE", |job| {
        let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
        let to = address(job.permitted);
        Ok(sys::send(&socket, job.bytes(), libc::MSG_DONTROUTE, &to)?)
    }),
    Vector::new(
        "detour-mark",
        "SO_MARK, where the host routes by mark",
        |job| {
            let mark = MARK.to_ne_bytes();
            with_option(job, AF_INET, SOL_SOCKET, libc::SO_MARK, &mark)
        },
    )
    .by_root(),
    Vector::new(
        "detour-mark-message",
        "SO_MARK as a control message",
        |job| with_control(job, AF_INET, SOL_SOCKET, libc::SO_MARK, &MARK.to_ne_bytes()),
    )
    .by_root(),
    Vector::new("detour-tos", "IP_TOS, where the host routes by it", |job| {
        let tos = 0x10_i32.to_ne_bytes();
        with_option(job, AF_INET, IPPROTO_IP, libc::IP_TOS, &tos)
    }),
    Vector::new("detour-tos-message", "IP_TOS as a control message", |job| {
        with_control(
            job,
            AF_INET,
            IPPROTO_IP,
            libc::IP_TOS,
            &0x10_i32.to_ne_bytes(),
        )
    }),
    Vector::new(
        "detour-source",
        "bound to the second interface's address, where the host routes by source",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::bind(&socket, &address(([192, 0, 9, 2], 0)))?;
            Ok(sys::send(&socket, job.bytes(), 0, &address(job.permitted))?)
        },
    ),
    Vector::new(
        "source-route-option",
        "a loose source route as an option, then sendto",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::set(&socket, IPPROTO_IP, libc::IP_OPTIONS, &route4(job))?;
            Ok(sys::send(&socket, job.bytes(), 0, &address(job.target))?)
        },
    )
    .by_root(),
    Vector::new(
        "source-route-late",
        "a loose source route on a socket that is connected",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::connect(&socket, &address(job.permitted))?;
            let mut route = vec![131, 7, 4];
            route.extend(job.target.ip().octets());
            route.push(0);
            sys::set(&socket, IPPROTO_IP, libc::IP_OPTIONS, &route)?;
            Ok(sys::send(&socket, job.bytes(), 0, &[])?)
        },
    )
    .by_root(),
    Vector::new(
        "segment-routing",
        "an IPv6 routing header: the declared address first, the stranger last",
        |job| {
            // RFC 8754 section 2: two segments, the last one first.
            let mut header = vec![0, 4, 4, 1, 1, 0, 0, 0];
            header.extend(job.target6.ip().octets());
            header.extend([0; 16]);
            let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
            sys::set(&socket, IPPROTO_IPV6, libc::IPV6_RTHDR, &header)?;
            Ok(sys::send(
                &socket,
                job.bytes(),
                0,
                &address(job.permitted6),
            )?)
        },
    )
    .by_root(),
    Vector::new(
        "routing-header-message",
        "an IPv6 routing header of type 2 as a control message: the stranger first",
        |job| {
            let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
            header.extend(job.target6.ip().octets());
            with_control(job, AF_INET6, IPPROTO_IPV6, libc::IPV6_RTHDR, &header)
        },
    )
    .by_root()
    .optional(),
    Vector::new(
        "destination-options",
        "destination options in front of UDP: the ports are not where they seem",
        |job| {
            let options = [0, 0, 1, 4, 0, 0, 0, 0];
            headed(job, libc::IPV6_DSTOPTS, &options)
        },
    )
    .by_root(),
    Vector::new("hop-by-hop", "hop-by-hop options in front of UDP", |job| {
        headed(job, libc::IPV6_HOPOPTS, &[0, 0, 1, 4, 0, 0, 0, 0])
    })
    .by_root(),
    Vector::new(
        "option-payload",
        "the token inside destination options to the declared address's other port",
        |job| {
            let mut options = vec![0, 4, 0x1e, 36];
            options.extend(job.bytes());
            options.resize(40, 0);
            let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
            let control = sys::control(IPPROTO_IPV6, libc::IPV6_DSTOPTS, &options);
            let to = address((*job.permitted6.ip(), 8080));
            let message = Message {
                data: b".",
                to: &to,
                control: &control,
            };
            Ok(sys::send_many(&socket, &[message]).map(drop)?)
        },
    )
    .by_root(),
    Vector::new("flow-label", "an IPv6 flow label of its own", |job| {
        let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
        sys::set(&socket, IPPROTO_IPV6, 33, &1i32.to_ne_bytes())?;
        let mut to = job.target6;
        to.set_flowinfo(0);
        Ok(sys::send(&socket, job.bytes(), 0, &address(to))?)
    })
    .controlled(),
    Vector::new(
        "membership4",
        "an IGMP join whose sources spell the token",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            // struct ip_msfilter: group, interface, mode (1 = include), count, sources.
            let mut filter = vec![239, 1, 2, 4];
            let group = [239, 1, 2, 4];
            filter.extend(crate::zone::HOST.octets());
            filter.extend(1_u32.to_ne_bytes());
            let sources = job.bytes().chunks(4);
            filter.extend((sources.len() as u32).to_ne_bytes());
            for source in sources {
                let mut source = source.to_vec();
                source.resize(4, 1);
                filter.extend(source);
            }
            let join = [group, crate::zone::HOST.octets()].concat();
            sys::set(&socket, IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &join)?;
            sys::set(&socket, IPPROTO_IP, 41, &filter)?;
            thread::sleep(Duration::from_millis(1200));
            Ok(())
        },
    ),
    Vector::new(
        "membership6",
        "an MLD join whose sources spell the token",
        |job| {
            let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
            // struct group_filter: interface, group (sockaddr_storage), mode, count, sources.
            let storage = |ip: [u8; 16]| {
                let mut bytes = address((std::net::Ipv6Addr::from(ip), 0));
                bytes.resize(128, 0);
                bytes
            };
            let mut group = [0; 16];
            (group[0], group[1], group[15]) = (0xff, 0x05, 0x42);
            let index = sys::interface("up0")?;
            let mut filter = [index.to_ne_bytes(), [0; 4]].concat();
            filter.extend(storage(group));
            filter.extend(1_u32.to_ne_bytes());
            let mut data = job.bytes().to_vec();
            data.resize(data.len().next_multiple_of(16), b'.');
            filter.extend((data.len() as u32 / 16).to_ne_bytes());
            for source in data.chunks_exact(16) {
                let mut bytes = [0; 16];
                bytes.copy_from_slice(source);
                filter.extend(storage(bytes));
            }
            let mut join = group.to_vec();
            join.extend(index.to_ne_bytes());
            sys::set(&socket, IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &join)?;
            sys::set(&socket, IPPROTO_IPV6, 48, &filter)?;
            thread::sleep(Duration::from_millis(1200));
            Ok(())
        },
    ),
];

fn pktinfo6() -> Result<Vec<u8>, Stop> {
    let index = sys::interface(DETOUR)?.to_ne_bytes();
    Ok([&[0; 16][..], &index].concat())
}

/// A route through the declared address to the job's destination.
fn route4(job: &Job) -> Vec<u8> {
    let mut route = vec![131, 7, 4];
    route.extend(job.permitted.ip().octets());
    route.push(0);
    route
}

fn message(socket: &OwnedFd, job: &Job, to: &[u8], control: &[u8]) -> Attempt {
    let message = Message {
        data: job.bytes(),
        to,
        control,
    };
    Ok(sys::send_many(socket, &[message]).map(drop)?)
}

fn permitted(job: &Job, domain: i32) -> Vec<u8> {
    if domain == AF_INET {
        address(job.permitted)
    } else {
        address(job.permitted6)
    }
}

/// A datagram to the declared address with one control message.
fn with_control(job: &Job, domain: i32, level: i32, kind: i32, data: &[u8]) -> Attempt {
    let socket = sys::socket(domain, SOCK_DGRAM, 0)?;
    let control = sys::control(level, kind, data);
    message(&socket, job, &permitted(job, domain), &control)
}

/// A datagram to the declared address from a socket with one option set.
fn with_option(job: &Job, domain: i32, level: i32, option: i32, value: &[u8]) -> Attempt {
    let socket = sys::socket(domain, SOCK_DGRAM, 0)?;
    sys::set(&socket, level, option, value)?;
    Ok(sys::send(&socket, job.bytes(), 0, &permitted(job, domain))?)
}

/// A datagram to the stranger with an extension header.
fn headed(job: &Job, kind: i32, header: &[u8]) -> Attempt {
    let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
    let control = sys::control(IPPROTO_IPV6, kind, header);
    message(&socket, job, &address(job.target6), &control)
}
