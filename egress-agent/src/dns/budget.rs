//! How much a connector may say through the labels under a wildcard. Pure; time is an
//! argument.
//!
//! Every new name under `*.example.com` reaches the name servers of `example.com`: a channel
//! to the zone's owner, whom the policy trusts as far as it permits the hosts, and to whoever
//! sees the query on the way. It cannot be closed without closing the wildcard, so it is
//! narrowed: at most 63 bytes in 4 labels a name ([`super::verdict`]), [`BURST`] new names at
//! once and [`PER_MINUTE`] a minute after that, for each wildcard. Names asked lately are
//! free, so ordinary use never notices.

use std::collections::{HashMap, VecDeque};

use crate::policy::name::Name;

/// New names a wildcard takes at once.
pub const BURST: u32 = 64;
/// New names a wildcard takes each minute after that.
pub const PER_MINUTE: u32 = 30;
/// Names a wildcard remembers; asking them again is free.
pub const REMEMBERED: usize = 256;

const NS_PER_NAME: u64 = 60_000_000_000 / PER_MINUTE as u64;

/// The budgets of all wildcards of a policy.
#[derive(Debug, Default)]
pub struct Budget {
    wildcards: HashMap<u32, Wildcard>,
}

#[derive(Debug)]
struct Wildcard {
    /// Names left.
    left: u32,
    /// Up to when refilling has been reckoned. Boot clock, nanoseconds.
    filled_ns: u64,
    /// Names asked lately, the oldest first.
    recent: VecDeque<Name>,
}

impl Budget {
    /// Takes a name under a wildcard (its rule's slot) out of the budget. False where nothing
    /// is left.
    pub fn spend(&mut self, wildcard: u32, name: &Name, now_ns: u64) -> bool {
        self.wildcards
            .entry(wildcard)
            .or_insert_with(|| Wildcard {
                left: BURST,
                filled_ns: now_ns,
                recent: VecDeque::new(),
            })
            .spend(name, now_ns)
    }
}

impl Wildcard {
    fn spend(&mut self, name: &Name, now_ns: u64) -> bool {
        if self.recent.contains(name) {
            return true;
        }
        self.refill(now_ns);
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        if self.recent.len() >= REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(name.clone());
        true
    }

    fn refill(&mut self, now_ns: u64) {
        let names = now_ns.saturating_sub(self.filled_ns) / NS_PER_NAME;
        self.filled_ns = self
            .filled_ns
            .saturating_add(names.saturating_mul(NS_PER_NAME));
        let names = u32::try_from(names).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(names).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> Name {
        Name::parse(&format!("n{number}.example.com"))
            .unwrap_or_else(|error| unreachable!("{error}"))
    }

    #[test]
    fn new_names_run_out_and_come_back() {
        let mut budget = Budget::default();
        let mut now = 5_000_000_000;
        for number in 0..BURST {
            assert!(budget.spend(0, &name(number), now));
        }
        assert!(!budget.spend(0, &name(BURST), now));
        assert!(budget.spend(0, &name(3), now), "asked before");
        assert!(budget.spend(1, &name(BURST), now), "another wildcard");
        now += NS_PER_NAME - 1;
        assert!(!budget.spend(0, &name(BURST), now));
        now += 1;
        assert!(budget.spend(0, &name(BURST), now));
        assert!(!budget.spend(0, &name(BURST + 1), now));
    }

    #[test]
    fn the_rate_holds_over_a_day() {
        let mut budget = Budget::default();
        let passed = (0..86_400)
            .filter(|second| budget.spend(0, &name(*second), u64::from(*second) * 1_000_000_000))
            .count();
        let most = u32::try_from(passed).unwrap_or(u32::MAX);
        assert!(most <= BURST + PER_MINUTE * 24 * 60, "{most}");
        assert!(
            budget
                .wildcards
                .values()
                .all(|wildcard| wildcard.recent.len() <= REMEMBERED)
        );
    }

    #[test]
    fn a_clock_that_jumps_gives_no_more_than_a_burst() {
        let mut budget = Budget::default();
        assert!(budget.spend(0, &name(0), 0));
        let late = u64::MAX;
        let passed = (1..1000)
            .filter(|number| budget.spend(0, &name(*number), late))
            .count();
        assert_eq!(passed, usize::try_from(BURST).unwrap_or(0));
    }
}
