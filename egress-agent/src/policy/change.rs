//! From the tables in the data plane to those of another policy, step by step. Pure.
//!
//! The tables change entry by entry while packets are decided by them, so the order has to
//! make sure that **no step permits what neither the old nor the new policy permits**:
//!
//! 1. *Rules that are gone are switched off.* A range of such a rule is passed over; what
//!    follows it in its entry, or an entry looked at instead, speaks for a rule that the old
//!    policy has, too. So less is permitted than by the old policy.
//! 2. *Entries are written, the longest prefix first*; nothing is deleted yet, and new rules
//!    are still off. For an address, look at the longest entry that covers it. Where its
//!    value is the new one, every longer new entry is there already: it is the one that the
//!    new policy decides by. Where its value is the old one, it is the one that the old policy
//!    decided by, for all old entries are still there.
//! 3. *Entries that are no longer wanted are deleted, the shortest prefix first.* Where the
//!    longest entry is one of those, every longer one of the old policy is still there: the
//!    address is decided as by the old policy. Otherwise as by the new one.
//! 4. *New rules are switched on.*
//!
//! The table of names is a trie of the same kind and goes over in the same order.
//!
//! Deleting first would let an address fall through to a wide permission that a denial stood
//! in front of; the tests try such orders as well.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use egress_common::{abi::MAX_PREFIXES, grant::PrefixRules, key::PrefixKey, sni::NameKey};

use super::{compile::Tables, model::List};

/// What is in the data plane now.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Installed {
    /// Entries of the prefix table by length and key.
    pub prefixes: BTreeMap<(u32, PrefixKey), PrefixRules>,
    /// Entries of the table of names by length and key.
    pub names: BTreeMap<(u32, NameKey), PrefixRules>,
    /// Rules that are switched on, and their flags.
    pub on: BTreeMap<u32, u16>,
}

/// One write to the data plane.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step {
    /// Switches a rule off that has these flags.
    Off(u32, u16),
    /// Writes or replaces an entry of the prefix table.
    Write(u32, PrefixKey, PrefixRules),
    /// Deletes an entry of the prefix table.
    Delete(u32, PrefixKey),
    /// Writes or replaces an entry of the table of names.
    WriteName(u32, NameKey, PrefixRules),
    /// Deletes an entry of the table of names.
    DeleteName(u32, NameKey),
    /// Switches a rule on that has these flags.
    On(u32, u16),
}

/// The steps to another policy, in their order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Change {
    /// Rules to switch off. First of all.
    pub off: Vec<Step>,
    /// Entries to write and to delete.
    pub entries: Vec<Step>,
    /// Rules to switch on. Last of all.
    pub on: Vec<Step>,
}

/// The prefix table has no room for both policies at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the old and the new policy together need {0} prefix entries, and {MAX_PREFIXES} fit; \
     change fewer at a time, or restart the connector"
)]
pub struct Overfull(pub usize);

impl Installed {
    /// Notes a step that was carried out.
    pub fn note(&mut self, step: &Step) {
        match step {
            Step::Off(rule, _) => {
                self.on.remove(rule);
            }
            Step::On(rule, flags) => {
                self.on.insert(*rule, *flags);
            }
            Step::Write(bits, key, rules) => {
                self.prefixes.insert((*bits, *key), *rules);
            }
            Step::Delete(bits, key) => {
                self.prefixes.remove(&(*bits, *key));
            }
            Step::WriteName(bits, key, rules) => {
                self.names.insert((*bits, *key), *rules);
            }
            Step::DeleteName(bits, key) => {
                self.names.remove(&(*bits, *key));
            }
        }
    }
}

/// The steps from what is installed to `tables`.
pub fn change(installed: &Installed, tables: &Tables) -> Result<Change, Overfull> {
    // Denials hold without being switched on.
    let wanted = tables.rules.iter().filter(|rule| rule.list != List::Deny);
    let wanted: BTreeMap<u32, u16> = wanted.map(|rule| (rule.slot, rule.flags)).collect();
    let (writes, deletes) = entries(&installed.prefixes, &tables.prefixes);
    let (named, unnamed) = entries(&installed.names, &tables.names);
    let together = tables.prefixes.len().saturating_add(deletes.len());
    if together > MAX_PREFIXES as usize {
        return Err(Overfull(together));
    }
    let mut entries: Vec<Step> = Vec::new();
    entries.extend(writes.map(|(bits, key, rules)| Step::Write(bits, key, rules)));
    entries.extend(
        deletes
            .into_iter()
            .map(|(bits, key)| Step::Delete(bits, key)),
    );
    entries.extend(named.map(|(bits, key, rules)| Step::WriteName(bits, key, rules)));
    entries.extend(
        unnamed
            .into_iter()
            .map(|(bits, key)| Step::DeleteName(bits, key)),
    );
    let beside = |rules: &BTreeMap<u32, u16>, others: &BTreeMap<u32, u16>| -> Vec<(u32, u16)> {
        let rules = rules.iter().filter(|(rule, _)| !others.contains_key(rule));
        rules.map(|(rule, flags)| (*rule, *flags)).collect()
    };
    let (off, on) = (
        beside(&installed.on, &wanted),
        beside(&wanted, &installed.on),
    );
    Ok(Change {
        off: off
            .into_iter()
            .map(|(rule, flags)| Step::Off(rule, flags))
            .collect(),
        entries,
        on: on
            .into_iter()
            .map(|(rule, flags)| Step::On(rule, flags))
            .collect(),
    })
}

/// An entry of one of the tries: length, key, value.
type Entry<K> = (u32, K, PrefixRules);

/// The entries of one table to write, the longest first, and those to delete, the shortest
/// first.
fn entries<K: Copy + Ord>(
    installed: &BTreeMap<(u32, K), PrefixRules>,
    tables: &[Entry<K>],
) -> (impl Iterator<Item = Entry<K>>, Vec<(u32, K)>) {
    let mut writes: Vec<Entry<K>> = tables
        .iter()
        .filter(|(bits, key, rules)| installed.get(&(*bits, *key)) != Some(rules))
        .copied()
        .collect();
    writes.sort_by_key(|(bits, key, _)| (Reverse(*bits), *key));
    let kept: BTreeSet<(u32, K)> = tables.iter().map(|(bits, key, _)| (*bits, *key)).collect();
    // In the order of their lengths.
    let stale = installed.keys().filter(|place| !kept.contains(place));
    (writes.into_iter(), stale.copied().collect())
}

impl Change {
    /// Every step in its order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.off.iter().chain(&self.entries).chain(&self.on)
    }
}
