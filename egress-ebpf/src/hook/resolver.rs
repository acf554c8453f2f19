//! Who may speak to a DNS proxy: its connector alone. A filter of the proxy's own sockets, so
//! that what others send takes no room in its buffers and none of its connections.
//!
//! What the connector sends carries a mark of the packet hook
//! ([`egress_common::abi::RESOLVER_PRIORITY`]), which reaches the filter over loopback.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::programs::SkBuffContext;
use egress_common::abi::RESOLVER_PRIORITY;

use crate::header;

/// The packet passes whole (`net/core/filter.c` `sk_filter_trim_cap`).
const WHOLE: i64 = u32::MAX as i64;
/// It goes nowhere.
const DROP: i64 = 0;
/// `BPF_TCP_CLOSE`, `include/uapi/linux/bpf.h`: of every UDP socket that is not connected.
const CLOSE: u32 = 7;
/// `BPF_TCP_LISTEN`.
const LISTEN: u32 = 10;
/// Where the flags of a TCP header are, and RST among them (RFC 9293 section 3.1).
const FLAGS: u32 = 13;
const RST: u8 = 4;

/// Whether a packet for a socket of the proxy passes.
#[inline(always)]
pub fn admit(ctx: &SkBuffContext) -> i64 {
    let skb = ctx.skb.skb;
    // SAFETY: the program's own context.
    let (priority, sk) = unsafe {
        (
            read_volatile(addr_of!((*skb).priority)),
            (*skb).__bindgen_anon_2.sk,
        )
    };
    if priority == RESOLVER_PRIORITY {
        return WHOLE;
    }
    if sk.is_null() {
        return DROP;
    }
    // SAFETY: the socket that the packet is for, not null.
    let state = unsafe { read_volatile(addr_of!((*sk).state)) };
    match state {
        CLOSE => DROP,
        // The kernel itself ends a call that its program gave up.
        LISTEN if header::octet(skb, FLAGS) & RST != 0 => WHOLE,
        LISTEN => DROP,
        // A connection that was let in. Its last words can come from no socket: the kernel
        // answers for one that is closed (`net/ipv4/tcp_minisocks.c`).
        _ => WHOLE,
    }
}
