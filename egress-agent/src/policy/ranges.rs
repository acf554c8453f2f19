//! The value of one entry of the tables: what every rule that covers it says, port by port.

use std::{borrow::Cow, fmt::Display};

use egress_common::{
    abi::MAX_RANGES,
    grant::{PortRange, PrefixRules},
};

use super::{
    compile::{CompiledRule, Misfit},
    fault::Complaint,
    model::{List, PortSpan},
};

/// So many rules are named where they do not fit.
const NAMED: usize = 4;

/// What a rule says about the destinations that it covers.
pub(super) struct Saying<'a> {
    /// Place of the rule in all lists together.
    pub(super) index: usize,
    pub(super) deny: bool,
    pub(super) slot: u32,
    id: &'a str,
    ports: Cow<'a, [PortSpan]>,
}

impl<'a> Saying<'a> {
    pub(super) fn new(
        index: usize,
        rule: &'a CompiledRule,
        ports: impl Into<Cow<'a, [PortSpan]>>,
    ) -> Self {
        Self {
            index,
            deny: rule.list == List::Deny,
            slot: rule.slot,
            id: &rule.id,
            ports: ports.into(),
        }
    }
}

/// The ranges of the rules that speak for an entry, in their order. Errors: they are too many;
/// `place` is what the entry is for, with its preposition.
pub(super) fn ranges<'a>(
    speaking: impl Iterator<Item = &'a Saying<'a>> + Clone,
    place: &dyn Display,
    advice: &'static str,
) -> Result<PrefixRules, Misfit> {
    let wanted = speaking
        .clone()
        .flat_map(|saying| saying.ports.iter().map(move |span| (saying, span)));
    let count = wanted.clone().count();
    if count > MAX_RANGES {
        return Err(overfull(speaking, count, place, advice));
    }
    let mut value = PrefixRules {
        count: 0,
        ranges: [PortRange::EMPTY; MAX_RANGES],
    };
    for (range, (saying, span)) in value.ranges.iter_mut().zip(wanted) {
        *range = PortRange {
            first: span.first,
            last: span.last,
            effect: if saying.deny {
                PortRange::DENY
            } else {
                PortRange::ALLOW
            },
            pad: 0,
            rule: saying.slot,
        };
        value.count += 1;
    }
    Ok(value)
}

fn overfull<'a>(
    speaking: impl Iterator<Item = &'a Saying<'a>> + Clone,
    count: usize,
    place: &dyn Display,
    advice: &'static str,
) -> Misfit {
    let mut ids: Vec<&str> = speaking.clone().map(|saying| saying.id).collect();
    if ids.len() > NAMED {
        ids.truncate(NAMED);
        ids.push("…");
    }
    Misfit {
        rule: speaking.map(|saying| saying.index).max(),
        complaint: Complaint::new(
            format!(
                "{count} port ranges meet {place}; at most {MAX_RANGES} fit (rules: {})",
                ids.join(", "),
            ),
            advice,
        ),
    }
}
