//! The tables of a verdict, as maps.

use core::{ffi::c_void, ptr::read_volatile};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple},
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
    },
};
use egress_common::{
    abi::{MAX_CONNECTORS, MAX_RULES, TCP},
    decide::{Flow, Lookup},
    grant::{Connector, Grant, PrefixRules},
    key::{GrantKey, PrefixKey},
    sni::{NameKey, NameQuery},
    unix::{UnixGrant, UnixKey},
    verdict::Verdict,
};

use crate::{
    maps::{CONNECTORS, GRANTS, NAMES, PREFIXES, RULES, UNIX_NAMES},
    socket, vague,
};

/// The maps, and the context that a socket look-up needs.
pub struct Maps {
    /// The program's context.
    pub ctx: *mut c_void,
    /// Local port of the sending socket, host order; 0 = none yet.
    pub local_port: u16,
}

impl Lookup for Maps {
    #[inline(always)]
    fn connector(&self, id: u32) -> Option<&Connector> {
        if id == 0 || id >= MAX_CONNECTORS {
            return None;
        }
        CONNECTORS.get(id)
    }

    #[inline(always)]
    fn exact(&self, key: &GrantKey) -> Option<&Grant> {
        // SAFETY: the agent replaces entries whole; a replaced one stays readable until the
        // program ends (RCU).
        unsafe { GRANTS.get(key) }
    }

    #[inline(always)]
    fn prefix(&self, key: &PrefixKey) -> Option<&PrefixRules> {
        PREFIXES.get(&Key::new(PrefixKey::HOST_BITS, *key))
    }

    #[inline(always)]
    fn unix(&self, key: &UnixKey) -> Option<&UnixGrant> {
        // SAFETY: as for exact grants.
        unsafe { UNIX_NAMES.get(key) }
    }

    #[inline(always)]
    fn name(&self, name: &NameQuery) -> Option<&PrefixRules> {
        // SAFETY: the same layout, length in front (`layout` pins it); both have alignment 1
        // or more, and the trie's is packed.
        NAMES.get(unsafe { &*core::ptr::from_ref(name).cast::<Key<NameKey>>() })
    }

    #[inline(always)]
    fn rule_active(&self, rule: u32) -> bool {
        rule_active(rule)
    }

    #[inline(always)]
    fn rule_flags(&self, rule: u32) -> u16 {
        if rule >= MAX_RULES {
            return 0;
        }
        RULES.get(rule).map_or(0, |rule| rule.flags)
    }

    #[inline(always)]
    fn own_listener(&self, flow: &Flow) -> bool {
        owner_of(self, flow) == flow.connector
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without pointers.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn blurred(&self, verdict: Verdict) -> Verdict {
        // SAFETY: the context of a hook that decides (a packet or an address) begins with a
        // number, which the verifier does not know.
        let any = unsafe { read_volatile(self.ctx.cast::<u32>()) };
        vague::verdict(&verdict, any)
    }
}

/// Whether a rule is in force.
#[inline(always)]
pub fn rule_active(rule: u32) -> bool {
    rule < MAX_RULES && RULES.get(rule).is_some_and(|rule| rule.active == 1)
}

/// The connector whose socket would receive a flow to loopback; 0 = none or another's.
#[inline(always)]
fn owner_of(maps: &Maps, flow: &Flow) -> u32 {
    // SAFETY: all zero is a valid tuple; only the union member of `size` is read.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    // The receiver's remote end is our local end: a loopback address and our port.
    let local_port = maps.local_port.to_be();
    let size;
    if let Some(v4) = flow.addr.v4() {
        size = size_of_val(&unsafe { tuple.__bindgen_anon_1.ipv4 });
        let v4_tuple = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        v4_tuple.saddr = 0x7f00_0001_u32.to_be();
        v4_tuple.daddr = v4.to_be();
        v4_tuple.sport = local_port;
        v4_tuple.dport = flow.port.to_be();
    } else {
        size = size_of_val(&unsafe { tuple.__bindgen_anon_1.ipv6 });
        let v6_tuple = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        v6_tuple.saddr = [0, 0, 0, 1_u32.to_be()];
        v6_tuple.daddr = [0, 0, 0, 1_u32.to_be()];
        v6_tuple.sport = local_port;
        v6_tuple.dport = flow.port.to_be();
    }
    // SAFETY: context and tuple are the program's own; the socket is released below.
    unsafe {
        let sk = if flow.protocol == TCP {
            bpf_sk_lookup_tcp(maps.ctx, &mut tuple, size as u32, BPF_F_CURRENT_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(maps.ctx, &mut tuple, size as u32, BPF_F_CURRENT_NETNS, 0)
        };
        if sk.is_null() {
            return 0;
        }
        let owner = owner_of_socket(sk);
        bpf_sk_release(sk.cast());
        owner
    }
}

#[inline(always)]
unsafe fn owner_of_socket(sk: *mut bpf_sock) -> u32 {
    // SAFETY: `sk` comes from a look-up and is not released yet.
    let state = unsafe { socket::get(sk) };
    if state.is_null() {
        return 0;
    }
    // SAFETY: not null; written once, when the socket was made.
    unsafe { (*state).connector }
}

/// `BPF_F_CURRENT_NETNS`, `include/uapi/linux/bpf.h`.
const BPF_F_CURRENT_NETNS: u64 = -1_i64 as u64;
