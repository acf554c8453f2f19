//! Both sides of the way to a DNS proxy.
//!
//! What a connector sends there passes where its own proxy stands alone, and gets a mark
//! ([`egress_common::abi::RESOLVER_PRIORITY`]), which reaches the other side over loopback. That is
//! a filter of the proxy's own sockets: its connector alone may speak to it, so that what others
//! send takes no room in its buffers and none of its connections.

use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::programs::SkBuffContext;
use egress_common::{
    abi::{RESOLVER_PRIORITY, RULE_DOOR},
    decide::Flow,
    event::{Client, ClientKey},
    verdict::{Layer, Reason, Verdict},
};

use super::{PASS, answer, strict};
use crate::{
    emit,
    header::{self, Parsed},
    maps::CLIENTS,
    resolver::{self, End},
};

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

/// Lets a packet go that was decided to be for the connector's proxy, if that is who takes it.
#[inline(always)]
pub fn reach(ctx: &SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let parsed = header::parse(skb);
    let (connector, process) = strict::sender(skb, strict::record_of(skb).1);
    let from = End {
        addr: parsed.source,
        port: parsed.source_port,
    };
    let to = End {
        addr: parsed.addr,
        port: parsed.port,
    };
    if matches!(parsed.fault, Reason::None)
        && resolver::stands(skb.cast(), connector, parsed.protocol, &from, &to)
    {
        // SAFETY: the program's own context; cgroup programs may write the field.
        unsafe { write_volatile(addr_of_mut!((*skb).priority), RESOLVER_PRIORITY) };
        note(connector, &parsed, &process);
        emit::passed(RULE_DOOR, 0, 1, u64::from(ctx.len()));
        return PASS;
    }
    let flow = Flow {
        addr: parsed.addr,
        connector,
        port: parsed.port,
        protocol: parsed.protocol,
        layer: Layer::Packet,
        inbound: false,
        local_port: parsed.source_port,
        ifindex: header::ifindex(skb),
    };
    let verdict = Verdict::deny(Reason::ResolverGone, RULE_DOOR);
    emit::denial(&flow, &verdict, &process, parsed.family as u8);
    answer(&verdict)
}

/// Remembers who asks from where, for the name of a refused query.
#[inline(always)]
fn note(connector: u32, parsed: &Parsed, process: &emit::Process) {
    let key = ClientKey {
        addr: parsed.source,
        connector,
        port: parsed.source_port,
        protocol: u16::from(parsed.protocol),
    };
    let client = Client {
        pid: process.pid,
        uid: process.uid,
    };
    // A client that could not be noted costs a name in an event, nothing else.
    let _not_noted = CLIENTS.insert(&key, client, 0);
}

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
