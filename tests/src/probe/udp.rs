//! Datagrams.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use libc::{AF_INET, AF_INET6, IPPROTO_IP, SOCK_DGRAM};

use super::{
    Attempt, Job, Needs, Vector, listening,
    sys::{self, Message, address},
};
use crate::process::patient;

const PATIENCE: Duration = Duration::from_secs(2);

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("udp4", "sendto over IPv4 (CVE-2026-25598)", |job| {
        datagram(job, AF_INET, job.target)
    })
    .controlled(),
    Vector::new("udp6", "sendto over IPv6", |job| {
        datagram(job, AF_INET6, job.target6)
    })
    .controlled(),
    Vector::new("udp-mapped", "IPv4 through an IPv6 socket", |job| {
        datagram(job, AF_INET6, job.mapped())
    })
    .controlled(),
    Vector::new("udp4-connected", "connect, then send", |job| {
        connected(job, AF_INET, job.target)
    })
    .controlled(),
    Vector::new("udp6-connected", "connect, then send, IPv6", |job| {
        connected(job, AF_INET6, job.target6)
    })
    .controlled(),
    Vector::new(
        "udp-mapped-connected",
        "connect, then send, IPv4 in IPv6",
        |job| connected(job, AF_INET6, job.mapped()),
    )
    .controlled(),
    Vector::new("udp-sendmsg", "sendmsg (CVE-2026-25598)", |job| {
        let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
        many(&socket, job, &[address(job.target)])
    })
    .controlled(),
    Vector::new(
        "udp-sendmmsg",
        "one call, a declared address first (CVE-2026-25598)",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            many(&socket, job, &[address(job.permitted), address(job.target)])
        },
    )
    .controlled(),
    Vector::new(
        "udp6-sendmmsg",
        "one call, a declared address first, IPv6",
        |job| {
            let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
            many(
                &socket,
                job,
                &[address(job.permitted6), address(job.target6)],
            )
        },
    )
    .controlled(),
    Vector::new(
        "udp-unspec",
        "an IPv4 address whose family is AF_UNSPEC",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            let to = sys::under_family(address(job.target), libc::AF_UNSPEC);
            Ok(sys::send(&socket, job.bytes(), 0, &to)?)
        },
    ),
    Vector::new(
        "udp-inet-on-inet6",
        "an IPv4 address given to an IPv6 socket",
        |job| datagram(job, AF_INET6, job.target),
    ),
    Vector::new(
        "udp-elsewhere",
        "another address on a connected socket",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::connect(&socket, &address(job.permitted))?;
            Ok(sys::send(&socket, job.bytes(), 0, &address(job.target))?)
        },
    )
    .controlled(),
    Vector::new(
        "udp6-elsewhere",
        "another address on a connected socket, IPv6",
        |job| {
            let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
            sys::connect(&socket, &address(job.permitted6))?;
            Ok(sys::send(&socket, job.bytes(), 0, &address(job.target6))?)
        },
    )
    .controlled(),
    Vector::new(
        "udp-dissolve",
        "an approved socket, dissolved, then sent from",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::connect(&socket, &address(job.permitted))?;
            sys::connect(&socket, &sys::nowhere())?;
            Ok(sys::send(&socket, job.bytes(), 0, &address(job.target))?)
        },
    )
    .controlled(),
    Vector::new(
        "udp-reconnect",
        "an approved socket, connected again",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::connect(&socket, &address(job.permitted))?;
            sys::connect(&socket, &address(job.target))?;
            Ok(sys::send(&socket, job.bytes(), 0, &[])?)
        },
    )
    .controlled(),
    Vector::new(
        "udp-flip",
        "a second thread changes the address while sendto reads it",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::flipping(job.permitted, job.target, |place| {
                for _ in 0..20_000 {
                    let _ = sys::send_shared(&socket, job.bytes(), place);
                }
            });
            Ok(())
        },
    ),
    Vector::new(
        "udp-wake",
        "at once after datagrams to the declared address",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            for _ in 0..8 {
                sys::send(&socket, b".", 0, &address(job.permitted))?;
            }
            Ok(sys::send(&socket, job.bytes(), 0, &address(job.target))?)
        },
    )
    .controlled(),
    Vector::new(
        "udp-two-threads",
        "while another thread sends to the declared address on the same socket",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            let send = |data, to| sys::send(&socket, data, 0, &address(to));
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        if send(b".", job.permitted).is_err() {
                            break;
                        }
                    }
                });
                let mut sent = Ok(());
                for _ in 0..2_000 {
                    sent = send(job.bytes(), job.target);
                }
                over.store(true, Ordering::Relaxed);
                Ok(sent?)
            })
        },
    )
    .controlled(),
    Vector::new("udp-cork", "collected, then sent", |job| {
        let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
        sys::connect(&socket, &address(job.target))?;
        sys::send(&socket, job.bytes(), libc::MSG_MORE, &[])?;
        Ok(sys::send(&socket, b".", 0, &[])?)
    })
    .controlled(),
    Vector::new("udp-fragments", "the token in the last fragment", |job| {
        let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
        let data = [&[b'.'; 4000], job.bytes()].concat();
        Ok(sys::send(&socket, &data, 0, &address(job.target))?)
    }),
    Vector::new("udp-gso", "one call, cut into datagrams below", |job| {
        let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
        let size = u16::try_from(job.bytes().len()).unwrap_or(u16::MAX);
        let control = sys::control(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        let data = job.bytes().repeat(3);
        let to = address(job.target);
        let message = Message {
            data: &data,
            to: &to,
            control: &control,
        };
        Ok(sys::send_many(&socket, &[message]).map(drop)?)
    })
    .controlled(),
    Vector::new(
        "udp-pktinfo",
        "another interface by a control message",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            let interface = nix::net::if_::if_nametoindex("up0")?;
            let info = [interface.to_ne_bytes(), [0; 4], [0; 4]].concat();
            let control = sys::control(IPPROTO_IP, libc::IP_PKTINFO, &info);
            let to = address(job.target);
            let message = Message {
                data: job.bytes(),
                to: &to,
                control: &control,
            };
            Ok(sys::send_many(&socket, &[message]).map(drop)?)
        },
    ),
    Vector::new(
        "udp-source-route",
        "loose source route by a control message",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            let mut route = vec![131, 7, 4];
            route.extend(job.target.ip().octets());
            route.push(0);
            let control = sys::control(IPPROTO_IP, libc::IP_RETOPTS, &route);
            let to = address(job.permitted);
            let message = Message {
                data: job.bytes(),
                to: &to,
                control: &control,
            };
            Ok(sys::send_many(&socket, &[message]).map(drop)?)
        },
    )
    .by_root(),
    Vector::new("udp-multicast", "a multicast group", |job| {
        let group = SocketAddrV4::new(Ipv4Addr::new(239, 1, 2, 3), job.target.port());
        datagram(job, AF_INET, group)
    }),
    Vector::new("udp-broadcast", "everybody on the wire", |job| {
        let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
        sys::set(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_BROADCAST,
            &1i32.to_ne_bytes(),
        )?;
        let all = SocketAddrV4::new(Ipv4Addr::BROADCAST, job.target.port());
        Ok(sys::send(&socket, job.bytes(), 0, &address(all))?)
    }),
    Vector::new(
        "udp-reply",
        "the answer to a stranger that sent something",
        |job| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(patient(PATIENCE)))?;
            listening(socket.local_addr()?.port())?;
            let (_, from) = socket.recv_from(&mut [0; 64])?;
            socket.send_to(job.bytes(), from).map(drop)?;
            Ok(())
        },
    )
    .with(Needs::UdpCall),
    Vector::new(
        "udp-other-port",
        "another port of the declared address",
        |job| datagram(job, AF_INET, SocketAddr::from((*job.permitted.ip(), 8080))),
    ),
    Vector::new(
        "udp-dns-port",
        "port 53 of the declared address, not DNS",
        |job| datagram(job, AF_INET, SocketAddr::from((*job.permitted.ip(), 53))),
    ),
    Vector::new("udp-quic", "port 443 of the stranger", |job| {
        datagram(job, AF_INET, SocketAddr::from((*job.target.ip(), 443)))
    }),
    Vector::new(
        "udp-splice",
        "vmsplice and splice on a connected socket",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            sys::connect(&socket, &address(job.target))?;
            super::tcp::splice(job, socket.as_raw_fd())?;
            // splice may say that more comes, and then nothing has left yet.
            sys::send(&socket, b".", 0, &[])?;
            // The packet shares the token's memory, which has to stay until it is looked at.
            thread::sleep(Duration::from_millis(100));
            Ok(())
        },
    )
    .controlled(),
    Vector::new("udp-zerocopy", "MSG_ZEROCOPY", |job| {
        let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
        let one = 1i32.to_ne_bytes();
        sys::set(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &one)?;
        let to = address(job.target);
        Ok(sys::send(&socket, job.bytes(), libc::MSG_ZEROCOPY, &to)?)
    })
    .controlled(),
    Vector::new(
        "udp-cork-elsewhere",
        "collected for the declared address, the last part for the stranger",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
            let first = address(job.permitted);
            sys::send(&socket, job.bytes(), libc::MSG_MORE, &first)?;
            sys::send(&socket, b".", 0, &address(job.target))?;
            // The kernel keeps the first destination; the stranger's is asked for alone, too.
            Ok(sys::send(&socket, job.bytes(), 0, &address(job.target))?)
        },
    )
    .controlled(),
    Vector::new("udp-write", "connect, then write", |job| {
        let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
        sys::connect(&socket, &address(job.target))?;
        Ok(sys::write(socket.as_raw_fd(), job.bytes())?)
    })
    .controlled(),
    Vector::new("udp-link-local", "the router's link-local address", |job| {
        let interface = nix::net::if_::if_nametoindex("up0")?;
        let ip = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let to = std::net::SocketAddrV6::new(ip, job.target.port(), 0, interface);
        datagram(job, AF_INET6, to)?;
        // Its hardware address has to be found first.
        thread::sleep(Duration::from_millis(200));
        Ok(())
    }),
    Vector::new("udp-all-nodes", "everybody on the wire, IPv6", |job| {
        let interface = nix::net::if_::if_nametoindex("up0")?;
        let ip = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        datagram(
            job,
            AF_INET6,
            std::net::SocketAddrV6::new(ip, job.target.port(), 0, interface),
        )
    }),
    Vector::new("udp-mdns", "multicast DNS", |job| {
        datagram(job, AF_INET, SocketAddr::from(([224, 0, 0, 251], 5353)))
    }),
    Vector::new("udp-metadata", "the cloud's metadata address", |job| {
        let to = SocketAddr::from((crate::zone::METADATA, 80));
        datagram(job, AF_INET, to)
    }),
    Vector::new(
        "udp6-fragments",
        "the token in the last fragment, IPv6",
        |job| {
            let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
            let data = [&[b'.'; 4000], job.bytes()].concat();
            Ok(sys::send(&socket, &data, 0, &address(job.target6))?)
        },
    ),
    Vector::new(
        "udp6-gso",
        "one call, cut into datagrams below, IPv6",
        |job| {
            let socket = sys::socket(AF_INET6, SOCK_DGRAM, 0)?;
            let size = u16::try_from(job.bytes().len()).unwrap_or(u16::MAX);
            let control = sys::control(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
            let data = job.bytes().repeat(3);
            let to = address(job.target6);
            let message = Message {
                data: &data,
                to: &to,
                control: &control,
            };
            Ok(sys::send_many(&socket, &[message]).map(drop)?)
        },
    )
    .controlled(),
];

fn datagram(job: &Job, domain: i32, to: impl Into<SocketAddr>) -> Attempt {
    let socket = sys::socket(domain, SOCK_DGRAM, 0)?;
    Ok(sys::send(&socket, job.bytes(), 0, &address(to))?)
}

fn connected(job: &Job, domain: i32, to: impl Into<SocketAddr>) -> Attempt {
    let socket = sys::socket(domain, SOCK_DGRAM, 0)?;
    sys::connect(&socket, &address(to))?;
    Ok(sys::send(&socket, job.bytes(), 0, &[])?)
}

/// Sends to each address in one call; the token only to the last.
fn many(socket: &std::os::fd::OwnedFd, job: &Job, to: &[Vec<u8>]) -> Attempt {
    let last = to.len() - 1;
    let data = |index| if index == last { job.bytes() } else { b"." };
    let message = |(index, to)| Message {
        data: data(index),
        to,
        control: &[],
    };
    let to = to.iter().map(Vec::as_slice).enumerate();
    let messages: Vec<Message<'_>> = to.map(message).collect();
    let sent = sys::send_many(socket, &messages)?;
    if sent == messages.len() {
        return Ok(());
    }
    Err(std::io::Error::other(format!("{sent} of {} were taken", messages.len())).into())
}

/// Sends one datagram to each of so many different destinations, for [`super::main`]. All are
/// strangers: the addresses of 198.51.100.0/24, port by port. Prints how many failed with EPERM
/// and how long the slowest took.
pub(super) fn burst(count: u32) -> anyhow::Result<()> {
    let socket = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
    let (mut refused, mut other, mut slowest) = (0u32, 0u32, Duration::ZERO);
    let start = Instant::now();
    for index in 0..count {
        let ip = Ipv4Addr::new(198, 51, 100, (index % 250 + 1) as u8);
        let port = (1024 + index / 250) as u16;
        let before = Instant::now();
        match sys::send(&socket, b".", 0, &address(SocketAddrV4::new(ip, port))) {
            Err(nix::errno::Errno::EPERM) => refused += 1,
            _ => other += 1,
        }
        slowest = slowest.max(before.elapsed());
    }
    println!(
        "refused {refused} other {other} slowest_us {} took_ms {}",
        slowest.as_micros(),
        start.elapsed().as_millis()
    );
    // Room for the last events before the connector ends.
    thread::sleep(Duration::from_millis(200));
    Ok(())
}
