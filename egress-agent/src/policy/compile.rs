//! From a policy to the tables the kernel decides by.
//!
//! Prefixes, which are the hard part, are made in `prefixes.rs`.

use std::collections::BTreeMap;

use egress_common::{
    abi::{
        MAX_CONNECTORS, MAX_PREFIXES, MAX_RULES, MAX_UNIX_NAMES, RULE_FIRST, UNIX_NAME_MAX,
        UNIX_NAME_ROOM,
    },
    grant::{self, PrefixRules},
    key::PrefixKey,
    sni::NameKey,
    unix::{UnixGrant, UnixKey},
};

use super::{
    fault::{Complaint, Fault, Faults},
    model::{List, Policy, Rule},
    names, prefixes,
};
use crate::host::switch::{self, Part};

/// A policy as the data plane takes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Tables {
    /// The connector's number.
    pub connector: u32,
    /// Every rule of the policy: those of `allow` in order, then those of `deny`, then those
    /// of `listen`.
    pub rules: Vec<CompiledRule>,
    /// Entries of the prefix table: length in bits (with [`PrefixKey::FIXED_BITS`]), key,
    /// value. No two have the same length and key.
    pub prefixes: Vec<(u32, PrefixKey, PrefixRules)>,
    /// Entries of the table of names in TLS: length in bits (with [`NameKey::FIXED_BITS`]), key,
    /// value. No two have the same length and key. There are at most as many as rules, so the
    /// table has room for those of two policies.
    pub names: Vec<(u32, NameKey, PrefixRules)>,
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
    /// Which list it stands in.
    pub list: List,
    /// `Rule::TLS` and `Rule::ECH` of the data plane.
    pub flags: u16,
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
        (rule.list == List::Allow).then_some(rule.slot)
    }
}

/// Compiles a policy for a connector number (1 to `MAX_CONNECTORS` less one) and the first
/// free rule number (`RULE_FIRST` or more). Fails where a table has no room for it.
pub fn compile(policy: &Policy, connector: u32, first_rule: u32) -> Result<Tables, Faults> {
    let slots: Vec<u32> = (first_rule..MAX_RULES).take(policy.rule_count()).collect();
    compile_at(policy, connector, &slots)
}

/// Compiles a policy whose rules have the given numbers: those of `allow` in order, then
/// those of `deny`, then those of `listen`, each `RULE_FIRST` or more and below `MAX_RULES`. Fails where a table has
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
    /// The rule at which it shows: its place in all lists together.
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
    for (protocol, lines) in prefixes::lines(policy, &rules) {
        for entry in prefixes::entries(connector, protocol, &lines) {
            match entry {
                Ok(entry) => prefixes.push(entry),
                Err(misfit) => misfits.push(misfit),
            }
        }
    }
    let mut named = Vec::new();
    for entry in names::entries(connector, policy, &rules) {
        match entry {
            Ok(entry) => named.push(entry),
            Err(misfit) => misfits.push(misfit),
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
        names: named,
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
            let name = rule.target.socket()?;
            let effect = if compiled.list == List::Deny {
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

fn number(policy: &Policy, slots: &[u32]) -> Result<Vec<CompiledRule>, Complaint> {
    let named =
        |list: List| move |rule: &Rule| (list, rule.id.clone(), flags(rule), rule.why.clone());
    let allow = policy.allow.iter().map(named(List::Allow));
    let deny = policy.deny.iter().map(named(List::Deny));
    let callers = policy.listen.iter();
    let listen = callers.map(|rule| (List::Listen, rule.id.clone(), 0, rule.why.clone()));
    let count = policy.rule_count();
    if slots.len() < count {
        return Err(Complaint::new(
            format!("{count} rules do not fit beside those of other connectors"),
            "combine rules, or run fewer connectors beside each other",
        ));
    }
    let rules = slots.iter().zip(allow.chain(deny).chain(listen));
    Ok(rules
        .map(|(&slot, (list, id, flags, why))| CompiledRule {
            slot,
            id,
            list,
            flags,
            why,
        })
        .collect())
}

fn flags(rule: &Rule) -> u16 {
    let flag = |on: bool, flag: u16| if on { flag } else { 0 };
    // The envelope proxy checks the names of those that are judged; see `names`.
    let tls = rule.tls && rule.inspect.is_none() && !switch::is_off(Part::Sni);
    flag(tls, grant::Rule::TLS) | flag(tls && rule.ech, grant::Rule::ECH)
}
