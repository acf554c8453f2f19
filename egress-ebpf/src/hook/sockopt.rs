//! `setsockopt()`: options that lead a packet elsewhere than its address says, or carry data
//! where the packet hook does not look, are refused. Option numbers are those of
//! `include/uapi/linux/in.h`, `in6.h`, `tcp.h`, `udp.h` and `asm-generic/socket.h`.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{EbpfContext as _, programs::SockoptContext};
use egress_common::{
    abi::RULE_NONE,
    decide::{Flow, refused},
    verdict::{Layer, Reason},
};

use super::{PASS, answer};
use crate::{emit, lookup::Maps, socket};

const SOL_SOCKET: i32 = 1;
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
    if !leads_away(level, option) {
        return PASS;
    }
    // SAFETY: the context's socket.
    let state = unsafe { socket::get((*ctx.sockopt).__bindgen_anon_1.sk) };
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
        local_port: 0,
    };
    let flow = Flow {
        port: option as u16,
        ..Flow::nowhere(connector, Layer::Socket)
    };
    let verdict = refused(connector, Reason::SocketOption, RULE_NONE, &maps);
    emit::denial(&flow, &verdict, &process, 0);
    answer(&verdict)
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
