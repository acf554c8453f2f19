//! Every packet on its way out: the backstop behind the other hooks.
//!
//! The fast path takes a packet whose destination is the one its socket was approved for.
//! Everything else is read strictly and decided anew. The hook runs before the kernel
//! fragments a packet (`net/ipv4/ip_output.c` `ip_finish_output`), so a fragment here was
//! made by the program.

use core::ptr::{addr_of, null_mut, read_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id, bpf_skb_load_bytes},
    programs::SkBuffContext,
};
use egress_common::{
    abi::{RULE_DOOR, RULE_INBOUND, RULE_NONE, TCP, UDP},
    decide::{Flow, Lookup as _, audited, decide},
    event::{Client, ClientKey},
    grant::{Connector, SocketState},
    key::Addr,
    verdict::{Action, Layer, Reason, Verdict},
};

use super::{PASS, REFUSE};
use crate::{
    emit,
    flow::{AF_INET, AF_INET6},
    lookup::{Maps, rule_active},
    maps::{CLIENTS, CONNECTOR_LEVEL},
    socket,
};

/// `BPF_TCP_LISTEN`, `include/uapi/linux/bpf.h`.
const TCP_LISTEN: u32 = 10;
/// `BPF_TCP_SYN_SENT`, `include/uapi/linux/bpf.h`.
const TCP_SYN_SENT: u32 = 2;

/// Decides a packet.
#[inline(always)]
pub fn egress(ctx: &SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let sk = full_socket(skb);
    let state = if sk.is_null() {
        null_mut()
    } else {
        // SAFETY: a full socket, not null.
        unsafe { socket::get(sk) }
    };
    if !state.is_null() {
        // SAFETY: not null.
        if let Some(rule) = unsafe { fast(skb, state) } {
            emit::passed(rule, 0, 1, u64::from(ctx.len()));
            return PASS;
        }
    }
    strict(ctx, sk, state)
}

/// The rule under which the packet passes, if it goes where the socket was approved to send
/// and the rule is in force.
///
/// # Safety
///
/// `state` is a record of the socket map, not null.
#[inline(always)]
unsafe fn fast(skb: *mut __sk_buff, state: *const SocketState) -> Option<u32> {
    // SAFETY: volatile loads keep their order around the two of `seq`.
    let (seq, rule, halves, port_be, protocol, again) = unsafe {
        (
            read_volatile(addr_of!((*state).seq)),
            read_volatile(addr_of!((*state).rule)),
            [
                read_volatile(addr_of!((*state).addr.halves[0])),
                read_volatile(addr_of!((*state).addr.halves[1])),
            ],
            read_volatile(addr_of!((*state).port_be)),
            read_volatile(addr_of!((*state).protocol)),
            read_volatile(addr_of!((*state).seq)),
        )
    };
    if rule == RULE_NONE || seq & 1 != 0 || seq != again || !rule_active(rule) {
        return None;
    }
    // SAFETY: the verifier knows these two as packet pointers; every access below is behind
    // a comparison with the end.
    let (data, end) = unsafe {
        (
            read_volatile(addr_of!((*skb).data)) as usize,
            read_volatile(addr_of!((*skb).data_end)) as usize,
        )
    };
    if data + V4_TO_PORTS > end {
        return None;
    }
    // SAFETY: inside the packet by the comparison above.
    let first = unsafe { *(data as *const u8) };
    let same = if first == 0x45 {
        // SAFETY: as above.
        unsafe {
            *((data + 9) as *const u8) == protocol
                && u16::from_be(*((data + 6) as *const u16)) & V4_FRAGMENT == 0
                && Addr::from_v4(u32::from_be(*((data + 16) as *const u32))).halves == halves
                && *((data + 22) as *const u16) == port_be
        }
    } else if first >> 4 == 6 && data + V6_TO_PORTS <= end {
        // SAFETY: inside the packet by the comparison above, and by `jumbo`'s for what lies
        // behind its header; packets are 4-byte aligned.
        unsafe {
            let next = *((data + 6) as *const u8);
            word(data + 24) == halves[0]
                && word(data + 32) == halves[1]
                && if next == protocol {
                    *((data + 42) as *const u16) == port_be
                } else {
                    next == HOP_BY_HOP
                        && data + V6_TO_PORTS + JUMBO <= end
                        && word(data + 40) & JUMBO_MASK.to_be() == jumbo_head(protocol).to_be()
                        && *((data + 50) as *const u16) == port_be
                }
        }
    } else {
        false
    };
    // A control message can send a datagram out of another interface (IP_PKTINFO); TCP has
    // no such message.
    if same && protocol == UDP {
        // SAFETY: volatile, as above; a torn pair of interface and address fails closed.
        let expected = unsafe { read_volatile(addr_of!((*state).ifindex)) };
        if expected != 0 && expected != ifindex(skb) {
            return None;
        }
    }
    if same { Some(rule) } else { None }
}

/// The interface the packet leaves by.
#[inline(always)]
fn ifindex(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the program's own context.
    unsafe { read_volatile(addr_of!((*skb).ifindex)) }
}

/// IPv4 header without options, then the two ports.
const V4_TO_PORTS: usize = 20 + 4;
/// IPv6 header, then the two ports.
const V6_TO_PORTS: usize = 40 + 4;
/// Next header of a hop-by-hop options header (RFC 8200 section 4.3).
const HOP_BY_HOP: u8 = 0;
/// The one such header that the kernel makes itself, for a segment of over 64 KiB that a
/// device splits up (`include/net/ipv6.h`, `struct hop_jumbo_hdr`): only the jumbo payload
/// option (RFC 2675 section 2). Programs need a capability to make any.
const JUMBO: usize = 8;
/// The bytes of it that are the same in all: not the length.
const JUMBO_MASK: u64 = 0xffff_ffff_0000_0000;

/// Those bytes, in host order: next header, no further length, option 0xc2 of 4 bytes.
#[inline(always)]
const fn jumbo_head(protocol: u8) -> u64 {
    (protocol as u64) << 56 | 0x0000_c204 << 32
}

/// "More fragments" and the fragment offset (RFC 791 section 3.1).
const V4_FRAGMENT: u16 = 0x3fff;

/// Eight bytes of a packet as they lie there.
///
/// # Safety
///
/// The eight bytes are inside the packet.
#[inline(always)]
unsafe fn word(at: usize) -> u64 {
    // SAFETY: see above; two loads, for 4-byte alignment is all a packet has.
    unsafe {
        let first = *(at as *const u32);
        let second = *((at + 4) as *const u32);
        if cfg!(target_endian = "little") {
            (second as u64) << 32 | first as u64
        } else {
            (first as u64) << 32 | second as u64
        }
    }
}

/// What the strict path reads of a packet.
struct Parsed {
    addr: Addr,
    source_port: u16,
    port: u16,
    protocol: u8,
    family: u16,
    fault: Reason,
}

/// Reads the packet without trust and asks for a full verdict. Not inlined into the fast
/// path's code: it costs nothing there.
#[inline(never)]
fn strict(ctx: &SkBuffContext, sk: *mut bpf_sock, state: *mut SocketState) -> i32 {
    let skb = ctx.skb.skb;
    let parsed = parse(skb);
    let (connector, process) = if state.is_null() {
        // SAFETY: the program's own context.
        let cgroup = unsafe { bpf_skb_ancestor_cgroup_id(skb, CONNECTOR_LEVEL.load()) };
        (socket::by_cgroup(cgroup), emit::Process::maker(0, 0))
    } else {
        // SAFETY: not null; written once, when the socket was made.
        unsafe {
            (
                (*state).connector,
                emit::Process::maker((*state).pid, (*state).uid),
            )
        }
    };
    let flow = Flow {
        addr: parsed.addr,
        connector,
        port: parsed.port,
        protocol: parsed.protocol,
        layer: Layer::Packet,
        inbound: parsed.protocol == TCP && is_inbound(sk, state),
        local_port: parsed.source_port,
        ifindex: ifindex(skb),
    };
    let maps = Maps {
        ctx: skb.cast(),
        local_port: parsed.source_port,
    };
    let verdict = if matches!(parsed.fault, Reason::None) {
        decide(&flow, &maps)
    } else {
        let refused = Verdict {
            action: Action::Deny,
            reason: parsed.fault,
            rule: RULE_NONE,
        };
        match maps.connector(connector) {
            Some(connector) if connector.mode == Connector::AUDIT => audited(refused),
            _ => refused,
        }
    };
    if matches!(verdict.action, Action::Allow) {
        if verdict.rule == RULE_DOOR {
            note_client(&parsed, &process);
        }
        if verdict.rule == RULE_INBOUND && state.is_null() && !sk.is_null() {
            adopt(sk, &flow);
        }
        emit::passed(verdict.rule, 0, 1, u64::from(ctx.len()));
        return PASS;
    }
    emit::denial(&flow, &verdict, &process, parsed.family as u8);
    if matches!(verdict.action, Action::Audit) {
        PASS
    } else {
        REFUSE
    }
}

/// Remembers who asks the door from which port, for the name of a refused query.
#[inline(always)]
fn note_client(parsed: &Parsed, process: &emit::Process) {
    let key = ClientKey {
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

/// Gives an accepted socket its record, so that the rest of the connection is fast.
#[inline(always)]
fn adopt(sk: *mut bpf_sock, flow: &Flow) {
    let mut initial = SocketState {
        seq: 0,
        connector: flow.connector,
        addr: flow.addr,
        rule: RULE_INBOUND,
        port_be: flow.port.to_be(),
        protocol: flow.protocol,
        pad: 0,
        pid: 0,
        uid: 0,
        asked_addr: [0, 0],
        asked_port_be: 0,
        asked_family: 0,
        ifindex: 0,
    };
    // SAFETY: a full socket, not null. Without memory the strict path goes on deciding.
    unsafe { socket::get_or_create(sk, &mut initial) };
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

/// The socket behind a packet, if it is a full one.
#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> *mut bpf_sock {
    // SAFETY: the program's own context.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return null_mut();
    }
    // SAFETY: a socket of the context, not null.
    unsafe { bpf_sk_fullsock(sk) }
}

#[inline(always)]
fn parse(skb: *mut __sk_buff) -> Parsed {
    match load::<1>(skb, 0) {
        Some([first]) if first >> 4 == 4 => parse_v4(skb, first),
        Some([first]) if first >> 4 == 6 => parse_v6(skb),
        _ => unreadable(Reason::Malformed, 0),
    }
}

#[inline(always)]
fn parse_v4(skb: *mut __sk_buff, first: u8) -> Parsed {
    let Some(header) = load::<20>(skb, 0) else {
        return unreadable(Reason::Malformed, AF_INET);
    };
    let mut parsed = unreadable(Reason::None, AF_INET);
    parsed.protocol = header[9];
    parsed.addr = Addr::from_v4(u32::from_be_bytes([
        header[16], header[17], header[18], header[19],
    ]));
    if first != 0x45 || u16::from_be_bytes([header[6], header[7]]) & V4_FRAGMENT != 0 {
        parsed.fault = Reason::Options;
        return parsed;
    }
    with_ports(skb, 20, parsed)
}

#[inline(always)]
fn parse_v6(skb: *mut __sk_buff) -> Parsed {
    let (Some([next]), Some(destination)) = (load::<1>(skb, 6), load::<16>(skb, 24)) else {
        return unreadable(Reason::Malformed, AF_INET6);
    };
    let mut parsed = unreadable(Reason::None, AF_INET6);
    parsed.protocol = next;
    parsed.addr = Addr::from_octets(destination);
    if next == HOP_BY_HOP
        && let Some(header) = load::<JUMBO>(skb, 40)
        && u64::from_be_bytes(header) & JUMBO_MASK == jumbo_head(TCP)
    {
        parsed.protocol = TCP;
        return with_ports(skb, 48, parsed);
    }
    // Hop-by-hop, routing, fragment and destination options headers (RFC 8200 section 4.1).
    if matches!(next, 0 | 43 | 44 | 60) {
        parsed.fault = Reason::Options;
        return parsed;
    }
    with_ports(skb, 40, parsed)
}

#[inline(always)]
fn with_ports(skb: *mut __sk_buff, offset: u32, mut parsed: Parsed) -> Parsed {
    if parsed.protocol != TCP && parsed.protocol != UDP {
        parsed.fault = Reason::Protocol;
        return parsed;
    }
    match load::<4>(skb, offset) {
        Some([a, b, c, d]) => {
            parsed.source_port = u16::from_be_bytes([a, b]);
            parsed.port = u16::from_be_bytes([c, d]);
        }
        None => parsed.fault = Reason::Malformed,
    }
    parsed
}

#[inline(always)]
const fn unreadable(fault: Reason, family: u16) -> Parsed {
    Parsed {
        addr: Addr { halves: [0, 0] },
        source_port: 0,
        port: 0,
        protocol: 0,
        family,
        fault,
    }
}

/// Bytes of the packet from the network header on.
#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: `bytes` has room for N bytes; the helper checks the packet's length.
    let result =
        unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    if result == 0 { Some(bytes) } else { None }
}
