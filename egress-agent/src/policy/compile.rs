//! From a policy to the tables the kernel decides by.
//!
//! The prefix table answers with the longest prefix only, so each entry holds the ranges of
//! every rule that covers it, denials first, then narrow rules before wide ones. Three kinds
//! of entries make the answer of the longest prefix that of the whole policy: the prefixes
//! of the rules, the special ranges inside them ([`super::special`]), and all of IPv4 where
//! an IPv6 prefix such as `::/0` lies around its mapped form.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use egress_common::{
    abi::{
        MAX_CONNECTORS, MAX_PREFIXES, MAX_RANGES, MAX_RULES, MAX_UNIX_NAMES, RULE_FIRST, TCP, UDP,
        UNIX_NAME_MAX, UNIX_NAME_ROOM,
    },
    grant::{PortRange, PrefixRules},
    key::{Addr, PrefixKey},
    unix::{UnixGrant, UnixKey},
};

use super::{
    fault::{Complaint, Fault, Faults},
    model::{Policy, Rule, Target},
    special::{Block, SPECIAL},
};

/// A policy as the data plane takes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Tables {
    /// The connector's number.
    pub connector: u32,
    /// Every rule of the policy: those of `allow` in order, then those of `deny`.
    pub rules: Vec<CompiledRule>,
    /// Entries of the prefix table: length in bits (with [`PrefixKey::FIXED_BITS`]), key,
    /// value. No two have the same length and key.
    pub prefixes: Vec<(u32, PrefixKey, PrefixRules)>,
    /// Names of unix sockets, each once; a denial wins over a permission.
    pub unix: Vec<(UnixKey, UnixGrant)>,
}

/// One rule's place in the data plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompiledRule {
    /// Its number in the data plane.
    pub slot: u32,
    /// Its id in events and counters.
    pub id: String,
    /// Whether it is one of `deny`.
    pub deny: bool,
    /// Why the connector needs it.
    pub why: Option<String>,
}

impl Tables {
    /// The rule of a slot.
    pub fn rule(&self, slot: u32) -> Option<&CompiledRule> {
        self.rules.iter().find(|rule| rule.slot == slot)
    }

    /// The slot of the rule at a place in `allow`.
    pub fn slot_of_allow(&self, index: usize) -> Option<u32> {
        let rule = self.rules.get(index)?;
        (!rule.deny).then_some(rule.slot)
    }
}

/// Compiles a policy for a connector number (1 to `MAX_CONNECTORS` less one) and the first
/// free rule number (`RULE_FIRST` or more). Fails where a table has no room for it.
pub fn compile(policy: &Policy, connector: u32, first_rule: u32) -> Result<Tables, Faults> {
    let slots: Vec<u32> = (first_rule..MAX_RULES).take(count(policy)).collect();
    compile_at(policy, connector, &slots)
}

/// Compiles a policy whose rules have the given numbers: those of `allow` in order, then
/// those of `deny`, each `RULE_FIRST` or more and below `MAX_RULES`. Fails where a table has
/// no room for it.
pub fn compile_at(policy: &Policy, connector: u32, slots: &[u32]) -> Result<Tables, Faults> {
    assemble(policy, connector, slots).map_err(|misfits| {
        let faults = misfits.into_iter().map(|misfit| {
            let Complaint { message, help } = misfit.complaint;
            Fault::of_file(&policy.source, message, help)
        });
        Faults::check(faults.collect())
            .err()
            .unwrap_or_else(|| Fault::of_file(&policy.source, "does not fit", "shorten it").into())
    })
}

/// What does not fit the data plane.
pub(super) struct Misfit {
    /// The rule at which it shows: its place in `allow`, then `deny`.
    pub(super) rule: Option<usize>,
    /// What to say of it.
    pub(super) complaint: Complaint,
}

impl From<Complaint> for Vec<Misfit> {
    fn from(complaint: Complaint) -> Self {
        vec![Misfit {
            rule: None,
            complaint,
        }]
    }
}

/// [`compile`], with the places of what does not fit; never an empty list of those.
pub(super) fn assemble(
    policy: &Policy,
    connector: u32,
    slots: &[u32],
) -> Result<Tables, Vec<Misfit>> {
    let usable = RULE_FIRST..MAX_RULES;
    if connector == 0 || connector >= MAX_CONNECTORS || !slots.iter().all(|s| usable.contains(s)) {
        return Err(Complaint::new(
            format!("no place for connector {connector} in the data plane"),
            "run fewer connectors beside each other",
        )
        .into());
    }
    let rules = number(policy, slots)?;
    let mut prefixes = Vec::new();
    let mut misfits = Vec::new();
    for protocol in [TCP, UDP] {
        let lines = lines(policy, &rules, protocol);
        for block in blocks(&lines) {
            match ranges(&block, &lines) {
                Ok(value) => {
                    let (length, key) = key(connector, protocol, &block);
                    prefixes.push((length, key, value));
                }
                Err(misfit) => misfits.push(misfit),
            }
        }
    }
    if prefixes.len() > MAX_PREFIXES as usize {
        misfits.push(Misfit {
            rule: None,
            complaint: Complaint::new(
                format!(
                    "the policy needs {} prefix entries; {MAX_PREFIXES} fit",
                    prefixes.len()
                ),
                "combine neighbouring prefixes to wider ones",
            ),
        });
    }
    if !misfits.is_empty() {
        return Err(misfits);
    }
    let unix = unix_names(policy, &rules, connector);
    if unix.len() > MAX_UNIX_NAMES as usize {
        return Err(Complaint::new(
            format!(
                "the policy names {} unix sockets; {MAX_UNIX_NAMES} fit",
                unix.len()
            ),
            "name fewer",
        )
        .into());
    }
    Ok(Tables {
        connector,
        rules,
        prefixes,
        unix,
    })
}

fn unix_names(
    policy: &Policy,
    rules: &[CompiledRule],
    connector: u32,
) -> Vec<(UnixKey, UnixGrant)> {
    let all = policy.allow.iter().chain(&policy.deny);
    let names: BTreeMap<UnixKey, UnixGrant> = rules
        .iter()
        .zip(all)
        .filter_map(|(compiled, rule)| {
            let Target::Unix(name) = &rule.target else {
                return None;
            };
            let effect = if compiled.deny {
                UnixGrant::DENY
            } else {
                UnixGrant::ALLOW
            };
            let grant = UnixGrant {
                rule: compiled.slot,
                effect,
            };
            Some((unix_key(connector, name)?, grant))
        })
        // Those of `deny` come last and stay.
        .collect();
    names.into_iter().collect()
}

/// The key of a path, or of an abstract name behind an `@`; `None` for what is too long to
/// be a socket's name.
pub fn unix_key(connector: u32, name: &str) -> Option<UnixKey> {
    let (kind, name) = match name.strip_prefix('@') {
        Some(name) => (UnixKey::ABSTRACT, name),
        None => (UnixKey::PATH, name),
    };
    let mut key = UnixKey {
        connector,
        kind,
        len: u16::try_from(name.len()).ok()?,
        name: [0; UNIX_NAME_ROOM],
    };
    key.name
        .get_mut(..name.len())?
        .copy_from_slice(name.as_bytes());
    (name.len() <= UNIX_NAME_MAX).then_some(key)
}

/// Rules of a policy, denials included.
fn count(policy: &Policy) -> usize {
    policy.allow.len() + policy.deny.len()
}

fn number(policy: &Policy, slots: &[u32]) -> Result<Vec<CompiledRule>, Complaint> {
    let allow = policy.allow.iter().map(|rule| (rule, false));
    let deny = policy.deny.iter().map(|rule| (rule, true));
    let count = count(policy);
    if slots.len() < count {
        return Err(Complaint::new(
            format!("{count} rules do not fit beside those of other connectors"),
            "combine rules, or run fewer connectors beside each other",
        ));
    }
    let rules = slots.iter().zip(allow.chain(deny));
    Ok(rules
        .map(|(&slot, (rule, deny))| CompiledRule {
            slot,
            id: rule.id.clone(),
            deny,
            why: rule.why.clone(),
        })
        .collect())
}

/// A prefix rule of one protocol.
struct Line<'a> {
    /// Place in `allow`, then `deny`.
    index: usize,
    block: Block,
    slot: u32,
    deny: bool,
    v4: bool,
    rule: &'a Rule,
}

impl Line<'_> {
    /// Whether the rule speaks for every address of a block.
    fn speaks_for(&self, block: &Block) -> bool {
        let family = self.v4 || !Block::V4.covers(block);
        family && self.block.covers(block) && (self.deny || self.is_inside_special(block))
    }

    /// Whether the rule lies inside every special range that the block lies in.
    fn is_inside_special(&self, block: &Block) -> bool {
        SPECIAL
            .iter()
            .filter(|special| special.block.covers(block))
            .all(|special| special.block.covers(&self.block))
    }
}

fn lines<'a>(policy: &'a Policy, rules: &[CompiledRule], protocol: u8) -> Vec<Line<'a>> {
    let all = policy.allow.iter().chain(&policy.deny);
    let mut lines: Vec<Line<'a>> = rules
        .iter()
        .zip(all)
        .enumerate()
        .filter(|(_, (_, rule))| rule.protocols.has(protocol))
        .filter_map(|(index, (compiled, rule))| match &rule.target {
            Target::Cidr(net) => Some(Line {
                index,
                block: Block::of(net),
                slot: compiled.slot,
                deny: compiled.deny,
                v4: net.addr().is_ipv4(),
                rule,
            }),
            Target::Host(_) | Target::Unix(_) => None,
        })
        .collect();
    lines.sort_by_key(|line| (!line.deny, Reverse(line.block.len), line.slot));
    lines
}

/// The prefixes that need an entry.
fn blocks(lines: &[Line<'_>]) -> BTreeSet<Block> {
    let mut blocks: BTreeSet<Block> = lines.iter().map(|line| line.block).collect();
    let carved = SPECIAL
        .iter()
        .map(|special| special.block)
        .chain([Block::V4]);
    blocks.extend(carved.filter(|block| lines.iter().any(|line| line.block.covers(block))));
    blocks
}

fn ranges(block: &Block, lines: &[Line<'_>]) -> Result<PrefixRules, Misfit> {
    let mut value = PrefixRules {
        count: 0,
        ranges: [PortRange::EMPTY; MAX_RANGES],
    };
    let speaking: Vec<&Line<'_>> = lines.iter().filter(|line| line.speaks_for(block)).collect();
    let wanted = speaking
        .iter()
        .flat_map(|line| line.rule.ports.iter().map(move |span| (line, span)));
    if wanted.clone().count() > MAX_RANGES {
        return Err(overfull(block, &speaking, wanted.count()));
    }
    for (range, (line, span)) in value.ranges.iter_mut().zip(wanted) {
        *range = PortRange {
            first: span.first,
            last: span.last,
            effect: if line.deny {
                PortRange::DENY
            } else {
                PortRange::ALLOW
            },
            ifindex: 0,
            rule: line.slot,
        };
        value.count += 1;
    }
    Ok(value)
}

fn overfull(block: &Block, speaking: &[&Line<'_>], count: usize) -> Misfit {
    let mut ids: Vec<&str> = speaking.iter().map(|line| line.rule.id.as_str()).collect();
    if ids.len() > 4 {
        ids.truncate(4);
        ids.push("…");
    }
    let last = speaking.iter().max_by_key(|line| line.index);
    Misfit {
        rule: last.map(|line| line.index),
        complaint: Complaint::new(
            format!(
                "{count} port ranges meet under {block}; at most {MAX_RANGES} fit (rules: {})",
                ids.join(", "),
            ),
            "join ranges, or keep ports that only some addresses need apart from wide prefixes",
        ),
    }
}

/// The trie's key of a block. The address is not canonicalised: a prefix is no address, and
/// `0.0.0.0/0` starts at zero.
fn key(connector: u32, protocol: u8, block: &Block) -> (u32, PrefixKey) {
    let octets = block.addr.to_be_bytes();
    let (high, low) = octets.split_at(8);
    let half = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    let key = PrefixKey {
        connector,
        protocol: u32::from(protocol),
        addr: Addr {
            halves: [half(high), half(low)],
        },
    };
    (PrefixKey::FIXED_BITS + u32::from(block.len), key)
}
