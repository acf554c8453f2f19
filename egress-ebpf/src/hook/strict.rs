//! The strict path: a packet is read without trust and decided anew.

use core::ptr::{addr_of, addr_of_mut, null_mut, read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_skb_ancestor_cgroup_id,
    programs::SkBuffContext,
};
use egress_common::{
    abi::{RULE_DOOR, RULE_INBOUND, RULE_NONE, RULE_OWN, RULE_PROXY, TCP, UDP, program},
    decide::{Flow, decide, refused},
    grant::SocketState,
    proxied::in_range,
    verdict::{Action, Layer, Reason},
};

use super::{
    PASS, answer,
    packet::{call, fast},
};
use crate::{
    datagram, emit, header,
    lookup::{Maps, rule_active},
    maps::{CONNECTOR_LEVEL, PROXY_NET},
    own::{self, Receiver},
    socket, vague,
};

/// `BPF_TCP_LISTEN`, `include/uapi/linux/bpf.h`.
const TCP_LISTEN: u32 = 10;
/// `BPF_TCP_SYN_SENT`, `include/uapi/linux/bpf.h`.
const TCP_SYN_SENT: u32 = 2;

/// Reads the packet and asks for a full verdict.
#[inline(always)]
pub fn strict(ctx: &SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let (sk, state) = record_of(skb);
    if let Some(rule) = as_before(skb, sk, state) {
        emit::passed(rule, 0, 1, u64::from(ctx.len()));
        return PASS;
    }
    let parsed = header::parse(skb);
    let (connector, mut process) = sender(skb, state);
    let approved = if state.is_null() {
        RULE_NONE
    } else {
        // SAFETY: not null; volatile, for a connect hook may write meanwhile.
        unsafe { read_volatile(addr_of!((*state).rule)) }
    };
    // The cases of a socket and its record differ in these, which is no reason to follow the
    // verdict for each.
    let inbound = parsed.protocol == TCP && is_inbound(sk, state);
    let approved = vague::value(approved, ctx.len());
    let flow = Flow {
        addr: parsed.addr,
        connector: vague::value(connector, ctx.len()),
        port: parsed.port,
        protocol: parsed.protocol,
        layer: Layer::Packet,
        inbound: vague::value(u32::from(inbound), ctx.len()) != 0,
        local_port: parsed.source_port,
        ifindex: header::ifindex(skb),
    };
    let mut receiver = Receiver::Other as u32;
    if parsed.protocol == TCP && !inbound && parsed.addr.is_loopback() {
        receiver = own::receiver(skb, &parsed, connector) as u32;
    }
    let receiver = vague::value(receiver, ctx.len());
    let maps = Maps {
        ctx: skb.cast(),
        own: Some(receiver == Receiver::Own as u32),
    };
    let mut verdict = if matches!(parsed.fault, Reason::None) {
        decide(&flow, &maps)
    } else {
        refused(connector, parsed.fault, RULE_NONE, &maps)
    };
    if matches!(verdict.action, Action::Check) {
        let reason = unnamed(record_of(skb).1);
        verdict = refused(connector, reason, verdict.rule, &maps);
    }
    if matches!(verdict.action, Action::Allow) && verdict.rule == RULE_DOOR {
        return call(ctx, program::RESOLVER);
    }
    if matches!(verdict.action, Action::Allow) {
        if verdict.rule == RULE_INBOUND {
            let source = parsed.source.v4().unwrap_or(0);
            // What the forwarder answers counts with what it sends, not as an answer of the
            // connector's.
            if in_range(source, PROXY_NET.load()) {
                verdict.rule = RULE_PROXY;
            }
            adopt(skb, &flow, verdict.rule);
        } else if verdict.rule == RULE_OWN || verdict.rule == approved {
            renew(skb, &flow, verdict.rule);
        } else if parsed.protocol == UDP {
            note(skb, &flow, verdict.rule);
        }
        emit::passed(verdict.rule, 0, 1, u64::from(ctx.len()));
        return PASS;
    }
    if receiver == Receiver::Opening as u32 {
        return answer(&verdict);
    }
    if matches!(verdict.reason, Reason::Interface) {
        process.tid = flow.ifindex;
    }
    emit::denial(&flow, &verdict, &process, parsed.family as u8);
    answer(&verdict)
}

/// Whose packet it is, and the process that made its socket.
#[inline(always)]
pub fn sender(skb: *mut __sk_buff, state: *const SocketState) -> (u32, emit::Process) {
    if state.is_null() {
        // SAFETY: the program's own context.
        let cgroup = unsafe { bpf_skb_ancestor_cgroup_id(skb, CONNECTOR_LEVEL.load()) };
        return (socket::by_cgroup(cgroup), emit::Process::maker(0, 0));
    }
    // SAFETY: not null; written once, when the socket was made.
    unsafe {
        (
            (*state).connector,
            emit::Process::maker((*state).pid, (*state).uid),
        )
    }
}

/// The socket behind a packet and its record; null where there is none.
///
/// Asked again where a verdict needs them: kept alive across it, each of the three cases would
/// have the verifier walk the verdict once more (some 50,000 instructions more).
#[inline(always)]
pub fn record_of(skb: *mut __sk_buff) -> (*mut bpf_sock, *mut SocketState) {
    let sk = socket::of_packet(skb);
    if sk.is_null() {
        return (sk, null_mut());
    }
    // SAFETY: a full socket, not null.
    (sk, unsafe { socket::get(sk) })
}

/// Why a packet has no checked name, whose address needs one. A connection whose rule is not
/// in force any more does not go on under another rule's address.
#[inline(always)]
fn unnamed(state: *const SocketState) -> Reason {
    if state.is_null() {
        return Reason::SniTransport;
    }
    // SAFETY: not null.
    let (stage, rule, pending) = unsafe {
        (
            read_volatile(addr_of!((*state).stage)),
            read_volatile(addr_of!((*state).rule)),
            read_volatile(addr_of!((*state).pending)),
        )
    };
    let by = match stage {
        SocketState::PLAIN | SocketState::CHECKED => rule,
        _ => pending,
    };
    if by != RULE_NONE && !rule_active(by) {
        Reason::Revoked
    } else {
        Reason::SniTransport
    }
}

/// Gives an accepted socket its record, so that the rest of the connection is fast.
#[inline(always)]
fn adopt(skb: *mut __sk_buff, flow: &Flow, rule: u32) {
    let (sk, state) = record_of(skb);
    if sk.is_null() || !state.is_null() {
        return;
    }
    let mut initial = SocketState {
        addr: flow.addr,
        rule,
        port_be: flow.port.to_be(),
        protocol: flow.protocol,
        ..socket::empty(flow.connector)
    };
    // SAFETY: a full socket, not null. Without memory the strict path goes on deciding.
    unsafe { socket::get_or_create(sk, &mut initial) };
}

/// The rule under which a datagram passes that goes where the socket's last one went, a moment ago.
#[inline(always)]
fn as_before(skb: *mut __sk_buff, sk: *mut bpf_sock, state: *const SocketState) -> Option<u32> {
    // SAFETY: not null, where it is read.
    if state.is_null() || unsafe { read_volatile(addr_of!((*state).protocol)) } == TCP {
        return None;
    }
    // SAFETY: a full socket, not null, for it has a record.
    let last = unsafe { datagram::get(sk) };
    if last.is_null() {
        return None;
    }
    // SAFETY: neither is null.
    unsafe { fast(skb, sk, last, SocketState::INSTANT) }
}

/// Remembers where a socket sends datagrams that nothing was approved for by a `connect()`.
#[inline(always)]
fn note(skb: *mut __sk_buff, flow: &Flow, rule: u32) {
    let (sk, state) = record_of(skb);
    if !sk.is_null() && !state.is_null() {
        // SAFETY: a full socket, not null.
        unsafe { datagram::remember(sk, flow, rule) };
    }
}

/// Notes that the approval of a socket still holds, so that its next packets are fast again. An
/// own connection over loopback gets one, once it cannot become anybody else's.
///
/// The interface that was judged is noted under the `seq` that was read before the destination.
///
/// Only single words are written, and TCP sends with the socket locked: a datagram socket that another
/// thread connects meanwhile has been decided a moment ago all the same.
#[inline(always)]
fn renew(skb: *mut __sk_buff, flow: &Flow, rule: u32) {
    let (sk, state) = record_of(skb);
    if state.is_null() {
        return;
    }
    // SAFETY: not null; volatile, for a connect hook may write meanwhile.
    unsafe {
        let seq = read_volatile(addr_of!((*state).seq));
        if read_volatile(addr_of!((*state).addr.halves[0])) != flow.addr.halves[0]
            || read_volatile(addr_of!((*state).addr.halves[1])) != flow.addr.halves[1]
            || read_volatile(addr_of!((*state).port_be)) != flow.port.to_be()
            || read_volatile(addr_of!((*state).protocol)) != flow.protocol
        {
            return;
        }
        if rule == RULE_OWN {
            if own::is_settled(sk) {
                write_volatile(addr_of_mut!((*state).rule), RULE_OWN);
            }
        } else if read_volatile(addr_of!((*state).rule)) == rule {
            if flow.protocol == UDP {
                let way = socket::way(seq, flow.ifindex);
                write_volatile(addr_of_mut!((*state).way), way);
            }
            write_volatile(addr_of_mut!((*state).decided), socket::ticks());
        }
    }
}

/// Whether the packet answers somebody who called in. Sockets of `socket()` have a record;
/// those of `accept()` have none until [`adopt`] gives them one. A socket without a record
/// that is calling somebody itself is a subflow of the kernel's, and no answer.
#[inline(always)]
fn is_inbound(sk: *mut bpf_sock, state: *const SocketState) -> bool {
    if sk.is_null() {
        return false;
    }
    // SAFETY: a full socket, not null.
    let stage = unsafe { read_volatile(addr_of!((*sk).state)) };
    if state.is_null() {
        stage != TCP_SYN_SENT
    } else {
        stage == TCP_LISTEN
    }
}
