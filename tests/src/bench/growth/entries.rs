//! Fills the tables of a running agent through their pins, as its own keeper would.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, lpm_trie::Key, lpm_trie::LpmTrie};
use egress_common::{
    abi::{RULE_FIRST, map},
    grant::{Grant, PortRange, PrefixRules},
    key::{Addr, GrantKey, PrefixKey},
};

/// The only connector of an agent's `run`.
const CONNECTOR: u32 = 1;
const TCP: u8 = 6;

/// A table that grows.
pub(super) trait Entries {
    /// Brings it from so many entries of ours to so many.
    fn grow(&mut self, from: u32, to: u32) -> Result<()>;
    /// Takes ours out again.
    fn clear(&mut self, count: u32) -> Result<()>;
}

/// Exact grants.
pub(super) struct Grants(HashMap<MapData, GrantKey, Grant>);

impl Grants {
    /// Those of the agent that is pinned here.
    pub(super) fn open(pins: &Path) -> Result<Self> {
        let map = pinned(pins, map::GRANTS)?;
        Ok(Self(HashMap::try_from(Map::HashMap(map))?))
    }
}

impl Entries for Grants {
    fn grow(&mut self, from: u32, to: u32) -> Result<()> {
        let grant = Grant {
            expires_ns: 0,
            rule: RULE_FIRST,
            pad: 0,
        };
        for n in from..to {
            self.0.insert(grant_key(n), grant, 0)?;
        }
        Ok(())
    }

    fn clear(&mut self, count: u32) -> Result<()> {
        for n in 0..count {
            self.0.remove(&grant_key(n))?;
        }
        Ok(())
    }
}

/// Addresses of a network that nothing here uses (RFC 6598).
fn grant_key(n: u32) -> GrantKey {
    GrantKey {
        addr: Addr::from_v4(0x6440_0000 + n),
        connector: CONNECTOR,
        port: 443,
        protocol: TCP,
        pad: 0,
    }
}

/// Address prefixes.
pub(super) struct Prefixes(LpmTrie<MapData, PrefixKey, PrefixRules>);

impl Prefixes {
    /// Those of the agent that is pinned here.
    pub(super) fn open(pins: &Path) -> Result<Self> {
        let map = pinned(pins, map::PREFIXES)?;
        Ok(Self(LpmTrie::try_from(Map::LpmTrie(map))?))
    }
}

impl Entries for Prefixes {
    fn grow(&mut self, from: u32, to: u32) -> Result<()> {
        let mut rules = PrefixRules {
            count: 1,
            ranges: [PortRange::EMPTY; 16],
        };
        rules.ranges[0] = PortRange {
            first: 443,
            last: 443,
            effect: PortRange::ALLOW,
            pad: 0,
            rule: RULE_FIRST,
        };
        for n in from..to {
            self.0.insert(&prefix_key(n), rules, 0)?;
        }
        Ok(())
    }

    fn clear(&mut self, count: u32) -> Result<()> {
        for n in 0..count {
            self.0.remove(&prefix_key(n))?;
        }
        Ok(())
    }
}

/// Every second one is an address beside the range that is measured, which makes the way to it
/// longer; the others are networks elsewhere.
fn prefix_key(n: u32) -> Key<PrefixKey> {
    let (address, bits) = if n.is_multiple_of(2) {
        (0xc612_0200 + n / 2, PrefixKey::HOST_BITS)
    } else {
        (0x6440_0000 + ((n / 2) << 8), PrefixKey::HOST_BITS - 8)
    };
    let data = PrefixKey {
        connector: CONNECTOR,
        protocol: u32::from(TCP),
        addr: Addr::from_v4(address),
    };
    Key::new(bits, data)
}

fn pinned(pins: &Path, name: &str) -> Result<MapData> {
    let path = pins.join(format!("map_{name}"));
    MapData::from_pin(&path).with_context(|| path.display().to_string())
}
