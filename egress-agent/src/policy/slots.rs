//! Which number each rule has in the data plane, for as long as an instance runs. Pure.
//!
//! A number stands in sockets, grants and prefixes, and what was approved under it stays
//! approved while it is in force. So a number means one rule for ever: a rule that means the
//! same keeps it, however often it comes and goes, and no other rule ever gets it. Nothing
//! then has to be proven about what may still refer to a rule that is gone.

use std::collections::HashMap;

use egress_common::abi::{MAX_RULES, RULE_FIRST};

use super::model::{Listen, Policy, Rule, Target};

/// Numbers an instance has at least: with few rules, changes are what needs the room. They
/// cost 8 bytes each, and 24 bytes on each CPU for the counters: 6 KiB a CPU.
const LEAST: u32 = 256;
/// Numbers an instance has for each rule it starts with.
const FOR_EACH: u32 = 4;

/// The numbers of one instance's rules.
#[derive(Debug)]
pub struct Slots {
    next: u32,
    end: u32,
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
    /// Numbers from `RULE_FIRST` to below `end`, the size of the rule tables.
    pub fn new(end: u32) -> Self {
        Self {
            next: RULE_FIRST,
            end: end.clamp(RULE_FIRST, MAX_RULES),
            known: HashMap::new(),
        }
    }

    /// The numbers of a policy's rules: those of `allow` in order, then those of `deny`, then
    /// those of `listen`. A rule that was here before, under the same id and with the same meaning, has the number
    /// it had. After an error nothing has changed.
    pub fn assign(&mut self, policy: &Policy) -> Result<Vec<u32>, OutOfSlots> {
        let meanings = meanings(policy);
        let known: Vec<Option<u32>> = meanings.iter().map(|rule| self.known(rule)).collect();
        let new = known.iter().filter(|slot| slot.is_none()).count();
        let left = self.end.saturating_sub(self.next);
        if u32::try_from(new).map_or(true, |new| new > left) {
            return Err(OutOfSlots {
                new,
                left,
                total: self.end.saturating_sub(RULE_FIRST),
            });
        }
        let rules = meanings.into_iter().zip(known);
        Ok(rules
            .map(|(meaning, known)| known.unwrap_or_else(|| self.take(meaning)))
            .collect())
    }

    fn known(&self, meaning: &Meaning) -> Option<u32> {
        let same_id = self.known.get(meaning.says.id())?;
        let same = same_id.iter().find(|(known, _)| known == meaning);
        same.map(|(_, slot)| *slot)
    }

    fn take(&mut self, meaning: Meaning) -> u32 {
        let slot = self.next;
        self.next = self.next.saturating_add(1);
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
        let mut slots = Slots::new(room(3));
        let first = slots.assign(&allow(&["a.example:1", "b.example:1"]));
        assert_eq!(first, Ok(vec![8, 9]));
        let second = slots.assign(&allow(&["c.example:1", "b.example:1", "a.example:1"]));
        assert_eq!(second, Ok(vec![10, 9, 8]));
        let why = "allow: [{host: a.example, ports: [1], why: because}]";
        assert_eq!(slots.assign(&policy(why)), Ok(vec![8]));
    }

    #[test]
    fn a_number_never_means_another_rule() {
        let mut slots = Slots::new(room(1));
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
        let mut slots = Slots::new(room(2));
        let rules = "allow: ['*.example.org:1', '10.0.0.1:1']";
        assert_eq!(slots.assign(&policy(rules)), Ok(vec![8, 9]));
        let name = format!("{rules}\ndeny: [{{host: a.example.org}}]");
        assert_eq!(slots.assign(&policy(&name)), Ok(vec![10, 9, 11]));
        let prefix = format!("{rules}\ndeny: [{{cidr: 10.0.0.0/24}}]");
        assert_eq!(slots.assign(&policy(&prefix)), Ok(vec![8, 9, 12]));
    }

    #[test]
    fn without_room_nothing_changes() {
        let mut slots = Slots::new(RULE_FIRST + 2);
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
}
