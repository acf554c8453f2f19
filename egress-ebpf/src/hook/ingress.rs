//! Packets on their way in: who calls at a listener, and is not let in, gets no answer.
//!
//! The hook runs before the kernel makes one (`net/ipv4/tcp_ipv4.c` `tcp_v4_rcv` filters before
//! `tcp_v4_do_rcv`). Much of what it would answer with is the connector's choice: time to live,
//! traffic class, segment size, window. Some of these answers have no socket, or one of the
//! kernel's own (SYN cookies, resets, acknowledgements for half-open connections), and so would
//! meet no program on their way out.
//!
//! And SYN cookies between a connector and itself go nowhere, see [`crate::own`].

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_sk_fullsock,
    programs::SkBuffContext,
};
use egress_common::{
    abi::{RULE_NONE, TCP},
    decide::{Flow, decide, refused},
    event::RepeatKey,
    key::Addr,
    verdict::{Action, Layer, Reason},
};

use super::{PASS, answer};
use crate::{emit, header, lookup::Maps, own, socket};

/// `BPF_TCP_SYN_SENT`, `include/uapi/linux/bpf.h`.
const TCP_SYN_SENT: u32 = 2;
/// `BPF_TCP_LISTEN`.
const TCP_LISTEN: u32 = 10;

/// Callers at one port that are told apart where repeats are held back; by their addresses' last
/// octets.
const CALLERS: u64 = 16;

/// Decides a packet to a listener, or to who calls one; all others pass.
#[inline(always)]
pub fn ingress(ctx: &SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the program's own context.
    let sk = unsafe { read_volatile(addr_of!((*skb).__bindgen_anon_2.sk)) };
    if sk.is_null() {
        return PASS;
    }
    // SAFETY: not null; any socket has a state.
    match unsafe { read_volatile(addr_of!((*sk).state)) } {
        TCP_LISTEN => call(ctx, sk),
        TCP_SYN_SENT => answered(ctx, sk),
        _ => PASS,
    }
}

/// Decides the answer to a call of the connector's own.
#[inline(always)]
fn answered(ctx: &SkBuffContext, sk: *mut bpf_sock) -> i32 {
    let skb = ctx.skb.skb;
    let (connector, _) = owner(sk);
    let parsed = header::parse(skb);
    if own::is_cookie(skb, &parsed, connector) {
        return dropped(skb, connector);
    }
    PASS
}

/// What is dropped without a line, since nothing is refused by it: calls are made again.
#[inline(always)]
fn dropped(skb: *mut __sk_buff, connector: u32) -> i32 {
    let maps = Maps {
        ctx: skb.cast(),
        own: Some(false),
    };
    answer(&refused(connector, Reason::NoRule, RULE_NONE, &maps))
}

/// Decides a call as its answers are decided: by the one who calls and the port that is called.
#[inline(always)]
fn call(ctx: &SkBuffContext, sk: *mut bpf_sock) -> i32 {
    let skb = ctx.skb.skb;
    let (connector, process) = owner(sk);
    let parsed = header::parse(skb);
    if own::completes_cookie(skb, &parsed, connector) {
        return dropped(skb, connector);
    }
    let flow = Flow {
        addr: parsed.source,
        connector,
        port: parsed.source_port,
        protocol: TCP,
        layer: Layer::Packet,
        inbound: true,
        local_port: parsed.port,
        ifindex: 0,
    };
    let maps = Maps {
        ctx: skb.cast(),
        own: Some(false),
    };
    let verdict = if matches!(parsed.fault, Reason::None) {
        decide(&flow, &maps)
    } else {
        refused(connector, parsed.fault, RULE_NONE, &maps)
    };
    if matches!(verdict.action, Action::Allow) {
        return PASS;
    }
    // Callers are as many as somebody outside likes: so many records a second at most for a port.
    let key = RepeatKey {
        addr: Addr {
            halves: [0, parsed.source.low() % CALLERS],
        },
        connector,
        port: parsed.port,
        protocol: TCP,
        reason: verdict.reason.code(),
    };
    emit::repeated(&key, &flow, &verdict, &process, parsed.family as u8);
    answer(&verdict)
}

/// Whose socket it is, and the process that made it.
#[inline(always)]
fn owner(sk: *mut bpf_sock) -> (u32, emit::Process) {
    // SAFETY: a socket of the context, not null; the results are checked.
    let state = unsafe {
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() {
            return (0, emit::Process::maker(0, 0));
        }
        socket::get(sk)
    };
    if state.is_null() {
        return (0, emit::Process::maker(0, 0));
    }
    // SAFETY: not null; written once, when the socket was made.
    unsafe {
        (
            (*state).connector,
            emit::Process::maker((*state).pid, (*state).uid),
        )
    }
}
