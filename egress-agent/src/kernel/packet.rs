//! Where the running kernel notes that the memory of a packet can still change; how it is read
//! is in `egress-ebpf/src/memory.rs`. Pure.

use egress_common::abi::global::{self, offset};

use super::btf::Structures;

/// `SKBFL_SHARED_FRAG`, `include/linux/skbuff.h`, from Linux 5.12 on.
const SHARED_FRAG: u32 = 1 << 1;
/// `SKBTX_SHARED_FRAG`, likewise, before that.
const SHARED_FRAG_BEFORE: u32 = 1 << 5;

/// The constants of the data plane that say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PacketMemory(Vec<(&'static str, u32)>);

impl PacketMemory {
    /// Looks it up; `None` where the structures are none that this version knows.
    pub(super) fn find(structures: &Structures) -> Option<Self> {
        let shared = |member| structures.offset("skb_shared_info", member);
        let (flags, mask) = match shared("flags") {
            Some(flags) => (flags, SHARED_FRAG),
            None => (shared("tx_flags")?, SHARED_FRAG_BEFORE),
        };
        let page = |member| structures.offset("page", member);
        Some(Self(vec![
            (offset::SKB_HEAD, structures.offset("sk_buff", "head")?),
            (offset::SKB_END, structures.offset("sk_buff", "end")?),
            (offset::SKB_SOCK, structures.offset("sk_buff", "sk")?),
            (
                offset::TCP_WRITE_SEQ,
                structures.offset("tcp_sock", "write_seq")?,
            ),
            (offset::SHARED_FLAGS, flags),
            (offset::SHARED_COUNT, shared("nr_frags")?),
            (offset::SHARED_FRAGS, shared("frags")?),
            (
                offset::PAGE_HEAD,
                page("compound_head").or_else(|| page("compound_info"))?,
            ),
            (offset::PAGE_MAPPING, page("mapping")?),
            (global::SHARED_MASK, mask),
        ]))
    }

    /// The constants by their names.
    pub(super) fn constants(&self) -> impl Iterator<Item = (&'static str, &u32)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}
