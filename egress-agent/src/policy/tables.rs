//! The data plane's tables in memory: what `explain`, the tests and the fuzzer decide by.

use std::collections::{BTreeMap, BTreeSet};

use egress_common::{
    decide::{Flow, Lookup},
    grant::{Connector, Grant, PrefixRules},
    key::{GrantKey, PrefixKey, RouteKey},
    sni::{NameKey, NameQuery},
    unix::{UnixGrant, UnixKey},
};

use super::compile::Tables;

/// The maps of one data-plane instance, as plain collections. The prefix table is searched
/// from end to end, so that it shares no cleverness with the kernel's trie.
#[derive(Clone, Default, Debug)]
pub struct Memory {
    /// Connectors by number.
    pub connectors: BTreeMap<u32, Connector>,
    /// Exact grants.
    pub grants: BTreeMap<GrantKey, Grant>,
    /// Prefix entries: length in bits (with [`PrefixKey::FIXED_BITS`]), key, value.
    pub prefixes: Vec<(u32, PrefixKey, PrefixRules)>,
    /// Routes of the host: length in bits (with [`RouteKey::FIXED_BITS`]), key, value.
    pub routes: Vec<(u32, RouteKey, u32)>,
    /// Names of unix sockets.
    pub unix: BTreeMap<UnixKey, UnixGrant>,
    /// Names in TLS: length in bits (with [`NameKey::FIXED_BITS`]), key, value.
    pub names: Vec<(u32, NameKey, PrefixRules)>,
    /// Flags of rules that have some.
    pub flags: BTreeMap<u32, u16>,
    /// Rules in force.
    pub active: BTreeSet<u32>,
    /// Ports of loopback at which connectors reach themselves by TCP: connector, port.
    pub own: BTreeSet<(u32, u16)>,
    /// Boot clock, nanoseconds.
    pub now_ns: u64,
}

impl Memory {
    /// Takes a connector's compiled policy in, every rule in force.
    pub fn install(&mut self, tables: &Tables, connector: Connector) {
        self.connectors.insert(tables.connector, connector);
        self.prefixes.extend_from_slice(&tables.prefixes);
        self.names.extend_from_slice(&tables.names);
        self.unix.extend(tables.unix.iter().copied());
        self.flags
            .extend(tables.rules.iter().map(|rule| (rule.slot, rule.flags)));
        self.active
            .extend(tables.rules.iter().map(|rule| rule.slot));
    }
}

impl Lookup for Memory {
    fn connector(&self, id: u32) -> Option<&Connector> {
        self.connectors.get(&id)
    }

    fn exact(&self, key: &GrantKey) -> Option<&Grant> {
        self.grants.get(key)
    }

    fn prefix(&self, key: &PrefixKey) -> Option<&PrefixRules> {
        self.prefixes
            .iter()
            .filter(|(length, prefix, _)| matches(key, prefix, *length))
            .max_by_key(|(length, _, _)| *length)
            .map(|(_, _, rules)| rules)
    }

    fn leads(&self, key: &RouteKey) -> bool {
        // The bits of both kinds of key stand in the same places.
        let as_prefix = |key: &RouteKey| PrefixKey {
            connector: key.connector,
            protocol: key.ifindex,
            addr: key.addr,
        };
        self.routes
            .iter()
            .filter(|(length, route, _)| matches(&as_prefix(key), &as_prefix(route), *length))
            .max_by_key(|(length, _, _)| *length)
            .is_some_and(|(_, _, way)| *way == RouteKey::LEADS)
    }

    fn unix(&self, key: &UnixKey) -> Option<&UnixGrant> {
        self.unix.get(key)
    }

    fn name(&self, name: &NameQuery) -> Option<&PrefixRules> {
        self.names
            .iter()
            .filter(|(length, known, _)| covers(known, *length, &name.key))
            .max_by_key(|(length, _, _)| *length)
            .map(|(_, _, rules)| rules)
    }

    fn rule_active(&self, rule: u32) -> bool {
        self.active.contains(&rule)
    }

    fn rule_flags(&self, rule: u32) -> u16 {
        self.flags.get(&rule).copied().unwrap_or(0)
    }

    fn own_peer(&self, flow: &Flow) -> bool {
        self.own.contains(&(flow.connector, flow.port))
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }
}

/// Whether an entry for names, which is of whole octets, covers a name.
fn covers(known: &NameKey, bits: u32, name: &NameKey) -> bool {
    let octets = usize::try_from(bits.saturating_sub(NameKey::FIXED_BITS) / 8).unwrap_or(0);
    known.connector == name.connector && known.name.get(..octets) == name.name.get(..octets)
}

/// Whether the first `length` bits of two keys are the same, as the kernel's trie compares
/// them: byte by byte from the start of the record.
fn matches(key: &PrefixKey, prefix: &PrefixKey, length: u32) -> bool {
    let ends = bytes(key).into_iter().zip(bytes(prefix));
    let equal = ends
        .map(|(a, b)| (a ^ b).leading_zeros())
        .scan(true, |going, same| {
            going.then(|| {
                *going = same == 8;
                same
            })
        })
        .sum::<u32>();
    equal >= length
}

fn bytes(key: &PrefixKey) -> impl IntoIterator<Item = u8> {
    let [high, low] = key.addr.halves;
    [
        u64::from(key.connector).to_be_bytes(),
        u64::from(key.protocol).to_be_bytes(),
        high.to_ne_bytes(),
        low.to_ne_bytes(),
    ]
    .into_iter()
    .enumerate()
    .flat_map(|(field, bytes)| bytes.into_iter().skip(if field < 2 { 4 } else { 0 }))
}
