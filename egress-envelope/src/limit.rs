//! How much there was lately, and whether more is too much.
//!
//! A limit holds for every stretch of time of its length, wherever that begins. A span is counted in
//! 60 slots, and everything counts until its whole slot is over: at most a sixtieth longer than it
//! would have to, never shorter. So a burst at an edge finds no room that another one left, and
//! memory is the same for every limit.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::judge::{Limits, Reason, Refusal};

/// Slots of a span.
const SLOTS: u64 = 60;
/// The same, and the one that is over in part.
const KEPT: usize = 61;

/// At most so much in any stretch of time of this length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rate {
    /// So much.
    pub most: u64,
    /// In such a time.
    pub per: Span,
}

/// Lengths of time that limits are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Span {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// 86,400 s.
    Day,
}

impl Span {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    /// The letter by which policies write it.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
        }
    }

    /// A slot of it. Milliseconds.
    const fn slot(self) -> u64 {
        let seconds: u64 = match self {
            // 17 ms: a little longer than a sixtieth, and so is the whole.
            Self::Second => return 17,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        };
        seconds * 1_000 / SLOTS
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.most, self.per.letter())
    }
}

/// What a request takes of its rule's limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// How many things it does: each call of a batch is one.
    pub requests: u64,
    /// To how many it goes; who is named twice counts twice.
    pub recipients: u64,
    /// Bytes of its body, as they are sent.
    pub bytes: u64,
}

impl Default for Cost {
    fn default() -> Self {
        Self {
            requests: 1,
            recipients: 0,
            bytes: 0,
        }
    }
}

/// What passed under one rule lately. Every span is counted, whether there is a limit for it or not:
/// one that a later policy has knows what went before.
#[derive(Debug, Default)]
pub struct Meter(Box<[Counts; 3]>);

type Counts = [Window; Span::ALL.len()];

impl Meter {
    /// Counts a request that is to pass, `now` being the time since any fixed moment. What is too
    /// much is answered, and then nothing is counted, unless `reports`: then it passes nevertheless.
    /// With it comes after how many seconds there is room; `None`: never.
    pub fn count(
        &mut self,
        limits: &Limits,
        cost: Cost,
        now: Duration,
        reports: bool,
    ) -> (Vec<Refusal>, Option<u64>) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let kinds = [
            (limits.requests, cost.requests, Reason::OverRequestLimit),
            (
                limits.recipients,
                cost.recipients,
                Reason::OverRecipientLimit,
            ),
            (limits.bytes, cost.bytes, Reason::OverByteLimit),
        ];
        let (mut over, mut again) = (Vec::new(), Some(0));
        for ((rate, amount, reason), counts) in kinds.into_iter().zip(self.0.iter_mut()) {
            let Some(rate) = rate.filter(|_| amount > 0) else {
                continue;
            };
            for (span, window) in Span::ALL.into_iter().zip(counts) {
                if span == rate.per && window.total(span, now).saturating_add(amount) > rate.most {
                    let room = window.room(span, now, rate.most, amount);
                    again = again.zip(room).map(|(one, other)| one.max(other));
                    over.push(Refusal {
                        reason,
                        place: None,
                        value: Some(rate.to_string()),
                    });
                }
            }
        }
        if over.is_empty() || reports {
            for ((_, amount, _), counts) in kinds.into_iter().zip(self.0.iter_mut()) {
                for (span, window) in Span::ALL.into_iter().zip(counts) {
                    window.add(span, now, amount);
                }
            }
        }
        (over, again)
    }
}

/// What there was in a span, slot by slot.
#[derive(Debug)]
struct Window {
    slots: [u64; KEPT],
    /// The number of the newest slot since time began.
    newest: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            slots: [0; KEPT],
            newest: 0,
        }
    }
}

impl Window {
    /// Forgets what is over. Time does not go back.
    fn advance(&mut self, span: Span, now: u64) {
        let slot = now / span.slot();
        let over = slot.saturating_sub(self.newest).min(KEPT as u64);
        for step in 0..over {
            if let Some(old) = self.at(slot.saturating_sub(step)) {
                *old = 0;
            }
        }
        self.newest = self.newest.max(slot);
    }

    fn at(&mut self, slot: u64) -> Option<&mut u64> {
        let place = usize::try_from(slot % KEPT as u64).ok()?;
        self.slots.get_mut(place)
    }

    fn total(&mut self, span: Span, now: u64) -> u64 {
        self.advance(span, now);
        self.slots.iter().fold(0, |sum, it| sum.saturating_add(*it))
    }

    fn add(&mut self, span: Span, now: u64, amount: u64) {
        self.advance(span, now);
        let newest = self.newest;
        if let Some(slot) = self.at(newest) {
            *slot = slot.saturating_add(amount);
        }
    }

    /// After how many seconds so much more fits, one at least; `None`: never.
    fn room(&mut self, span: Span, now: u64, most: u64, amount: u64) -> Option<u64> {
        let mut left = most.checked_sub(amount)?;
        let newest = self.newest;
        for slot in (0..=newest).rev().take(KEPT) {
            let held = self.at(slot).map_or(0, |held| *held);
            match left.checked_sub(held) {
                Some(rest) => left = rest,
                None => {
                    let over = slot.saturating_add(KEPT as u64).saturating_mul(span.slot());
                    return Some(over.saturating_sub(now).div_ceil(1_000).max(1));
                }
            }
        }
        Some(1)
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
