//! What is nearly right about a destination that is refused.

use std::net::IpAddr;

use egress_common::{abi::OWN_FOLDER, unix};

use super::dest::{Dest, Place};
use crate::policy::{
    compile,
    cover::{self, Cover, cover},
    fault::quote,
    model::{Mode, Policy, Rule, Target, lookups_at_once},
    name::{HostPattern, Name},
    special::{self, Block},
};

/// Hints about a destination; `refused`: not every answer permits it.
pub(super) fn hints(policy: &Policy, dest: &Dest, refused: bool) -> Vec<String> {
    let mut hints = Vec::new();
    if policy.mode == Mode::Audit {
        hints.push("the policy is in audit mode: what it refuses passes and is reported".into());
    }
    if policy.allow.is_empty() {
        hints.push("the policy permits nothing: “allow” is empty".into());
    }
    match &dest.place {
        Place::Name(name) => names(policy, dest, name, refused, &mut hints),
        Place::Addr(addr) => addresses(policy, dest, *addr, refused, &mut hints),
        Place::Unix(path) if refused => sockets(policy, path, &mut hints),
        Place::Unix(_) => {}
    }
    hints
}

fn names(policy: &Policy, dest: &Dest, name: &Name, refused: bool, hints: &mut Vec<String>) {
    let own: Vec<&Rule> = policy.rules_for(name).map(|(_, rule)| rule).collect();
    if refused {
        hints.extend(own.iter().filter(|rule| !takes(rule, dest)).map(|rule| {
            let ports = ports(rule);
            format!("{name} is permitted on {ports} (rule {})", quote(&rule.id))
        }));
        if own.is_empty() {
            hints.extend(policy.allow.iter().filter_map(|rule| kin(rule, name)));
        }
    }
    if own.iter().any(|rule| !rule.private) {
        hints.push(
            "answers that point inside (private, loopback, link-local) are dropped without \
             “private: true”"
                .into(),
        );
    }
    let exact = |rule: &&&Rule| matches!(&rule.target, Target::Host(HostPattern::Exact(_)));
    if let Some(rule) = own.first()
        && !own.iter().any(|rule| exact(&rule))
    {
        if matches!(cover(policy.rules_for(name), name), Some(Cover::TooLong(_))) {
            hints.push(cover::too_long());
        }
        let rate = rule.lookups_per_minute;
        hints.push(format!(
            "names below {} are looked up {} at once and {rate} a minute at most \
             (“lookups-per-minute” of rule {})",
            rule.target,
            lookups_at_once(rate),
            quote(&rule.id)
        ));
    }
    for rule in &policy.deny {
        if let Target::Cidr(net) = &rule.target
            && !own.is_empty()
            && takes(rule, dest)
        {
            hints.push(format!(
                "answers inside {net} are not granted (rule {})",
                quote(&rule.id)
            ));
        }
    }
    for rule in &policy.allow {
        if let Target::Cidr(_) = &rule.target
            && refused
            && takes(rule, dest)
        {
            hints.push(format!(
                "an address inside {} is permitted whatever its name (rule {})",
                rule.target,
                quote(&rule.id)
            ));
        }
    }
}

/// How a rule that does not cover a name comes close to it.
pub(super) fn kin(rule: &Rule, name: &Name) -> Option<String> {
    let id = quote(&rule.id);
    let Target::Host(pattern) = &rule.target else {
        return None;
    };
    match pattern {
        HostPattern::Below(parent) if parent == name => Some(format!(
            "rule {id} permits names below {name}, not {name} itself; it needs a rule of its own"
        )),
        HostPattern::Exact(own) if HostPattern::Below(own.clone()).covers(name) => Some(format!(
            "rule {id} permits {own} alone, not names below it; “*.{own}” would"
        )),
        HostPattern::Exact(own) if HostPattern::Below(name.clone()).covers(own) => {
            Some(format!("rule {id} permits {own}, not {name}"))
        }
        HostPattern::Public => {
            let why = "its last label belongs to networks of one's own, or it has one label only";
            (!pattern.covers(name)).then(|| format!("rule {id} permits public names; {why}"))
        }
        HostPattern::Exact(own) | HostPattern::Below(own) => {
            let distance = strsim::osa_distance(own.as_str(), name.as_str());
            (distance <= 2).then(|| format!("did you mean {pattern} (rule {id})?"))
        }
    }
}

fn addresses(policy: &Policy, dest: &Dest, addr: IpAddr, refused: bool, hints: &mut Vec<String>) {
    if !refused {
        return;
    }
    let block = Block::of(&addr.into());
    let special = special::around(&block);
    for rule in &policy.allow {
        let id = quote(&rule.id);
        match &rule.target {
            Target::Cidr(net) if net.contains(&addr) => match special {
                Some(special) if !special.block.covers(&Block::of(net)) => hints.push(format!(
                    "rule {id} is too wide to take {} along; name the address itself",
                    special.what
                )),
                _ if !takes(rule, dest) => {
                    hints.push(format!(
                        "{addr} is permitted on {} (rule {id})",
                        ports(rule)
                    ));
                }
                _ => {}
            },
            Target::Host(pattern) if takes(rule, dest) => hints.push(format!(
                "permitted while the DNS door answers {pattern} with it (rule {id})"
            )),
            Target::Cidr(_) | Target::Host(_) | Target::Unix(_) | Target::Session(_) => {}
        }
    }
    if addr.is_loopback() {
        hints.push("a loopback port on which the connector itself listens is permitted".into());
    }
}

fn sockets(policy: &Policy, path: &str, hints: &mut Vec<String>) {
    for rule in &policy.allow {
        match &rule.target {
            Target::Unix(own) if strsim::osa_distance(own, path) <= 2 => {
                hints.push(format!("did you mean {own} (rule {})?", quote(&rule.id)));
            }
            Target::Session(place) => hints.push(format!(
                "rule {} permits what {place} leads to, which the caller's environment says at \
                 the start",
                quote(&rule.id)
            )),
            Target::Unix(_) | Target::Host(_) | Target::Cidr(_) => {}
        }
    }
    if compile::unix_key(1, path).is_some_and(|key| unix::looks_absent(&key)) {
        hints.push("programs find it absent, and no event is made: every one tries it".into());
    }
    hints.push(format!(
        "the connector's own sockets are those in its TMPDIR and below {OWN_FOLDER}, and abstract \
         ones where Landlock keeps it from those of others"
    ));
}

fn takes(rule: &Rule, dest: &Dest) -> bool {
    let port = |port| rule.ports.iter().any(|span| span.holds(port));
    dest.port.is_none_or(port)
        && dest
            .protocol
            .is_none_or(|number| rule.protocols.has(number))
}

/// The ports of a rule, spoken.
pub(super) fn ports(rule: &Rule) -> String {
    let spans: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
    let word = match rule.ports.as_slice() {
        [only] if only.first == only.last => "port",
        _ => "ports",
    };
    format!("{word} {}/{}", spans.join(", "), rule.protocols)
}
