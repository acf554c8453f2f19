//! `connect()`: the verdict by destination, and the way to the DNS door.

use aya_ebpf::{EbpfContext as _, programs::SockAddrContext};
use egress_common::{
    abi::{RULE_DOOR, RULE_NONE, RULE_OWN, UDP},
    decide::{Flow, Lookup as _, decide},
    grant::SocketState,
    key::Addr,
    verdict::{Action, Layer, Reason, Verdict},
};

use super::{PASS, REFUSE};
use crate::{
    emit,
    flow::{self, Family},
    lookup::Maps,
    resolver::{self, End},
    socket::{self, Approval},
};

/// Decides a `connect()`.
#[inline(always)]
pub fn connect(ctx: &SockAddrContext, family: Family) -> i32 {
    let addr = flow::destination(ctx, family);
    let mut flow = Flow {
        addr,
        connector: 0,
        port: flow::port(ctx),
        protocol: flow::protocol(ctx) as u8,
        layer: Layer::Connect,
        inbound: false,
        local_port: 0,
        ifindex: 0,
    };
    let state = state_of(ctx);
    if state.is_null() {
        return refuse(&flow, Reason::NoMemory, family);
    }
    // SAFETY: not null; the connector is written once, when the record is made.
    flow.connector = unsafe { (*state).connector };
    let maps = Maps {
        ctx: ctx.as_ptr(),
        own: None,
    };
    let verdict = decide(&flow, &maps);
    let mut rule = RULE_NONE;
    let mut pending = RULE_NONE;
    let answer = match verdict.action {
        Action::Allow => {
            // The door's packets take the strict path, which notes who asks from where; so do those of
            // the connector to itself, whose receiver is looked up till it is sure (see `own`).
            if !matches!(verdict.rule, RULE_DOOR | RULE_OWN) {
                rule = verdict.rule;
            }
            emit::passed(verdict.rule, 1, 0, 0);
            PASS
        }
        // Counted with its name.
        Action::Check => {
            pending = verdict.rule;
            PASS
        }
        Action::Redirect if to_door(ctx, family, &flow, &maps, state) => PASS,
        Action::Redirect => refuse(&flow, Reason::ResolverGone, family),
        // getaddrinfo() sorts addresses by connecting UDP sockets it never sends on: such a
        // connect passes, and the packet hook decides when something is sent.
        Action::Deny | Action::Audit
            if flow.protocol == UDP
                && !addr.is_multicast()
                && !addr.is_loopback_broadcast()
                // SAFETY: not null, and the hook runs with the socket locked.
                && unsafe { socket::mark(state, SocketState::STRAYED) } & SocketState::BROADCASTS
                    == 0 =>
        {
            PASS
        }
        // But not to where the kernel hands copies to listeners on this host, past the packet hook
        // (`net/ipv4/ip_output.c` `ip_mc_output`): to groups and broadcast addresses. Which
        // address is one of a subnet is not seen here, so a socket that may send to such ones
        // connects to nothing unknown.
        Action::Deny | Action::Audit => {
            let verdict = strayed(&verdict, &flow);
            emit::denial(
                &flow,
                &verdict,
                &emit::Process::current(),
                family.code() as u8,
            );
            if matches!(verdict.action, Action::Audit) {
                PASS
            } else {
                REFUSE
            }
        }
    };
    if answer == PASS && flow::is_unspecified(ctx, family) {
        // What was decided is loopback; left alone, the kernel could take the address the
        // socket is bound to instead.
        flow::set_destination(ctx, family, &addr);
    }
    let approval = Approval {
        addr,
        port_be: flow.port.to_be(),
        protocol: flow.protocol,
        rule,
        pending,
    };
    // SAFETY: not null; connect hooks run with the socket locked.
    unsafe { socket::approve(state, &approval) };
    answer
}

/// A refusal with the reason that is particular to datagrams.
#[inline(always)]
fn strayed(verdict: &Verdict, flow: &Flow) -> Verdict {
    let special = flow.addr.is_multicast() || flow.addr.is_loopback_broadcast();
    if flow.protocol == UDP && !special && matches!(verdict.reason, Reason::NoRule) {
        return Verdict {
            reason: Reason::Broadcast,
            ..*verdict
        };
    }
    *verdict
}

/// Leads a DNS exchange to the connector's door and remembers where the program believes
/// it goes. False where the door is gone: the packet hook would let nothing pass, and a caller
/// would wait.
#[inline(always)]
pub fn to_door(
    ctx: &SockAddrContext,
    family: Family,
    flow: &Flow,
    maps: &Maps,
    state: *mut SocketState,
) -> bool {
    let Some(connector) = maps.connector(flow.connector) else {
        return false;
    };
    let door_v4 = Addr::from_v4(connector.door_v4);
    let door = End {
        addr: match family {
            Family::V4 => door_v4,
            // A mapped address stays mapped: the socket may be bound to an IPv4 address.
            Family::V6 if flow.addr.v4().is_some() => door_v4,
            Family::V6 => connector.door_v6,
        },
        port: connector.door_port,
    };
    let from = resolver::from_anywhere(&door);
    if !resolver::stands(ctx.as_ptr(), flow.connector, flow.protocol, &from, &door) {
        return false;
    }
    let asked = flow::written(ctx, family);
    // SAFETY: not null by the callers' check; only the restoring hooks read these fields,
    // and a torn pair misleads nobody but the program itself.
    unsafe {
        (*state).asked_addr = asked;
        (*state).asked_port_be = flow::port_be(ctx);
        (*state).asked_family = family.code();
    }
    flow::set_destination(ctx, family, &door.addr);
    flow::set_port_be(ctx, door.port.to_be());
    true
}

/// The socket's record. One that was not made by `socket()`, such as a subflow the kernel
/// opens, gets one for the connector of the caller.
#[inline(always)]
pub fn state_of(ctx: &SockAddrContext) -> *mut SocketState {
    let sk = flow::sock(ctx);
    // SAFETY: the context's socket.
    let state = unsafe { socket::get(sk) };
    if !state.is_null() {
        return state;
    }
    let mut initial = socket::new_state(socket::current_connector());
    // SAFETY: the context's socket.
    unsafe { socket::get_or_create(sk, &mut initial) }
}

/// Refuses for a reason that lies outside the tables.
#[inline(always)]
pub fn refuse(flow: &Flow, reason: Reason, family: Family) -> i32 {
    emit::denial(
        flow,
        &Verdict::deny(reason, RULE_NONE),
        &emit::Process::current(),
        family.code() as u8,
    );
    REFUSE
}
