//! Running totals: what was denied, what was shown of it, and what was not. Pure.
//!
//! The kernel counts every denial exactly. Lines show some of them, each with a `count`.
//! The difference is what the stream has not shown; it must be said (invariant 5).

use std::collections::{BTreeMap, BTreeSet};

use egress_common::verdict::Reason;

use super::model::{Body, Lost, Operation};

/// A difference is said once it has not changed for this long. Nanoseconds. Longer than
/// the repeat limiter's window, within which a hidden repeat may still be shown.
const SETTLED_NS: u64 = 2_000_000_000;
/// Losses that keep growing are said this often. Nanoseconds.
const LOSSES_NS: u64 = 5_000_000_000;
/// Hidden repeats that keep coming are said this often; the next line of the same denial
/// counts most of them. Nanoseconds.
const REPEATS_NS: u64 = 60_000_000_000;

/// Counts a request that was refused, or would have been, once for each reason.
pub fn judged(body: &Body, counts: &mut BTreeMap<String, u64>) {
    let Body::Operation(operation) = body else {
        return;
    };
    if operation.verdict == Operation::PASSED {
        return;
    }
    let reasons = operation.refusals.iter().map(|refusal| &refusal.reason);
    for reason in reasons.collect::<BTreeSet<_>>() {
        let count = counts.entry(reason.clone()).or_default();
        *count = count.saturating_add(1);
    }
}

/// The kernel's counters of one connector, summed over all CPUs, since it was loaded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exact {
    /// Denials by reason.
    pub denied: BTreeMap<Reason, u64>,
    /// Denials whose event found no room in the ring.
    pub lost: u64,
}

/// The books of one connector.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    baseline: Exact,
    exact: Exact,
    refused: BTreeMap<Reason, u64>,
    shown: BTreeMap<Reason, u64>,
    unwritten: u64,
    malformed: u64,
    said: Said,
    pending: Option<Pending>,
}

/// What a report says, to be compared with the next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Said {
    not_shown: BTreeMap<Reason, u64>,
    lost: u64,
    unwritten: u64,
    malformed: u64,
}

/// Something that is not said yet.
#[derive(Clone, Debug)]
struct Pending {
    what: Said,
    since_ns: u64,
    changed_ns: u64,
}

impl Tally {
    /// Books that begin at the counters as they stand: an agent that adopts a running
    /// connector answers for what comes from now on.
    pub fn new(baseline: Exact) -> Self {
        Self {
            exact: baseline.clone(),
            said: Said {
                lost: baseline.lost,
                ..Said::default()
            },
            baseline,
            ..Self::default()
        }
    }

    /// A record of the kernel was shown that stands for `count` denials.
    pub fn shown(&mut self, reason: Reason, count: u64) {
        add(&mut self.shown, reason, count);
    }

    /// The agent itself refused something (a name, a system call), this often, and showed it.
    pub fn refused(&mut self, reason: Reason, count: u64) {
        add(&mut self.refused, reason, count);
        add(&mut self.shown, reason, count);
    }

    /// Lines could not be written.
    pub fn unwritten(&mut self, lines: u64) {
        self.unwritten = self.unwritten.saturating_add(lines);
    }

    /// A record of the kernel could not be read.
    pub fn malformed(&mut self) {
        self.malformed = self.malformed.saturating_add(1);
    }

    /// The counters as they stand. Take them after the ring was read empty: a denial is
    /// counted before its event is sent.
    pub fn kernel(&mut self, exact: Exact) {
        self.exact = exact;
    }

    /// Ring losses that no line has reported yet; they count as reported now.
    pub fn take_lost(&mut self) -> u64 {
        let lost = self.exact.lost.saturating_sub(self.said.lost);
        self.said.lost += lost;
        lost
    }

    /// All denials by reason, exact.
    pub fn denied(&self) -> BTreeMap<Reason, u64> {
        let mut all = self.refused.clone();
        for (&reason, &count) in &self.exact.denied {
            let before = self.baseline.denied.get(&reason).copied().unwrap_or(0);
            add(&mut all, reason, count.saturating_sub(before));
        }
        all.retain(|_, count| *count > 0);
        all
    }

    /// Denials that no line has shown, by reason. One that is counted but still on its way
    /// through the ring is among them.
    pub fn not_shown(&self) -> BTreeMap<Reason, u64> {
        let mut rest = self.denied();
        rest.retain(|reason, count| {
            *count = count.saturating_sub(self.shown.get(reason).copied().unwrap_or(0));
            *count > 0
        });
        rest
    }

    /// All ring losses.
    pub fn lost(&self) -> u64 {
        self.exact.lost.saturating_sub(self.baseline.lost)
    }

    /// Lines that could not be written.
    pub fn lines_unwritten(&self) -> u64 {
        self.unwritten
    }

    /// What is to be said now, if anything. Call it about once a second; `now_ns` is any
    /// steady clock in nanoseconds.
    pub fn report(&mut self, now_ns: u64) -> Option<Lost> {
        let what = self.current();
        if what == self.said {
            self.pending = None;
            return None;
        }
        let losses = (what.lost, what.unwritten, what.malformed)
            != (self.said.lost, self.said.unwritten, self.said.malformed);
        let (since_ns, changed_ns) = match &self.pending {
            Some(pending) if pending.what == what => (pending.since_ns, pending.changed_ns),
            Some(pending) => (pending.since_ns, now_ns),
            None => (now_ns, now_ns),
        };
        let at_least = if losses { LOSSES_NS } else { REPEATS_NS };
        let due = now_ns.saturating_sub(changed_ns) >= SETTLED_NS
            || now_ns.saturating_sub(since_ns) >= at_least;
        if due {
            return Some(self.say());
        }
        self.pending = Some(Pending {
            what,
            since_ns,
            changed_ns,
        });
        None
    }

    /// The account as it stands, whether or not it is news. Connector and instance are for
    /// the caller to fill in.
    pub fn say(&mut self) -> Lost {
        let what = self.current();
        let lost = self.take_lost();
        let report = Lost {
            connector: None,
            instance: String::new(),
            lost,
            denied: total(&self.denied()),
            shown: total(&self.shown),
            not_shown: by_name(&what.not_shown),
            unwritten: what.unwritten,
            malformed: what.malformed,
        };
        self.said = what;
        self.pending = None;
        report
    }

    fn current(&self) -> Said {
        Said {
            not_shown: self.not_shown(),
            lost: self.exact.lost.max(self.said.lost),
            unwritten: self.unwritten,
            malformed: self.malformed,
        }
    }
}

/// Counts under the names of their reasons, as lines carry them.
pub fn by_name(counts: &BTreeMap<Reason, u64>) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|(reason, &count)| (reason.as_str().to_owned(), count))
        .collect()
}

/// All counts together.
pub fn total(counts: &BTreeMap<Reason, u64>) -> u64 {
    counts
        .values()
        .fold(0, |sum, &count| sum.saturating_add(count))
}

fn add(counts: &mut BTreeMap<Reason, u64>, reason: Reason, count: u64) {
    let sum = counts.entry(reason).or_default();
    *sum = sum.saturating_add(count);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn exact(denied: u64, lost: u64) -> Exact {
        Exact {
            denied: BTreeMap::from([(Reason::NoRule, denied)]),
            lost,
        }
    }

    #[test]
    fn nothing_to_say_when_all_was_shown() {
        let mut tally = Tally::default();
        tally.shown(Reason::NoRule, 3);
        tally.refused(Reason::NameNotAllowed, 1);
        tally.kernel(exact(3, 0));
        assert_eq!(tally.report(0), None);
        assert_eq!(tally.report(100 * SECOND), None);
        assert_eq!(total(&tally.denied()), 4);
    }

    #[test]
    fn hidden_repeats_are_said_once_they_have_settled() {
        let mut tally = Tally::default();
        tally.shown(Reason::NoRule, 1);
        tally.kernel(exact(5, 0));
        assert_eq!(tally.report(SECOND), None);
        assert_eq!(tally.report(2 * SECOND), None);
        let said = tally.report(3 * SECOND).unwrap();
        assert_eq!((said.denied, said.shown, said.lost), (5, 1, 0));
        assert_eq!(said.not_shown, BTreeMap::from([("no-rule".into(), 4)]));
        assert_eq!(tally.report(9 * SECOND), None);
        // The limiter shows them after all: the last line is the whole truth again.
        tally.shown(Reason::NoRule, 5);
        tally.kernel(exact(6, 0));
        assert_eq!(tally.report(10 * SECOND), None);
        let said = tally.report(12 * SECOND).unwrap();
        assert_eq!((said.denied, said.shown), (6, 6));
        assert!(said.not_shown.is_empty());
    }

    #[test]
    fn losses_that_keep_growing_are_said_meanwhile() {
        let mut tally = Tally::default();
        let mut said = Vec::new();
        for step in 0..60 {
            tally.kernel(exact(step * 10, step * 10));
            said.extend(tally.report(step * SECOND / 4).map(|report| report.lost));
        }
        assert!((2..=3).contains(&said.len()), "{said:?}");
        assert_eq!(said.iter().sum::<u64>() + tally.take_lost(), 590);
    }

    #[test]
    fn a_denial_line_can_carry_the_loss() {
        let mut tally = Tally::default();
        tally.kernel(exact(7, 7));
        assert_eq!(tally.take_lost(), 7);
        assert_eq!(tally.take_lost(), 0);
        assert_eq!(tally.lost(), 7);
        assert_eq!(total(&tally.not_shown()), 7);
    }

    #[test]
    fn an_adopted_connector_starts_at_its_counters() {
        let mut tally = Tally::new(exact(100, 40));
        assert_eq!(tally.report(0), None);
        assert_eq!(tally.report(60 * SECOND), None);
        tally.kernel(exact(101, 41));
        assert_eq!(
            (total(&tally.denied()), tally.lost(), tally.take_lost()),
            (1, 1, 1)
        );
    }

    #[test]
    fn lines_that_were_not_written_are_said() {
        let mut tally = Tally::default();
        tally.unwritten(2);
        tally.malformed();
        assert_eq!(tally.report(0), None);
        let said = tally.report(SETTLED_NS).unwrap();
        assert_eq!((said.unwritten, said.malformed), (2, 1));
    }

    proptest! {
        /// Whatever was hidden or lost, shown and not shown make up the exact count.
        #[test]
        fn the_books_balance(steps in proptest::collection::vec((0u64..50, 0u64..50, 0u64..50), 1..60)) {
            let mut tally = Tally::default();
            let (mut denied, mut lost, mut shown, mut said_lost) = (0, 0, 0, 0);
            for (now, (show, hide, lose)) in steps.into_iter().enumerate() {
                denied += show + hide + lose;
                lost += lose;
                shown += show;
                tally.shown(Reason::NoRule, show);
                tally.kernel(exact(denied, lost));
                said_lost += tally.report(now as u64 * SECOND / 2).map_or(0, |said| said.lost);
            }
            let last = tally.say();
            prop_assert_eq!(last.denied, denied);
            prop_assert_eq!(last.shown, shown);
            prop_assert_eq!(last.not_shown.values().sum::<u64>(), denied - shown);
            prop_assert_eq!(said_lost + last.lost, lost);
        }
    }
}
