//! Whether the connector's DNS proxy itself stands where its packets go.
//!
//! A dead agent's port can be bound by anybody, who would then be asked for the connector's
//! names. So the sockets of the proxy carry a record that ends with them, and a packet goes
//! only where such a socket would take it, looked up as the kernel does it at delivery.

use core::{ffi::c_void, ptr::null_mut};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple},
    helpers::generated::{
        bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release, bpf_sk_storage_get,
    },
};
use egress_common::{abi::TCP, key::Addr};

use crate::maps::RESOLVERS;

/// `BPF_F_CURRENT_NETNS`, `include/uapi/linux/bpf.h`.
pub const CURRENT_NETNS: u64 = -1_i64 as u64;

/// One side of a flow.
#[derive(Clone, Copy)]
pub struct End {
    pub addr: Addr,
    /// Host order.
    pub port: u16,
}

/// Whether the proxy of a connector takes what goes from one end to another.
#[inline(always)]
pub fn stands(ctx: *mut c_void, connector: u32, protocol: u8, from: &End, to: &End) -> bool {
    let (mut tuple, size) = tuple(from, to);
    // SAFETY: context and tuple are the program's own; the socket is released below.
    unsafe {
        let sk = if protocol == TCP {
            bpf_sk_lookup_tcp(ctx, &mut tuple, size, CURRENT_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(ctx, &mut tuple, size, CURRENT_NETNS, 0)
        };
        if sk.is_null() {
            return false;
        }
        let own = is_of(sk, connector);
        bpf_sk_release(sk.cast());
        own
    }
}

/// Addresses and ports as a look-up takes them, and their size.
#[inline(always)]
pub fn tuple(from: &End, to: &End) -> (bpf_sock_tuple, u32) {
    // SAFETY: all zero is a valid tuple; only the union member of `size` is read.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    // The receiver's remote end is ours.
    let size = match (from.addr.v4(), to.addr.v4()) {
        (Some(source), Some(destination)) => {
            // SAFETY: integers, of which every value is one.
            let v4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
            v4.saddr = source.to_be();
            v4.daddr = destination.to_be();
            v4.sport = from.port.to_be();
            v4.dport = to.port.to_be();
            size_of_val(v4)
        }
        _ => {
            // SAFETY: as above.
            let v6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
            v6.saddr = words(&from.addr);
            v6.daddr = words(&to.addr);
            v6.sport = from.port.to_be();
            v6.dport = to.port.to_be();
            size_of_val(v6)
        }
    };
    (tuple, size as u32)
}

/// Where a call goes that has no source yet: to whoever listens. No socket has port 0.
#[inline(always)]
pub fn from_anywhere(to: &End) -> End {
    let addr = match to.addr.v4() {
        Some(_) => Addr::from_v4(0x7f00_0001),
        None => Addr::from_v6(0, 1),
    };
    End { addr, port: 0 }
}

#[inline(always)]
unsafe fn is_of(sk: *mut bpf_sock, connector: u32) -> bool {
    let map = core::ptr::from_ref(&RESOLVERS).cast_mut().cast();
    // SAFETY: a map of socket storage and a socket that a look-up found.
    let record = unsafe { bpf_sk_storage_get(map, sk.cast(), null_mut(), 0) }.cast::<u32>();
    // SAFETY: an entry of the map, not null.
    !record.is_null() && unsafe { *record } == connector
}

/// The words of an IPv6 address as they lie in a packet.
#[inline(always)]
fn words(addr: &Addr) -> [u32; 4] {
    let [high, low] = addr.halves;
    [
        high as u32,
        (high >> 32) as u32,
        low as u32,
        (low >> 32) as u32,
    ]
}
