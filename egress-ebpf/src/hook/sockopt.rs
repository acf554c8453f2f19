//! `setsockopt()`: options that lead a packet elsewhere than its address says, or carry data
//! where the packet hook does not look, are refused. Option numbers are those of
//! `include/uapi/linux/in.h`, `in6.h`, `tcp.h`, `udp.h` and `asm-generic/socket.h`.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{EbpfContext as _, programs::SockoptContext};
use egress_common::{
    abi::RULE_NONE,
    decide::{Flow, refused},
    grant::SocketState,
    verdict::{Layer, Reason},
};

use super::{PASS, answer};
use crate::{emit, lookup::Maps, socket};

const SOL_SOCKET: i32 = 1;
const SO_BROADCAST: i32 = 6;
const SO_REUSEPORT: i32 = 15;
/// `include/linux/net.h`.
const SOCK_STREAM: u32 = 1;
const SOL_IP: i32 = 0;
const SOL_TCP: i32 = 6;
const SOL_UDP: i32 = 17;
const SOL_IPV6: i32 = 41;

/// Decides a `setsockopt()`.
#[inline(always)]
pub fn setsockopt(ctx: &SockoptContext) -> i32 {
    // SAFETY: the program's own context; these fields are readable.
    let (level, option) = unsafe {
        (
            read_volatile(addr_of!((*ctx.sockopt).level)),
            read_volatile(addr_of!((*ctx.sockopt).optname)),
        )
    };
    // SAFETY: the context's socket.
    let sk = unsafe { (*ctx.sockopt).__bindgen_anon_1.sk };
    let state = if leads_away(level, option) {
        // SAFETY: the context's socket.
        unsafe { socket::get(sk) }
    } else if level == SOL_SOCKET && matches!(option, SO_BROADCAST | SO_REUSEPORT) && is_on(ctx) {
        // SAFETY: the context's socket, and its type is readable.
        let (state, kind) = unsafe { (socket::get(sk), read_volatile(addr_of!((*sk).type_))) };
        // SAFETY: a record of the map, or null.
        if unsafe { is_harmless(option, kind, state) } {
            return PASS;
        }
        state
    } else {
        return PASS;
    };
    // Linux 5.10 does not tell this hook who calls, so the socket's maker is named.
    let (connector, process) = if state.is_null() {
        (0, emit::Process::maker(0, 0))
    } else {
        // SAFETY: not null; written once, when the socket was made.
        unsafe {
            (
                (*state).connector,
                emit::Process::maker((*state).pid, (*state).uid),
            )
        }
    };
    let maps = Maps {
        ctx: ctx.as_ptr(),
        packet: None,
    };
    let flow = Flow {
        port: option as u16,
        ..Flow::nowhere(connector, Layer::Socket)
    };
    let verdict = refused(connector, Reason::SocketOption, RULE_NONE, &maps);
    emit::denial(&flow, &verdict, &process, 0);
    answer(&verdict)
}

/// Whether a number that is not zero is to be set.
#[inline(always)]
fn is_on(ctx: &SockoptContext) -> bool {
    // SAFETY: the program's own context; the kernel's copy of the value is between these two.
    let (value, end) = unsafe {
        (
            (*ctx.sockopt).__bindgen_anon_2.optval as usize,
            (*ctx.sockopt).__bindgen_anon_3.optval_end as usize,
        )
    };
    // SAFETY: inside the value by the comparison.
    value + 4 > end || unsafe { read_volatile(value as *const u32) } != 0
}

/// Options that are refused at times.
///
/// A stream socket shares its port with nobody: with `SO_REUSEPORT` the kernel deals calls out to
/// everybody of that user at the port, and may hand accepted connections of one that closes to
/// another (`net.ipv4.tcp_migrate_req`). A datagram socket may broadcast, but not one that was
/// let connect to an unknown address, see [`super::connect`].
///
/// # Safety
///
/// `state` is a record of the socket map, or null; the hook runs with the socket locked.
#[inline(always)]
unsafe fn is_harmless(option: i32, kind: u32, state: *mut SocketState) -> bool {
    if option == SO_REUSEPORT {
        return kind != SOCK_STREAM;
    }
    if state.is_null() {
        return kind == SOCK_STREAM;
    }
    // SAFETY: not null; see above.
    let before = unsafe { socket::mark(state, SocketState::BROADCASTS) };
    before & SocketState::STRAYED == 0
}

/// Options by what they do.
#[inline(always)]
fn leads_away(level: i32, option: i32) -> bool {
    match level {
        SOL_SOCKET => matches!(
            option,
            // SO_DONTROUTE, SO_BINDTODEVICE, SO_MARK, SO_BINDTOIFINDEX: another route.
            5 | 25 | 36 | 62
        ),
        SOL_IP => matches!(
            option,
            // IP_OPTIONS: source routes. IP_FREEBIND, IP_TRANSPARENT: foreign sources.
            4 | 15 | 19
            // IP_MULTICAST_IF, memberships and filters: IGMP reports carry their addresses.
            | 32 | 35
                ..=48
            // IP_UNICAST_IF: another interface.
            | 50
        ),
        SOL_IPV6 => matches!(
            option,
            // IPV6_2292PKTINFO, HOPOPTS, DSTOPTS, RTHDR, PKTOPTIONS, and NEXTHOP.
            2..=6 | 9
            // IPV6_MULTICAST_IF, memberships, ROUTER_ALERT, anycast.
            | 17 | 20..=22 | 27 | 28
            // IPV6_FLOWLABEL_MGR, IPV6_HDRINCL: bytes of the header.
            | 32 | 36
            // Memberships and filters, as for IPv4.
            | 42..=48
            // IPV6_PKTINFO, HOPOPTS, RTHDRDSTOPTS, RTHDR, DSTOPTS.
            | 50 | 54 | 55 | 57 | 59
            // IPV6_TRANSPARENT, IPV6_UNICAST_IF, IPV6_FREEBIND.
            | 75 | 76 | 78
        ),
        SOL_TCP => matches!(
            option,
            // TCP_REPAIR and its queues: a connection that no connect() made.
            // TCP_ULP: other protocols inside a TCP socket.
            19..=22 | 31
        ),
        // UDP_ENCAP: the kernel makes other packets of these.
        SOL_UDP => option == 100,
        _ => false,
    }
}
