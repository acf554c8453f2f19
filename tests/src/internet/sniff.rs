//! Looks at every packet that arrives from the host, whatever its protocol: the surest witness
//! of what got out, and of what did not.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};

use super::state::State;
use crate::protocol::Sighting;

const ETHERNET: usize = 14;
const OUTGOING: u8 = 4;
const BUFFER: usize = 64 << 20;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMP6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// The open eye.
pub(super) struct Sniffer(Arc<OwnedFd>);

impl Sniffer {
    /// Packets since the last call for which the socket's buffer had no room.
    pub(super) fn dropped(&self) -> Result<u64> {
        statistics(&self.0)
    }
}

/// Opens the packet socket and looks in a thread of its own.
pub(super) fn start(interface: &str, state: Arc<State>) -> Result<Sniffer> {
    let index = if_nametoindex(interface).with_context(|| format!("interface {interface}"))?;
    let all = SockProtocol::EthAll;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        all,
    )
    .context("packet socket")?;
    setsockopt(&socket, RcvBufForce, &BUFFER).context("receive buffer")?;
    let socket = Arc::new(socket);
    let sniffer = Sniffer(socket.clone());
    thread::spawn(move || watch(&socket, index as usize, &state));
    Ok(sniffer)
}

/// `PACKET_STATISTICS`, packet(7); reading it sets it back to zero.
fn statistics(socket: &OwnedFd) -> Result<u64> {
    let mut counts = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of_val(&counts) as libc::socklen_t;
    // SAFETY: `counts` is live and writable for the call and `length` holds its size, which is
    // the most that the kernel writes; the descriptor is open as long as `socket` is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut counts).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).context("packet statistics")?;
    Ok(u64::from(counts.tp_drops))
}

fn watch(socket: &OwnedFd, index: usize, state: &State) {
    let mut buffer = vec![0; 65536];
    loop {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) if from.ifindex() == index && from.pkttype() != OUTGOING => {
                look(&buffer[..length], state);
            }
            Ok(_) => {}
            // ENOBUFS and the like: packets were lost, so no test may say that nothing arrived.
            Err(_) => state.add_missed(1),
        }
    }
}

fn look(frame: &[u8], state: &State) {
    let to = parse(frame).unwrap_or(Header {
        to: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        protocol: 0,
        port: 0,
    });
    state.count(to.to, to.protocol, to.port);
    let sighting = Sighting {
        how: "packet".to_owned(),
        protocol: to.protocol,
        to: to.to,
        port: to.port,
    };
    state.scan(frame, &sighting);
}

struct Header {
    to: IpAddr,
    protocol: u8,
    port: u16,
}

/// Destination, protocol and port, as far as they can be read.
fn parse(frame: &[u8]) -> Option<Header> {
    let packet = frame.get(ETHERNET..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let length = usize::from(packet.first()? & 0x0f) * 4;
            let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            let first = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x1fff == 0;
            let protocol = *packet.get(9)?;
            // An option may name a second destination: such a packet went to no plain port.
            let port = if first && length == 20 {
                port(protocol, packet.get(length..)?)
            } else {
                0
            };
            Some(Header {
                to: Ipv4Addr::from(to).into(),
                protocol,
                port,
            })
        }
        [0x86, 0xdd] => {
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            let protocol = *packet.get(6)?;
            let port = port(protocol, packet.get(40..)?);
            Some(Header {
                to: Ipv6Addr::from(to).into(),
                protocol,
                port,
            })
        }
        _ => None,
    }
}

fn port(protocol: u8, segment: &[u8]) -> u16 {
    match (protocol, segment) {
        (TCP | UDP | DCCP | SCTP | UDP_LITE, [_, _, high, low, ..]) => {
            u16::from_be_bytes([*high, *low])
        }
        (ICMP | ICMP6, [kind, ..]) => u16::from(*kind),
        _ => 0,
    }
}
