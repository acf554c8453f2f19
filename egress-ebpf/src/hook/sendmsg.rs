//! `sendto()`, `sendmsg()`, `sendmmsg()` with an address on a UDP socket.
//!
//! Nothing is remembered as approved here: several threads may send on one socket without a
//! lock, so each packet is decided again by the packet hook.

use aya_ebpf::{EbpfContext as _, programs::SockAddrContext};
use egress_common::{
    decide::{Flow, decide},
    verdict::{Action, Layer, Reason},
};

use super::{PASS, REFUSE, connect};
use crate::{
    emit,
    flow::{self, Family},
    lookup::Maps,
};

/// Decides a datagram by its address.
#[inline(always)]
pub fn sendmsg(ctx: &SockAddrContext, family: Family) -> i32 {
    let mut flow = Flow {
        addr: flow::destination(ctx, family),
        connector: 0,
        port: flow::port(ctx),
        protocol: flow::protocol(ctx) as u8,
        layer: Layer::Sendmsg,
        inbound: false,
        local_port: 0,
        ifindex: 0,
    };
    // A connected socket that sends with a control message comes here without an address, which
    // shows as zeros (`net/ipv4/udp.c`, `net/ipv6/udp.c`; with an address port 0 is refused before).
    // What it is connected to was decided, and the packet is.
    if flow.port == 0 && flow::is_unspecified(ctx, family) {
        return PASS;
    }
    let state = connect::state_of(ctx);
    if state.is_null() {
        return connect::refuse(&flow, Reason::NoMemory, family);
    }
    // SAFETY: not null; the connector is written once, when the record is made.
    flow.connector = unsafe { (*state).connector };
    let maps = Maps {
        ctx: ctx.as_ptr(),
        own: Some(false),
    };
    let verdict = decide(&flow, &maps);
    match verdict.action {
        Action::Allow => {}
        Action::Redirect if connect::to_door(ctx, family, &flow, &maps, state) => return PASS,
        Action::Redirect => return connect::refuse(&flow, Reason::ResolverGone, family),
        Action::Deny | Action::Audit | Action::Check => {
            emit::denial(
                &flow,
                &verdict,
                &emit::Process::current(),
                family.code() as u8,
            );
            if !matches!(verdict.action, Action::Audit) {
                return REFUSE;
            }
        }
    }
    if flow::is_unspecified(ctx, family) {
        flow::set_destination(ctx, family, &flow.addr);
    }
    PASS
}
