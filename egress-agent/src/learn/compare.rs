//! Declared against observed, and one record against another. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    observed::{Observed, Place},
    propose::{Proposal, Proposed, propose},
};
use crate::policy::{
    model::{Policy, Target},
    name::HostPattern,
};

/// What a policy declares, beside what was observed.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Ids of rules under which nothing passed in any run that ended.
    pub unused: Vec<String>,
    /// Rules that permit more than one name or address: which of them was meant, no event says.
    pub wide: Vec<String>,
    /// What was refused, and what would have been.
    pub wishes: Proposal,
    /// Requests that were refused, or would have been: host, port, operation, reasons.
    pub requests: Vec<(String, u16, String, BTreeMap<String, u64>)>,
}

/// Compares.
pub fn with_policy(observed: &Observed, policy: &Policy) -> Compared {
    let ended = observed.runs.iter().any(|run| run.ended);
    let ids: Vec<&str> = policy.written().map(|rule| rule.id.as_str()).collect();
    let used = |id: &&&str| observed.used.contains_key(**id);
    let is_wide = |target: &Target| match target {
        Target::Host(pattern) => !matches!(pattern, HostPattern::Exact(_)),
        Target::Cidr(net) => net.prefix_len() < net.max_prefix_len(),
        Target::Unix(_) | Target::Session(_) => false,
    };
    // Sockets of this host are not counted by rule.
    let counted = |rule: &&crate::policy::model::Rule| rule.target.socket().is_none();
    let sockets: BTreeSet<&str> = policy
        .written()
        .filter(|rule| !counted(rule) || matches!(rule.target, Target::Session(_)))
        .map(|rule| rule.id.as_str())
        .collect();
    let unused = ids
        .iter()
        .filter(|id| ended && !used(id) && !sockets.contains(**id));
    let wide = policy.written().filter(|rule| is_wide(&rule.target));
    let requests = observed.requests.iter();
    Compared {
        unused: unused.map(|&id| id.to_owned()).collect(),
        wide: wide.map(|rule| rule.id.clone()).collect(),
        wishes: propose(observed, Some(policy)),
        requests: requests
            .filter(|(_, seen)| !seen.reasons.is_empty())
            .map(|((host, port, what), seen)| {
                (host.clone(), *port, what.clone(), seen.reasons.clone())
            })
            .collect(),
    }
}

impl Compared {
    /// Whether anything was wanted that is not declared.
    pub fn has_news(&self) -> bool {
        let wishes = &self.wishes;
        !(wishes.rules.is_empty()
            && wishes.apart.is_empty()
            && wishes.asked.is_empty()
            && wishes.never.is_empty()
            && self.requests.is_empty())
    }

    /// Wishes of every kind that a rule could permit.
    pub fn wished(&self) -> impl Iterator<Item = &Proposed> {
        let apart = self.wishes.apart.iter().map(|(_, rule)| rule);
        self.wishes.rules.iter().chain(apart)
    }
}

/// What one record has and the other has not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Between {
    /// What is new, each kind with its things.
    pub new: BTreeMap<&'static str, BTreeSet<String>>,
    /// What is gone.
    pub gone: BTreeMap<&'static str, BTreeSet<String>>,
}

/// Compares two records of one connector, such as of two versions of its package.
pub fn records(before: &Observed, after: &Observed) -> Between {
    let [before, after] = [before, after].map(things);
    let only = |one: &Things, other: &Things| {
        let mut found: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        for (kind, thing) in one.difference(other) {
            found.entry(kind).or_default().insert(thing.clone());
        }
        found
    };
    Between {
        new: only(&after, &before),
        gone: only(&before, &after),
    }
}

type Things = BTreeSet<(&'static str, String)>;

fn things(observed: &Observed) -> Things {
    let mut found = Things::new();
    for place in observed.places.keys() {
        found.insert(match place {
            Place::Name(name, port, protocol) => ("names", format!("{name}:{port}/{protocol}")),
            Place::Address(ip, port, protocol) => (
                "addresses",
                format!("{}/{protocol}", std::net::SocketAddr::new(*ip, *port)),
            ),
            Place::Unix(path) => ("sockets", path.clone()),
            Place::Asked(name) => ("names asked for", name.clone()),
            Place::Never(layer, reason, what) => ("refused", format!("{layer} {reason} {what}")),
        });
    }
    found.extend(
        observed
            .used
            .keys()
            .map(|rule| ("rules used", rule.clone())),
    );
    let requests = observed.requests.keys();
    found.extend(
        requests.map(|(host, port, what)| ("operations", format!("{what} at {host}:{port}"))),
    );
    found.extend(
        observed
            .programs
            .iter()
            .map(|program| ("programs", program.clone())),
    );
    found
}
