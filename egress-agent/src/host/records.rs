//! The sockets of an instance with what the data plane noted of each: socket diagnosis hands
//! out socket storage, too (`INET_DIAG_REQ_SK_BPF_STORAGES`, Linux 5.7).
//!
//! The record tells which rule approved a socket, also where the grant it came from has ended
//! long ago, and whoever holds the socket now. The kernel hands records of TCP sockets out,
//! and none of UDP sockets (`net/ipv4/inet_diag.c` `inet_sk_diag_fill`, which ends early where
//! there is no connection, Linux 6.18); those are known by their cgroup alone.

use std::{
    collections::HashSet,
    io::{self, ErrorKind},
    mem::offset_of,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use egress_common::{abi::RULE_NONE, grant::SocketState, key::Addr};
use nix::libc;

use super::{
    netlink::{array, attribute},
    sockets::{self, SocketId, low_byte},
};

/// `INET_DIAG_REQ_SK_BPF_STORAGES`, `include/uapi/linux/inet_diag.h`.
const REQUEST_STORAGES: u16 = 2;
/// `SK_DIAG_BPF_STORAGE_REQ_MAP_FD`, `include/uapi/linux/sock_diag.h`.
const REQUEST_MAP: u16 = 1;
/// `INET_DIAG_SK_BPF_STORAGES`, `include/uapi/linux/inet_diag.h`.
const STORAGES: u16 = 20;
/// `SK_DIAG_BPF_STORAGE`, `include/uapi/linux/sock_diag.h`.
const STORAGE: u16 = 1;
/// `SK_DIAG_BPF_STORAGE_MAP_VALUE`, `include/uapi/linux/sock_diag.h`.
const VALUE: u16 = 3;
/// `NLA_F_NESTED`, `include/uapi/linux/netlink.h`.
const NESTED: u16 = 0x8000;
/// Offset of `idiag_dport` in `struct inet_diag_sockid`.
const PORT: usize = 2;
/// Offset of `idiag_dst` in `struct inet_diag_sockid`.
const ADDRESS: usize = 20;

/// A TCP or UDP socket of an instance.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Where it is connected to, in canonical form.
    pub addr: Addr,
    /// The port of that, host order; 0 = it is not connected.
    pub port: u16,
    /// Its own port, host order.
    pub local_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The rule that approved its destination, or its address while a name is waited for;
    /// `RULE_NONE` where none did; `None`: there is no record, or it cannot be read.
    pub rule: Option<u32>,
    /// The connector that made it; `None`: there is no record, or it cannot be read.
    pub connector: Option<u32>,
    /// It was refused for its name, and waits to be destroyed.
    pub refused: bool,
    family: u8,
    id: SocketId,
}

/// The sockets of this network namespace that have a record in a map of socket storage, or
/// belong to one of the cgroups (ids). Needs `CAP_NET_ADMIN` and `CAP_BPF`.
pub fn list(map: BorrowedFd<'_>, cgroups: &HashSet<u64>) -> io::Result<Vec<Socket>> {
    let request = request(map.as_raw_fd());
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6].map(low_byte) {
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP].map(low_byte) {
            sockets::dump(family, protocol, &request, |body| {
                let record = record(body);
                let rule = record.and_then(rule);
                let refused = record.is_some_and(is_refused);
                let connector = record.and_then(connector);
                let inside = || sockets::cgroup_of(body).is_some_and(|id| cgroups.contains(&id));
                if rule.is_some() || inside() {
                    found.extend(socket(family, protocol, rule, body).map(|socket| Socket {
                        connector,
                        refused,
                        ..socket
                    }));
                }
            })?;
        }
    }
    Ok(found)
}

impl Socket {
    /// One for tests, connected to an IPv4 address.
    #[cfg(test)]
    pub fn to(address: [u8; 4], port: u16, protocol: u8, rule: Option<u32>) -> Self {
        Self {
            addr: Addr::from_v4(u32::from_be_bytes(address)),
            port,
            local_port: 40_000,
            protocol,
            rule,
            connector: None,
            refused: false,
            family: low_byte(libc::AF_INET),
            id: [0; 48],
        }
    }

    /// Destroys it: what waits on it, or uses it next, gets `ECONNABORTED`. False where it
    /// has ended by itself. Needs `CONFIG_INET_DIAG_DESTROY`.
    pub fn destroy(&self) -> io::Result<bool> {
        match sockets::end(self.family, self.protocol, &self.id) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The attribute that asks for the storage of one map.
fn request(map: i32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12);
    bytes.extend(12_u16.to_ne_bytes());
    bytes.extend((REQUEST_STORAGES | NESTED).to_ne_bytes());
    bytes.extend(8_u16.to_ne_bytes());
    bytes.extend(REQUEST_MAP.to_ne_bytes());
    bytes.extend(map.to_ne_bytes());
    bytes
}

/// The data plane's record behind an `inet_diag_msg`, whole; `None` where there is none.
pub fn record(body: &[u8]) -> Option<&[u8]> {
    let storages = attribute(sockets::attributes_of(body)?, STORAGES)?;
    let record = attribute(attribute(storages, STORAGE)?, VALUE)?;
    record.get(..size_of::<SocketState>())
}

/// The rule in a record; while a name is waited for, the one that permits the address.
pub fn rule(record: &[u8]) -> Option<u32> {
    let word = |at| array::<4>(record, at).map(u32::from_ne_bytes);
    match word(offset_of!(SocketState, rule))? {
        RULE_NONE => word(offset_of!(SocketState, pending)),
        rule => Some(rule),
    }
}

fn connector(record: &[u8]) -> Option<u32> {
    array::<4>(record, offset_of!(SocketState, connector)).map(u32::from_ne_bytes)
}

fn is_refused(record: &[u8]) -> bool {
    record.get(offset_of!(SocketState, stage)) == Some(&SocketState::STRANGER)
}

/// The socket that an `inet_diag_msg` is about; `None` where it is cut off.
pub fn socket(family: u8, protocol: u8, rule: Option<u32>, body: &[u8]) -> Option<Socket> {
    let id = sockets::id_of(body)?;
    let port = |offset| array::<2>(&id, offset).map(u16::from_be_bytes);
    let addr = if i32::from(family) == libc::AF_INET {
        Addr::from_v4(array::<4>(&id, ADDRESS).map(u32::from_be_bytes)?)
    } else {
        Addr::from_octets(array::<16>(&id, ADDRESS)?)
    };
    Some(Socket {
        addr,
        port: port(PORT)?,
        local_port: port(0)?,
        protocol,
        rule,
        connector: None,
        refused: false,
        family,
        id,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;

    fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap_or(0);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes
    }

    #[test]
    fn a_record_is_read_from_its_place() {
        let mut record = vec![0; size_of::<SocketState>()];
        record[24..28].copy_from_slice(&9_u32.to_ne_bytes());
        let mut value = nested(2, &7_u32.to_ne_bytes());
        value.extend(nested(VALUE, &record));
        let storages = nested(STORAGES | NESTED, &nested(STORAGE | NESTED, &value));
        let mut body = vec![0; 72];
        body[6..8].copy_from_slice(&443_u16.to_be_bytes());
        body[24..28].copy_from_slice(&[203, 0, 113, 7]);
        assert_eq!(super::record(&body), None);
        body.extend(nested(5, &[0; 4]));
        body.extend(storages);
        assert_eq!(super::record(&body).and_then(rule), Some(9));
        let found = socket(2, 6, None, &body).map(|it| (it.addr, it.port));
        assert_eq!(found, Some((Addr::from_v4(0xcb00_7107), 443)));
        for length in 0..body.len() {
            assert_eq!(super::record(&body[..length]), None);
        }
    }

    #[test]
    fn while_a_name_is_awaited_the_rule_of_the_address_counts() {
        let mut record = vec![0; size_of::<SocketState>()];
        record[60..64].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!((rule(&record), is_refused(&record)), (Some(7), false));
        record[31] = SocketState::STRANGER;
        record[24..28].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!((rule(&record), is_refused(&record)), (Some(9), true));
    }
}
