//! The name of a connection, before its first byte leaves.
//!
//! A rule for a name permits addresses, and an address may serve many names. So the first
//! bytes of such a connection have to be a ClientHello whose name a rule permits; until then
//! nothing with data in it passes. What counts is the place in the stream, not the order of
//! packets: the record says which sequence number is the next to be judged. TCP sends with
//! the socket locked, so one packet of a connection is judged at a time.
//!
//! A hello that is not whole yet is dropped without a word. The kernel keeps it unsent
//! (`net/ipv4/tcp_output.c` `tcp_write_xmit` stops at the error), adds what the program writes
//! later, and tries again: so a hello in several writes goes out in one piece.
//!
//! This program reads the hello; [`super::name`] judges its name, and carries out refusals.

use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::bpf_ktime_get_boot_ns,
    programs::SkBuffContext,
};
use egress_common::{
    abi::{TCP, program},
    decide::{Flow, by_grant},
    grant::SocketState,
    hello::{self, Hello, Next, Payload},
    key::Addr,
    verdict::{Action, Layer, Reason},
};

use super::{
    PASS, REFUSE,
    packet::{age, call},
};
use crate::{
    emit,
    header::{self, SYN},
    lookup::{Maps, rule_active},
    memory::{is_shared, written},
    scratch::{self, Found},
    socket,
};

/// A part of a hello may stay as it is for this long, while its program has written no more.
/// Units of 2^20 ns: 10 s.
const PATIENCE: u32 = 9_540;
/// The same where more is written already: then the peer's window or the path lets no more of
/// it out at once. 2.4 s, so that the fourth try of the kernel's timer (`TCP_RTO_MIN`, doubled
/// each time) ends it. Not at once, because that timer's first try cuts a part off at the size
/// of a segment (`tcp_write_wakeup`), which Linux 6.10 mends when the program goes on.
const PATIENCE_FULL: u32 = 2_300;

/// The flag of a TCP header for urgent data (RFC 9293 section 3.1).
const URGENT: u8 = 0x20;

/// What becomes of a packet.
enum Fate {
    Pass,
    Drop,
    /// The strict path decides.
    Strict,
    /// Its last bytes are looked at anew.
    Again,
    /// The name decides, or a fault does.
    Name(Found),
}

/// A TCP segment of a connection whose name is to be checked.
struct Segment {
    skb: *mut __sk_buff,
    state: *mut SocketState,
    /// Sequence number of the first byte of data, or of the SYN.
    seq: u32,
    flags: u8,
    /// Where the data begins, and how much it is.
    data: u32,
    len: u32,
}

/// Decides a packet of such a connection.
#[inline(always)]
pub fn check(ctx: &SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let sk = socket::of_packet(skb);
    if sk.is_null() {
        return call(ctx, program::STRICT);
    }
    // SAFETY: a full socket, not null.
    let state = unsafe { socket::get(sk) };
    if state.is_null() {
        return call(ctx, program::STRICT);
    }
    let fate = match segment(skb, state, ctx.len()) {
        Some(segment) => fate(&segment),
        None => Fate::Strict,
    };
    match fate {
        Fate::Pass => {
            // SAFETY: not null.
            unsafe { pass(state, ctx.len()) };
            PASS
        }
        Fate::Drop => REFUSE,
        Fate::Strict => call(ctx, program::STRICT),
        // A bounded number of records: the kernel allows 33 calls.
        Fate::Again => call(ctx, program::SNI),
        Fate::Name(found) => name(ctx, sk, state, &found),
    }
}

/// Reads the segment; `None` where it is not one of the approved destination.
#[inline(always)]
fn segment(skb: *mut __sk_buff, state: *mut SocketState, whole: u32) -> Option<Segment> {
    let parsed = header::parse(skb);
    if !matches!(parsed.fault, Reason::None) || parsed.protocol != TCP {
        return None;
    }
    // SAFETY: not null. A connect hook does not run meanwhile: it has the socket locked, too.
    let (halves, port_be, pending) = unsafe {
        (
            [
                read_volatile(addr_of!((*state).addr.halves[0])),
                read_volatile(addr_of!((*state).addr.halves[1])),
            ],
            read_volatile(addr_of!((*state).port_be)),
            read_volatile(addr_of!((*state).pending)),
        )
    };
    if parsed.addr.halves != halves || parsed.port != u16::from_be(port_be) {
        return None;
    }
    if !rule_active(pending) {
        return None;
    }
    let header = header::load::<20>(skb, parsed.transport)?;
    let data = parsed.transport + u32::from(header[12] >> 4) * 4;
    if data > whole {
        return None;
    }
    Some(Segment {
        skb,
        state,
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        flags: header[13],
        data,
        len: whole - data,
    })
}

/// What becomes of a segment, by its place in the stream.
#[inline(always)]
fn fate(segment: &Segment) -> Fate {
    let state = segment.state;
    // SAFETY: not null.
    let stage = unsafe { read_volatile(addr_of!((*state).stage)) };
    if stage == SocketState::STRANGER {
        // Its end may be told to the peer; there is nothing in that. It opens nothing more.
        return if segment.len == 0 && segment.flags & SYN == 0 {
            Fate::Pass
        } else {
            Fate::Drop
        };
    }
    if segment.flags & SYN != 0 {
        return opening(segment);
    }
    if segment.len == 0 {
        return Fate::Pass;
    }
    if stage == SocketState::SYN {
        return refuse(Reason::SniTransport);
    }
    // SAFETY: not null.
    let position = unsafe { read_volatile(addr_of!((*state).position)) };
    let judged = position.wrapping_sub(segment.seq);
    if (judged as i32) >= 0 && judged >= segment.len {
        // Sent again, and judged before.
        return Fate::Pass;
    }
    if segment.flags & URGENT != 0 {
        return refuse(Reason::SniUrgent);
    }
    // Wherever it belongs: the kernel may put it together with what comes before it.
    if is_shared(segment.skb) {
        return refuse(Reason::SniShared);
    }
    if (judged as i32) < 0 {
        // Nothing overtakes what is not judged.
        return Fate::Drop;
    }
    judge(segment, stage, position, judged)
}

/// Whether the address is granted still, for a SYN that leaves long after its `connect()`.
#[inline(always)]
fn is_granted(segment: &Segment) -> bool {
    let state = segment.state;
    // SAFETY: not null; as in `segment`.
    let (flow, pending) = unsafe {
        let halves = [
            read_volatile(addr_of!((*state).addr.halves[0])),
            read_volatile(addr_of!((*state).addr.halves[1])),
        ];
        let flow = Flow {
            addr: Addr { halves },
            port: u16::from_be(read_volatile(addr_of!((*state).port_be))),
            protocol: TCP,
            ..Flow::nowhere((*state).connector, Layer::Packet)
        };
        (flow, read_volatile(addr_of!((*state).pending)))
    };
    let maps = Maps {
        ctx: segment.skb.cast(),
        own: Some(false),
    };
    let verdict = by_grant(&flow, &maps);
    matches!(verdict.action, Action::Check) && verdict.rule == pending
}

/// The SYN says where the stream begins.
#[inline(always)]
fn opening(segment: &Segment) -> Fate {
    if segment.len != 0 {
        return refuse(Reason::SniEarly);
    }
    // SAFETY: not null.
    if unsafe { age(segment.state) } != 0 && !is_granted(segment) {
        return Fate::Strict;
    }
    // SAFETY: not null.
    unsafe {
        if read_volatile(addr_of!((*segment.state).stage)) == SocketState::SYN {
            write_volatile(
                addr_of_mut!((*segment.state).position),
                segment.seq.wrapping_add(1),
            );
            write_volatile(addr_of_mut!((*segment.state).stage), SocketState::HELLO);
        }
    }
    Fate::Pass
}

/// The bytes of a segment that are not judged yet.
struct Unjudged {
    skb: *mut __sk_buff,
    at: u32,
    len: u32,
}

impl Payload for Unjudged {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        if offset + N as u32 > self.len {
            return None;
        }
        header::load(self.skb, self.at + offset)
    }
}

/// Judges one record at the first byte that is not judged yet.
#[inline(always)]
fn judge(segment: &Segment, stage: u8, position: u32, judged: u32) -> Fate {
    let state = segment.state;
    let payload = Unjudged {
        skb: segment.skb,
        at: segment.data + judged,
        len: segment.len - judged,
    };
    if stage == SocketState::SECOND {
        match hello::next(&payload) {
            Next::Hello => {}
            Next::Skip(len) => {
                if len > payload.len {
                    return wait(segment, payload.len);
                }
                // SAFETY: not null.
                unsafe {
                    write_volatile(addr_of_mut!((*state).position), position.wrapping_add(len));
                }
                return if len < payload.len {
                    Fate::Again
                } else {
                    Fate::Pass
                };
            }
            Next::Other => {
                // SAFETY: not null.
                unsafe { socket::open(state, SocketState::CHECKED) };
                return Fate::Pass;
            }
            Next::Partial => return wait(segment, payload.len),
            Next::Refuse(reason) => return refuse(reason),
        }
    }
    let hello = hello::read(&payload);
    if hello.partial {
        return wait(segment, payload.len);
    }
    Fate::Name(Found {
        hello,
        at: payload.at,
        len: payload.len,
    })
}

/// Drops a part of a record, until it has been the same part for too long.
#[inline(always)]
fn wait(segment: &Segment, len: u32) -> Fate {
    let state = segment.state;
    // SAFETY: a helper without pointers.
    let now = (unsafe { bpf_ktime_get_boot_ns() } >> 20) as u32;
    let end = segment.seq.wrapping_add(segment.len);
    let full = written(segment.skb).is_some_and(|written| written != end);
    // Lengths are far below this bit.
    let partial = len | u32::from(full) << 31;
    // SAFETY: not null.
    let (before, since) = unsafe {
        (
            read_volatile(addr_of!((*state).partial)),
            read_volatile(addr_of!((*state).partial_since)),
        )
    };
    if before != partial {
        // SAFETY: not null.
        unsafe {
            write_volatile(addr_of_mut!((*state).partial), partial);
            write_volatile(addr_of_mut!((*state).partial_since), now);
        }
        return Fate::Drop;
    }
    let patience = if full { PATIENCE_FULL } else { PATIENCE };
    if now.wrapping_sub(since) < patience {
        return Fate::Drop;
    }
    refuse(Reason::SniIncomplete)
}

#[inline(always)]
const fn refuse(reason: Reason) -> Fate {
    Fate::Name(Found {
        hello: Hello::faulty(reason),
        at: 0,
        len: 0,
    })
}

/// Hands over to the program that judges names.
#[inline(always)]
fn name(ctx: &SkBuffContext, sk: *mut bpf_sock, state: *mut SocketState, found: &Found) -> i32 {
    // SAFETY: a full socket, not null.
    if unsafe { scratch::keep(sk, found) } {
        return call(ctx, program::NAME);
    }
    // SAFETY: not null.
    unsafe {
        write_volatile(addr_of_mut!((*state).stage), SocketState::STRANGER);
        emit::unshown((*state).connector, Reason::NoMemory);
    }
    REFUSE
}

/// Counts a packet that passes. Before a rule can be named to count it under, it is noted.
///
/// # Safety
///
/// `state` is a record of the socket map, not null.
#[inline(always)]
pub unsafe fn pass(state: *mut SocketState, len: u32) {
    // SAFETY: see above.
    unsafe {
        let packets = read_volatile(addr_of!((*state).held_packets)).wrapping_add(1);
        let bytes = read_volatile(addr_of!((*state).held_bytes)).wrapping_add(len);
        let stage = read_volatile(addr_of!((*state).stage));
        if matches!(stage, SocketState::SYN | SocketState::HELLO) {
            write_volatile(addr_of_mut!((*state).held_packets), packets);
            write_volatile(addr_of_mut!((*state).held_bytes), bytes);
            return;
        }
        let rule = read_volatile(addr_of!((*state).pending));
        emit::passed(rule, 0, u64::from(packets), u64::from(bytes));
        write_volatile(addr_of_mut!((*state).held_packets), 0);
        write_volatile(addr_of_mut!((*state).held_bytes), 0);
    }
}
