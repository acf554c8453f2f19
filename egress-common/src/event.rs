//! The record of one denial, as the ring carries it.

use crate::{key::Addr, sni::NameKey};

/// One denial. 72 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Boot-clock time. Nanoseconds.
    pub time_ns: u64,
    /// Destination.
    pub addr: Addr,
    /// Connector id; 0 = a process without a connector below the instance's cgroup.
    pub connector: u32,
    /// Process (thread group) id; 0 = the hook could not know.
    pub pid: u32,
    /// Thread id; 0 = the hook could not know. For [`crate::verdict::Reason::Interface`], where the
    /// hook never knows, the interface by which the datagram was about to leave.
    pub tid: u32,
    /// User id of the caller.
    pub uid: u32,
    /// Rule concerned, or [`crate::abi::RULE_NONE`].
    pub rule: u32,
    /// This denial and its repeats that were not shown since the last record. At least 1.
    pub count: u32,
    /// Destination port, host order; for a refused socket its protocol number.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`crate::verdict::Layer`].
    pub layer: u8,
    /// [`crate::verdict::Reason`].
    pub reason: u8,
    /// [`crate::verdict::Action`].
    pub action: u8,
    /// Address family of the socket.
    pub family: u8,
    /// Zero.
    pub pad: u8,
    /// Name of the calling thread, NUL-padded; empty = the hook could not know.
    pub comm: [u8; 16],
}

/// One connection that was refused for its name, or for having none. 360 bytes.
///
/// There is one for each such connection, and repeats are not held back: the agent ends the
/// socket by it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SniEvent {
    /// What every denial says.
    pub event: Event,
    /// The socket's cookie (`SO_COOKIE`, socket(7)).
    pub cookie: u64,
    /// Its own address.
    pub source: Addr,
    /// Its own port, host order.
    pub source_port: u16,
    /// Octets of the name; 0 = there was none that could be read.
    pub name_len: u16,
    /// Zero.
    pub pad: u32,
    /// The name that was said, back to front and in lower case, whatever its octets are.
    pub name: NameKey,
}

/// Key of the repeat limiter. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepeatKey {
    /// Destination.
    pub addr: Addr,
    /// Connector id.
    pub connector: u32,
    /// Destination port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`crate::verdict::Reason`].
    pub reason: u8,
}

/// Value of the repeat limiter. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repeat {
    /// When a record was last shown. Boot clock, nanoseconds.
    pub shown_ns: u64,
    /// Denials since then.
    pub hidden: u64,
}

/// Key of the door's client table: a local address and port that asks. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientKey {
    /// Source address.
    pub addr: Addr,
    /// Connector id.
    pub connector: u32,
    /// Source port, host order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u16,
}

/// Who sends from there. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// Process that made the socket.
    pub pid: u32,
    /// User that made the socket.
    pub uid: u32,
}
