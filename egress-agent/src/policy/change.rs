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
//! Deleting first would let an address fall through to a wide permission that a denial stood
//! in front of; the tests try such orders as well.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use egress_common::{abi::MAX_PREFIXES, grant::PrefixRules, key::PrefixKey};

use super::{compile::Tables, model::List};

/// What is in the data plane now.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Installed {
    /// Entries of the prefix table by length and key.
    pub prefixes: BTreeMap<(u32, PrefixKey), PrefixRules>,
    /// Rules that are switched on.
    pub on: BTreeSet<u32>,
}

/// One write to the data plane.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step {
    /// Switches a rule off.
    Off(u32),
    /// Writes or replaces an entry of the prefix table.
    Write(u32, PrefixKey, PrefixRules),
    /// Deletes an entry of the prefix table.
    Delete(u32, PrefixKey),
    /// Switches a rule on.
    On(u32),
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
            Step::Off(rule) => {
                self.on.remove(rule);
            }
            Step::On(rule) => {
                self.on.insert(*rule);
            }
            Step::Write(bits, key, rules) => {
                self.prefixes.insert((*bits, *key), *rules);
            }
            Step::Delete(bits, key) => {
                self.prefixes.remove(&(*bits, *key));
            }
        }
    }
}

/// The steps from what is installed to `tables`.
pub fn change(installed: &Installed, tables: &Tables) -> Result<Change, Overfull> {
    // Denials hold without being switched on.
    let wanted = tables.rules.iter().filter(|rule| rule.list != List::Deny);
    let wanted: BTreeSet<u32> = wanted.map(|rule| rule.slot).collect();
    let new: BTreeMap<(u32, PrefixKey), PrefixRules> = tables
        .prefixes
        .iter()
        .map(|(bits, key, rules)| ((*bits, *key), *rules))
        .collect();
    let mut writes: Vec<_> = new
        .iter()
        .filter(|(place, rules)| installed.prefixes.get(place) != Some(rules))
        .collect();
    writes.sort_by_key(|((bits, _), _)| Reverse(*bits));
    let mut stale: Vec<_> = installed
        .prefixes
        .keys()
        .filter(|place| !new.contains_key(place))
        .collect();
    stale.sort_by_key(|(bits, _)| *bits);
    let together = new.len().saturating_add(stale.len());
    if together > MAX_PREFIXES as usize {
        return Err(Overfull(together));
    }
    let write = writes
        .into_iter()
        .map(|((bits, key), rules)| Step::Write(*bits, *key, *rules));
    let delete = stale
        .into_iter()
        .map(|(bits, key)| Step::Delete(*bits, *key));
    Ok(Change {
        off: installed
            .on
            .difference(&wanted)
            .copied()
            .map(Step::Off)
            .collect(),
        entries: write.chain(delete).collect(),
        on: wanted
            .difference(&installed.on)
            .copied()
            .map(Step::On)
            .collect(),
    })
}

impl Change {
    /// Every step in its order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.off.iter().chain(&self.entries).chain(&self.on)
    }
}
