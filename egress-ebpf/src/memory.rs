//! What only the kernel's own record of a packet tells: whether its bytes can still change
//! after they were looked at, and whether more is written behind them.
//!
//! `sendfile()`, `splice()` and `MSG_ZEROCOPY` hand pages to the socket that the program, or
//! whoever writes the file, can still write to. The kernel notes it in the packet's shared
//! record: `SKBFL_SHARED_FRAG` in `flags` (Linux 5.12), before that `SKBTX_SHARED_FRAG` in
//! `tx_flags` (`include/linux/skbuff.h`). It loses the note where it puts packets together that
//! were not sent yet (`net/core/skbuff.c` `skb_shift`, before Linux 7.1), so the pages are looked
//! at as well: those that the kernel copied data into (`net/core/sock.c` `sk_page_frag`) are the
//! first of their block and belong to no file and no process, which is what `mapping` says.
//!
//! The context of this hook shows none of that, but is a `struct sk_buff` at run time, which is
//! read here with offsets that the agent takes from the kernel's own type information.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_probe_read_kernel};

use crate::maps::{
    PAGE_HEAD, PAGE_MAPPING, SHARED_COUNT, SHARED_FLAGS, SHARED_FRAGS, SHARED_MASK, SKB_END,
    SKB_HEAD, SKB_SOCK, TCP_WRITE_SEQ,
};

/// Structures are smaller than this.
const BOUND: u32 = 0xfff;
/// `MAX_SKB_FRAGS` at its most (`CONFIG_MAX_SKB_FRAGS`).
const MAX_FRAGS: u32 = 45;
/// Bytes of `skb_frag_t`, which begins with its page.
const FRAG: u64 = 16;

/// Whether some byte may lie in memory that the program can write to. True where that cannot
/// be told.
#[inline(always)]
pub fn is_shared(skb: *mut __sk_buff) -> bool {
    can_change(skb).unwrap_or(true)
}

#[inline(always)]
fn can_change(skb: *mut __sk_buff) -> Option<bool> {
    let mask = SHARED_MASK.load();
    if mask == 0 {
        return None;
    }
    let skb = skb as u64;
    let head: u64 = member(skb, SKB_HEAD.load())?;
    // `sk_buff_data_t` is an offset from `head` where pointers have 64 bits.
    let end: u32 = member(skb, SKB_END.load())?;
    let record = head + u64::from(end);
    let flags: u8 = member(record, SHARED_FLAGS.load())?;
    let count: u8 = member(record, SHARED_COUNT.load())?;
    if u32::from(flags) & mask != 0 || u32::from(count) > MAX_FRAGS {
        return Some(true);
    }
    let frags = record + u64::from(SHARED_FRAGS.load() & BOUND);
    for index in 0..MAX_FRAGS {
        if index >= u32::from(count) {
            break;
        }
        let page: u64 = read(frags + u64::from(index) * FRAG)?;
        // Memory of a device's has its lowest bit set.
        if page & 1 != 0 {
            return Some(true);
        }
        let first: u64 = member(page, PAGE_HEAD.load())?;
        let mapping: u64 = member(page, PAGE_MAPPING.load())?;
        if first & 1 != 0 || mapping != 0 {
            return Some(true);
        }
    }
    Some(false)
}

/// The sequence number behind the last byte that was written into the packet's TCP socket.
#[inline(always)]
pub fn written(skb: *mut __sk_buff) -> Option<u32> {
    let sk: u64 = member(skb as u64, SKB_SOCK.load())?;
    member(sk, TCP_WRITE_SEQ.load())
}

#[inline(always)]
fn member<T: Copy>(base: u64, offset: u32) -> Option<T> {
    read(base + u64::from(offset & BOUND))
}

#[inline(always)]
fn read<T: Copy>(from: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address; `value` has room for a `T`.
    let result = unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            from as *const core::ffi::c_void,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: written whole; `T` is an integer, which any bytes are.
    Some(unsafe { value.assume_init() })
}
