//! The books: which rule holds which address for how long. Pure; time is an argument.

use std::collections::{BTreeMap, HashMap, VecDeque};

use egress_common::{
    grant::Grant,
    key::{Addr, GrantKey},
};

/// Ended destinations that are remembered: a program that kept an address is told that its time
/// is over, and under which name it had it, however much later it connects. An eighth of the
/// kernel's table, some 4 MB where names are long; the ones that ended first make room.
pub const MAX_ENDED: usize = 16_384;

/// One rule's claim on one destination. Several rules may hold the same destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Destination and connector.
    pub key: GrantKey,
    /// The rule's slot in the data plane.
    pub rule: u32,
    /// Boot-clock end, nanoseconds; 0 = never.
    pub expires_ns: u64,
    /// The rule permits its addresses only with a name in TLS.
    pub named: bool,
}

/// All leases, and the grant that each destination has in the kernel because of them.
#[derive(Debug, Default)]
pub struct Ledger {
    leases: HashMap<GrantKey, Claims>,
    names: HashMap<Addr, Named>,
    /// Destinations that nobody holds any more and that the kernel still knows as ended: the
    /// rule that had each, and its place in `order`.
    ended: HashMap<GrantKey, Ended>,
    order: BTreeMap<u64, GrantKey>,
    next: u64,
    /// Names that were answered and not granted, by address, and the order of their first times.
    answered: HashMap<Addr, String>,
    first: VecDeque<Addr>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    rule: u32,
    place: u64,
}

/// What rules hold of one destination, by their slots.
type Claims = BTreeMap<u32, Claim>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Claim {
    expires_ns: u64,
    named: bool,
}

/// Under which name an address was granted, and how many destinations it has a part in.
#[derive(Debug)]
struct Named {
    name: String,
    destinations: usize,
}

/// What a rule held before a lease was entered, to be put back where the kernel refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Before {
    claim: Option<Claim>,
    /// The destination had ended, under this rule.
    ended: Option<u32>,
}

impl Ledger {
    /// Enters a lease that came from `name`. A lease that ends earlier than what the rule
    /// already holds changes nothing: an answer that comes twice must not shorten the first.
    /// Answers what the destination means now, and what to give [`Ledger::undo`].
    pub fn enter(&mut self, name: &str, lease: &Lease) -> (Grant, Before) {
        let ended = self.take_ended(&lease.key);
        let known = ended.is_some() || self.leases.contains_key(&lease.key);
        let rules = self.leases.entry(lease.key).or_default();
        let before = rules.get(&lease.rule).copied();
        let end = before.map_or(lease.expires_ns, |claim| {
            later(claim.expires_ns, lease.expires_ns)
        });
        let claim = Claim {
            expires_ns: end,
            named: lease.named,
        };
        rules.insert(lease.rule, claim);
        let grant = effective(rules).unwrap_or(NOTHING);
        let named = self.names.entry(lease.key.addr).or_insert_with(|| Named {
            name: String::new(),
            destinations: 0,
        });
        if named.name != name {
            name.clone_into(&mut named.name);
        }
        if !known {
            named.destinations = named.destinations.saturating_add(1);
        }
        let before = Before {
            claim: before,
            ended,
        };
        (grant, before)
    }

    /// Takes a lease back that the kernel did not take. What was held before is held again,
    /// as it still is in the kernel.
    pub fn undo(&mut self, lease: &Lease, before: Before) {
        let Some(rules) = self.leases.get_mut(&lease.key) else {
            return;
        };
        match before.claim {
            Some(claim) => {
                rules.insert(lease.rule, claim);
            }
            None => {
                rules.remove(&lease.rule);
            }
        }
        if rules.is_empty() {
            self.leases.remove(&lease.key);
            match before.ended {
                Some(rule) => self.end(lease.key, rule),
                None => self.unname(&[lease.key]),
            }
        }
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
        let ended = self.ended.iter().filter(|(_, ended)| ended.rule == rule);
        changes.extend(ended.map(|(key, _)| (*key, None)));
        self.forget(changes.iter().filter(|(_, grant)| grant.is_none()));
        changes
    }

    /// Takes every claim on destinations out that are not kept, and what is remembered of those
    /// that have ended. Answers those destinations.
    pub fn retain(&mut self, keep: impl Fn(&GrantKey) -> bool) -> Vec<GrantKey> {
        let gone: Vec<GrantKey> = self
            .leases
            .keys()
            .chain(self.ended.keys())
            .filter(|key| !keep(key))
            .copied()
            .collect();
        for key in &gone {
            self.leases.remove(key);
            self.take_ended(key);
        }
        self.unname(&gone);
        gone
    }

    /// What every destination that has not ended means now.
    pub fn grants(&self) -> impl Iterator<Item = (GrantKey, Grant)> {
        let all = self.leases.iter();
        all.filter_map(|(key, rules)| Some((*key, effective(rules)?)))
    }

    /// Takes out what ended before `now_ns`. Answers what each destination that means
    /// something else than before means now. One that nobody holds any more stays in the
    /// kernel, as ended; `None`: it has made room for others, and is to be deleted there.
    pub fn sweep(&mut self, now_ns: u64) -> Vec<(GrantKey, Option<Grant>)> {
        let mut changes = Vec::new();
        let mut ended = Vec::new();
        self.leases.retain(|key, rules| {
            let before = effective(rules);
            rules.retain(|_, claim| claim.expires_ns == 0 || claim.expires_ns > now_ns);
            match (before, effective(rules)) {
                (Some(last), None) => ended.push((last.expires_ns, *key, last.rule)),
                (before, now) if now != before => changes.push((*key, now)),
                _ => {}
            }
            !rules.is_empty()
        });
        ended.sort_unstable();
        for (_, key, rule) in ended {
            self.end(key, rule);
        }
        let excess = self.ended.len().saturating_sub(MAX_ENDED);
        changes.extend(self.forget_ended(excess).into_iter().map(|key| (key, None)));
        changes
    }

    /// Forgets so many of the destinations that have ended, those that ended first. Answers
    /// them, to be deleted in the kernel; empty where there are none.
    pub fn forget_ended(&mut self, count: usize) -> Vec<GrantKey> {
        let gone: Vec<GrantKey> = self.order.values().take(count).copied().collect();
        for key in &gone {
            self.take_ended(key);
        }
        self.unname(&gone);
        gone
    }

    /// Notes under which name an address was answered without a grant, because the connector is
    /// only audited. As many are kept as of what has ended; the first make room.
    pub fn answered(&mut self, name: &str, addr: Addr) {
        if self.answered.insert(addr, name.to_owned()).is_none() {
            self.first.push_back(addr);
        }
        if self.first.len() > MAX_ENDED
            && let Some(addr) = self.first.pop_front()
        {
            self.answered.remove(&addr);
        }
    }

    /// The name under which an address was last answered without a grant.
    pub fn answered_as(&self, addr: &Addr) -> Option<&str> {
        self.answered.get(addr).map(String::as_str)
    }

    /// The name under which an address was last granted.
    pub fn name_of(&self, addr: &Addr) -> Option<&str> {
        self.names.get(addr).map(|named| named.name.as_str())
    }

    fn end(&mut self, key: GrantKey, rule: u32) {
        let place = self.next;
        self.next = self.next.saturating_add(1);
        self.ended.insert(key, Ended { rule, place });
        self.order.insert(place, key);
    }

    /// The rule under which a destination had ended, which is forgotten now.
    fn take_ended(&mut self, key: &GrantKey) -> Option<u32> {
        let ended = self.ended.remove(key)?;
        self.order.remove(&ended.place);
        Some(ended.rule)
    }

    fn forget<'a>(&mut self, gone: impl Iterator<Item = &'a (GrantKey, Option<Grant>)>) {
        let gone: Vec<GrantKey> = gone.map(|(key, _)| *key).collect();
        for key in &gone {
            self.take_ended(key);
        }
        self.unname(&gone);
    }

    fn unname(&mut self, gone: &[GrantKey]) {
        for key in gone {
            if let Some(named) = self.names.get_mut(&key.addr) {
                named.destinations = named.destinations.saturating_sub(1);
                if named.destinations == 0 {
                    self.names.remove(&key.addr);
                }
            }
        }
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

/// A grant that ended long ago.
const NOTHING: Grant = Grant {
    expires_ns: 1,
    rule: 0,
    pad: 0,
};

/// The claim that lasts longest speaks for the destination. One that asks for no name comes
/// first: by it the operator lets that address be spoken to in whatever way, and a name asked
/// for by another rule would take that back.
fn effective(rules: &Claims) -> Option<Grant> {
    let (&rule, claim) = rules.iter().reduce(|best, next| {
        let longer = later(best.1.expires_ns, next.1.expires_ns) != best.1.expires_ns;
        match (best.1.named, next.1.named) {
            (true, false) => next,
            (false, true) => best,
            _ if longer => next,
            _ => best,
        }
    })?;
    Some(Grant {
        expires_ns: claim.expires_ns,
        rule,
        pad: 0,
    })
}

/// The later of two ends, where 0 never ends.
fn later(a: u64, b: u64) -> u64 {
    if a == 0 || b == 0 { 0 } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(port: u16, rule: u32, expires_ns: u64) -> Lease {
        let key = GrantKey {
            addr: Addr::from_v4(0xcb00_7107),
            connector: 1,
            port,
            protocol: 6,
            pad: 0,
        };
        Lease {
            key,
            rule,
            expires_ns,
            named: false,
        }
    }

    #[test]
    fn names_that_were_only_answered_are_kept_apart_and_bounded() {
        let mut ledger = Ledger::default();
        let addr = |number: usize| Addr::from_v4(u32::try_from(number).unwrap_or(0));
        for number in 0..=MAX_ENDED {
            ledger.answered("a.example", addr(number));
            ledger.answered("b.example", addr(number));
        }
        assert_eq!(ledger.answered_as(&addr(0)), None);
        assert_eq!(ledger.answered_as(&addr(1)), Some("b.example"));
        assert_eq!(ledger.answered_as(&addr(MAX_ENDED)), Some("b.example"));
        assert_eq!(ledger.name_of(&addr(1)), None);
        assert_eq!(ledger.answered.len(), MAX_ENDED);
    }

    #[test]
    fn a_claim_without_a_name_speaks_first_and_for_as_long_as_it_lasts() {
        let named = Lease {
            named: true,
            ..lease(443, 8, 300)
        };
        let mut ledger = Ledger::default();
        assert_eq!(ledger.enter("a.example", &named).0.rule, 8);
        let (grant, _) = ledger.enter("b.example", &lease(443, 9, 100));
        assert_eq!((grant.rule, grant.expires_ns), (9, 100));
        assert_eq!(ledger.enter("a.example", &named).0.rule, 9);
        assert_eq!(ledger.sweep(50), vec![]);
        let left = ledger.sweep(150);
        assert_eq!(left.len(), 1);
        assert!(
            left.iter()
                .all(|(_, grant)| grant.is_some_and(|it| it.rule == 8))
        );
        let other = Lease {
            rule: 10,
            expires_ns: 900,
            ..named
        };
        assert_eq!(ledger.enter("c.example", &other).0.rule, 10);
    }

    #[test]
    fn the_longest_claim_speaks() {
        let mut ledger = Ledger::default();
        ledger.enter("a.example", &lease(443, 8, 100));
        let (grant, _) = ledger.enter("b.example", &lease(443, 9, 50));
        assert_eq!((grant.rule, grant.expires_ns), (8, 100));
        let (grant, _) = ledger.enter("b.example", &lease(443, 9, 0));
        assert_eq!((grant.rule, grant.expires_ns), (9, 0));
    }

    #[test]
    fn a_shorter_answer_does_not_shorten() {
        let mut ledger = Ledger::default();
        ledger.enter("a.example", &lease(443, 8, 100));
        let (grant, _) = ledger.enter("a.example", &lease(443, 8, 40));
        assert_eq!(grant.expires_ns, 100);
    }

    #[test]
    fn what_the_kernel_refuses_is_undone_to_what_it_has() {
        let mut ledger = Ledger::default();
        ledger.enter("a.example", &lease(443, 8, 100));
        let (_, before) = ledger.enter("a.example", &lease(443, 8, 200));
        ledger.undo(&lease(443, 8, 200), before);
        let (_, before) = ledger.enter("a.example", &lease(444, 8, 200));
        ledger.undo(&lease(444, 8, 200), before);
        assert_eq!(ledger.len(), 1);
        assert_eq!(ledger.sweep(150), []);
        assert!(ledger.is_empty());
    }

    #[test]
    fn what_is_not_kept_is_gone_for_every_rule() {
        let mut ledger = Ledger::default();
        ledger.enter("a.example", &lease(443, 8, 100));
        ledger.enter("a.example", &lease(443, 9, 0));
        ledger.enter("a.example", &lease(444, 8, 200));
        assert_eq!(
            ledger.retain(|key| key.port != 443),
            vec![lease(443, 8, 0).key]
        );
        let left: Vec<_> = ledger
            .grants()
            .map(|(key, grant)| (key.port, grant.rule))
            .collect();
        assert_eq!(left, [(444, 8)]);
        assert_eq!(ledger.retain(|_| false).len(), 1);
        assert_eq!(ledger.name_of(&lease(0, 0, 0).key.addr), None);
    }

    #[test]
    fn names_go_with_their_last_destination() {
        let mut ledger = Ledger::default();
        ledger.enter("a.example", &lease(443, 8, 100));
        ledger.enter("a.example", &lease(444, 8, 200));
        let addr = lease(0, 0, 0).key.addr;
        assert_eq!(ledger.sweep(150), []);
        assert_eq!(ledger.len(), 1);
        assert_eq!(ledger.name_of(&addr), Some("a.example"));
        let mut gone = ledger.remove_rule(8);
        gone.sort_by_key(|(key, _)| *key);
        let both = [443, 444].map(|port| (lease(port, 8, 0).key, None));
        assert_eq!(gone, both, "the one that had ended as well");
        assert_eq!(ledger.name_of(&addr), None);
        assert!(ledger.is_empty() && ledger.forget_ended(9).is_empty());
    }

    #[test]
    fn what_has_ended_keeps_its_name_until_others_need_the_room() {
        let key = |number: usize| GrantKey {
            addr: Addr::from_v4(u32::try_from(number).unwrap_or(0)),
            ..lease(443, 8, 0).key
        };
        let mut ledger = Ledger::default();
        for number in 0..=MAX_ENDED {
            let end = number as u64 + 1;
            let lease = Lease {
                key: key(number),
                ..lease(443, 8, end)
            };
            ledger.enter("a.example", &lease);
        }
        assert_eq!(ledger.sweep(u64::MAX), [(key(0), None)], "the first to end");
        assert!(ledger.is_empty() && ledger.grants().next().is_none());
        assert_eq!(ledger.name_of(&key(0).addr), None);
        for number in [1, MAX_ENDED] {
            assert_eq!(ledger.name_of(&key(number).addr), Some("a.example"));
        }
        // One that is granted anew is the last to go.
        let again = Lease {
            key: key(1),
            ..lease(443, 9, u64::MAX)
        };
        let (grant, before) = ledger.enter("b.example", &again);
        assert_eq!((grant.rule, grant.expires_ns), (9, u64::MAX));
        assert_eq!(ledger.forget_ended(1), [key(2)]);
        // The kernel did not take it: it has the old one.
        ledger.undo(&again, before);
        assert_eq!(ledger.retain(|other| *other != key(1)), [key(1)]);
        assert_eq!(ledger.name_of(&key(1).addr), None);
        assert_eq!(ledger.forget_ended(usize::MAX).len(), MAX_ENDED - 2);
        assert!(ledger.names.is_empty() && ledger.order.is_empty());
    }
}
