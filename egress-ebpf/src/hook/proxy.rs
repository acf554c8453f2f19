//! The way to the forwarder, which carries connections to the company's proxy.
//!
//! A range of loopback addresses is the instance's own; each address in it stands for a name. No
//! socket is bound to them. [`steer`] gives what comes in there to the forwarder's one listener, if
//! it is a connection of the connector's, which [`note`] has written down; all others find nobody
//! (`include/net/inet_hashtables.h` `inet_lookup_run_sk_lookup`), also where somebody listens on
//! every address, and also when the forwarder is gone.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_TCP_CLOSE, sk_action,
    },
    programs::{SkLookupContext, SockOpsContext},
};
use egress_common::{
    abi::TCP,
    proxied::{ProxiedKey, in_range},
};

use crate::{
    flow::AF_INET,
    maps::{FORWARDER, PROXIED, PROXY_NET},
};

/// `SOCK_OPS` programs answer 1 where they have nothing to say.
const DONE: u32 = 1;

/// Writes down a connection to the forwarder before its first packet leaves, and strikes it out
/// when its socket closes. Attached at the connector's cgroup: every caller is the connector.
#[inline(always)]
pub fn note(ctx: &SockOpsContext) -> u32 {
    let op = ctx.op();
    if op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_STATE_CB {
        return DONE;
    }
    // The IPv4 address of a mapped one, too; other IPv6 sockets have one outside of the range.
    let destination = ctx.remote_ip4();
    if !in_range(u32::from_be(destination), PROXY_NET.load()) {
        return DONE;
    }
    let key = ProxiedKey {
        source: ctx.local_ip4(),
        destination,
        source_port: ctx.local_port() as u16,
        port: u32::from_be(ctx.remote_port()) as u16,
    };
    if op == BPF_SOCK_OPS_STATE_CB {
        // The state it goes to, `include/uapi/linux/bpf.h`.
        if ctx.arg(1) == BPF_TCP_CLOSE {
            let _not_there = PROXIED.remove(&key);
        }
        return DONE;
    }
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    // What would not be struck out is not written down; what is not finds nobody.
    if ctx.set_cb_flags(flags as i32).is_ok() {
        let _finds_nobody = PROXIED.insert(&key, &1, 0);
    }
    DONE
}

/// Who takes a connection that comes in. Attached at the network namespace.
#[inline(always)]
pub fn steer(ctx: &SkLookupContext) -> u32 {
    let lookup = ctx.lookup;
    // SAFETY: the program's own context; each field is read by itself and in its own size.
    let (family, protocol) = unsafe {
        (
            read_volatile(addr_of!((*lookup).family)),
            read_volatile(addr_of!((*lookup).protocol)),
        )
    };
    if family != u32::from(AF_INET) || protocol != u32::from(TCP) {
        return sk_action::SK_PASS;
    }
    // SAFETY: as above.
    let destination = unsafe { read_volatile(addr_of!((*lookup).local_ip4)) };
    if !in_range(u32::from_be(destination), PROXY_NET.load()) {
        return sk_action::SK_PASS;
    }
    // SAFETY: as above.
    let key = unsafe {
        ProxiedKey {
            source: read_volatile(addr_of!((*lookup).remote_ip4)),
            destination,
            source_port: u16::from_be(read_volatile(addr_of!((*lookup).remote_port))),
            port: read_volatile(addr_of!((*lookup).local_port)) as u16,
        }
    };
    // SAFETY: the value is not looked at.
    if unsafe { PROXIED.get(&key) }.is_none() {
        return sk_action::SK_DROP;
    }
    match FORWARDER.redirect_sk_lookup(ctx, 0, 0) {
        Ok(()) => sk_action::SK_PASS,
        Err(_) => sk_action::SK_DROP,
    }
}
