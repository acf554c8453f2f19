//! What a query gets, before anything is asked upstream. Pure.

use egress_common::verdict::Reason;

use super::{
    opening::{Opening, denier, openings},
    wire,
};
use crate::policy::{
    model::{Mode, Policy, Target},
    name::{HostPattern, Name},
};

/// The kinds of address record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// Both, in the order in which they are asked.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of a QTYPE.
    pub fn of(kind: u16) -> Option<Self> {
        match kind {
            wire::A => Some(Self::V4),
            wire::AAAA => Some(Self::V6),
            _ => None,
        }
    }
}

/// What happens to a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The name is resolved and its addresses granted through these openings.
    Resolve {
        /// Addresses of which kind.
        family: Family,
        /// What the rules leave open; never empty.
        openings: Vec<Opening>,
        /// The place in `allow` of the wildcard that alone covers the name: asking upstream
        /// then tells the zone's owner the labels, and counts against the budget.
        wildcard: Option<usize>,
    },
    /// A permitted name, asked for records that are never given: an empty answer.
    Empty,
    /// The name is not permitted.
    Refuse(Denial),
}

/// Why a name is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// The reason code.
    pub reason: Reason,
    /// Id of the rule that refused it, or whose bounds it broke.
    pub rule: Option<String>,
}

/// Most labels a name may have in the place of a wildcard's `*`.
pub const MAX_WILDCARD_LABELS: usize = 4;
/// Most bytes a name may have in the place of a wildcard's `*`, dots included.
pub const MAX_WILDCARD_BYTES: usize = 63;

/// Decides a query by its name and QTYPE.
pub fn judge(policy: &Policy, name: &Name, kind: u16) -> Verdict {
    let openings = openings(policy, name);
    if openings.is_empty() {
        return Verdict::Refuse(not_open(policy, name));
    }
    let Some(family) = Family::of(kind) else {
        return Verdict::Empty;
    };
    let wildcard = match covered_by(policy, name, &openings) {
        Cover::Exact => None,
        Cover::Wildcard(rule) => Some(rule),
        Cover::TooLong(rule) => return Verdict::Refuse(over_budget(policy, rule)),
    };
    Verdict::Resolve {
        family,
        openings,
        wildcard,
    }
}

/// The denial of a name that says more through a wildcard than it may.
pub fn over_budget(policy: &Policy, rule: usize) -> Denial {
    Denial {
        reason: Reason::NameBudget,
        rule: policy.allow.get(rule).map(|rule| rule.id.clone()),
    }
}

/// Whether refusals are only reported.
pub fn audited(policy: &Policy) -> bool {
    policy.mode == Mode::Audit
}

/// The denial of a name that nothing is left open for.
pub fn not_open(policy: &Policy, name: &Name) -> Denial {
    match denier(policy, name) {
        Some(rule) => Denial {
            reason: Reason::DenyRule,
            rule: Some(rule.id.clone()),
        },
        None => Denial {
            reason: Reason::NameNotAllowed,
            rule: None,
        },
    }
}

enum Cover {
    Exact,
    Wildcard(usize),
    TooLong(usize),
}

/// The most generous pattern counts: an exact rule has no bounds, and of two wildcards the
/// longer leaves fewer labels for the connector to choose.
fn covered_by(policy: &Policy, name: &Name, openings: &[Opening]) -> Cover {
    let mut tightest: Option<(usize, &str)> = None;
    for opening in openings {
        let Some(rule) = policy.allow.get(opening.rule) else {
            continue;
        };
        let Target::Host(pattern) = &rule.target else {
            continue;
        };
        let HostPattern::Below(parent) = pattern else {
            return Cover::Exact;
        };
        let chosen = name
            .as_str()
            .strip_suffix(parent.as_str())
            .map_or(name.as_str(), |rest| rest.trim_end_matches('.'));
        if tightest.is_none_or(|(_, other)| chosen.len() < other.len()) {
            tightest = Some((opening.rule, chosen));
        }
    }
    match tightest {
        None => Cover::Exact,
        Some((rule, chosen)) => {
            if chosen.len() > MAX_WILDCARD_BYTES || chosen.split('.').count() > MAX_WILDCARD_LABELS
            {
                Cover::TooLong(rule)
            } else {
                Cover::Wildcard(rule)
            }
        }
    }
}
