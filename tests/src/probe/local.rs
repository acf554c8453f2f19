//! Through somebody on the same host: an accomplice that listens on every local address and
//! passes on what it gets.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use super::{Attempt, Job, PORT, RELAY_PORT, Vector, sys};
use crate::{process::patient, zone};

const PATIENCE: Duration = Duration::from_secs(2);

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("loopback4", "a relay on 127.0.0.1", |job| {
        tcp(job, Ipv4Addr::LOCALHOST)
    }),
    Vector::new(
        "loopback4-other",
        "a relay on another address of 127/8",
        |job| tcp(job, Ipv4Addr::new(127, 3, 2, 1)),
    ),
    Vector::new("loopback6", "a relay on ::1", |job| {
        tcp(job, Ipv6Addr::LOCALHOST)
    }),
    Vector::new(
        "loopback-zero4",
        "a relay on 0.0.0.0 (OpenShell#592)",
        |job| tcp(job, Ipv4Addr::UNSPECIFIED),
    ),
    Vector::new("loopback-zero6", "a relay on ::", |job| {
        tcp(job, Ipv6Addr::UNSPECIFIED)
    }),
    Vector::new("loopback-mapped", "a relay on ::ffff:127.0.0.1", |job| {
        tcp(job, Ipv4Addr::LOCALHOST.to_ipv6_mapped())
    }),
    Vector::new("loopback-mapped-zero", "a relay on ::ffff:0.0.0.0", |job| {
        tcp(job, Ipv4Addr::UNSPECIFIED.to_ipv6_mapped())
    }),
    Vector::new("own-address4", "a relay on the host's own address", |job| {
        tcp(job, zone::HOST)
    }),
    Vector::new(
        "own-address6",
        "a relay on the host's own IPv6 address",
        |job| tcp(job, zone::HOST6),
    ),
    Vector::new("loopback-udp4", "a relay on 127.0.0.1, UDP", |job| {
        udp(job, Ipv4Addr::LOCALHOST)
    }),
    Vector::new("loopback-udp6", "a relay on ::1, UDP", |job| {
        udp(job, Ipv6Addr::LOCALHOST)
    }),
    Vector::new("loopback-udp-zero", "a relay on 0.0.0.0, UDP", |job| {
        udp(job, Ipv4Addr::UNSPECIFIED)
    }),
    Vector::new(
        "loopback-mptcp",
        "a relay on 127.0.0.1, multipath TCP",
        |job| {
            let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, sys::MPTCP)?;
            sys::connect(&socket, &sys::address((Ipv4Addr::LOCALHOST, RELAY_PORT)))?;
            hand_over(socket.into(), job)
        },
    )
    .optional(),
];

fn tcp(job: &Job, ip: impl Into<IpAddr>) -> Attempt {
    let to = SocketAddr::new(ip.into(), RELAY_PORT);
    let domain = if to.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let socket = sys::socket(domain, libc::SOCK_STREAM, 0)?;
    sys::connect(&socket, &sys::address(to))?;
    hand_over(socket.into(), job)
}

fn hand_over(mut stream: TcpStream, job: &Job) -> Attempt {
    stream.write_all(job.bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read(&mut [0; 16]).map(drop)?;
    Ok(())
}

fn udp(job: &Job, ip: impl Into<IpAddr>) -> Attempt {
    let to = SocketAddr::new(ip.into(), RELAY_PORT);
    let domain = if to.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let socket = sys::socket(domain, libc::SOCK_DGRAM, 0)?;
    sys::send(&socket, job.bytes(), 0, &sys::address(to))?;
    thread::sleep(Duration::from_millis(100));
    Ok(())
}

/// Passes on what arrives, by TCP or UDP, to the stranger. It says `ready` and ends with its
/// standard input.
pub(super) fn relay() -> io::Result<()> {
    listen()?;
    println!("ready");
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

/// The ears of the relay, in the background.
pub(super) fn listen() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, RELAY_PORT))?;
    let datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, RELAY_PORT))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A caller that hangs up early only ends its own relay.
            thread::spawn(move || drop(pass_on(stream)));
        }
    });
    thread::spawn(move || {
        let Ok(out) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else {
            return;
        };
        let mut buffer = [0; 2048];
        while let Ok((length, _)) = datagrams.recv_from(&mut buffer) {
            drop(out.send_to(&buffer[..length], (zone::STRANGER, PORT)));
        }
    });
    Ok(())
}

fn pass_on(mut from: TcpStream) -> io::Result<()> {
    from.set_read_timeout(Some(patient(PATIENCE)))?;
    let mut data = Vec::new();
    from.read_to_end(&mut data)?;
    let mut out = TcpStream::connect((zone::STRANGER, PORT))?;
    out.set_read_timeout(Some(patient(PATIENCE)))?;
    out.write_all(&data)?;
    out.read(&mut [0; 64]).map(drop)?;
    from.write_all(b"passed on")
}
