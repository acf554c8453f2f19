//! How the data plane tells that the memory of a packet can still change: the offsets that
//! `egress-ebpf/src/shared.rs` reads with, out of the kernel's type information.

use super::btf::Structures;

/// Bytes from the start of each structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SharedMemory {
    /// `head` in `struct sk_buff`.
    pub(super) head: u32,
    /// `end` in `struct sk_buff`.
    pub(super) end: u32,
    /// `flags` or `tx_flags` in `struct skb_shared_info`.
    pub(super) flags: u32,
    /// The bit in those.
    pub(super) mask: u32,
}

impl SharedMemory {
    /// Looks it up; `None` where the structures are none that this version knows.
    pub(super) fn of(types: &Structures) -> Option<Self> {
        // `SKBFL_SHARED_FRAG` and, before Linux 5.12, `SKBTX_SHARED_FRAG`.
        let (flags, mask) = match types.offset("skb_shared_info", "flags") {
            Some(flags) => (flags, 1 << 1),
            None => (types.offset("skb_shared_info", "tx_flags")?, 1 << 5),
        };
        Some(Self {
            head: types.offset("sk_buff", "head")?,
            end: types.offset("sk_buff", "end")?,
            flags,
            mask,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use super::*;
    use crate::kernel::btf;

    #[test]
    fn this_kernel_is_one_of_those_known() {
        // Where the kernel shows its types; a host without is no fault of this code.
        let file = Path::new(btf::FILE);
        if file.exists() {
            SharedMemory::of(&Structures::read(file).unwrap()).unwrap();
        }
    }
}
