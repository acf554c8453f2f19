//! The name in a hello that [`super::sni`] read.
//!
//! A program of its own: the verifier follows every way through the reading of a hello, and
//! would follow every way through the reading of its name behind each of them.

use aya_ebpf::programs::SkBuffContext;
use egress_common::{
    abi::program,
    hello::{self, Payload},
    verdict::Reason,
};

use super::{REFUSE, packet::call};
use crate::{header, scratch, socket};

/// Notes the name, and what is wrong with it where nothing is with the hello around it.
#[inline(always)]
pub fn read(ctx: &SkBuffContext) -> i32 {
    let sk = socket::of_packet(ctx.skb.skb);
    if sk.is_null() {
        return REFUSE;
    }
    // SAFETY: a full socket, not null.
    let kept = unsafe { scratch::get(sk) };
    if kept.is_null() {
        return REFUSE;
    }
    // SAFETY: not null, and this socket's own: TCP sends with the socket locked.
    let kept = unsafe { &mut *kept };
    if kept.name_len != 0 {
        let bytes = Bytes { ctx, at: kept.at };
        let form = hello::name(&bytes, kept.name_at, kept.name_len, &mut kept.query.key);
        if kept.fault == u32::from(Reason::None.code()) {
            kept.fault = u32::from(form.code());
        }
    }
    call(ctx, program::JUDGE)
}

/// The packet's bytes from the hello on.
struct Bytes<'a> {
    ctx: &'a SkBuffContext,
    at: u32,
}

impl Payload for Bytes<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        header::load(self.ctx.skb.skb, self.at + offset)
    }

    #[inline(always)]
    fn octet(&self, offset: u32) -> u8 {
        header::octet(self.ctx.skb.skb, self.at + offset)
    }
}
