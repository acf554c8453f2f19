//! The verdict on a name in TLS, against a walk over every entry of the table of names.

use std::net::IpAddr;

use egress_agent::policy::tables::Memory;
use egress_common::{
    abi::{MAX_RANGES, RULE_NONE},
    sni::{NameKey, NameQuery, by_name},
    verdict::{Action, Reason, Verdict},
};

use crate::{
    draw::Draw,
    flow::PORTS,
    world::{Prefix, Range, World},
};

/// An entry of the table: a name, or all below one.
#[derive(Debug)]
struct Entry {
    connector: u16,
    below: bool,
    name: String,
    /// Only its ranges and their count matter.
    ranges: Prefix,
}

/// Draws tables and names and compares. Answers how many names there were.
pub fn compare(draw: &mut impl Draw, edges: &[IpAddr], attempts: usize) -> u64 {
    let world = World::draw(draw, edges);
    let mut memory = world.memory();
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..draw.below(6) {
        let entry = Entry::draw(draw);
        let key = |it: &Entry| (it.connector, it.below, it.name.clone());
        if !entries.iter().any(|other| key(other) == key(&entry)) {
            entry.install(&mut memory);
            entries.push(entry);
        }
    }
    for _ in 0..attempts {
        let (connector, name) = (draw.pick(&CONNECTORS), name(draw));
        let (port, encrypted) = (draw.pick(&PORTS), draw.one_in(3));
        let query = NameQuery::of(connector, name.as_bytes()).expect("drawn names fit");
        let found = by_name(&query, port, encrypted, &memory);
        let expected = verdict(&world, &entries, connector, &name, port, encrypted);
        assert_eq!(
            found, expected,
            "{connector} {name}:{port} {encrypted} in {entries:#?}"
        );
    }
    attempts as u64
}

const CONNECTORS: [u16; 3] = [1, 2, 256];

/// Labels that begin and end like each other.
const LABELS: [&str; 6] = ["a", "aa", "b", "example", "xexample", "org"];

fn name(draw: &mut impl Draw) -> String {
    let labels: Vec<&str> = (0..=draw.below(4)).map(|_| draw.pick(&LABELS)).collect();
    labels.join(".")
}

impl Entry {
    fn draw(draw: &mut impl Draw) -> Self {
        let ranges = (0..draw.below(4))
            .map(|_| Range::draw(draw))
            .collect::<Vec<_>>();
        Self {
            connector: draw.pick(&CONNECTORS),
            below: draw.one_in(2),
            name: name(draw),
            ranges: Prefix {
                connector: 0,
                protocol: 0,
                inbound: false,
                bits: 0,
                length: 0,
                count: ranges.len() as u32,
                ranges,
            },
        }
    }

    fn install(&self, memory: &mut Memory) {
        let entry = if self.below {
            NameKey::wildcard
        } else {
            NameKey::exact
        };
        let (bits, key) = entry(self.connector, self.name.as_bytes()).expect("drawn names fit");
        memory.names.push((bits, key, self.ranges.rules()));
    }

    fn covers(&self, name: &str) -> bool {
        if !self.below {
            return self.name == name;
        }
        let rest = name.strip_suffix(&self.name);
        rest.is_some_and(|rest| rest.ends_with('.'))
    }
}

/// The exact name counts, or else the narrowest wildcard.
fn verdict(
    world: &World,
    entries: &[Entry],
    connector: u16,
    name: &str,
    port: u16,
    encrypted: bool,
) -> Verdict {
    let covering = entries
        .iter()
        .filter(|entry| entry.connector == connector && entry.covers(name));
    let stranger = refused(Reason::SniStranger, RULE_NONE);
    let Some(entry) = covering.max_by_key(|entry| (!entry.below, entry.name.len())) else {
        return stranger;
    };
    let used = (entry.ranges.count as usize).min(MAX_RANGES);
    let holding: Vec<&Range> = entry
        .ranges
        .ranges
        .iter()
        .take(used)
        .filter(|range| (range.first..=range.last).contains(&port))
        .collect();
    let usable = |range: &&&Range| range.effect != 1 || world.active.contains(&range.rule);
    let Some(range) = holding.iter().find(usable).or(holding.last()) else {
        return stranger;
    };
    let takes_encrypted = world.named.contains(&(range.rule, true));
    match (range.effect, world.active.contains(&range.rule)) {
        (1, true) if encrypted && !takes_encrypted => refused(Reason::SniEncrypted, range.rule),
        (1, true) => Verdict {
            action: Action::Allow,
            reason: Reason::None,
            rule: range.rule,
        },
        (1, false) => refused(Reason::Revoked, range.rule),
        _ => refused(Reason::DenyRule, range.rule),
    }
}

fn refused(reason: Reason, rule: u32) -> Verdict {
    Verdict {
        action: Action::Deny,
        reason,
        rule,
    }
}
