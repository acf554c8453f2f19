//! Whether a packet's bytes can still change after they were looked at.
//!
//! `sendfile()`, `splice()` and `MSG_ZEROCOPY` hand the program's own pages to the socket, and
//! the kernel notes it in the packet's shared record: `SKBFL_SHARED_FRAG` in `flags` (Linux
//! 5.12), before that `SKBTX_SHARED_FRAG` in `tx_flags` (`include/linux/skbuff.h`). The context
//! of this hook shows none of that, but is a `struct sk_buff` at run time, which is read here
//! with offsets that the agent takes from the kernel's own type information.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_probe_read_kernel};

use crate::maps::{SHARED_AT, SHARED_MASK, SKB_END, SKB_HEAD};

/// Structures are smaller than this.
const BOUND: u32 = 0x3ff;

/// Whether some byte may lie in memory that the program can write to. True where that cannot
/// be told.
#[inline(always)]
pub fn is_shared(skb: *mut __sk_buff) -> bool {
    let mask = SHARED_MASK.load();
    if mask == 0 {
        return true;
    }
    let base = skb as u64;
    let Some(head) = read::<u64>(base + u64::from(SKB_HEAD.load() & BOUND)) else {
        return true;
    };
    // `sk_buff_data_t` is an offset from `head` where pointers have 64 bits.
    let Some(end) = read::<u32>(base + u64::from(SKB_END.load() & BOUND)) else {
        return true;
    };
    let at = u64::from(SHARED_AT.load() & BOUND);
    match read::<u8>(head + u64::from(end) + at) {
        Some(flags) => u32::from(flags) & mask != 0,
        None => true,
    }
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
