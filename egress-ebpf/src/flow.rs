//! From a hook's context to the flow that is decided, and back.
//!
//! Context fields are read and written one 32-bit word at a time and volatile: the verifier
//! rewrites each access by itself and refuses the merged ones LLVM would otherwise make.

use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    programs::SockAddrContext,
};
use egress_common::key::Addr;

/// `AF_INET`, `include/linux/socket.h`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`, `include/linux/socket.h`.
pub const AF_INET6: u16 = 10;

/// The address family a hook is called for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const fn code(self) -> u16 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }
}

/// The destination in the context, canonical.
#[inline(always)]
pub fn destination(ctx: &SockAddrContext, family: Family) -> Addr {
    match family {
        Family::V4 => Addr::from_v4(u32::from_be(user_ip4(ctx))),
        Family::V6 => {
            let [a, b, c, d] = user_ip6(ctx).map(u32::from_be);
            Addr::from_v6(join(a, b), join(c, d))
        }
    }
}

/// The address as the program wrote it, as words in network order.
#[inline(always)]
pub fn written(ctx: &SockAddrContext, family: Family) -> [u64; 2] {
    match family {
        Family::V4 => [u64::from(user_ip4(ctx)), 0],
        Family::V6 => {
            let [a, b, c, d] = user_ip6(ctx);
            [join(b, a), join(d, c)]
        }
    }
}

/// Writes back an address that [`written`] read.
#[inline(always)]
pub fn rewrite(ctx: &SockAddrContext, family: Family, words: [u64; 2]) {
    match family {
        Family::V4 => set_user_ip4(ctx, words[0] as u32),
        Family::V6 => set_user_ip6(
            ctx,
            [
                words[0] as u32,
                (words[0] >> 32) as u32,
                words[1] as u32,
                (words[1] >> 32) as u32,
            ],
        ),
    }
}

/// Writes a canonical address. An IPv4 one goes to an IPv6 socket in its mapped form.
#[inline(always)]
pub fn set_destination(ctx: &SockAddrContext, family: Family, addr: &Addr) {
    match family {
        Family::V4 => set_user_ip4(ctx, (addr.low() as u32).to_be()),
        Family::V6 => {
            let (high, low) = (addr.high(), addr.low());
            let words = [
                (high >> 32) as u32,
                high as u32,
                (low >> 32) as u32,
                low as u32,
            ];
            set_user_ip6(ctx, words.map(u32::to_be));
        }
    }
}

/// Whether the program wrote the unspecified address, which Linux takes as loopback.
#[inline(always)]
pub fn is_unspecified(ctx: &SockAddrContext, family: Family) -> bool {
    match family {
        Family::V4 => user_ip4(ctx) == 0,
        Family::V6 => {
            let [a, b, c, d] = user_ip6(ctx);
            a | b == 0 && (c == 0 || c == 0xffff_u32.to_be()) && d == 0
        }
    }
}

/// Destination port, host order.
#[inline(always)]
pub fn port(ctx: &SockAddrContext) -> u16 {
    u16::from_be(port_be(ctx))
}

/// Destination port, network order.
#[inline(always)]
pub fn port_be(ctx: &SockAddrContext) -> u16 {
    // SAFETY: `sock_addr` is the program's own context; the field is readable in all hooks.
    unsafe { read_volatile(addr_of!((*raw(ctx)).user_port)) as u16 }
}

/// Sets the destination port, network order.
#[inline(always)]
pub fn set_port_be(ctx: &SockAddrContext, port: u16) {
    // SAFETY: as for reading; writable in the hooks this crate attaches.
    unsafe { write_volatile(addr_of_mut!((*raw(ctx)).user_port), u32::from(port)) }
}

/// IP protocol number of the socket.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!((*raw(ctx)).protocol)) }
}

/// The socket of the call.
#[inline(always)]
pub fn sock(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: as above; the verifier types the result as a socket pointer.
    unsafe { (*raw(ctx)).__bindgen_anon_1.sk }
}

#[inline(always)]
fn raw(ctx: &SockAddrContext) -> *mut bpf_sock_addr {
    ctx.sock_addr
}

#[inline(always)]
fn user_ip4(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the program's own context.
    unsafe { read_volatile(addr_of!((*raw(ctx)).user_ip4)) }
}

#[inline(always)]
fn set_user_ip4(ctx: &SockAddrContext, value: u32) {
    // SAFETY: the program's own context.
    unsafe { write_volatile(addr_of_mut!((*raw(ctx)).user_ip4), value) }
}

#[inline(always)]
fn user_ip6(ctx: &SockAddrContext) -> [u32; 4] {
    // SAFETY: the program's own context; constant indices below 4.
    unsafe {
        [
            read_volatile(addr_of!((*raw(ctx)).user_ip6[0])),
            read_volatile(addr_of!((*raw(ctx)).user_ip6[1])),
            read_volatile(addr_of!((*raw(ctx)).user_ip6[2])),
            read_volatile(addr_of!((*raw(ctx)).user_ip6[3])),
        ]
    }
}

#[inline(always)]
fn set_user_ip6(ctx: &SockAddrContext, words: [u32; 4]) {
    // SAFETY: the program's own context; constant indices below 4.
    unsafe {
        write_volatile(addr_of_mut!((*raw(ctx)).user_ip6[0]), words[0]);
        write_volatile(addr_of_mut!((*raw(ctx)).user_ip6[1]), words[1]);
        write_volatile(addr_of_mut!((*raw(ctx)).user_ip6[2]), words[2]);
        write_volatile(addr_of_mut!((*raw(ctx)).user_ip6[3]), words[3]);
    }
}

#[inline(always)]
const fn join(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}
