//! A packet's headers, read without trust.

use core::{
    mem::MaybeUninit,
    ptr::{addr_of, addr_of_mut, read_volatile},
};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use egress_common::{
    abi::{TCP, UDP},
    key::Addr,
    verdict::Reason,
};

use crate::{
    flow::{AF_INET, AF_INET6},
    vague,
};

/// Next header of a hop-by-hop options header (RFC 8200 section 4.3).
pub const HOP_BY_HOP: u8 = 0;
/// The one such header that the kernel makes itself, for a segment of over 64 KiB that a
/// device splits up (`include/net/ipv6.h`, `struct hop_jumbo_hdr`): only the jumbo payload
/// option (RFC 2675 section 2). Programs need a capability to make any.
pub const JUMBO: usize = 8;
/// The bytes of it that are the same in all: not the length.
pub const JUMBO_MASK: u64 = 0xffff_ffff_0000_0000;
/// "More fragments" and the fragment offset (RFC 791 section 3.1).
pub const V4_FRAGMENT: u16 = 0x3fff;

/// Those bytes, in host order: next header, no further length, option 0xc2 of 4 bytes.
#[inline(always)]
pub const fn jumbo_head(protocol: u8) -> u64 {
    (protocol as u64) << 56 | 0x0000_c204 << 32
}

/// The interface the packet leaves by.
#[inline(always)]
pub fn ifindex(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the program's own context.
    unsafe { read_volatile(addr_of!((*skb).ifindex)) }
}

/// Bytes of an IPv4 header without options and the two ports behind it. What is shorter has no
/// header that could be read: a packet of a protocol that is let through is longer.
const V4_AND_PORTS: usize = 24;
/// The same of IPv6.
const V6_AND_PORTS: usize = 44;
/// The same of a [`JUMBO`] header.
const JUMBO_AND_PORTS: usize = JUMBO + 4;

/// What a packet's headers say.
pub struct Parsed {
    /// Where it comes from.
    pub source: Addr,
    /// Where it goes.
    pub addr: Addr,
    pub source_port: u16,
    pub port: u16,
    pub protocol: u8,
    /// `AF_INET` or `AF_INET6`; 0 = neither.
    pub family: u16,
    /// Where the header behind that of IP begins.
    pub transport: u32,
    /// Why the rest could not be read; [`Reason::None`] = it could.
    pub fault: Reason,
}

/// Reads IP and the ports.
#[inline(always)]
pub fn parse(skb: *mut __sk_buff) -> Parsed {
    let parsed = match load::<V4_AND_PORTS>(skb, 0) {
        Some(head) if head[0] >> 4 == 4 => parse_v4(&head),
        Some(head) if head[0] >> 4 == 6 => parse_v6(skb),
        _ => unreadable(Reason::Malformed, 0),
    };
    // Many ways lead here, and what follows is long.
    // SAFETY: the program's own context.
    let any = unsafe { read_volatile(addr_of!((*skb).len)) };
    let value = |value| vague::value(value, any);
    Parsed {
        source: vague::addr(&parsed.source, any),
        addr: vague::addr(&parsed.addr, any),
        source_port: value(u32::from(parsed.source_port)) as u16,
        port: value(u32::from(parsed.port)) as u16,
        protocol: value(u32::from(parsed.protocol)) as u8,
        family: value(u32::from(parsed.family)) as u16,
        transport: value(parsed.transport),
        fault: vague::reason(parsed.fault, any),
    }
}

#[inline(always)]
fn parse_v4(head: &[u8; V4_AND_PORTS]) -> Parsed {
    let mut parsed = unreadable(Reason::None, AF_INET);
    parsed.protocol = head[9];
    parsed.source = Addr::from_v4(u32::from_be_bytes([head[12], head[13], head[14], head[15]]));
    parsed.addr = Addr::from_v4(u32::from_be_bytes([head[16], head[17], head[18], head[19]]));
    if head[0] != 0x45 || u16::from_be_bytes([head[6], head[7]]) & V4_FRAGMENT != 0 {
        parsed.fault = Reason::Options;
        return parsed;
    }
    with_ports([head[20], head[21], head[22], head[23]], 20, parsed)
}

#[inline(always)]
fn parse_v6(skb: *mut __sk_buff) -> Parsed {
    let Some(head) = load::<V6_AND_PORTS>(skb, 0) else {
        return unreadable(Reason::Malformed, AF_INET6);
    };
    let mut parsed = unreadable(Reason::None, AF_INET6);
    let next = head[6];
    parsed.protocol = next;
    parsed.source = Addr::from_octets(part(&head, 8));
    parsed.addr = Addr::from_octets(part(&head, 24));
    if next == HOP_BY_HOP
        && let Some(header) = load::<JUMBO_AND_PORTS>(skb, 40)
        && u64::from_be_bytes(part(&header, 0)) & JUMBO_MASK == jumbo_head(TCP)
    {
        parsed.protocol = TCP;
        return with_ports(part(&header, JUMBO), 48, parsed);
    }
    // Hop-by-hop, routing, fragment and destination options headers (RFC 8200 section 4.1).
    if matches!(next, 0 | 43 | 44 | 60) {
        parsed.fault = Reason::Options;
        return parsed;
    }
    with_ports(part(&head, 40), 40, parsed)
}

#[inline(always)]
fn with_ports([a, b, c, d]: [u8; 4], offset: u32, mut parsed: Parsed) -> Parsed {
    if parsed.protocol != TCP && parsed.protocol != UDP {
        parsed.fault = Reason::Protocol;
        return parsed;
    }
    parsed.transport = offset;
    parsed.source_port = u16::from_be_bytes([a, b]);
    parsed.port = u16::from_be_bytes([c, d]);
    parsed
}

/// Some of the bytes of a header; `at` is a constant inside it.
#[inline(always)]
fn part<const N: usize, const M: usize>(bytes: &[u8; M], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

#[inline(always)]
const fn unreadable(fault: Reason, family: u16) -> Parsed {
    Parsed {
        source: Addr { halves: [0, 0] },
        addr: Addr { halves: [0, 0] },
        source_port: 0,
        port: 0,
        protocol: 0,
        family,
        transport: 0,
        fault,
    }
}

/// What a TCP segment carries.
pub struct Segment {
    /// It opens a connection.
    pub syn: bool,
    /// Bytes of data.
    pub data: u32,
}

/// Reads the TCP header of a packet that [`parse`] could read; `None` where it is not whole.
#[inline(always)]
pub fn segment(skb: *mut __sk_buff, parsed: &Parsed) -> Option<Segment> {
    // SAFETY: the program's own context.
    let whole = unsafe { read_volatile(addr_of!((*skb).len)) };
    let [length, flags] = load::<2>(skb, parsed.transport + TCP_LENGTH)?;
    let data = parsed.transport + u32::from(length >> 4) * 4;
    Some(Segment {
        syn: flags & SYN != 0,
        data: whole.checked_sub(data)?,
    })
}

/// Where a TCP header says how long it is; its flags follow (RFC 9293 section 3.1).
const TCP_LENGTH: u32 = 12;
/// Where its flags are.
pub const TCP_FLAGS: usize = 13;
/// The flag of a segment that opens a connection.
pub const SYN: u8 = 0x02;

/// Bytes of the packet from the network header on.
#[inline(always)]
pub fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: `bytes` has room for N bytes; the helper checks the packet's length.
    let result =
        unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    if result != 0 {
        return None;
    }
    // SAFETY: written whole by the helper.
    Some(unsafe { bytes.assume_init() })
}

/// One byte, 0 where there is none: what the helper writes then (`net/core/filter.c`
/// `bpf_skb_load_bytes`). No way of its own for the verifier to follow.
#[inline(always)]
pub fn octet(skb: *mut __sk_buff, offset: u32) -> u8 {
    let mut byte = 0_u8;
    // SAFETY: there is room for one byte; the helper checks the packet's length.
    let _nothing_there =
        unsafe { bpf_skb_load_bytes(skb.cast(), offset, addr_of_mut!(byte).cast(), 1) };
    byte
}
