//! Names in TLS: the table that says which names a connector may say to whom it may speak.
//!
//! Names are kept back to front in a trie, so that one look-up of the longest prefix finds the
//! exact name, or else the narrowest wildcard. As with address prefixes, each entry holds the
//! ranges of every rule that covers it.

/// Octets of a name that a key has room for: 253 (RFC 1035 section 2.3.4) and an end mark.
pub const NAME_ROOM: usize = 254;

/// Data of a name's key, in the order in which the trie compares bits. 256 bytes, the most
/// that the kernel's trie takes (`LPM_DATA_SIZE_MAX`, `kernel/bpf/lpm_trie.c`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NameKey {
    /// Connector id; always compared whole.
    pub connector: u16,
    /// The name in lower case, its last octet first, then zeros. An exact name is compared
    /// with the zero behind it, a wildcard up to the dot in front of its suffix:
    /// `moc.elpmaxe.ipa\0` and `moc.elpmaxe.`.
    pub name: [u8; NAME_ROOM],
}

impl NameKey {
    /// Bits before the name.
    pub const FIXED_BITS: u32 = 16;
    /// Bits of a key that is looked up.
    pub const ALL_BITS: u32 = 256 * 8;
}
