//! Who would get what a connector sends to loopback by TCP: itself, or somebody else.
//!
//! A port says nothing: a listener closes and another opens, and a connection can have the port of
//! a listener at its end. So the receiving socket is looked up as the kernel's input path does it
//! (`net/ipv4/tcp_ipv4.c` `tcp_v4_rcv`), by all four of its addresses and ports, when a packet
//! leaves, and its cgroup decides.
//!
//! What has data in it needs a complete connection there. Between the look-up and the delivery that
//! may end; then the packet meets a listener at most, and a listener takes data from nobody without a
//! handshake. The one exception are SYN cookies (`net/ipv4/syncookies.c` `cookie_v4_check`): any
//! segment whose numbers are those of a cookie is a handshake, and a cookie of one listener is good
//! for every other at that port that had too many calls of late. So no connection of a connector with
//! itself may have a cookie's numbers: [`is_cookie`] keeps its calls from being answered with one, and
//! [`completes_cookie`] its listeners from taking one. Then its numbers are random.

use core::{
    ffi::c_void,
    ptr::{addr_of, read_volatile},
};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{
        bpf_sk_ancestor_cgroup_id, bpf_sk_lookup_tcp, bpf_sk_release, bpf_skc_lookup_tcp,
        bpf_tcp_sock,
    },
};
use egress_common::{decide::Flow, verdict::Reason};

use crate::{
    header::{self, Parsed},
    maps::CONNECTOR_LEVEL,
    resolver::{CURRENT_NETNS, End, from_anywhere, tuple},
    socket,
};

/// `BPF_TCP_TIME_WAIT`, `include/uapi/linux/bpf.h`.
const TIME_WAIT: u32 = 6;
/// `BPF_TCP_LISTEN`.
const LISTEN: u32 = 10;
/// `BPF_TCP_NEW_SYN_RECV`: a call that is answered and not complete.
const NEW_SYN_RECV: u32 = 12;
/// Bytes that the peer has to have taken in. One would do, and the kernel counts the SYN as one
/// more; a probe of an idle connection has the number of the byte before the last.
const SETTLED: u64 = 4;

/// Whether the connector listens on the loopback destination of a `connect()`. A hint, so that the
/// program is told at once; what leaves is decided by [`receiver`].
#[inline(always)]
pub fn listens(ctx: *mut c_void, flow: &Flow) -> bool {
    // No connection has port 0 at its other end, so that only listeners are found.
    let to = End {
        addr: flow.addr,
        port: flow.port,
    };
    let (mut tuple, size) = tuple(&from_anywhere(&to), &to);
    // SAFETY: context and tuple are the program's own; the socket is released below.
    unsafe {
        let sk = bpf_sk_lookup_tcp(ctx, &mut tuple, size, CURRENT_NETNS, 0);
        if sk.is_null() {
            return false;
        }
        // This hook cannot ask for a socket's cgroup (`net/core/filter.c`
        // `sock_addr_func_proto`), but listeners of `socket()` have a record.
        let state = socket::get(sk);
        let owner = if state.is_null() {
            0
        } else {
            (*state).connector
        };
        bpf_sk_release(sk.cast());
        owner == flow.connector
    }
}

/// Who takes a packet.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Receiver {
    /// Somebody else, or nobody.
    Other,
    /// The connector itself.
    Own,
    /// A call of the connector's own to itself that is not complete: what is sent to it now may become
    /// somebody else's. TCP sends it again.
    Opening,
}

/// Who takes a packet that goes to loopback.
#[inline(always)]
pub fn receiver(skb: *mut __sk_buff, packet: &Parsed, connector: u32) -> Receiver {
    let (syn, data) = match header::segment(skb, packet) {
        Some(segment) => (segment.syn, segment.data != 0),
        None => return Receiver::Other,
    };
    if syn && data {
        return Receiver::Other;
    }
    let (state, owner) = takes(skb, packet, packet.source_port);
    let own = match state {
        // Nobody is told anything but that there was a connection.
        NOBODY | TIME_WAIT if !syn => !data,
        // The kernel gives such a SYN to the listener.
        TIME_WAIT => takes(skb, packet, 0).1 == connector,
        LISTEN if data => false,
        NEW_SYN_RECV if data && owner == connector => return Receiver::Opening,
        _ => owner == connector,
    };
    if own { Receiver::Own } else { Receiver::Other }
}

/// Whether the answer to a call over loopback is a SYN cookie of the connector's own, which its
/// listener would not take. The kernel keeps nothing of a call that it answers so, and finds the
/// listener where it would find the call. As if there were no cookies, the call is made again.
#[inline(always)]
pub fn is_cookie(skb: *mut __sk_buff, packet: &Parsed, connector: u32) -> bool {
    if !matches!(packet.fault, Reason::None) || !packet.source.is_loopback() {
        return false;
    }
    if header::segment(skb, packet).is_some_and(|segment| !segment.syn) {
        return false;
    }
    let (state, owner) = other_end(skb, packet);
    state == LISTEN && owner == connector && connector != 0
}

/// Whether a segment that a listener on loopback gets is to complete a handshake by cookie, and comes
/// from the listener's own connector, or from nobody any more. Others that call may do so. Where it
/// comes from says nothing: a program may call loopback from any address of the host.
#[inline(always)]
pub fn completes_cookie(skb: *mut __sk_buff, packet: &Parsed, connector: u32) -> bool {
    if !matches!(packet.fault, Reason::None) || !packet.addr.is_loopback() {
        return false;
    }
    if header::segment(skb, packet).is_some_and(|segment| segment.syn) {
        return false;
    }
    // The kernel shows the listener here for a call that it keeps, too.
    if takes(skb, packet, packet.source_port).0 != LISTEN {
        return false;
    }
    let (state, owner) = other_end(skb, packet);
    state == NOBODY || owner == connector
}

/// Whether the peer of an own connection has taken something in: it was complete, its numbers are no
/// cookie's, and so nobody else can become it.
#[inline(always)]
pub fn is_settled(sk: *mut bpf_sock) -> bool {
    // SAFETY: a full socket, not null; the result is checked.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        !tcp.is_null() && read_volatile(addr_of!((*tcp).bytes_acked)) >= SETTLED
    }
}

/// No socket takes the packet. Not a state of the kernel's.
const NOBODY: u32 = 0;

/// The state of the socket that takes a packet which comes from `port`, and its connector, 0 =
/// none. A socket in its handshake counts as its listener's.
#[inline(always)]
fn takes(skb: *mut __sk_buff, packet: &Parsed, port: u16) -> (u32, u32) {
    let from = End {
        addr: packet.source,
        port,
    };
    let to = End {
        addr: packet.addr,
        port: packet.port,
    };
    found(skb, &from, &to)
}

/// The same of the socket that an answer to a packet would go to.
#[inline(always)]
fn other_end(skb: *mut __sk_buff, packet: &Parsed) -> (u32, u32) {
    let from = End {
        addr: packet.addr,
        port: packet.port,
    };
    let to = End {
        addr: packet.source,
        port: packet.source_port,
    };
    found(skb, &from, &to)
}

#[inline(always)]
fn found(skb: *mut __sk_buff, from: &End, to: &End) -> (u32, u32) {
    let (mut tuple, size) = tuple(from, to);
    // SAFETY: context and tuple are the program's own; the socket is released.
    unsafe {
        let sk = bpf_skc_lookup_tcp(skb.cast(), &mut tuple, size, CURRENT_NETNS, 0);
        if sk.is_null() {
            return (NOBODY, 0);
        }
        let state = read_volatile(addr_of!((*sk).state));
        let cgroup = bpf_sk_ancestor_cgroup_id(sk.cast(), CONNECTOR_LEVEL.load());
        bpf_sk_release(sk.cast());
        (state, socket::by_cgroup(cgroup))
    }
}
