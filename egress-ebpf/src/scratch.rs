//! What is known of a hello between the programs that read it and the one that judges it.
//!
//! It belongs to the socket: a name has no room on the stack, and memory of the CPU's could be
//! taken by another packet meanwhile (a softirq may send between two steps of a system call).

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
};
use egress_common::{hello::Hello, sni::NameQuery};

use crate::maps::HELLOS;

/// The socket's note.
#[repr(C)]
pub struct Scratch {
    /// The name, as far as it is read.
    pub query: NameQuery,
    /// As in [`Hello`]; then of its name.
    pub fault: u32,
    /// As in [`Hello`].
    pub marks: u32,
    /// As in [`Hello`].
    pub hello_len: u32,
    /// As in [`Hello`].
    pub name_at: u32,
    /// As in [`Hello`].
    pub name_len: u32,
    /// Where the hello begins in the packet.
    pub at: u32,
    /// Bytes of the packet from there on.
    pub len: u32,
}

/// A hello in a packet.
pub struct Found {
    pub hello: Hello,
    pub at: u32,
    pub len: u32,
}

/// Notes a hello, with an empty name; false where the kernel has no memory.
///
/// # Safety
///
/// `sk` is a full socket, not null.
#[inline(always)]
pub unsafe fn keep(sk: *mut bpf_sock, found: &Found) -> bool {
    // Without a value to copy, the kernel fills it with zeros.
    // SAFETY: a full socket, not null, and a map of socket storage with this record.
    let kept: *mut Scratch = unsafe { storage(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
    if kept.is_null() {
        return false;
    }
    // SAFETY: not null.
    unsafe {
        (*kept).fault = u32::from(found.hello.fault.code());
        (*kept).marks = found.hello.marks;
        (*kept).hello_len = found.hello.len;
        (*kept).name_at = found.hello.name_at;
        (*kept).name_len = found.hello.name_len;
        (*kept).at = found.at;
        (*kept).len = found.len;
    }
    true
}

/// The note of a socket, or null.
///
/// # Safety
///
/// As for [`keep`].
#[inline(always)]
pub unsafe fn get(sk: *mut bpf_sock) -> *mut Scratch {
    // SAFETY: as for `keep`.
    unsafe { storage(sk, 0) }
}

/// Gives the memory back.
#[inline(always)]
pub fn forget(sk: *mut bpf_sock) {
    let map = core::ptr::from_ref(&HELLOS).cast_mut().cast();
    // SAFETY: a socket that the verifier knows. What is not there need not be deleted.
    let _not_there = unsafe { bpf_sk_storage_delete(map, sk.cast()) };
}

#[inline(always)]
unsafe fn storage(sk: *mut bpf_sock, flags: u64) -> *mut Scratch {
    let map = core::ptr::from_ref(&HELLOS).cast_mut().cast();
    // SAFETY: see the callers.
    unsafe { bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags).cast() }
}
