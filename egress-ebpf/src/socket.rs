//! The record every socket carries: who made it, and where it may send.

use core::ptr::{addr_of, addr_of_mut, null_mut, read_volatile, write_volatile};

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_jiffies64, bpf_sk_fullsock, bpf_sk_storage_get,
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid},
};
use egress_common::{abi::RULE_NONE, grant::SocketState, key::Addr};

use crate::maps::{CGROUPS, CONNECTOR_LEVEL, SOCKETS};

/// The record of a socket, or null.
///
/// # Safety
///
/// `sk` must be a socket pointer as the verifier knows it: from a context, from
/// `bpf_sk_fullsock` or from a socket look-up that is not yet released.
#[inline(always)]
pub unsafe fn get(sk: *mut bpf_sock) -> *mut SocketState {
    // SAFETY: the helper checks the socket; the map has the record's type.
    unsafe { storage(sk, null_mut(), 0) }
}

/// The record of a socket, made if there is none; null when the kernel has no memory.
///
/// # Safety
///
/// As for [`get`].
#[inline(always)]
pub unsafe fn get_or_create(sk: *mut bpf_sock, initial: &mut SocketState) -> *mut SocketState {
    // SAFETY: as for `get`; `initial` lives on the stack for the whole call.
    unsafe { storage(sk, initial, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) }
}

#[inline(always)]
unsafe fn storage(sk: *mut bpf_sock, initial: *mut SocketState, flags: u64) -> *mut SocketState {
    let map = core::ptr::from_ref(&SOCKETS).cast_mut().cast();
    // SAFETY: `map` is a socket storage map; see the callers for `sk` and `initial`.
    unsafe { bpf_sk_storage_get(map, sk.cast(), initial.cast(), flags).cast() }
}

/// The connector the calling process belongs to; 0 = none.
#[inline(always)]
pub fn current_connector() -> u32 {
    // SAFETY: a helper without pointers.
    let cgroup = unsafe { bpf_get_current_ancestor_cgroup_id(CONNECTOR_LEVEL.load()) };
    by_cgroup(cgroup)
}

/// The connector of a cgroup; 0 = none.
#[inline(always)]
pub fn by_cgroup(cgroup: u64) -> u32 {
    // SAFETY: ids are written once, before a process joins, and read as one word.
    unsafe { CGROUPS.get(&cgroup) }.copied().unwrap_or(0)
}

/// A record for a socket of the calling process, with nothing approved.
#[inline(always)]
pub fn new_state(connector: u32) -> SocketState {
    SocketState {
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: bpf_get_current_uid_gid() as u32,
        ..empty(connector)
    }
}

/// A record that names nobody and approves nothing.
#[inline(always)]
pub fn empty(connector: u32) -> SocketState {
    SocketState {
        seq: 0,
        connector,
        addr: Addr { halves: [0, 0] },
        rule: RULE_NONE,
        port_be: 0,
        protocol: 0,
        stage: SocketState::PLAIN,
        pid: 0,
        uid: 0,
        asked_addr: [0, 0],
        asked_port_be: 0,
        asked_family: 0,
        way: 0,
        pending: RULE_NONE,
        position: 0,
        partial: 0,
        partial_since: 0,
        held_packets: 0,
        held_bytes: 0,
        decided: 0,
        flags: 0,
        pad: 0,
    }
}

/// The kernel's count of ticks (`jiffies`), lower half. Read in one or two instructions, so the
/// fast path can ask for it.
#[inline(always)]
pub fn ticks() -> u32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_jiffies64() as u32 }
}

/// Sets flags of a record, and says which were set before.
///
/// # Safety
///
/// `state` is a record of [`SOCKETS`], not null, and the caller is the only writer of its flags:
/// hooks of `connect()` and `setsockopt()` run with the socket locked.
#[inline(always)]
pub unsafe fn mark(state: *mut SocketState, flags: u32) -> u32 {
    // SAFETY: see above.
    unsafe {
        let before = read_volatile(addr_of!((*state).flags));
        write_volatile(addr_of_mut!((*state).flags), before | flags);
        before
    }
}

/// The socket behind a packet, if it is a full one; else null.
#[inline(always)]
pub fn of_packet(skb: *mut __sk_buff) -> *mut bpf_sock {
    // SAFETY: the program's own context.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return null_mut();
    }
    // SAFETY: a socket of the context, not null.
    unsafe { bpf_sk_fullsock(sk) }
}

/// A destination as the packet hook compares it.
#[derive(Clone, Copy)]
pub struct Approval {
    pub addr: Addr,
    pub port_be: u16,
    pub protocol: u8,
    pub rule: u32,
    /// A rule that permits the destination only with a name; then `rule` is none.
    pub pending: u32,
}

/// Writes what a socket may send to. `RULE_NONE` takes the last approval back.
///
/// # Safety
///
/// `state` is a record of [`SOCKETS`], not null, and the caller is the only writer: connect
/// hooks run with the socket locked.
#[inline(always)]
pub unsafe fn approve(state: *mut SocketState, approval: &Approval) {
    // SAFETY: see above. Volatile stores keep their order: the reader sees an odd `seq`
    // while the fields change.
    unsafe {
        let seq = read_volatile(addr_of!((*state).seq));
        write_volatile(addr_of_mut!((*state).seq), seq | 1);
        write_volatile(addr_of_mut!((*state).rule), approval.rule);
        write_volatile(
            addr_of_mut!((*state).addr.halves[0]),
            approval.addr.halves[0],
        );
        write_volatile(
            addr_of_mut!((*state).addr.halves[1]),
            approval.addr.halves[1],
        );
        write_volatile(addr_of_mut!((*state).port_be), approval.port_be);
        write_volatile(addr_of_mut!((*state).protocol), approval.protocol);
        write_volatile(
            addr_of_mut!((*state).stage),
            if approval.pending == RULE_NONE {
                SocketState::PLAIN
            } else {
                SocketState::SYN
            },
        );
        write_volatile(addr_of_mut!((*state).pending), approval.pending);
        write_volatile(addr_of_mut!((*state).partial), 0);
        write_volatile(addr_of_mut!((*state).held_packets), 0);
        write_volatile(addr_of_mut!((*state).held_bytes), 0);
        write_volatile(addr_of_mut!((*state).decided), ticks());
        write_volatile(addr_of_mut!((*state).seq), (seq | 1).wrapping_add(1));
    }
}

/// A value of [`SocketState::way`].
#[inline(always)]
pub fn way(seq: u32, ifindex: u32) -> u64 {
    u64::from(seq) << 32 | u64::from(ifindex)
}

/// Opens the fast path for the destination that was approved with a name.
///
/// # Safety
///
/// `state` is a record of [`SOCKETS`], not null. TCP sends with the socket locked; where a
/// packet comes later from a queue of its own (netfilter), the rule is written last.
#[inline(always)]
pub unsafe fn open(state: *mut SocketState, stage: u8) {
    // SAFETY: see above.
    unsafe {
        let pending = read_volatile(addr_of!((*state).pending));
        write_volatile(addr_of_mut!((*state).stage), stage);
        write_volatile(addr_of_mut!((*state).rule), pending);
    }
}
