//! Which addresses are this host's own, as its routing says: also secondary ones, whole ranges
//! that are routed to it (`ip route add local …`), and those that come later.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
        socket,
    },
};
use tokio::io::unix::AsyncFd;

use super::netlink::{HEADER, Messages, array};

/// `RTM_NEWROUTE` and `RTM_GETROUTE`, `include/uapi/linux/rtnetlink.h`.
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
/// `NLM_F_REQUEST`, `include/uapi/linux/netlink.h`.
const REQUEST: u16 = 1;
/// `RTA_DST`, `include/uapi/linux/rtnetlink.h`.
const DESTINATION: u16 = 1;
/// Length of `struct rtmsg`, and where its `rtm_type` is.
const ROUTE: usize = 12;
const ROUTE_TYPE: usize = 7;
/// `RTN_LOCAL`, `RTN_BROADCAST`, `RTN_ANYCAST`: what this host takes itself.
const OWN: [u8; 3] = [2, 3, 4];
/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const ADDRESSES: u32 = 0x10 | 0x100;

/// Whether packets to an address stay on this host (its network namespace). Also true where the
/// kernel cannot be asked.
pub fn is_own(address: IpAddr) -> bool {
    ask(address).unwrap_or(true)
}

/// Asks for the route to an address, of any user and mark (rtnetlink(7)).
fn ask(address: IpAddr) -> io::Result<bool> {
    let netlink = open()?;
    let (family, octets) = match address.to_canonical() {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let family = u8::try_from(family).map_err(io::Error::other)?;
    let bits = u8::try_from(octets.len() * 8).map_err(io::Error::other)?;
    let attribute = u16::try_from(4 + octets.len()).map_err(io::Error::other)?;
    let length = HEADER + ROUTE + usize::from(attribute);
    let mut message = Vec::with_capacity(length);
    message.extend(
        u32::try_from(length)
            .map_err(io::Error::other)?
            .to_ne_bytes(),
    );
    message.extend(GETROUTE.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(attribute.to_ne_bytes());
    message.extend(DESTINATION.to_ne_bytes());
    message.extend(octets);
    sendto(
        netlink.as_raw_fd(),
        &message,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;
    let mut buffer = [0; 4096];
    let received = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let answer = Messages(buffer.get(..received).unwrap_or_default()).next();
    // An error means that there is no route, so not to here either. What cannot be read is no answer.
    Ok(answer.is_none_or(|answer| {
        answer.kind == NEWROUTE
            && array::<1>(answer.body, ROUTE_TYPE).is_some_and(|[kind]| OWN.contains(&kind))
    }))
}

/// Tells when addresses come to this host or go.
pub struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Begins to listen. Needs a tokio runtime with I/O.
    pub fn listen() -> io::Result<Self> {
        let netlink = open()?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, ADDRESSES))?;
        #[expect(
            deprecated,
            reason = "the successor is unsafe for types that may swap their descriptor; \
                      an owned one never does"
        )]
        let netlink = AsyncFd::new(netlink)?;
        Ok(Self(netlink))
    }

    /// Waits for the next change, or several. Safe to cancel.
    pub async fn next(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [0; 8192];
        loop {
            let fd = ready.get_inner().as_raw_fd();
            match recv(fd, &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(nix::errno::Errno::EAGAIN) => break,
                // Some were lost, which is a change as well.
                Err(nix::errno::Errno::ENOBUFS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_own_and_documentation_is_not() {
        for own in ["127.0.0.1", "127.3.2.1", "::ffff:127.0.0.1"] {
            let address = own.parse().unwrap_or_else(|error| unreachable!("{error}"));
            assert!(is_own(address), "{own}");
        }
        for other in ["203.0.113.7", "2001:db8::7"] {
            let address = other
                .parse()
                .unwrap_or_else(|error| unreachable!("{error}"));
            assert!(!is_own(address), "{other}");
        }
    }
}
