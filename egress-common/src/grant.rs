//! The records a verdict is looked up in.

use crate::{abi::MAX_RANGES, key::Addr};

/// Value of an exact grant. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Boot-clock time from which new flows are refused; 0 = never. Nanoseconds.
    pub expires_ns: u64,
    /// The rule that this grant comes from.
    pub rule: u32,
    /// Zero.
    pub pad: u32,
}

/// One range of ports under a prefix. 12 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
    /// [`PortRange::ALLOW`] or [`PortRange::DENY`]; anything else denies.
    pub effect: u16,
    /// Zero.
    pub pad: u16,
    /// The rule that this range comes from.
    pub rule: u32,
}

impl PortRange {
    /// The range refuses.
    pub const DENY: u16 = 0;
    /// The range permits while its rule is active.
    pub const ALLOW: u16 = 1;
    /// A range that holds no port.
    pub const EMPTY: Self = Self {
        first: 1,
        last: 0,
        effect: Self::DENY,
        pad: 0,
        rule: 0,
    };
}

/// All port ranges that hold for one prefix. 196 bytes.
///
/// The trie answers with the longest prefix only, so the compiler merges into each entry
/// the ranges of every shorter prefix that covers it, denials first: a narrow permission
/// cannot hide a wide denial.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefixRules {
    /// Entries of `ranges` in use.
    pub count: u32,
    /// The ranges; the first that holds the port decides.
    pub ranges: [PortRange; MAX_RANGES],
}

/// What the data plane knows of a connector, by id. 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connector {
    /// Address to which IPv6 sockets are led for DNS: `::1` or `::ffff:127.0.0.1`.
    pub door_v6: Addr,
    /// Address to which IPv4 sockets are led for DNS, host order; 0 = no door.
    pub door_v4: u32,
    /// Port of the door, host order; 0 = no door.
    pub door_port: u16,
    /// [`Connector::ENFORCE`] or [`Connector::AUDIT`]; 0 = no such connector.
    pub mode: u16,
    /// Which unix sockets are the connector's own: [`Connector::OWN_PATHS`],
    /// [`Connector::OWN_ABSTRACT`]; above them, at [`Connector::FOLDER_SHIFT`], the length of its
    /// temporary folder's path, 0 = it has none.
    pub unix: u32,
    /// [`Connector::BROADCASTS`] or 0.
    pub flags: u32,
}

impl Connector {
    /// Refuse what no rule permits.
    pub const ENFORCE: u16 = 1;
    /// Report what no rule permits, and let it pass.
    pub const AUDIT: u16 = 2;
    /// A rule names addresses for datagrams, of which any could be a broadcast address. Without
    /// it `SO_BROADCAST` does nothing, and the kernel refuses every such address itself.
    pub const BROADCASTS: u32 = 1;
    /// Everything below [`crate::abi::OWN_FOLDER`] was bound by the connector.
    pub const OWN_PATHS: u32 = 1;
    /// The kernel itself keeps the connector from abstract sockets of others (Landlock's
    /// scope), so no name has to be refused.
    pub const OWN_ABSTRACT: u32 = 2;
    /// Where the length of the temporary folder's path stands in `unix`. Bits.
    pub const FOLDER_SHIFT: u32 = 8;
}

/// The revocation switch of a rule. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// 1 = active; anything else refuses.
    pub active: u32,
    /// The connector that the rule belongs to; 0 for the reserved rules.
    pub connector: u16,
    /// [`Rule::TLS`] and [`Rule::ECH`].
    pub flags: u16,
}

impl Rule {
    /// TCP flows that the rule's addresses permit have to begin with a TLS ClientHello whose
    /// name a rule permits.
    pub const TLS: u16 = 1;
    /// Such a ClientHello may carry an encrypted one; the outer name counts.
    pub const ECH: u16 = 2;
}

/// What a socket carries: who made it, where it may send, and how far its name is checked.
/// 104 bytes.
///
/// Written by `sock_create` and by the connect hooks, which run with the socket locked;
/// read by the packet hook on every packet. `seq` is odd while the record is written, so a
/// reader never takes half of one destination and half of another for an approved one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketState {
    /// Odd while the record changes.
    pub seq: u32,
    /// Connector id.
    pub connector: u32,
    /// Destination that was approved.
    pub addr: Addr,
    /// The rule that approved it; [`crate::abi::RULE_NONE`] = nothing approved.
    pub rule: u32,
    /// Approved port, network order.
    pub port_be: u16,
    /// Approved IP protocol.
    pub protocol: u8,
    /// How far the connection's name is checked: [`SocketState::PLAIN`] and so on.
    pub stage: u8,
    /// Process that made the socket.
    pub pid: u32,
    /// User that made the socket.
    pub uid: u32,
    /// Where the program believes its DNS goes, as octets in network order.
    pub asked_addr: [u64; 2],
    /// The port of that, network order.
    pub asked_port_be: u16,
    /// `AF_INET` or `AF_INET6` of `asked_addr`; 0 = nothing was redirected.
    pub asked_family: u16,
    /// While a name is to be checked, the rule that permits the address; then the name's.
    pub pending: u32,
    /// The interface by which a datagram to `addr` may leave, in the lower half, and in the upper
    /// one `seq` at the time it was judged. It counts while that is the `seq` of the record, so
    /// that a `connect()` to elsewhere takes it back.
    pub way: u64,
    /// Sequence number of the first byte of the stream that is not judged yet.
    pub position: u32,
    /// Bytes of a hello that was not whole, as they came last; in the highest bit, whether more
    /// were written behind them.
    pub partial: u32,
    /// When it came so first. Boot clock, units of 2^20 ns.
    pub partial_since: u32,
    /// Packets sent before a rule could be named to count them under.
    pub held_packets: u32,
    /// Bytes of those.
    pub held_bytes: u32,
    /// When the approval was decided: the lower half of the kernel's count of ticks (`jiffies`).
    pub decided: u32,
    /// [`SocketState::BROADCASTS`] and [`SocketState::STRAYED`]. A flag that is set stays.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

impl SocketState {
    /// No name is needed: the address decides.
    pub const PLAIN: u8 = 0;
    /// A name is needed, and no SYN was seen yet.
    pub const SYN: u8 = 1;
    /// The next bytes have to be a ClientHello.
    pub const HELLO: u8 = 2;
    /// A ClientHello was taken; a second one may follow.
    pub const SECOND: u8 = 3;
    /// The name was refused. Final for the connection.
    pub const STRANGER: u8 = 4;
    /// The name was taken; `rule` is the name's.
    pub const CHECKED: u8 = 5;

    /// It may send to broadcast addresses (`SO_BROADCAST`, socket(7)).
    pub const BROADCASTS: u32 = 1;
    /// It was let connect to an address that nothing permits, as datagram sockets are.
    pub const STRAYED: u32 = 2;
    /// Ticks for which the approval of a datagram's destination counts: 0.26 to 2.6 s, by the
    /// kernel's configuration. It is decided anew then, so that none outlives its grant.
    pub const MOMENT: u32 = 256;
    /// The same of a datagram that was sent with an address: as long as its call may take.
    pub const INSTANT: u32 = 2;
}
