//! The books: which rule holds which address for how long. Pure; time is an argument.

use std::collections::{BTreeMap, HashMap};

use egress_common::{
    grant::Grant,
    key::{Addr, GrantKey},
};

/// One rule's claim on one destination. Several rules may hold the same destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Destination and connector.
    pub key: GrantKey,
    /// The rule's slot in the data plane.
    pub rule: u32,
    /// Boot-clock end, nanoseconds; 0 = never.
    pub expires_ns: u64,
}

/// All leases, and the grant that each destination has in the kernel because of them.
#[derive(Debug, Default)]
pub struct Ledger {
    leases: HashMap<GrantKey, BTreeMap<u32, u64>>,
    names: HashMap<Addr, String>,
}

impl Ledger {
    /// Enters a lease. A lease that ends earlier than what the rule already holds changes
    /// nothing: an answer that comes twice must not shorten the first.
    pub fn enter(&mut self, lease: &Lease) -> Grant {
        let rules = self.leases.entry(lease.key).or_default();
        let end = rules.entry(lease.rule).or_insert(lease.expires_ns);
        *end = later(*end, lease.expires_ns);
        effective(rules).unwrap_or(Grant {
            expires_ns: 1,
            rule: 0,
            pad: 0,
        })
    }

    /// Takes all claims of a rule out. Answers what each destination it held means now.
    pub fn remove_rule(&mut self, rule: u32) -> Vec<(GrantKey, Option<Grant>)> {
        let mut changes = Vec::new();
        self.leases.retain(|key, rules| {
            if rules.remove(&rule).is_some() {
                changes.push((*key, effective(rules)));
            }
            !rules.is_empty()
        });
        changes
    }

    /// Takes out what ended before `now_ns`. Answers the destinations to delete.
    pub fn sweep(&mut self, now_ns: u64) -> Vec<GrantKey> {
        let mut ended = Vec::new();
        self.leases.retain(|key, rules| {
            rules.retain(|_, end| *end == 0 || *end > now_ns);
            if rules.is_empty() {
                ended.push(*key);
            }
            !rules.is_empty()
        });
        let leases = &self.leases;
        self.names
            .retain(|addr, _| leases.keys().any(|key| key.addr == *addr));
        ended
    }

    /// Forgets a destination that the kernel did not take.
    pub fn forget(&mut self, key: &GrantKey) {
        self.leases.remove(key);
    }

    /// Remembers under which name an address was granted.
    pub fn name(&mut self, addr: Addr, name: &str) {
        self.names.insert(addr, name.to_owned());
    }

    /// The name under which an address was last granted.
    pub fn name_of(&self, addr: &Addr) -> Option<&str> {
        self.names.get(addr).map(String::as_str)
    }

    /// Destinations held.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

/// The claim that lasts longest speaks for the destination.
fn effective(rules: &BTreeMap<u32, u64>) -> Option<Grant> {
    rules
        .iter()
        .map(|(&rule, &expires_ns)| Grant {
            expires_ns,
            rule,
            pad: 0,
        })
        .reduce(|best, next| {
            if later(best.expires_ns, next.expires_ns) == best.expires_ns {
                best
            } else {
                next
            }
        })
}

/// The later of two ends, where 0 never ends.
fn later(a: u64, b: u64) -> u64 {
    if a == 0 || b == 0 { 0 } else { a.max(b) }
}
