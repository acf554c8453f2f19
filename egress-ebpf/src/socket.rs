//! The record every socket carries: who made it, and where it may send.

use core::ptr::{addr_of, addr_of_mut, null_mut, read_volatile, write_volatile};

use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_sk_storage_get};
use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
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
        seq: 0,
        connector,
        addr: Addr { halves: [0, 0] },
        rule: RULE_NONE,
        port_be: 0,
        protocol: 0,
        pad: 0,
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: bpf_get_current_uid_gid() as u32,
        asked_addr: [0, 0],
        asked_port_be: 0,
        asked_family: 0,
        ifindex: 0,
    }
}

/// A destination as the packet hook compares it.
#[derive(Clone, Copy)]
pub struct Approval {
    pub addr: Addr,
    pub port_be: u16,
    pub protocol: u8,
    pub rule: u32,
    pub ifindex: u32,
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
        write_volatile(addr_of_mut!((*state).ifindex), approval.ifindex);
        write_volatile(addr_of_mut!((*state).seq), (seq | 1).wrapping_add(1));
    }
}
