//! `socket()`: only what the other hooks can judge is made at all.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::programs::SockContext;
use egress_common::{
    abi::RULE_NONE,
    decide::{Flow, Lookup as _, refused},
    socket::is_internet,
    verdict::{Layer, Reason, Verdict},
};

use super::{PASS, REFUSE, answer};
use crate::{emit, lookup::Maps, socket};

/// Lets TCP, MPTCP and UDP sockets of a connector through and gives each its record.
#[inline(always)]
pub fn create(ctx: &SockContext) -> i32 {
    // SAFETY: the program's own context; these fields are readable in `sock_create`.
    let (family, kind, protocol) = unsafe {
        (
            read_volatile(addr_of!((*ctx.sock).family)),
            read_volatile(addr_of!((*ctx.sock).type_)),
            read_volatile(addr_of!((*ctx.sock).protocol)),
        )
    };
    let connector = socket::current_connector();
    let maps = Maps {
        ctx: ctx.sock.cast(),
        own: Some(false),
    };
    let mode = maps
        .connector(connector)
        .map_or(0, |connector| connector.mode);
    if mode == 0 {
        return refuse(connector, Reason::UnknownConnector, protocol, family);
    }
    // The kernel has put the type's own protocol in the place of 0.
    let known = is_internet(kind, protocol);
    if !known && !switched_off() {
        let verdict = refused(connector, Reason::SocketType, RULE_NONE, &maps);
        if tell(connector, &verdict, protocol, family) == REFUSE {
            return REFUSE;
        }
    }
    let mut state = socket::new_state(connector);
    // SAFETY: the context's socket.
    if unsafe { socket::get_or_create(ctx.sock, &mut state) }.is_null() {
        return refuse(connector, Reason::NoMemory, protocol, family);
    }
    PASS
}

/// Whether a test has taken this hook's refusals away.
#[inline(always)]
fn switched_off() -> bool {
    #[cfg(feature = "test-switches")]
    return crate::maps::SOCKET_OPEN.load() != 0;
    #[cfg(not(feature = "test-switches"))]
    false
}

/// Refuses whatever the mode: without a connector or a record nothing could be judged later.
#[inline(always)]
fn refuse(connector: u32, reason: Reason, protocol: u32, family: u32) -> i32 {
    tell(
        connector,
        &Verdict::deny(reason, RULE_NONE),
        protocol,
        family,
    )
}

#[inline(always)]
fn tell(connector: u32, verdict: &Verdict, protocol: u32, family: u32) -> i32 {
    let flow = Flow {
        protocol: if protocol > 255 { 255 } else { protocol as u8 },
        ..Flow::nowhere(connector, Layer::Socket)
    };
    emit::denial(&flow, verdict, &emit::Process::current(), family as u8);
    answer(verdict)
}
