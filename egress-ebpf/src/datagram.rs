//! Where a socket sent its last datagram with an address, so that the next one there is fast.
//!
//! `sendmsg` hooks decide each of those by its address, and the packet hook once more, which alone
//! sees the interface. What it decided holds till the second next tick ([`SocketState::INSTANT`]), and
//! is kept apart from what `connect()` was allowed: several threads may send on one socket without a
//! lock, so writers take one here. Readers need none (`seq`): an address is compared whole, or not at all.

use core::ptr::{addr_of, addr_of_mut, null_mut, read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_spin_lock},
    helpers::generated::{bpf_sk_storage_get, bpf_spin_lock as lock, bpf_spin_unlock as unlock},
};
use egress_common::{abi::UDP, decide::Flow, grant::SocketState};

use crate::{maps::DATAGRAMS, socket};

/// The record of a socket.
#[repr(C)]
pub struct Datagram {
    /// The destination, its rule and its interface, as a `connect()` would leave them.
    pub state: SocketState,
    /// Who writes it.
    pub lock: bpf_spin_lock,
}

/// What is remembered of a socket, or null.
///
/// # Safety
///
/// `sk` is a full socket, not null.
#[inline(always)]
pub unsafe fn get(sk: *mut bpf_sock) -> *mut SocketState {
    // SAFETY: as said; the state is the record's first field.
    unsafe { storage(sk, 0).cast() }
}

/// Remembers a datagram that passes under `rule`. Without memory the next one is decided in full.
///
/// # Safety
///
/// As for [`get`].
#[inline(always)]
pub unsafe fn remember(sk: *mut bpf_sock, flow: &Flow, rule: u32) {
    // Without a value to copy, the kernel fills it with zeros, which approve nothing.
    // SAFETY: as said.
    let record = unsafe { storage(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
    if record.is_null() {
        return;
    }
    // No helper may be called with the lock held.
    let now = socket::ticks();
    // SAFETY: not null. Volatile stores keep their order: a reader sees an odd `seq` while the
    // fields change.
    unsafe {
        let state = addr_of_mut!((*record).state);
        lock(addr_of_mut!((*record).lock));
        let seq = read_volatile(addr_of!((*state).seq)) | 1;
        let next = seq.wrapping_add(1);
        write_volatile(addr_of_mut!((*state).seq), seq);
        write_volatile(addr_of_mut!((*state).connector), flow.connector);
        write_volatile(addr_of_mut!((*state).rule), rule);
        write_volatile(addr_of_mut!((*state).addr.halves[0]), flow.addr.halves[0]);
        write_volatile(addr_of_mut!((*state).addr.halves[1]), flow.addr.halves[1]);
        write_volatile(addr_of_mut!((*state).port_be), flow.port.to_be());
        write_volatile(addr_of_mut!((*state).protocol), UDP);
        write_volatile(addr_of_mut!((*state).way), socket::way(next, flow.ifindex));
        write_volatile(addr_of_mut!((*state).decided), now);
        write_volatile(addr_of_mut!((*state).seq), next);
        unlock(addr_of_mut!((*record).lock));
    }
}

#[inline(always)]
unsafe fn storage(sk: *mut bpf_sock, flags: u64) -> *mut Datagram {
    let map = core::ptr::from_ref(&DATAGRAMS).cast_mut().cast();
    // SAFETY: see the callers.
    unsafe { bpf_sk_storage_get(map, sk.cast(), null_mut(), flags).cast() }
}
