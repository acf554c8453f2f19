//! `setsockopt()`: options that lead a packet elsewhere than its address says, or carry data
//! where the packet hook does not look, are refused. Option numbers are those of
//! `include/uapi/linux/in.h`, `in6.h`, `tcp.h`, `udp.h` and `asm-generic/socket.h`.

use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::{EbpfContext as _, programs::SockoptContext};
use egress_common::{
    abi::RULE_NONE,
    decide::{Flow, Lookup as _, joins, refused},
    grant::{Connector, SocketState},
    key::Addr,
    verdict::{Action, Layer, Reason, Verdict},
};

use super::{PASS, answer};
use crate::{emit, lookup::Maps, socket};

const SOL_SOCKET: i32 = 1;
const SO_BROADCAST: i32 = 6;
const SO_REUSEPORT: i32 = 15;
const TCP_DEFER_ACCEPT: i32 = 9;
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
    let group = group_of(ctx, level, option);
    let state = if group.is_some() || leads_away(level, option) {
        // SAFETY: the context's socket.
        unsafe { socket::get(sk) }
    } else if is_idle(level, option) && is_on(ctx) {
        // SAFETY: the context's socket, and its type is readable.
        let (state, kind) = unsafe { (socket::get(sk), read_volatile(addr_of!((*sk).type_))) };
        // SAFETY: a record of the map, or null.
        if unsafe { is_without_effect(ctx, option, kind, state) } {
            // The kernel leaves it at that and says that it was set
            // (`__cgroup_bpf_run_filter_setsockopt()`, kernel/bpf/cgroup.c).
            // SAFETY: the program's own context; the field may be written.
            unsafe { write_volatile(addr_of_mut!((*ctx.sockopt).optlen), -1) };
            return PASS;
        }
        // SAFETY: as above.
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
        own: Some(false),
    };
    let mut flow = Flow {
        port: option as u16,
        protocol: level as u8,
        ..Flow::nowhere(connector, Layer::Socket)
    };
    let mut verdict = Verdict::deny(Reason::SocketOption, RULE_NONE);
    if let Some(group) = group {
        flow.addr = group;
        verdict = joins(connector, group, &maps);
        if matches!(verdict.action, Action::Allow) {
            return PASS;
        }
    }
    let verdict = refused(connector, verdict.reason, verdict.rule, &maps);
    emit::denial(&flow, &verdict, &process, 0);
    answer(&verdict)
}

/// The group that a datagram socket is to join or to leave; `None`: it is another option, or too
/// short to tell. Joins with a choice of sources are none: reports carry those, too.
#[inline(always)]
fn group_of(ctx: &SockoptContext, level: i32, option: i32) -> Option<Addr> {
    // Where the address is in `struct ip_mreqn`, `ipv6_mreq` and `group_req`.
    match (level, option) {
        // IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP.
        (SOL_IP, 35 | 36) => v4(ctx, 0),
        // IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP.
        (SOL_IPV6, 20 | 21) => v6(ctx, 0),
        // MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP.
        (SOL_IP, 42 | 45) => v4(ctx, 12),
        (SOL_IPV6, 42 | 45) => v6(ctx, 16),
        _ => None,
    }
}

#[inline(always)]
fn v4(ctx: &SockoptContext, offset: usize) -> Option<Addr> {
    Some(Addr::from_v4(u32::from_be(word(ctx, offset)?)))
}

#[inline(always)]
fn v6(ctx: &SockoptContext, offset: usize) -> Option<Addr> {
    let (a, b) = (word(ctx, offset)?, word(ctx, offset + 4)?);
    let (c, d) = (word(ctx, offset + 8)?, word(ctx, offset + 12)?);
    let join = |high: u32, low: u32| u64::from(high.to_be()) << 32 | u64::from(low.to_be());
    Some(Addr::from_v6(join(a, b), join(c, d)))
}

/// Four bytes of the kernel's copy of the value.
#[inline(always)]
fn word(ctx: &SockoptContext, offset: usize) -> Option<u32> {
    // SAFETY: the program's own context; the value lies between these two.
    let (value, end) = unsafe {
        (
            (*ctx.sockopt).__bindgen_anon_2.optval as usize,
            (*ctx.sockopt).__bindgen_anon_3.optval_end as usize,
        )
    };
    if value + offset + 4 > end {
        return None;
    }
    // SAFETY: inside the value by the comparison.
    Some(unsafe { read_volatile((value + offset) as *const u32) })
}

/// Whether a number that is not zero is to be set.
#[inline(always)]
fn is_on(ctx: &SockoptContext) -> bool {
    word(ctx, 0).is_none_or(|value| value != 0)
}

/// Options that runtimes set without being asked, and that must do nothing: refused, they would make
/// a line at each start of a Go or Java program.
///
/// A stream socket shares its port with nobody: with `SO_REUSEPORT` the kernel deals calls out to
/// everybody of that user at the port, and may hand accepted connections of one that closes to
/// another (`net.ipv4.tcp_migrate_req`). A datagram socket does not broadcast where no rule could
/// mean that; then the kernel refuses broadcast addresses with `EACCES`. A listener does not wait for
/// data before it completes a call (`TCP_DEFER_ACCEPT`), for none is let through to it before that.
///
/// # Safety
///
/// As for [`is_harmless`].
#[inline(always)]
unsafe fn is_without_effect(
    ctx: &SockoptContext,
    option: i32,
    kind: u32,
    state: *const SocketState,
) -> bool {
    if state.is_null() {
        return kind == SOCK_STREAM;
    }
    let maps = Maps {
        ctx: ctx.as_ptr(),
        own: Some(false),
    };
    // SAFETY: not null; written once, when the socket was made.
    let connector = maps.connector(unsafe { (*state).connector });
    let (mode, flags) = connector.map_or((Connector::ENFORCE, 0), |it| (it.mode, it.flags));
    if mode == Connector::AUDIT {
        return false;
    }
    if matches!(option, SO_REUSEPORT | TCP_DEFER_ACCEPT) {
        return kind == SOCK_STREAM;
    }
    kind != SOCK_STREAM && flags & Connector::BROADCASTS == 0
}

/// Of these options, what may be set: not a broadcast by a datagram socket that was let connect to
/// an unknown address, see [`super::connect`].
///
/// # Safety
///
/// `state` is a record of the socket map, or null; the hook runs with the socket locked.
#[inline(always)]
unsafe fn is_harmless(option: i32, kind: u32, state: *mut SocketState) -> bool {
    if option == SO_REUSEPORT || kind == SOCK_STREAM {
        return true;
    }
    if state.is_null() {
        return false;
    }
    // SAFETY: not null; see above.
    let before = unsafe { socket::mark(state, SocketState::BROADCASTS) };
    before & SocketState::STRAYED == 0
}

/// Options that may have to do nothing, see [`is_without_effect`].
#[inline(always)]
fn is_idle(level: i32, option: i32) -> bool {
    match level {
        SOL_SOCKET => matches!(option, SO_BROADCAST | SO_REUSEPORT),
        SOL_TCP => option == TCP_DEFER_ACCEPT,
        _ => false,
    }
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
            // Memberships and filters: IGMP reports carry their addresses. IP_MULTICAST_IF does
            // not matter: it is for groups alone, and those need a rule.
            | 35
                ..=48
            // IP_UNICAST_IF: another interface.
            | 50
        ),
        SOL_IPV6 => matches!(
            option,
            // IPV6_2292PKTINFO, HOPOPTS, DSTOPTS, RTHDR, PKTOPTIONS, and NEXTHOP.
            2..=6 | 9
            // Memberships, ROUTER_ALERT, anycast. IPV6_MULTICAST_IF: as for IPv4.
            | 20..=22 | 27 | 28
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
