//! The verdict about a hello whose name [`super::name`] read, and what follows from it.
//!
//! A program of its own: a name may end behind each of its octets, and up to Linux 6.1 the verifier
//! would follow all that is here behind each of those ends (more than a million instructions,
//! which is too many).

use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::{EbpfContext as _, bindings::bpf_sock, programs::SkBuffContext};
use egress_common::{
    abi::{RULE_NONE, TCP, program},
    decide::{Flow, refused},
    grant::SocketState,
    hello::Hello,
    sni::{NameKey, by_name},
    verdict::{Action, Layer, Reason, Verdict},
};

use super::{PASS, REFUSE, packet::call, sni::pass};
use crate::{
    emit, header,
    lookup::Maps,
    scratch::{self, Scratch},
    socket,
};

/// Decides a packet with a hello, or with something that should have been one.
#[inline(always)]
pub fn judge(ctx: &SkBuffContext) -> i32 {
    let sk = socket::of_packet(ctx.skb.skb);
    if sk.is_null() {
        return REFUSE;
    }
    // SAFETY: a full socket, not null.
    let (state, kept) = unsafe { (socket::get(sk), scratch::get(sk)) };
    if state.is_null() || kept.is_null() {
        return REFUSE;
    }
    // SAFETY: not null, and this socket's own: TCP sends with the socket locked.
    let kept = unsafe { &mut *kept };
    // SAFETY: not null.
    let verdict = unsafe { verdict(ctx, state, kept) };
    if !matches!(verdict.action, Action::Allow) {
        // SAFETY: not null.
        return unsafe { refuse(ctx, sk, state, kept, &verdict) };
    }
    // SAFETY: not null.
    unsafe {
        if read_volatile(addr_of!((*state).stage)) == SocketState::HELLO {
            emit::passed(verdict.rule, 1, 0, 0);
        }
        let position = read_volatile(addr_of!((*state).position));
        write_volatile(
            addr_of_mut!((*state).position),
            position.wrapping_add(kept.hello_len),
        );
        write_volatile(addr_of_mut!((*state).pending), verdict.rule);
        write_volatile(addr_of_mut!((*state).stage), SocketState::SECOND);
    }
    let more = kept.hello_len < kept.len;
    scratch::forget(sk);
    if more {
        return call(ctx, program::SNI);
    }
    // SAFETY: not null.
    unsafe { pass(state, ctx.len()) };
    PASS
}

/// The verdict about a whole hello.
///
/// # Safety
///
/// `state` is a record of the socket map, not null.
#[inline(always)]
unsafe fn verdict(ctx: &SkBuffContext, state: *const SocketState, kept: &mut Scratch) -> Verdict {
    let fault = Reason::from_code(kept.fault as u8).unwrap_or(Reason::SniMalformed);
    if kept.name_len == 0 || !matches!(fault, Reason::None) {
        return Verdict::deny(fault, RULE_NONE);
    }
    // SAFETY: not null; the connector is written once, when the socket was made.
    let port = unsafe {
        kept.query.key.connector = (*state).connector as u16;
        u16::from_be(read_volatile(addr_of!((*state).port_be)))
    };
    kept.query.bits = NameKey::ALL_BITS;
    let encrypted = kept.marks & Hello::ENCRYPTED != 0;
    let verdict = by_name(&kept.query, port, encrypted, &maps(ctx));
    if matches!(verdict.action, Action::Allow) && kept.marks & Hello::EARLY != 0 {
        return Verdict::deny(Reason::SniEarlyData, verdict.rule);
    }
    verdict
}

/// Refuses the connection for good, with the one event about it. Where the connector is only
/// audited, it goes on under the rule that permits the address.
///
/// # Safety
///
/// As for [`verdict`]; `sk` is a full socket, not null.
#[inline(always)]
unsafe fn refuse(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    state: *mut SocketState,
    kept: &Scratch,
    verdict: &Verdict,
) -> i32 {
    // SAFETY: not null; these are written once, when the socket was made.
    let (connector, pid, uid) = unsafe { ((*state).connector, (*state).pid, (*state).uid) };
    let verdict = refused(connector, verdict.reason, verdict.rule, &maps(ctx));
    let parsed = header::parse(ctx.skb.skb);
    let flow = Flow {
        addr: parsed.addr,
        connector,
        port: parsed.port,
        protocol: TCP,
        layer: Layer::Sni,
        inbound: false,
        local_port: parsed.source_port,
        ifindex: 0,
    };
    let process = emit::Process::maker(pid, uid);
    emit::sni_denial(ctx, &flow, &verdict, &process, &parsed, kept);
    scratch::forget(sk);
    // SAFETY: not null.
    unsafe {
        if matches!(verdict.action, Action::Audit) {
            socket::open(state, SocketState::PLAIN);
            pass(state, ctx.len());
            return PASS;
        }
        write_volatile(addr_of_mut!((*state).stage), SocketState::STRANGER);
    }
    REFUSE
}

#[inline(always)]
fn maps(ctx: &SkBuffContext) -> Maps {
    Maps {
        ctx: ctx.as_ptr(),
        own: Some(false),
    }
}
