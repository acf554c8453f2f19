//! By which rule a name is covered, and how much it may say there. Pure.

use super::{
    model::{Rule, Target},
    name::{HostPattern, Name},
};

/// Most labels a name may have in the place of a wildcard's `*`.
pub const MAX_WILDCARD_LABELS: usize = 4;
/// Most bytes a name may have in the place of a wildcard's `*`, dots included.
pub const MAX_WILDCARD_BYTES: usize = 63;

/// The rule of `allow` that covers a name, by its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cover {
    /// By exactly this name.
    Exact(usize),
    /// Below a wildcard, or as any public name.
    Wildcard(usize),
    /// Below a wildcard, and it says more than a name may there.
    TooLong(usize),
}

/// The cover of a name, of rules that cover it; `None`: none of them does by name. The most
/// generous pattern counts: an exact rule has no bounds, and of two wildcards the longer leaves
/// fewer labels for the connector to choose.
pub fn cover<'a>(rules: impl Iterator<Item = (usize, &'a Rule)>, name: &Name) -> Option<Cover> {
    let mut tightest: Option<(usize, &str)> = None;
    let mut public = None;
    for (place, rule) in rules {
        let Target::Host(pattern) = &rule.target else {
            continue;
        };
        let parent = match pattern {
            HostPattern::Exact(_) => return Some(Cover::Exact(place)),
            HostPattern::Below(parent) => parent,
            HostPattern::Public => {
                public = Some(place);
                continue;
            }
        };
        let chosen = name
            .as_str()
            .strip_suffix(parent.as_str())
            .map_or(name.as_str(), |rest| rest.trim_end_matches('.'));
        if tightest.is_none_or(|(_, other)| chosen.len() < other.len()) {
            tightest = Some((place, chosen));
        }
    }
    // Who may connect to anybody needs no name to tell them something.
    if let Some(rule) = public {
        return Some(Cover::Wildcard(rule));
    }
    let (rule, chosen) = tightest?;
    let long = chosen.len() > MAX_WILDCARD_BYTES || chosen.split('.').count() > MAX_WILDCARD_LABELS;
    Some(if long {
        Cover::TooLong(rule)
    } else {
        Cover::Wildcard(rule)
    })
}

/// What to say of a name that says too much.
pub fn too_long() -> String {
    format!(
        "a name says at most {MAX_WILDCARD_LABELS} labels and {MAX_WILDCARD_BYTES} bytes in the \
         place of the `*`; a wildcard or a rule nearer to it permits it"
    )
}
