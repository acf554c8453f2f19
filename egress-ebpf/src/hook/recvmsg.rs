//! The way back: a program that asked a DNS server sees that server, not the door.

use aya_ebpf::programs::SockAddrContext;
use egress_common::grant::Connector;

use super::PASS;
use crate::{
    flow::{self, Family},
    maps::CONNECTORS,
    socket,
};

/// Puts the address the program asked in place of the door's, for `recvmsg()` and
/// `getpeername()`. Anything else stays as it is: these hooks decide nothing.
#[inline(always)]
pub fn restore(ctx: &SockAddrContext, family: Family) -> i32 {
    // SAFETY: the context's socket.
    let state = unsafe { socket::get(flow::sock(ctx)) };
    if state.is_null() {
        return PASS;
    }
    // SAFETY: not null; see `hook::connect::to_door` for the writer.
    let (connector, asked, port, asked_family) = unsafe {
        (
            (*state).connector,
            (*state).asked_addr,
            (*state).asked_port_be,
            (*state).asked_family,
        )
    };
    if asked_family != family.code() {
        return PASS;
    }
    let Some(connector) = CONNECTORS.get(connector) else {
        return PASS;
    };
    if is_door(ctx, family, connector) {
        flow::rewrite(ctx, family, asked);
        flow::set_port_be(ctx, port);
    }
    PASS
}

#[inline(always)]
fn is_door(ctx: &SockAddrContext, family: Family, connector: &Connector) -> bool {
    let from = flow::destination(ctx, family);
    flow::port(ctx) == connector.door_port
        && (from == connector.door_v6 || from.v4() == Some(connector.door_v4))
}
