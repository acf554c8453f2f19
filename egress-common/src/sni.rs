//! Names in TLS: the table that says which names a connector may say to whom it may speak.
//!
//! Names are kept back to front in a trie, so that one look-up of the longest prefix finds the
//! exact name, or else the narrowest wildcard. As with address prefixes, each entry holds the
//! ranges of every rule that covers it.

use crate::{
    abi::RULE_NONE,
    decide::{Lookup, by_port},
    grant::Rule,
    verdict::{Action, Reason, Verdict},
};

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

    /// The entry for one name, and its length in bits; `None` where the name is too long or
    /// empty. Names come in lower case and without a trailing dot.
    pub fn exact(connector: u16, name: &[u8]) -> Option<(u32, Self)> {
        Self::entry(connector, name, 0)
    }

    /// The entry for every name that ends in a dot and this suffix, and its length in bits.
    pub fn wildcard(connector: u16, suffix: &[u8]) -> Option<(u32, Self)> {
        Self::entry(connector, suffix, b'.')
    }

    /// The entry for every name, and its length in bits.
    pub const fn any(connector: u16) -> (u32, Self) {
        let key = Self {
            connector,
            name: [0; NAME_ROOM],
        };
        (Self::FIXED_BITS, key)
    }

    /// With one octet behind the name.
    fn entry(connector: u16, name: &[u8], behind: u8) -> Option<(u32, Self)> {
        let octets = u32::try_from(name.len()).ok()?.checked_add(1)?;
        if name.is_empty() || name.len() >= NAME_ROOM {
            return None;
        }
        let mut key = Self {
            connector,
            name: [0; NAME_ROOM],
        };
        let reversed = name.iter().rev().chain([&behind]);
        for (to, from) in key.name.iter_mut().zip(reversed) {
            *to = *from;
        }
        Some((Self::FIXED_BITS + 8 * octets, key))
    }
}

/// What the kernel's trie is asked for a name: the key with its length in front. 260 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameQuery {
    /// Bits that count: [`NameKey::ALL_BITS`].
    pub bits: u32,
    /// The name.
    pub key: NameKey,
}

impl NameQuery {
    /// The question for a name in lower case and without a trailing dot; `None` where no
    /// entry could be so long.
    pub fn of(connector: u16, name: &[u8]) -> Option<Self> {
        let (_, key) = NameKey::exact(connector, name)?;
        Some(Self {
            bits: NameKey::ALL_BITS,
            key,
        })
    }
}

/// Whether a rule permits the name at the port, and which: the rule that then speaks for the
/// connection. `encrypted`: the hello has another one inside, which nobody can read.
#[inline(always)]
pub fn by_name<L: Lookup>(name: &NameQuery, port: u16, encrypted: bool, lookup: &L) -> Verdict {
    let Some(rules) = lookup.name(name) else {
        return Verdict::deny(Reason::SniStranger, RULE_NONE);
    };
    let verdict = by_port(port, rules, lookup);
    match (verdict.action, verdict.reason) {
        (Action::Allow, _) if encrypted && lookup.rule_flags(verdict.rule) & Rule::ECH == 0 => {
            Verdict::deny(Reason::SniEncrypted, verdict.rule)
        }
        (Action::Allow, _) => verdict,
        // The table knows the name for other ports.
        (_, Reason::NoRule) => Verdict::deny(Reason::SniStranger, RULE_NONE),
        _ => verdict,
    }
}
