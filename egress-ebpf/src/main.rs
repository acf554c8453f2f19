//! The data plane: cgroup programs that refuse every outbound flow without a grant.
//!
//! This file names the hooks; each hook's story is in [`hook`]. All of them are attached
//! once, at the parent cgroup of a data-plane instance, before any process is put below it; those
//! of the security modules once the launcher has given up its rights.
//! Return values: 1 lets the call or packet pass, 0 refuses it with `EPERM`.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    reason = "the entry-point macros drop the docs they are given"
)]

mod datagram;
mod emit;
mod flow;
mod header;
mod hook;
mod kin;
mod lookup;
mod maps;
mod memory;
mod own;
mod resolver;
mod scratch;
mod socket;
mod vague;

use aya_ebpf::{
    macros::{
        cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, lsm_cgroup, sk_lookup, sock_ops,
        socket_filter,
    },
    programs::{
        LsmContext, SkBuffContext, SkLookupContext, SockAddrContext, SockContext, SockOpsContext,
        SockoptContext,
    },
};

/// `connect()` on an `AF_INET` socket.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    hook::connect::connect(&ctx, flow::Family::V4)
}

/// `connect()` on an `AF_INET6` socket.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    hook::connect::connect(&ctx, flow::Family::V6)
}

/// `sendto()` and relatives with an IPv4 address on a UDP socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    hook::sendmsg::sendmsg(&ctx, flow::Family::V4)
}

/// `sendto()` and relatives with an IPv6 address on a UDP socket.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    hook::sendmsg::sendmsg(&ctx, flow::Family::V6)
}

/// The source address of a received IPv4 datagram.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    hook::recvmsg::restore(&ctx, flow::Family::V4)
}

/// The source address of a received IPv6 datagram.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    hook::recvmsg::restore(&ctx, flow::Family::V6)
}

/// `getpeername()` on an `AF_INET` socket.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    hook::recvmsg::restore(&ctx, flow::Family::V4)
}

/// `getpeername()` on an `AF_INET6` socket.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    hook::recvmsg::restore(&ctx, flow::Family::V6)
}

/// `socket()` for `AF_INET` and `AF_INET6`.
#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    hook::socket::create(&ctx)
}

/// `setsockopt()` on any socket.
#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    hook::sockopt::setsockopt(&ctx)
}

/// `connect()` on an `AF_UNIX` socket (Linux 6.7). In the section of another hook, because
/// aya knows no name for this one; the agent loads it by itself, with the right type.
#[cgroup_sock_addr(connect4)]
pub fn connect_unix(ctx: SockAddrContext) -> i32 {
    hook::unix::decide(&ctx)
}

/// `sendto()` and relatives with an address on an `AF_UNIX` socket; as `connect_unix`.
#[cgroup_sock_addr(connect4)]
pub fn sendmsg_unix(ctx: SockAddrContext) -> i32 {
    hook::unix::decide(&ctx)
}

/// Every packet of every socket below the parent, on its way out.
#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    hook::packet::egress(&ctx)
}

/// Every packet to a socket below the parent, before the kernel takes it.
#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    hook::ingress::ingress(&ctx)
}

/// Packets that the fast path of `egress` does not take; called by it.
#[cgroup_skb(egress)]
pub fn strict(ctx: SkBuffContext) -> i32 {
    hook::strict::strict(&ctx)
}

/// Packets to the connector's DNS proxy; called by `strict`.
#[cgroup_skb(egress)]
pub fn resolver(ctx: SkBuffContext) -> i32 {
    hook::resolver::reach(&ctx)
}

/// Packets of connections whose name is not checked yet; called by `egress`.
#[cgroup_skb(egress)]
pub fn sni(ctx: SkBuffContext) -> i32 {
    hook::sni::check(&ctx)
}

/// The name in a ClientHello; called by `sni`.
#[cgroup_skb(egress)]
pub fn name(ctx: SkBuffContext) -> i32 {
    hook::name::read(&ctx)
}

/// The verdict about a ClientHello; called by `name`.
#[cgroup_skb(egress)]
pub fn judge(ctx: SkBuffContext) -> i32 {
    hook::judge::judge(&ctx)
}

/// Every packet to a socket of a DNS proxy.
#[socket_filter]
pub fn admit(ctx: SkBuffContext) -> i64 {
    hook::resolver::admit(&ctx)
}

/// The life of a TCP socket: a connection to the forwarder begins or ends.
#[sock_ops]
pub fn proxy_note(ctx: SockOpsContext) -> u32 {
    hook::proxy::note(&ctx)
}

/// A TCP connection that comes in anywhere in the network namespace.
#[sk_lookup]
pub fn proxy_steer(ctx: SkLookupContext) -> u32 {
    hook::proxy::steer(&ctx)
}

/// Any socket, of any family.
#[lsm_cgroup(hook = "socket_create")]
pub fn lsm_socket_create(ctx: LsmContext) -> i32 {
    hook::lsm::plain(hook::lsm::socket_create(&ctx))
}

/// A descriptor from another process.
#[lsm_cgroup(hook = "file_receive")]
pub fn lsm_file_receive(ctx: LsmContext) -> i32 {
    hook::lsm::plain(hook::lsm::file_receive(&ctx))
}

/// Access to another process.
#[lsm_cgroup(hook = "ptrace_access_check")]
pub fn lsm_ptrace_access_check(ctx: LsmContext) -> i32 {
    hook::lsm::plain(hook::lsm::ptrace_access_check(&ctx))
}

/// The use of a capability.
#[lsm_cgroup(hook = "capable")]
pub fn lsm_capable(ctx: LsmContext) -> i32 {
    hook::lsm::plain(hook::lsm::capable(&ctx))
}

/// A new key.
#[lsm_cgroup(hook = "key_alloc")]
pub fn lsm_key_alloc(ctx: LsmContext) -> i32 {
    hook::lsm::plain(hook::lsm::key_alloc(&ctx))
}

/// A new process.
#[lsm_cgroup(hook = "task_alloc")]
pub fn lsm_task_alloc(ctx: LsmContext) -> i32 {
    hook::lsm::plain(hook::lsm::task_alloc(&ctx))
}

/// A file that is opened.
#[lsm_cgroup(hook = "file_open")]
pub fn lsm_file_open(ctx: LsmContext) -> i32 {
    hook::lsm::plain(hook::lsm::file_open(&ctx))
}

/// io_uring (Linux 6.16).
#[lsm_cgroup(hook = "uring_allowed")]
pub fn lsm_uring_allowed(_ctx: LsmContext) -> i32 {
    hook::lsm::plain(hook::lsm::uring())
}

/// An io_uring with a thread of the kernel's that submits.
#[lsm_cgroup(hook = "uring_sqpoll")]
pub fn lsm_uring_sqpoll(_ctx: LsmContext) -> i32 {
    hook::lsm::plain(hook::lsm::uring())
}

/// The kernel allows some helpers to programs with a GPL-compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A reachable panic is an endless loop, which the verifier refuses: what loads cannot panic.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
