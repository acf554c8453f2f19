//! Names, capacities and the version of the interface between kernel and agent.
//!
//! Both sides compile these constants, so there is nothing to keep in step by hand. The
//! version is part of the pin path: an agent never adopts maps of another layout, which
//! matters because a pinned map is reused without a check of its sizes.

/// Version of every record and map in this crate; part of the pin folder's name.
pub const ABI_VERSION: u32 = 3;

/// Exact grants one data-plane instance can hold.
pub const MAX_GRANTS: u32 = 131_072;
/// Address prefixes one data-plane instance can hold.
pub const MAX_PREFIXES: u32 = 16_384;
/// Names and wildcards that one data-plane instance can hold for TLS.
pub const MAX_NAMES: u32 = 8_192;
/// Entries for the routes of the host that one data-plane instance can hold.
pub const MAX_ROUTES: u32 = 16_384;
/// Connectors of one data-plane instance; ids run from 1 to this number less one.
pub const MAX_CONNECTORS: u32 = 1_024;
/// Rules of one data-plane instance, reserved ones included. Its tables have as many entries as it
/// needs.
pub const MAX_RULES: u32 = 65_536;
/// Port ranges one prefix can hold after all rules that cover it are merged.
pub const MAX_RANGES: usize = 16;
/// Bytes of the event ring; a power of two and a multiple of the page size.
pub const RING_BYTES: u32 = 1 << 20;
/// Destinations whose repeats are remembered for rate limiting. Decides nothing.
pub const MAX_REPEATS: u32 = 16_384;
/// Addresses and ports whose process the DNS door can name. Decides nothing.
pub const MAX_CLIENTS: u32 = 1_024;
/// Repeats of one denial within this time are counted, not shown. Nanoseconds.
pub const REPEAT_WINDOW_NS: u64 = 1_000_000_000;

/// Rule 0 is no rule; its record is never active.
pub const RULE_NONE: u32 = 0;
/// The connector's own DNS door.
pub const RULE_DOOR: u32 = 1;
/// A loopback connection of which the same connector has both ends.
pub const RULE_OWN: u32 = 2;
/// The answer of an accepted connection to a loopback peer.
pub const RULE_INBOUND: u32 = 3;
/// The company's proxy: where the forwarder of a connector sends, and nobody else.
pub const RULE_PROXY: u32 = 4;
/// Names whose requests are judged: where the envelope proxy of a connector sends, and nobody else.
pub const RULE_INSPECTED: u32 = 5;
/// The first number a policy's rules use.
pub const RULE_FIRST: u32 = 8;

/// The port that always leads to the DNS door (RFC 1035 section 4.2).
pub const DNS_PORT: u16 = 53;

/// The priority (`skb->priority`) of packets that the packet hook let go to the connector's own
/// DNS proxy, whose sockets take no others. Programs need a capability over their network
/// namespace for one above 6 (`net/core/sock.c` `sk_setsockopt`, socket(7) `SO_PRIORITY`), and
/// a packet that crosses into another namespace loses it (`include/linux/netdevice.h`
/// `____dev_forward_skb`). Not the mark, which rules of a firewall restore from connections.
pub const RESOLVER_PRIORITY: u32 = 0x6e61_6d65;

/// `IPPROTO_TCP`, `include/uapi/linux/in.h`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`, `include/uapi/linux/in.h`.
pub const UDP: u8 = 17;

/// Connections to a forwarder that one data-plane instance can hold.
pub const MAX_PROXIED: u32 = 4_096;
/// Bits of an address that are free in a forwarder's range of loopback addresses.
pub const PROXY_HOST_BITS: u32 = 12;

/// Names of unix sockets that one data-plane instance can hold.
pub const MAX_UNIX_NAMES: u32 = 4_096;
/// Bytes of a unix socket's name: `UNIX_PATH_MAX`, `include/uapi/linux/un.h`.
pub const UNIX_NAME_MAX: usize = 108;
/// Bytes that a record has for such a name and a NUL behind it; a multiple of eight.
pub const UNIX_NAME_ROOM: usize = 112;
/// The folder that only the connector sees, a mount of its own that follows no symbolic
/// link: what is bound below it was bound by the connector.
pub const OWN_FOLDER: &str = "/run/egress-agent/";
/// Below that, the connector's temporary folder once more, by a mount that follows no symbolic
/// link. Addresses in the temporary folder are led here.
pub const OWN_TEMPORARY: &str = "/run/egress-agent/t/";

/// Names of the maps, as the agent looks them up in the object.
pub mod map {
    /// cgroup id of a connector → connector id.
    pub const CGROUPS: &str = "CGROUPS";
    /// connector id → [`crate::grant::Connector`].
    pub const CONNECTORS: &str = "CONNECTORS";
    /// [`crate::key::GrantKey`] → [`crate::grant::Grant`].
    pub const GRANTS: &str = "GRANTS";
    /// [`crate::key::PrefixKey`] → [`crate::grant::PrefixRules`].
    pub const PREFIXES: &str = "PREFIXES";
    /// [`crate::key::RouteKey`] → [`crate::key::RouteKey::LEADS`] or another number.
    pub const ROUTES: &str = "ROUTES";
    /// [`crate::sni::NameKey`] → [`crate::grant::PrefixRules`].
    pub const NAMES: &str = "NAMES";
    /// rule id → [`crate::grant::Rule`].
    pub const RULES: &str = "RULES";
    /// rule id → [`crate::stat::RuleStat`], per CPU.
    pub const RULE_STATS: &str = "RULE_STATS";
    /// connector × reason → denials, per CPU.
    pub const DENIALS: &str = "DENIALS";
    /// connector → denials whose event did not fit the ring, per CPU.
    pub const LOST: &str = "LOST";
    /// Records of [`crate::event::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// Repeat limiting of events; an LRU, read by no verdict.
    pub const REPEATS: &str = "REPEATS";
    /// [`crate::event::ClientKey`] → [`crate::event::Client`]; an LRU, read by no verdict.
    pub const CLIENTS: &str = "CLIENTS";
    /// [`crate::unix::UnixKey`] → [`crate::unix::UnixGrant`].
    pub const UNIX_NAMES: &str = "UNIX_NAMES";
    /// Repeat limiting for unix sockets; an LRU, read by no verdict.
    pub const UNIX_REPEATS: &str = "UNIX_REPEATS";
    /// Socket storage of the sockets of DNS proxies: connector id.
    pub const RESOLVERS: &str = "RESOLVERS";
    /// The programs that the packet program calls, by [`super::program`].
    pub const PROGRAMS: &str = "PROGRAMS";
    /// [`crate::proxied::ProxiedKey`] → 1: connections that a connector is making to its forwarder.
    pub const PROXIED: &str = "PROXIED";
    /// The forwarder's listening socket.
    pub const FORWARDER: &str = "FORWARDER";
    /// Socket storage: a ClientHello's name while it is looked at.
    pub const HELLOS: &str = "HELLOS";
    /// Socket storage: where the last datagram with an address went.
    pub const DATAGRAMS: &str = "DATAGRAMS";
    /// Socket storage: [`crate::grant::SocketState`].
    pub const SOCKETS: &str = "SOCKETS";
}

/// Functions of the kernel that programs for unix sockets call, by the numbers that stand for
/// them in the object. No helper has such a number; the agent puts the kernel's in their place.
pub mod kfunc {
    /// `bpf_cast_to_kern_ctx` (Linux 6.2).
    pub const CAST: u32 = 0x4547_0001;
    /// `bpf_sock_addr_set_sun_path` (Linux 6.7).
    pub const SET_PATH: u32 = 0x4547_0002;
    /// Both, with their names.
    pub const ALL: [(u32, &str); 2] = [
        (CAST, "bpf_cast_to_kern_ctx"),
        (SET_PATH, "bpf_sock_addr_set_sun_path"),
    ];
}

/// Places of programs in the table by which the packet program calls them.
pub mod program {
    /// Reads a packet strictly and decides it anew.
    pub const STRICT: u32 = 0;
    /// Checks the name of a connection.
    pub const SNI: u32 = 1;
    /// Reads the name in a hello.
    pub const NAME: u32 = 2;
    /// Judges the name that was read.
    pub const JUDGE: u32 = 3;
    /// Lets a packet go to the connector's DNS proxy.
    pub const RESOLVER: u32 = 4;
    /// Programs in the table.
    pub const COUNT: u32 = 5;
}

/// Names of the constants the agent sets while it loads the object.
pub mod global {
    /// Depth of a connector's cgroup below the root of the hierarchy (root = 0).
    pub const CONNECTOR_LEVEL: &str = "CONNECTOR_LEVEL";
    /// The first address of the forwarder's range, host order; 0 = there is no forwarder.
    pub const PROXY_NET: &str = "PROXY_NET";
    /// The bit in the flags of a packet that says that its memory can still change.
    pub const SHARED_MASK: &str = "SHARED_MASK";

    /// Where structures of the running kernel keep a member, for the programs that read them.
    /// Bytes.
    pub mod offset {
        /// `struct task_struct`: `cgroups`.
        pub const TASK_CGROUPS: &str = "TASK_CGROUPS";
        /// `struct task_struct`: `real_cred`.
        pub const TASK_CRED: &str = "TASK_CRED";
        /// `struct css_set`: `dfl_cgrp`.
        pub const CSS_SET_CGROUP: &str = "CSS_SET_CGROUP";
        /// `struct cgroup`: `level`.
        pub const CGROUP_LEVEL: &str = "CGROUP_LEVEL";
        /// `struct cgroup`: `ancestors`.
        pub const CGROUP_ANCESTORS: &str = "CGROUP_ANCESTORS";
        /// `struct cgroup`: `kn`.
        pub const CGROUP_NODE: &str = "CGROUP_NODE";
        /// `struct kernfs_node`: `id`.
        pub const NODE_ID: &str = "NODE_ID";
        /// `struct socket`: `sk`.
        pub const SOCKET_SOCK: &str = "SOCKET_SOCK";
        /// `struct sock`: `sk_cgrp_data`, whose first word is the cgroup.
        pub const SOCK_CGROUP: &str = "SOCK_CGROUP";
        /// `struct file`: `f_inode`.
        pub const FILE_INODE: &str = "FILE_INODE";
        /// `struct file`: `f_mode`.
        pub const FILE_MODE: &str = "FILE_MODE";
        /// `struct inode`: `i_sb`.
        pub const INODE_SUPER: &str = "INODE_SUPER";
        /// `struct sk_buff`: `head`.
        pub const SKB_HEAD: &str = "SKB_HEAD";
        /// `struct sk_buff`: `end`.
        pub const SKB_END: &str = "SKB_END";
        /// `struct sk_buff`: `sk`.
        pub const SKB_SOCK: &str = "SKB_SOCK";
        /// `struct tcp_sock`: `write_seq`.
        pub const TCP_WRITE_SEQ: &str = "TCP_WRITE_SEQ";
        /// `struct skb_shared_info`: `flags`, or `tx_flags` before Linux 5.12.
        pub const SHARED_FLAGS: &str = "SHARED_FLAGS";
        /// `struct skb_shared_info`: `nr_frags`.
        pub const SHARED_COUNT: &str = "SHARED_COUNT";
        /// `struct skb_shared_info`: `frags`.
        pub const SHARED_FRAGS: &str = "SHARED_FRAGS";
        /// `struct page`: `compound_head`, or `compound_info`.
        pub const PAGE_HEAD: &str = "PAGE_HEAD";
        /// `struct page`: `mapping`.
        pub const PAGE_MAPPING: &str = "PAGE_MAPPING";
        /// `struct super_block`: `s_magic`.
        pub const SUPER_MAGIC: &str = "SUPER_MAGIC";
    }
}
