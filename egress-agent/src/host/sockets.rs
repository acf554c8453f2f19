//! Ending the sockets of a cgroup, with the kernel's socket diagnosis (`sock_diag(7)`).
//!
//! A refused connection keeps its bytes queued, and a socket outlives its process: once the
//! data plane is detached, such an orphan would send them. So every socket of a connector is
//! destroyed before its links go.

use std::{
    collections::HashSet,
    io::{self, ErrorKind},
    os::fd::{AsRawFd as _, OwnedFd},
};

use egress_common::key::Addr;
use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        socket,
    },
};

use super::netlink::{HEADER, Messages, array, attribute};

/// `SOCK_DIAG_BY_FAMILY`, `include/uapi/linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`, `include/uapi/linux/sock_diag.h`.
const DESTROY: u16 = 21;
/// `INET_DIAG_CGROUP_ID`, `include/uapi/linux/inet_diag.h`; Linux 5.7.
const CGROUP_ID: u16 = 21;
/// `NLM_F_REQUEST`, `NLM_F_ACK` and `NLM_F_DUMP`, `include/uapi/linux/netlink.h`.
const REQUEST_FLAG: u16 = 0x1;
const ACK_FLAG: u16 = 0x4;
const DUMP_FLAG: u16 = 0x300;
/// `NLMSG_ERROR`, `include/uapi/linux/netlink.h`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`, `include/uapi/linux/netlink.h`.
const DONE: u16 = 3;
/// Length of `struct inet_diag_sockid`.
const SOCKET_ID: usize = 48;
/// Offset of the socket id in `struct inet_diag_msg`.
const MSG_SOCKET_ID: usize = 4;
/// Length of `struct inet_diag_msg`.
const MSG: usize = 72;
/// Length of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;

/// Destroys every TCP and UDP socket that belongs to one of the cgroups (ids), in this
/// network namespace. Answers how many there were.
pub fn destroy(cgroups: &HashSet<u64>) -> io::Result<usize> {
    let mut destroyed = 0_usize;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            let (family, protocol) = (low_byte(family), low_byte(protocol));
            for id in list(family, protocol, cgroups)? {
                match end(family, protocol, &id) {
                    Ok(()) => destroyed = destroyed.saturating_add(1),
                    // It ended by itself in between.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(destroyed)
}

/// One TCP connection, as the data plane reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Own address and port.
    pub local: (Addr, u16),
    /// The peer's.
    pub peer: (Addr, u16),
    /// The socket's cookie, by which no other one is meant.
    pub cookie: u64,
}

/// Destroys the socket of one connection of this network namespace: what waits on it, or uses
/// it next, gets `ECONNABORTED`. False where it has ended by itself.
pub fn end_connection(connection: &Connection) -> io::Result<bool> {
    // An IPv6 socket with an IPv4 peer is found by the IPv4 addresses, too.
    let v4 = connection.peer.0.v4().is_some();
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
    let protocol = low_byte(libc::IPPROTO_TCP);
    match end(low_byte(family), protocol, &connection_id(connection)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `struct inet_diag_sockid`, `include/uapi/linux/inet_diag.h`.
fn connection_id(connection: &Connection) -> SocketId {
    let mut bytes = Vec::with_capacity(SOCKET_ID);
    bytes.extend(connection.local.1.to_be_bytes());
    bytes.extend(connection.peer.1.to_be_bytes());
    for (addr, _) in [connection.local, connection.peer] {
        match addr.v4() {
            Some(v4) => bytes.extend(v4.to_be_bytes().into_iter().chain([0; 12])),
            None => bytes.extend(addr.octets()),
        }
    }
    bytes.extend([0; 4]);
    // The lower half comes first, whatever the byte order (`net/core/sock_diag.c`
    // `sock_diag_save_cookie`).
    let [a, b, c, d, e, f, g, h] = connection.cookie.to_be_bytes();
    bytes.extend(u32::from_be_bytes([e, f, g, h]).to_ne_bytes());
    bytes.extend(u32::from_be_bytes([a, b, c, d]).to_ne_bytes());
    array(&bytes, 0).unwrap_or([0; SOCKET_ID])
}

/// Socket ids of a family and protocol that belong to one of the cgroups.
fn list(family: u8, protocol: u8, cgroups: &HashSet<u64>) -> io::Result<Vec<SocketId>> {
    let mut found = Vec::new();
    dump(family, protocol, &[], |body| {
        if cgroup_of(body).is_some_and(|cgroup| cgroups.contains(&cgroup)) {
            found.extend(id_of(body));
        }
    })?;
    Ok(found)
}

/// `struct inet_diag_sockid` as bytes: by it the kernel finds a socket again, and only that
/// one, for it holds a cookie.
pub type SocketId = [u8; SOCKET_ID];

/// The socket id of an `inet_diag_msg`.
pub fn id_of(body: &[u8]) -> Option<SocketId> {
    array(body, MSG_SOCKET_ID)
}

/// Hands over the `inet_diag_msg` of every socket of a family and protocol, its attributes
/// behind it. `attributes` go with the request.
pub(super) fn dump(
    family: u8,
    protocol: u8,
    attributes: &[u8],
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let diag = open()?;
    let flags = REQUEST_FLAG | DUMP_FLAG;
    send(
        &diag,
        &request(
            BY_FAMILY,
            flags,
            family,
            protocol,
            &[0; SOCKET_ID],
            attributes,
        ),
    )?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = recv(diag.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in Messages(buffer.get(..length).unwrap_or_default()) {
            match message.kind {
                DONE => return Ok(()),
                ERROR => return Err(error_of(message.body)),
                _ => each(message.body),
            }
        }
    }
}

/// Destroys one socket.
pub(super) fn end(family: u8, protocol: u8, id: &SocketId) -> io::Result<()> {
    let diag = open()?;
    let flags = REQUEST_FLAG | ACK_FLAG;
    send(&diag, &request(DESTROY, flags, family, protocol, id, &[]))?;
    let mut buffer = vec![0; 8 * 1024];
    let length = recv(diag.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    for message in Messages(buffer.get(..length).unwrap_or_default()) {
        if message.kind == ERROR {
            return match array::<4>(message.body, 0).map(i32::from_ne_bytes) {
                Some(0) => Ok(()),
                _ => Err(error_of(message.body)),
            };
        }
    }
    Err(ErrorKind::InvalidData.into())
}

/// `nlmsghdr` and `inet_diag_req_v2` for sockets in any state.
fn request(
    kind: u16,
    flags: u16,
    family: u8,
    protocol: u8,
    id: &SocketId,
    attributes: &[u8],
) -> Vec<u8> {
    let whole = HEADER + REQUEST + attributes.len();
    let mut message = Vec::with_capacity(whole);
    let length = u32::try_from(whole).unwrap_or(u32::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, protocol, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(id);
    message.extend(attributes);
    message
}

fn open() -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkSockDiag;
    Ok(socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?)
}

fn send(diag: &OwnedFd, message: &[u8]) -> io::Result<()> {
    let kernel = NetlinkAddr::new(0, 0);
    sendto(diag.as_raw_fd(), message, &kernel, MsgFlags::empty())?;
    Ok(())
}

/// The cgroup attribute of an `inet_diag_msg`.
pub fn cgroup_of(body: &[u8]) -> Option<u64> {
    let value = attribute(attributes_of(body)?, CGROUP_ID)?;
    array::<8>(value, 0).map(u64::from_ne_bytes)
}

/// The attributes behind an `inet_diag_msg`.
pub fn attributes_of(body: &[u8]) -> Option<&[u8]> {
    body.get(MSG..)
}

fn error_of(body: &[u8]) -> io::Error {
    match array::<4>(body, 0).map(i32::from_ne_bytes) {
        Some(code) => Errno::from_raw(code.saturating_neg()).into(),
        None => ErrorKind::InvalidData.into(),
    }
}

/// Families and protocols are small numbers.
pub(super) fn low_byte(number: i32) -> u8 {
    u8::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_have_a_cgroup_or_none() {
        for length in 0..64 {
            let bytes = vec![length; usize::from(length)];
            let _none = cgroup_of(&bytes);
        }
    }

    #[test]
    fn a_connection_is_named_as_the_kernel_names_it() {
        let connection = Connection {
            local: (Addr::from_v4(0x0a00_0001), 40_000),
            peer: (Addr::from_v4(0xcb00_7107), 443),
            cookie: 0x0000_0002_0000_0001,
        };
        let id = connection_id(&connection);
        assert_eq!(array(&id, 0), Some(40_000_u16.to_be_bytes()));
        assert_eq!(array(&id, 2), Some(443_u16.to_be_bytes()));
        assert_eq!(array(&id, 4), Some([10, 0, 0, 1]));
        assert_eq!(array(&id, 20), Some([203, 0, 113, 7]));
        assert_eq!(array(&id, 40), Some(1_u32.to_ne_bytes()));
        assert_eq!(array(&id, 44), Some(2_u32.to_ne_bytes()));
        let v6 = Connection {
            local: (Addr::from_v6(0x2001_0db8_0000_0000, 1), 40_000),
            peer: (Addr::from_v6(0x2001_0db8_0000_0000, 7), 443),
            cookie: 1,
        };
        let octets = v6.peer.0.octets();
        assert_eq!(array(&connection_id(&v6), 20), Some(octets));
    }

    #[test]
    fn the_attribute_is_found_behind_others() {
        let mut body = vec![0; MSG];
        body.extend(5_u16.to_ne_bytes());
        body.extend(8_u16.to_ne_bytes());
        body.extend([7, 0, 0, 0]);
        body.extend(12_u16.to_ne_bytes());
        body.extend(CGROUP_ID.to_ne_bytes());
        body.extend(4711_u64.to_ne_bytes());
        assert_eq!(cgroup_of(&body), Some(4711));
    }
}
