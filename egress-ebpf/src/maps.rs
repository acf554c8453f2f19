//! Every map of the data plane. Sizes here are ceilings; the agent lowers the per-CPU ones
//! for an instance with one connector.

use core::ptr::null;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE},
    btf_maps::{
        Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, SkStorage, SockMap,
    },
    macros::btf_map,
};
use egress_common::{
    abi,
    event::{Client, ClientKey, Event, Repeat, RepeatKey},
    grant::{Connector, Grant, PrefixRules, Rule, SocketState},
    key::{GrantKey, PrefixKey, RouteKey},
    proxied::ProxiedKey,
    sni::NameKey,
    stat::{REASON_SLOTS, RuleStat},
    unix::{UnixGrant, UnixKey, UnixRepeatKey},
};

use crate::{datagram::Datagram, scratch::Scratch};

/// Depth of a connector's cgroup below the hierarchy's root; set by the agent. With the
/// default no cgroup is found, and so everything is refused.
#[unsafe(no_mangle)]
pub static CONNECTOR_LEVEL: Global<i32> = Global::new(i32::MAX);

/// Where the kernel notes that a packet's memory can still change; see [`crate::memory`].
#[unsafe(no_mangle)]
pub static SKB_HEAD: Global<u32> = Global::new(0);
/// As `SKB_HEAD`.
#[unsafe(no_mangle)]
pub static SKB_END: Global<u32> = Global::new(0);
/// As `SKB_HEAD`.
#[unsafe(no_mangle)]
pub static SHARED_FLAGS: Global<u32> = Global::new(0);
/// As `SKB_HEAD`.
#[unsafe(no_mangle)]
pub static SHARED_COUNT: Global<u32> = Global::new(0);
/// As `SKB_HEAD`.
#[unsafe(no_mangle)]
pub static SHARED_FRAGS: Global<u32> = Global::new(0);
/// As `SKB_HEAD`.
#[unsafe(no_mangle)]
pub static PAGE_HEAD: Global<u32> = Global::new(0);
/// As `SKB_HEAD`.
#[unsafe(no_mangle)]
pub static PAGE_MAPPING: Global<u32> = Global::new(0);
/// As `SKB_HEAD`.
#[unsafe(no_mangle)]
pub static SKB_SOCK: Global<u32> = Global::new(0);
/// As `SKB_HEAD`.
#[unsafe(no_mangle)]
pub static TCP_WRITE_SEQ: Global<u32> = Global::new(0);
/// As `SKB_HEAD`. With the default everything is taken to be shared.
#[unsafe(no_mangle)]
pub static SHARED_MASK: Global<u32> = Global::new(0);
/// Where the range of the forwarder's addresses begins, host order; with the default there is none.
#[unsafe(no_mangle)]
pub static PROXY_NET: Global<u32> = Global::new(0);
/// Set by a test: the hook of `socket()` refuses nothing.
#[cfg(feature = "test-switches")]
#[unsafe(no_mangle)]
pub static SOCKET_OPEN: Global<u32> = Global::new(0);

/// cgroup id → connector id.
#[btf_map]
pub static CGROUPS: HashMap<u64, u32, { abi::MAX_CONNECTORS as usize }> = HashMap::new();

/// connector id → connector.
#[btf_map]
pub static CONNECTORS: Array<Connector, { abi::MAX_CONNECTORS as usize }> = Array::new();

/// Exact grants. Never evicts: a full table is an error in the agent, not a hole here.
#[btf_map]
pub static GRANTS: HashMap<
    GrantKey,
    Grant,
    { abi::MAX_GRANTS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Grants for prefixes.
#[btf_map]
pub static PREFIXES: LpmTrie<PrefixKey, PrefixRules, { abi::MAX_PREFIXES as usize }> =
    LpmTrie::new();

/// By which interfaces this host sends where. Never evicts; what is not in it is not a way.
#[btf_map]
pub static ROUTES: LpmTrie<RouteKey, u32, { abi::MAX_ROUTES as usize }> = LpmTrie::new();

/// Names that a ClientHello may say. Never evicts.
#[btf_map]
pub static NAMES: LpmTrie<NameKey, PrefixRules, { abi::MAX_NAMES as usize }> = LpmTrie::new();

/// Which rules are in force.
#[btf_map]
pub static RULES: Array<Rule, { abi::MAX_RULES as usize }> = Array::new();

/// What passed under each rule.
#[btf_map]
pub static RULE_STATS: PerCpuArray<RuleStat, { abi::MAX_RULES as usize }> = PerCpuArray::new();

/// Denials by connector and reason; exact.
#[btf_map]
pub static DENIALS: PerCpuArray<u64, { (abi::MAX_CONNECTORS * REASON_SLOTS) as usize }> =
    PerCpuArray::new();

/// Denials whose record found no room in the ring, by connector; exact.
#[btf_map]
pub static LOST: PerCpuArray<u64, { abi::MAX_CONNECTORS as usize }> = PerCpuArray::new();

/// Records of denials, to the agent.
#[btf_map]
pub static EVENTS: RingBuf<Event, { abi::RING_BYTES as usize }> = RingBuf::new();

/// Limits repeats of one denial. An LRU may evict: no verdict reads it.
#[btf_map]
pub static REPEATS: LruHashMap<RepeatKey, Repeat, { abi::MAX_REPEATS as usize }> =
    LruHashMap::new();

/// Who asks the DNS door from which port. An LRU may evict: no verdict reads it.
#[btf_map]
pub static CLIENTS: LruHashMap<ClientKey, Client, { abi::MAX_CLIENTS as usize }> =
    LruHashMap::new();

/// Names of unix sockets that a rule permits or denies. Never evicts.
#[btf_map]
pub static UNIX_NAMES: HashMap<
    UnixKey,
    UnixGrant,
    { abi::MAX_UNIX_NAMES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Limits repeats of one denial at a unix socket. An LRU may evict: no verdict reads it.
#[btf_map]
pub static UNIX_REPEATS: LruHashMap<UnixRepeatKey, Repeat, { abi::MAX_CLIENTS as usize }> =
    LruHashMap::new();

/// The programs that `egress` calls, by [`egress_common::abi::program`].
#[btf_map]
pub static PROGRAMS: ProgramArray<{ abi::program::COUNT as usize }> = ProgramArray::new();

/// Connections that the connector has with its forwarder. Never evicts: what has no room finds
/// nobody.
#[btf_map]
pub static PROXIED: HashMap<
    ProxiedKey,
    u32,
    { abi::MAX_PROXIED as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The forwarder's listener, which the kernel takes out when it closes.
#[btf_map]
pub static FORWARDER: SockMap<1> = SockMap::new();

/// What is known of a socket's ClientHello while it is looked at, and no longer.
#[btf_map]
pub static HELLOS: SkStorage<Scratch> = SkStorage::new();

/// The sockets of DNS proxies, and whose each is. The agent enters its own; what they accept
/// inherits; an entry ends with its socket.
#[btf_map]
pub static RESOLVERS: InheritedStorage<u32> = InheritedStorage::new();

/// Where sockets sent their last datagrams with an address.
#[btf_map]
pub static DATAGRAMS: SkStorage<Datagram> = SkStorage::new();

/// What each socket carries.
#[btf_map]
pub static SOCKETS: SkStorage<SocketState> = SkStorage::new();

/// Socket storage that an accepted socket inherits from its listener (`BPF_F_CLONE`, Linux 5.4),
/// for which aya has no type. The fields are read out of the object's type information.
#[repr(C)]
pub struct InheritedStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the pointers are never followed; the loader puts the map in their place.
unsafe impl<T> Sync for InheritedStorage<T> {}

impl<T> InheritedStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: null(),
            key: null(),
            value: null(),
            max_entries: null(),
            map_flags: null(),
        }
    }
}
