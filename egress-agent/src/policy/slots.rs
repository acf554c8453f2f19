//! Which number each rule has in the data plane, for as long as its connector runs. Pure.
//!
//! A number stands in sockets, grants and prefixes, and what was approved under it stays
//! approved while it is in force. So a number means one rule for as long as the connector runs:
//! a rule that means the same keeps it, however often it comes and goes, and no other rule gets
//! it. Nothing then has to be proven about what may still refer to a rule that is gone.
//!
//! Connectors that share a data plane take their numbers from one store ([`Numbers`]), so that
//! none of them is in two connectors' tables. They come back once the connector has ended and
//! no socket of it is left.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use egress_common::abi::{MAX_RULES, RULE_FIRST};

use super::model::{Listen, Policy, Rule, Target};

/// Numbers an instance has at least: with few rules, changes are what needs the room. They
/// cost 8 bytes each, and 24 bytes on each CPU for the counters: 6 KiB a CPU.
const LEAST: u32 = 256;
/// Numbers an instance has for each rule it starts with.
const FOR_EACH: u32 = 4;

/// The numbers that a data plane has for rules; each is with one connector at a time.
#[derive(Clone, Debug)]
pub struct Numbers(Arc<Mutex<Store>>);

#[derive(Debug)]
struct Store {
    next: u32,
    end: u32,
    /// Numbers of connectors that have ended.
    back: Vec<u32>,
}

impl Numbers {
    /// Numbers from `RULE_FIRST` to below `end`, the size of the rule tables.
    pub fn new(end: u32) -> Self {
        Self(Arc::new(Mutex::new(Store {
            next: RULE_FIRST,
            end: end.clamp(RULE_FIRST, MAX_RULES),
            back: Vec::new(),
        })))
    }

    /// Takes back the numbers of a connector that has ended. No socket and no table may have them
    /// any more.
    pub fn give_back(&self, numbers: impl IntoIterator<Item = u32>) {
        self.store().back.extend(numbers);
    }

    /// How many nobody has.
    pub fn left(&self) -> u32 {
        self.store().left()
    }

    /// Takes so many, or none.
    fn take(&self, count: usize) -> Result<Vec<u32>, OutOfSlots> {
        let mut store = self.store();
        let left = store.left();
        if u32::try_from(count).map_or(true, |count| count > left) {
            return Err(OutOfSlots {
                new: count,
                left,
                total: store.end.saturating_sub(RULE_FIRST),
            });
        }
        Ok((0..count).map(|_| store.one()).collect())
    }

    /// Nothing panics while it is locked, and nothing in it is half done.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn left(&self) -> u32 {
        let back = u32::try_from(self.back.len()).unwrap_or(u32::MAX);
        self.end.saturating_sub(self.next).saturating_add(back)
    }

    /// New ones first: what is rarely used again is rarely mistaken.
    fn one(&mut self) -> u32 {
        if self.next < self.end {
            let number = self.next;
            self.next = self.next.saturating_add(1);
            return number;
        }
        self.back.pop().unwrap_or(self.end)
    }
}

/// The numbers of one connector's rules.
#[derive(Debug)]
pub struct Slots {
    numbers: Numbers,
    known: HashMap<String, Vec<(Meaning, u32)>>,
}

/// No number is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{new} new rules have no place in the running data plane ({left} of {total} are free, and \
     places of removed rules are not used again); restart the connector"
)]
pub struct OutOfSlots {
    /// Rules that need a new number.
    pub new: usize,
    /// Numbers that are left.
    pub left: u32,
    /// Numbers there were.
    pub total: u32,
}

/// What a rule means. Two rules with the same meaning approve the same destinations.
#[derive(Clone, PartialEq, Debug)]
struct Meaning {
    says: Says,
    /// Requests are judged: then the addresses that are granted are others.
    inspected: bool,
    /// Denied names, for a rule about names. A denial of a name takes addresses away that
    /// cannot be told from those it leaves, so such a rule becomes another one with it.
    /// Denied prefixes are not here: they are seen by address.
    denied_names: Vec<Rule>,
}

#[derive(Clone, PartialEq, Debug)]
enum Says {
    Allow(Rule),
    Deny(Rule),
    Listen(Listen),
}

impl Says {
    fn id(&self) -> &str {
        match self {
            Self::Allow(rule) | Self::Deny(rule) => &rule.id,
            Self::Listen(rule) => &rule.id,
        }
    }
}

/// The size of the rule tables for an instance that starts with `rules` rules: room to grow,
/// reserved numbers included.
pub fn room(rules: usize) -> u32 {
    let rules = u32::try_from(rules).unwrap_or(u32::MAX);
    RULE_FIRST
        .saturating_add(rules.saturating_mul(FOR_EACH))
        .clamp(LEAST, MAX_RULES)
}

impl Slots {
    /// None yet; they are taken from `numbers`.
    pub fn new(numbers: Numbers) -> Self {
        Self {
            numbers,
            known: HashMap::new(),
        }
    }

    /// Every number that was taken.
    pub fn all(&self) -> impl Iterator<Item = u32> {
        self.known.values().flatten().map(|(_, number)| *number)
    }

    /// The numbers of a policy's rules: those of `allow` in order, then those of `deny`, then
    /// those of `listen`. A rule that was here before, under the same id and with the same meaning, has the number
    /// it had. After an error nothing has changed.
    pub fn assign(&mut self, policy: &Policy) -> Result<Vec<u32>, OutOfSlots> {
        let meanings = meanings(policy);
        let known: Vec<Option<u32>> = meanings.iter().map(|rule| self.known(rule)).collect();
        let new = known.iter().filter(|slot| slot.is_none()).count();
        let mut taken = self.numbers.take(new)?.into_iter();
        let rules = meanings.into_iter().zip(known);
        Ok(rules
            .filter_map(|(meaning, known)| {
                known.or_else(|| taken.next().map(|slot| self.keep(meaning, slot)))
            })
            .collect())
    }

    fn known(&self, meaning: &Meaning) -> Option<u32> {
        let same_id = self.known.get(meaning.says.id())?;
        let same = same_id.iter().find(|(known, _)| known == meaning);
        same.map(|(_, slot)| *slot)
    }

    fn keep(&mut self, meaning: Meaning, slot: u32) -> u32 {
        let same_id = self.known.entry(meaning.says.id().to_owned()).or_default();
        same_id.push((meaning, slot));
        slot
    }
}

fn meanings(policy: &Policy) -> Vec<Meaning> {
    let is_host = |rule: &&Rule| matches!(rule.target, Target::Host(_));
    let denied_names: Vec<Rule> = policy.deny.iter().filter(is_host).map(plain).collect();
    let allow = policy.allow.iter().map(|rule| Meaning {
        says: Says::Allow(plain(rule)),
        inspected: rule.inspect.is_some(),
        denied_names: if is_host(&rule) {
            denied_names.clone()
        } else {
            Vec::new()
        },
    });
    let deny = policy.deny.iter().map(|rule| Meaning {
        says: Says::Deny(plain(rule)),
        inspected: false,
        denied_names: Vec::new(),
    });
    let listen = policy.listen.iter().map(|rule| Meaning {
        says: Says::Listen(Listen {
            why: None,
            ..rule.clone()
        }),
        inspected: false,
        denied_names: Vec::new(),
    });
    allow.chain(deny).chain(listen).collect()
}

/// A rule without what is only said about it. How requests are judged can change while flows live:
/// the process that judges is told.
fn plain(rule: &Rule) -> Rule {
    Rule {
        why: None,
        inspect: None,
        ..rule.clone()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use super::*;
    use crate::policy::load::parse;

    fn policy(rules: &str) -> Policy {
        let text = format!("version: 1\nconnector: test\n{rules}\n");
        parse(Path::new("test.yaml"), &text).unwrap()
    }

    fn allow(rules: &[&str]) -> Policy {
        policy(&format!("allow: [{}]", rules.join(", ")))
    }

    #[test]
    fn a_rule_keeps_its_number_wherever_it_stands() {
        let mut slots = Slots::new(Numbers::new(room(3)));
        let first = slots.assign(&allow(&["a.example:1", "b.example:1"]));
        assert_eq!(first, Ok(vec![8, 9]));
        let second = slots.assign(&allow(&["c.example:1", "b.example:1", "a.example:1"]));
        assert_eq!(second, Ok(vec![10, 9, 8]));
        let why = "allow: [{host: a.example, ports: [1], why: because}]";
        assert_eq!(slots.assign(&policy(why)), Ok(vec![8]));
    }

    #[test]
    fn a_number_never_means_another_rule() {
        let mut slots = Slots::new(Numbers::new(room(1)));
        assert_eq!(slots.assign(&allow(&["a.example:1"])), Ok(vec![8]));
        assert_eq!(slots.assign(&allow(&["b.example:1"])), Ok(vec![9]));
        assert_eq!(slots.assign(&allow(&["a.example:1"])), Ok(vec![8]));
        let same_id = |port| {
            policy(&format!(
                "allow: [{{id: x, host: a.example, ports: [{port}]}}]"
            ))
        };
        assert_eq!(slots.assign(&same_id(1)), Ok(vec![10]));
        assert_eq!(slots.assign(&same_id(2)), Ok(vec![11]));
        let denied = policy("deny: [{id: x, host: a.example, ports: [2]}]");
        assert_eq!(slots.assign(&denied), Ok(vec![12]));
    }

    #[test]
    fn a_denied_name_makes_rules_about_names_new_ones() {
        let mut slots = Slots::new(Numbers::new(room(2)));
        let rules = "allow: ['*.example.org:1', '10.0.0.1:1']";
        assert_eq!(slots.assign(&policy(rules)), Ok(vec![8, 9]));
        let name = format!("{rules}\ndeny: [{{host: a.example.org}}]");
        assert_eq!(slots.assign(&policy(&name)), Ok(vec![10, 9, 11]));
        let prefix = format!("{rules}\ndeny: [{{cidr: 10.0.0.0/24}}]");
        assert_eq!(slots.assign(&policy(&prefix)), Ok(vec![8, 9, 12]));
    }

    #[test]
    fn without_room_nothing_changes() {
        let mut slots = Slots::new(Numbers::new(RULE_FIRST + 2));
        assert_eq!(slots.assign(&allow(&["a.example:1"])), Ok(vec![8]));
        let error = slots.assign(&allow(&["b.example:1", "c.example:1"]));
        let expected = OutOfSlots {
            new: 2,
            left: 1,
            total: 2,
        };
        assert_eq!(error, Err(expected));
        let known = slots.assign(&allow(&["a.example:1", "b.example:1"]));
        assert_eq!(known, Ok(vec![8, 9]));
        assert!(slots.assign(&allow(&["c.example:1"])).is_err());
    }

    #[test]
    fn there_is_room_to_grow() {
        assert_eq!(room(0), LEAST);
        assert_eq!(room(1000), RULE_FIRST + 4000);
        assert_eq!(room(usize::MAX), MAX_RULES);
    }

    #[test]
    fn connectors_share_no_number_and_leave_theirs_to_others() {
        let numbers = Numbers::new(RULE_FIRST + 4);
        let mut one = Slots::new(numbers.clone());
        let mut other = Slots::new(numbers.clone());
        assert_eq!(one.assign(&allow(&["a.example:1"])), Ok(vec![8]));
        assert_eq!(other.assign(&allow(&["a.example:1"])), Ok(vec![9]));
        assert_eq!(
            one.assign(&allow(&["b.example:1", "a.example:1"])),
            Ok(vec![10, 8])
        );
        let error = other.assign(&allow(&["c.example:1", "d.example:1"]));
        assert_eq!(error.map_err(|error| error.left), Err(1));
        numbers.give_back(one.all());
        assert_eq!(numbers.left(), 3);
        let known = other.assign(&allow(&["c.example:1", "d.example:1", "a.example:1"]));
        assert!(known.is_ok_and(|known| known.len() == 3 && known.ends_with(&[9])));
    }
}
