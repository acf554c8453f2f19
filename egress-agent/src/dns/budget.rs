//! How much a connector may say by having names looked up. Pure; time is an argument.
//!
//! Every question that goes upstream tells something to the name servers of its domain, and to
//! whoever sees it on the way: under `*.example.com` up to 63 bytes in 4 labels
//! ([`super::verdict`]), under an exact name which one and when. The policy trusts those servers as
//! far as it permits the hosts, so the channel cannot be closed; it is narrowed. Answers are
//! kept ([`super::cache`]), and what a connector has looked up beyond that is counted: for each
//! wildcard apart, for all exact names together.

use std::collections::HashMap;

use crate::policy::model::lookups_at_once;

const NS_PER_MINUTE: u64 = 60_000_000_000;

/// The budgets of a policy.
#[derive(Debug, Default)]
pub struct Budget {
    buckets: HashMap<u32, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Look-ups left.
    left: u32,
    /// Up to when refilling has been reckoned. Boot clock, nanoseconds.
    filled_ns: u64,
}

impl Budget {
    /// Takes a look-up out of a budget: that of a wildcard by its rule's slot, or of all exact
    /// names by [`egress_common::abi::RULE_NONE`]. `per_minute`: at least 1. False where nothing
    /// is left.
    pub fn spend(&mut self, slot: u32, per_minute: u32, now_ns: u64) -> bool {
        let bucket = self.buckets.entry(slot).or_insert_with(|| Bucket {
            left: lookups_at_once(per_minute),
            filled_ns: now_ns,
        });
        bucket.refill(per_minute, now_ns);
        let Some(left) = bucket.left.checked_sub(1) else {
            return false;
        };
        bucket.left = left;
        true
    }
}

impl Bucket {
    fn refill(&mut self, per_minute: u32, now_ns: u64) {
        let each = NS_PER_MINUTE / u64::from(per_minute.max(1));
        let more = now_ns.saturating_sub(self.filled_ns) / each;
        self.filled_ns = self.filled_ns.saturating_add(more.saturating_mul(each));
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.left = self
            .left
            .saturating_add(more)
            .min(lookups_at_once(per_minute));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::model::LOOKUPS_PER_MINUTE as PER_MINUTE;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn it_runs_out_and_comes_back() {
        let mut budget = Budget::default();
        let mut now = 5 * SECOND;
        for _ in 0..lookups_at_once(PER_MINUTE) {
            assert!(budget.spend(8, PER_MINUTE, now));
        }
        assert!(!budget.spend(8, PER_MINUTE, now));
        assert!(budget.spend(9, PER_MINUTE, now), "another wildcard");
        now += 2 * SECOND - 1;
        assert!(!budget.spend(8, PER_MINUTE, now));
        now += 1;
        assert!(budget.spend(8, PER_MINUTE, now));
        assert!(!budget.spend(8, PER_MINUTE, now));
    }

    proptest! {
        /// Whatever is asked when, no stretch of time sees more than a burst and the rate.
        #[test]
        fn the_rate_holds(
            per_minute in 1..5000u32,
            steps in prop::collection::vec(0..400_000_000u64, 1..600),
        ) {
            let mut budget = Budget::default();
            let (mut now, mut passed) = (SECOND, Vec::new());
            for step in steps {
                now += step;
                if budget.spend(8, per_minute, now) {
                    passed.push(now);
                }
            }
            for (index, first) in passed.iter().enumerate() {
                let last = passed.last().unwrap_or(first);
                let minutes = (last - first) as f64 / NS_PER_MINUTE as f64;
                let most = f64::from(lookups_at_once(per_minute)) + 1.0 + minutes * f64::from(per_minute);
                prop_assert!((passed.len() - index) as f64 <= most * 1.001);
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_gives_no_more_than_a_burst() {
        let mut budget = Budget::default();
        assert!(budget.spend(0, PER_MINUTE, 0));
        let passed = (1..1000)
            .filter(|_| budget.spend(0, PER_MINUTE, u64::MAX))
            .count();
        assert_eq!(
            passed,
            usize::try_from(lookups_at_once(PER_MINUTE)).unwrap_or(0)
        );
    }
}
