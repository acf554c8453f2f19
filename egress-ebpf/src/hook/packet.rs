//! Every packet on its way out: the backstop behind the other hooks.
//!
//! The fast path takes a packet whose destination is the one its socket was approved for.
//! Everything else goes to another program: [`super::sni`] while a connection's name is not
//! checked, [`super::strict`] otherwise. They are called as programs, not as functions, so that
//! the verifier looks at each by itself. The hook runs before the kernel
//! fragments a packet (`net/ipv4/ip_output.c` `ip_finish_output`), so a fragment here was
//! made by the program.

use core::ptr::{addr_of, addr_of_mut, null_mut, read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    programs::SkBuffContext,
};
use egress_common::{
    abi::{RULE_NONE, TCP, UDP, program},
    decide::on_route,
    grant::SocketState,
    key::Addr,
};

use super::{PASS, REFUSE};
use crate::{
    emit,
    header::{
        self, HOP_BY_HOP, JUMBO, JUMBO_MASK, SYN, TCP_FLAGS, V4_FRAGMENT, ifindex, jumbo_head,
    },
    lookup::{Maps, rule_active},
    maps::PROGRAMS,
    socket,
};

/// Decides a packet.
#[inline(always)]
pub fn egress(ctx: &SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let sk = socket::of_packet(skb);
    let state = if sk.is_null() {
        null_mut()
    } else {
        // SAFETY: a full socket, not null.
        unsafe { socket::get(sk) }
    };
    if !state.is_null() {
        // SAFETY: not null.
        if let Some(rule) = unsafe { fast(skb, sk, state, SocketState::MOMENT) } {
            emit::passed(rule, 0, 1, u64::from(ctx.len()));
            return PASS;
        }
        // SAFETY: not null.
        let stage = unsafe { read_volatile(addr_of!((*state).stage)) };
        if matches!(stage, SocketState::SYN..=SocketState::STRANGER) {
            return call(ctx, program::SNI);
        }
    }
    call(ctx, program::STRICT)
}

/// Goes on in another program. Where that is missing, the packet is refused.
#[inline(always)]
pub fn call(ctx: &SkBuffContext, index: u32) -> i32 {
    // SAFETY: nothing here has to be dropped.
    unsafe { PROGRAMS.tail_call(ctx, index) };
    REFUSE
}

/// The rule under which the packet passes, if it goes where the socket was approved to send
/// and the rule is in force. `moment`: for how many ticks that holds for a datagram.
///
/// # Safety
///
/// `sk` is the packet's full socket and `state` a record of it, neither null.
#[inline(always)]
pub unsafe fn fast(
    skb: *mut __sk_buff,
    sk: *mut bpf_sock,
    state: *mut SocketState,
    moment: u32,
) -> Option<u32> {
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
    if !same {
        return None;
    }
    // A control message can send a datagram out of another interface (IP_PKTINFO); TCP has
    // no such message.
    if protocol == UDP {
        let way = socket::way(seq, ifindex(skb));
        // SAFETY: not null; volatile, for others send on the socket meanwhile.
        if unsafe { read_volatile(addr_of!((*state).way)) } != way {
            // SAFETY: not null; written once, when the record was made.
            let connector = unsafe { (*state).connector };
            let maps = Maps {
                ctx: skb.cast(),
                own: Some(false),
            };
            if !on_route(connector, Addr { halves }, ifindex(skb), &maps) {
                return None;
            }
            // SAFETY: not null. Once the socket is connected elsewhere, `seq` in it is an old one.
            unsafe { write_volatile(addr_of_mut!((*state).way), way) };
        }
        // SAFETY: not null.
        if unsafe { age(state) } >= moment {
            return None;
        }
    }
    // What opens a connection may leave long after its connect(): put off (TCP_FASTOPEN_CONNECT),
    // or again, because nobody answered. It goes by that verdict in the same tick alone. The state
    // of the socket spares most packets the look at their flags.
    // SAFETY: a full socket, not null; any has a state.
    let stage = unsafe { read_volatile(addr_of!((*sk).state)) };
    if 1_u32.wrapping_shl(stage) & MAY_OPEN != 0
        && protocol == TCP
        && opens(skb, first)
        // SAFETY: not null.
        && unsafe { age(state) } != 0
    {
        return None;
    }
    Some(rule)
}

/// Whether a TCP segment asks for a connection; so does one whose flags cannot be read. `first`: the
/// first byte of its packet, whose IP header has no options. Behind the header that the kernel puts
/// before a segment of over 64 KiB it reads something else; such a one opens nothing.
#[inline(always)]
fn opens(skb: *mut __sk_buff, first: u8) -> bool {
    let header = if first == 0x45 { 20 } else { 40 };
    header::load::<1>(skb, header + TCP_FLAGS as u32).is_none_or(|[flags]| flags & SYN != 0)
}

/// Ticks since the approval was decided.
///
/// # Safety
///
/// `state` is a record of the socket map, not null.
#[inline(always)]
pub unsafe fn age(state: *const SocketState) -> u32 {
    // SAFETY: see above.
    let decided = unsafe { read_volatile(addr_of!((*state).decided)) };
    socket::ticks().wrapping_sub(decided)
}

/// States of a socket in which a segment may leave that opens a connection, a bit for each:
/// `BPF_TCP_SYN_SENT`, `BPF_TCP_SYN_RECV` (both sides call at once, RFC 9293 section 3.5), and
/// `BPF_TCP_CLOSE` for what was held up on its way (netfilter queues, XFRM) till its socket was
/// closed. `include/uapi/linux/bpf.h`.
const MAY_OPEN: u32 = 1 << 2 | 1 << 3 | 1 << 7;
/// IPv4 header without options, then the two ports.
const V4_TO_PORTS: usize = 20 + 4;
/// IPv6 header, then the two ports.
const V6_TO_PORTS: usize = 40 + 4;

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
