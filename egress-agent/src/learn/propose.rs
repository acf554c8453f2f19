//! What was observed, against what is declared → rules that are missing, and what stays apart. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{
    known,
    observed::{Observed, Place, Seen},
    render::is_usable,
};
use crate::policy::{
    model::{Policy, Target},
    name::Name,
    outside,
};

/// Names below one domain from which on a wildcard is mentioned.
const WILDCARD_FROM: usize = 3;

/// A rule that would permit what was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposed {
    /// Where to.
    pub to: To,
    /// Ports, sorted; none for a unix socket.
    pub ports: Vec<u16>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Answers point inside.
    pub private: bool,
    /// How it was seen.
    pub seen: Seen,
}

/// Where a rule leads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum To {
    /// A name.
    Host(String),
    /// An address.
    Address(IpAddr),
    /// A unix socket.
    Unix(String),
}

/// Why a rule is only written as a comment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Apart {
    /// In one of several runs alone.
    OneOff,
    /// Telemetry, crash reports.
    Telemetry,
    /// A registry of packages.
    Registry,
    /// An address or answer that is not of the public Internet.
    Inside,
    /// An address without a name.
    Nameless,
    /// HTTP/3: programs go on with TCP.
    Quic,
    /// A server on this host that acts outside the boundary.
    ActsOutside,
}

/// A wildcard that would stand for several names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wildcard {
    /// The domain.
    pub domain: String,
    /// Ports.
    pub ports: Vec<u16>,
    /// The names behind it.
    pub names: Vec<String>,
}

/// What is proposed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proposal {
    /// Rules, the most used first.
    pub rules: Vec<Proposed>,
    /// Rules that a person has to decide on.
    pub apart: Vec<(Apart, Proposed)>,
    /// Wildcards in place of several rules.
    pub wildcards: Vec<Wildcard>,
    /// Names that were asked for, and nothing followed.
    pub asked: Vec<(String, Seen)>,
    /// What no rule permits.
    pub never: Vec<(String, Seen)>,
}

/// Makes it. What the policy permits already is left out.
pub fn propose(observed: &Observed, declared: Option<&Policy>) -> Proposal {
    let mut proposal = Proposal::default();
    let mut found: BTreeMap<(To, String), Proposed> = BTreeMap::new();
    for (place, seen) in &observed.places {
        let (to, port, protocol) = match place {
            Place::Name(name, port, protocol) => (To::Host(name.clone()), Some(*port), protocol),
            Place::Address(ip, port, protocol) => (To::Address(*ip), Some(*port), protocol),
            Place::Unix(path) => (To::Unix(path.clone()), None, &String::new()),
            Place::Asked(name) => {
                let known = declared.is_some_and(|policy| permits_name(policy, name));
                if !known {
                    proposal.asked.push((name.clone(), seen.clone()));
                }
                continue;
            }
            Place::Never(layer, reason, what) => {
                proposal
                    .never
                    .push((format!("{layer} {reason} {what}"), seen.clone()));
                continue;
            }
        };
        if declared.is_some_and(|policy| permits(policy, &to, port, protocol)) {
            continue;
        }
        let private = matches!(&to, To::Host(name) if observed.inside.contains(name));
        let rule = found
            .entry((to.clone(), protocol.clone()))
            .or_insert_with(|| Proposed {
                to,
                ports: Vec::new(),
                protocol: protocol.clone(),
                private,
                seen: Seen {
                    count: 0,
                    ..seen.clone()
                },
            });
        rule.ports.extend(port);
        merge(&mut rule.seen, seen);
    }
    let several = observed.runs.len() > 1;
    for mut rule in found.into_values() {
        rule.ports.sort_unstable();
        rule.ports.dedup();
        if !is_usable(&rule) {
            proposal.never.push((format!("{:?}", rule.to), rule.seen));
            continue;
        }
        match apart(&rule, several) {
            Some(why) => proposal.apart.push((why, rule)),
            None => proposal.rules.push(rule),
        }
    }
    proposal.rules.sort_by(|one, other| {
        other
            .seen
            .count
            .cmp(&one.seen.count)
            .then_with(|| one.to.cmp(&other.to))
    });
    proposal
        .apart
        .sort_by(|one, other| one.0.cmp(&other.0).then_with(|| one.1.to.cmp(&other.1.to)));
    proposal.wildcards = wildcards(&proposal.rules);
    proposal
}

fn merge(into: &mut Seen, seen: &Seen) {
    into.runs.extend(&seen.runs);
    into.users.extend(&seen.users);
    into.first = into.first.min(seen.first);
    into.last = into.last.max(seen.last);
    into.count = into.count.saturating_add(seen.count);
    into.reasons.extend(&seen.reasons);
    into.refused |= seen.refused;
    for (program, times) in &seen.programs {
        let known = into.programs.entry(program.clone()).or_default();
        *known = (*known).max(*times);
    }
}

fn apart(rule: &Proposed, several: bool) -> Option<Apart> {
    let inside = rule.private
        || ["loopback", "link-local", "multicast"]
            .iter()
            .any(|reason| rule.seen.reasons.contains(reason));
    match &rule.to {
        To::Unix(path) if outside::server(path).is_some() => Some(Apart::ActsOutside),
        _ if inside => Some(Apart::Inside),
        To::Host(name) if known::is_telemetry(name) => Some(Apart::Telemetry),
        To::Host(name) if known::is_registry(name) => Some(Apart::Registry),
        To::Host(_) if rule.protocol == "udp" && rule.ports == [443] => Some(Apart::Quic),
        To::Address(_) => Some(Apart::Nameless),
        _ if several && rule.seen.runs.len() == 1 => Some(Apart::OneOff),
        _ => None,
    }
}

/// Rules for names with the same ports, whose names have an owner in common.
fn wildcards(rules: &[Proposed]) -> Vec<Wildcard> {
    let mut groups: BTreeMap<(&str, &[u16]), Vec<&str>> = BTreeMap::new();
    for rule in rules {
        if let To::Host(name) = &rule.to
            && rule.protocol == "tcp"
            && let Some(domain) = known::registered(name)
        {
            groups.entry((domain, &rule.ports)).or_default().push(name);
        }
    }
    let groups = groups
        .into_iter()
        .filter(|(_, names)| names.len() >= WILDCARD_FROM);
    groups
        .filter_map(|((_, ports), names)| {
            // The domain itself is never below a wildcard.
            let below: Vec<&str> = names
                .iter()
                .copied()
                .filter(|name| known::registered(name) != Some(name))
                .collect();
            (below.len() >= WILDCARD_FROM).then_some(())?;
            Some(Wildcard {
                domain: known::common(&below)?,
                ports: ports.to_vec(),
                names: below.into_iter().map(str::to_owned).collect(),
            })
        })
        .collect()
}

/// Whether a policy has a rule for it. What it denies is not asked: that was somebody's decision.
pub fn permits(policy: &Policy, to: &To, port: Option<u16>, protocol: &str) -> bool {
    let number = match protocol {
        "udp" => 17,
        _ => 6,
    };
    let rules = policy.allow.iter().chain(&policy.deny);
    let mut rules = rules.filter(|rule| port.is_none_or(|port| rule.takes(port, number)));
    rules.any(|rule| match (&rule.target, to) {
        (Target::Host(pattern), To::Host(name)) => {
            Name::parse(name).is_ok_and(|name| pattern.covers(&name))
        }
        (Target::Cidr(net), To::Address(ip)) => net.contains(&IpNet::from(*ip)),
        (Target::Unix(path), To::Unix(other)) => path == other,
        _ => false,
    })
}

fn permits_name(policy: &Policy, name: &str) -> bool {
    let Ok(name) = Name::parse(name) else {
        return true;
    };
    let mut rules = policy.allow.iter().chain(&policy.deny);
    rules.any(|rule| matches!(&rule.target, Target::Host(pattern) if pattern.covers(&name)))
}
