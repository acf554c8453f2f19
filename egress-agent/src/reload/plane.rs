//! Carries a policy into a data plane, the first one as well as every later one.
//!
//! A change has one order, and at no moment is anything permitted that neither policy
//! permits:
//!
//! 1. Enforcing begins, where the new policy enforces.
//! 2. Rules that are gone are switched off; the kernel refuses at once what they approved.
//! 3. Names are judged by the new policy. From here on no grant comes from the old one.
//! 4. The prefix table goes over, in the order of [`crate::policy::change`].
//! 5. Grants of rules that are gone are deleted, and those that a denial now covers: a grant
//!    is looked up before every prefix.
//! 6. Rules that are new are switched on.
//! 7. Refusing ends, where the new policy only audits.
//!
//! Exact grants add nothing to the argument for prefixes: one that is there was permitted by
//! the policy it was entered under, and that is the old or the new one. If a step fails, all
//! rules are switched off: the tables may then hold some of both policies, and permit nothing.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use egress_common::{
    abi::{RULE_DOOR, RULE_INBOUND, RULE_INSPECTED, RULE_OWN},
    grant::{Connector, Rule},
    key::{Addr, GrantKey},
    sni::NameKey,
    unix::UnixKey,
};

use super::{
    fault::{Broken, Refused},
    flows::must_end,
    own::Own,
};
use crate::{
    dns::{Door, Names, Successor, lease::Holder},
    grant::Keeper,
    host::{Cgroup, boot_ns, records},
    instance::{Need, Place},
    kernel::{PlaneError, instance::ids_below, maps::Switches},
    policy::{
        change::{Change, Installed, Step, change},
        compile::{Tables, compile_at},
        model::{List, Mode, Policy, Target},
        slots::Slots,
        tables::Memory,
    },
};

/// A connector's policy as it is in the data plane.
pub struct Live {
    pub(super) switches: Switches,
    /// Names that the envelope proxy may call.
    pub(super) judged: Vec<(u32, NameKey)>,
    pub(super) cgroup: Cgroup,
    pub(super) id: u32,
    pub(super) place: Place,
    /// What stands for its temporary folder.
    pub(super) folder: Option<UnixKey>,
    pub(super) record: Connector,
    pub(super) slots: Slots,
    pub(super) installed: Installed,
    pub(super) policy: Arc<Policy>,
    pub(super) tables: Tables,
    pub(super) unix: BTreeSet<UnixKey>,
    pub(super) whole: bool,
}

/// A policy that is ready to take the place of the one in force.
pub struct Ready {
    policy: Arc<Policy>,
    tables: Tables,
    change: Change,
    successor: Successor,
}

/// What a change of policy did.
#[derive(Debug, Default)]
pub struct Changed {
    /// Ids of rules that are new.
    pub added: Vec<String>,
    /// Ids of rules that are gone.
    pub removed: Vec<String>,
    /// Slots of the new rules.
    pub slots: BTreeSet<u32>,
    /// A denial is new, or the last change did not come to its end.
    pub denies_more: bool,
    /// The tables before it.
    pub before: Memory,
}

impl Live {
    /// The policy in force.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The slots of its rules, for the door.
    pub fn holder(&self) -> Holder {
        holder(&self.tables)
    }

    /// Names of the rules, as events and the summary show them.
    pub fn rule_names(&self) -> HashMap<u32, String> {
        let mut names = names_of(&self.tables);
        names.insert(RULE_DOOR, "(dns-door)".to_owned());
        names.insert(RULE_OWN, "(own-listener)".to_owned());
        names.insert(RULE_INBOUND, "(inbound)".to_owned());
        names
    }

    /// Looks whether a policy can take the place of the one in force, which does not change
    /// yet.
    pub fn prepare(&mut self, policy: Arc<Policy>, names: &Names) -> Result<Ready, Refused> {
        let numbers = self.slots.assign(&policy)?;
        let tables = compile_at(&policy, self.id, &numbers)?;
        let change = change(&self.installed, &tables)?;
        let (coming, judged) = (&change.entries, policy.inspected().count());
        let news = |is: fn(&Step) -> bool| coming.iter().filter(|step| is(step)).count();
        let held = self.need(self.unix.len());
        self.place.hold(Need {
            prefixes: held
                .prefixes
                .saturating_add(news(|step| matches!(step, Step::Write(..)))),
            names: held
                .names
                .saturating_add(judged)
                .saturating_add(news(|step| matches!(step, Step::WriteName(..)))),
            unix: held.unix,
        })?;
        let successor = names.prepare(Arc::clone(&policy), holder(&tables));
        Ok(Ready {
            policy,
            tables,
            change,
            successor,
        })
    }

    /// Puts a policy in force, as the head of this file says. After an error every rule is
    /// off.
    pub fn replace(
        &mut self,
        ready: Ready,
        names: &Names,
        keeper: &Keeper,
    ) -> Result<Changed, Broken> {
        let changed = Changed {
            before: self.memory(keeper),
            ..self.compare(&ready)
        };
        let result = self.go_over(ready, &changed, names, keeper).and_then(|()| {
            match self.end_flows(keeper, &changed.before) {
                // Only where a denial is new does the kernel need the sockets to be gone.
                Err(error) if changed.denies_more => Err(Broken::Flows(error)),
                _ => Ok(()),
            }
        });
        self.whole = result.is_ok();
        if !self.whole {
            self.switch_off().map_err(Broken::Open)?;
        }
        result.map(|()| changed)
    }

    /// Whether the policy in force is the one in the data plane, and not nothing.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Ends running flows that the policy in force does not permit; `before`: the tables that
    /// they began under. Answers how many; fails where one that has to end may not have ended.
    pub fn end_flows(&self, keeper: &Keeper, before: &Memory) -> io::Result<usize> {
        let now = self.memory(keeper);
        let cgroups = ids_below(&self.cgroup).map_err(io::Error::other)?;
        let sockets = records::list(self.switches.sockets(), &cgroups)?;
        // Not those of its forwarder, which has no policy that could change.
        let own = |socket: &&records::Socket| socket.connector.is_none_or(|id| id == self.id);
        let ending = sockets
            .iter()
            .filter(own)
            .filter(|socket| must_end(socket, self.id, before, &now));
        // Each is tried, whatever became of the one before.
        let ended: Vec<io::Result<bool>> = ending.map(records::Socket::destroy).collect();
        let ended: Vec<bool> = ended.into_iter().collect::<io::Result<_>>()?;
        Ok(ended.into_iter().filter(|&gone| gone).count())
    }

    fn go_over(
        &mut self,
        ready: Ready,
        changed: &Changed,
        names: &Names,
        keeper: &Keeper,
    ) -> Result<(), Broken> {
        let Ready {
            policy,
            tables,
            change,
            successor,
        } = ready;
        if policy.mode == Mode::Enforce {
            self.set_record(policy.mode, self.record.flags & flags(&policy))?;
        }
        for step in &change.off {
            self.carry_out(step)?;
        }
        names.replace(successor);
        for step in &change.entries {
            self.carry_out(step)?;
        }
        for step in &change.off {
            if let Step::Off(rule, _) = step {
                keeper.remove_rule(*rule)?;
            }
        }
        if changed.denies_more {
            // What stands for a name has an address that no rule means, and what the forwarder
            // reaches is not the connector's.
            let stands = |key: &GrantKey| names.stands(&key.addr);
            keeper.retain(self.id, |key| stands(key) || !is_denied(&policy, key))?;
        }
        if let Some(inspected) = names.inspected() {
            keeper.retain(inspected.process(), |key| inspected.keeps(&policy, key))?;
            self.set_inspected(inspected.process(), &policy)?;
        }
        // Only names that the launcher has made safe from being led elsewhere; others wait for
        // the next start.
        for (key, grant) in &tables.unix {
            if self.unix.contains(key) {
                self.switches.set_unix(key, grant)?;
            }
        }
        for step in &change.on {
            self.carry_out(step)?;
        }
        self.set_record(policy.mode, flags(&policy))?;
        self.policy = policy;
        self.tables = tables;
        // Less than before: what is left is free for others.
        let _it_fits = self.place.hold(self.need(self.unix.len()));
        Ok(())
    }

    fn compare(&self, ready: &Ready) -> Changed {
        let slots = |tables: &Tables| -> BTreeSet<u32> {
            tables.rules.iter().map(|rule| rule.slot).collect()
        };
        let (old, new) = (slots(&self.tables), slots(&ready.tables));
        let ids = |tables: &Tables, beside: &BTreeSet<u32>| -> Vec<String> {
            let rules = tables.rules.iter();
            let rules = rules.filter(|rule| !beside.contains(&rule.slot));
            let mut ids: Vec<String> = rules.map(|rule| rule.id.clone()).collect();
            // Of a rule in two parts.
            ids.dedup();
            ids
        };
        let rules = ready.tables.rules.iter();
        Changed {
            added: ids(&ready.tables, &old),
            removed: ids(&self.tables, &new),
            slots: new
                .iter()
                .filter(|slot| !self.installed.on.contains_key(slot))
                .copied()
                .collect(),
            denies_more: !self.whole
                || rules
                    .filter(|rule| rule.list == List::Deny)
                    .any(|rule| !old.contains(&rule.slot)),
            before: Memory::default(),
        }
    }

    pub(super) fn carry_out(&mut self, step: &Step) -> Result<(), PlaneError> {
        match step {
            Step::Off(rule, flags) => self.switches.set_rule(*rule, self.id, false, *flags)?,
            Step::On(rule, flags) => {
                // The flags stand before the switch is thrown: a rule that asks for names
                // never permits anything without.
                self.switches.set_rule(*rule, self.id, false, *flags)?;
                self.switches.set_rule(*rule, self.id, true, *flags)?;
            }
            Step::Write(bits, key, rules) => self.switches.set_prefix(*bits, key, rules)?,
            Step::Delete(bits, key) => self.switches.delete_prefix(*bits, key)?,
            Step::WriteName(bits, key, rules) => self.switches.set_name(*bits, key, rules)?,
            Step::DeleteName(bits, key) => self.switches.delete_name(*bits, key)?,
        }
        self.installed.note(step);
        Ok(())
    }

    fn set_record(&mut self, mode: Mode, flags: u32) -> Result<(), PlaneError> {
        let record = Connector {
            mode: number(mode),
            flags,
            ..self.record
        };
        if self.record != record {
            self.switches.set_connector(self.id, &record)?;
            self.record = record;
        }
        Ok(())
    }

    /// Permits nothing any more. An audited connector is enforced from here on.
    fn switch_off(&mut self) -> Result<(), PlaneError> {
        self.set_record(Mode::Enforce, 0)?;
        if !self.judged.is_empty() {
            self.switches
                .set_rule(RULE_INSPECTED, 0, false, Rule::TLS)?;
        }
        for (rule, flags) in self.installed.on.clone() {
            self.carry_out(&Step::Off(rule, flags))?;
        }
        Ok(())
    }

    /// The kernel's tables, as far as this connector is concerned. What it listens on itself
    /// is not in them: those flows are under no rule that could be removed.
    fn memory(&self, keeper: &Keeper) -> Memory {
        let prefixes = self.installed.prefixes.iter();
        let names = self.installed.names.iter();
        Memory {
            connectors: [(self.id, self.record)].into(),
            grants: keeper.grants(self.id).into_iter().collect(),
            prefixes: prefixes
                .map(|((bits, key), rules)| (*bits, *key, *rules))
                .collect(),
            unix: self.tables.unix.iter().copied().collect(),
            names: names
                .map(|((bits, key), rules)| (*bits, *key, *rules))
                .collect(),
            flags: self.installed.on.clone(),
            active: self.installed.on.keys().copied().chain(RESERVED).collect(),
            now_ns: boot_ns(),
            ..Memory::default()
        }
    }
}

impl Ready {
    /// Names of its rules by their slots.
    pub fn rule_names(&self) -> HashMap<u32, String> {
        names_of(&self.tables)
    }

    /// The policy itself.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// Rules that no policy declares and that are always in force.
pub(super) const RESERVED: [u32; 3] = [RULE_DOOR, RULE_OWN, RULE_INBOUND];

/// Whether a datagram may go to an address that a rule names: it could be a broadcast address.
fn flags(policy: &Policy) -> u32 {
    let mut rules = policy.allow.iter();
    if rules.any(|rule| rule.protocols.udp && matches!(rule.target, Target::Cidr(_))) {
        Connector::BROADCASTS
    } else {
        0
    }
}

pub(super) fn connector(door: &Door, policy: &Policy, own: &Own) -> Connector {
    let folder = own.folder(0).map_or(0, |key| u32::from(key.len));
    let v6 = door.addresses().iter().any(|address| address.is_ipv6());
    let v4_loopback = Addr::from_v4(u32::from(Ipv4Addr::LOCALHOST));
    Connector {
        door_v6: if v6 { Addr::from_v6(0, 1) } else { v4_loopback },
        door_v4: u32::from(Ipv4Addr::LOCALHOST),
        door_port: door.port(),
        mode: number(policy.mode),
        unix: Connector::OWN_PATHS
            | if own.abstracts {
                Connector::OWN_ABSTRACT
            } else {
                0
            }
            | folder << Connector::FOLDER_SHIFT,
        flags: flags(policy),
    }
}

pub(super) fn number(mode: Mode) -> u16 {
    match mode {
        Mode::Enforce => Connector::ENFORCE,
        Mode::Audit => Connector::AUDIT,
    }
}

fn holder(tables: &Tables) -> Holder {
    let allow = tables.rules.iter().filter(|rule| rule.list == List::Allow);
    let named = allow.clone().filter(|rule| rule.flags & Rule::TLS != 0);
    Holder {
        connector: tables.connector,
        named: named.map(|rule| rule.slot).collect(),
        slots: allow.map(|rule| rule.slot).collect(),
    }
}

fn names_of(tables: &Tables) -> HashMap<u32, String> {
    let rules = tables.rules.iter();
    rules.map(|rule| (rule.slot, rule.id.clone())).collect()
}

fn is_denied(policy: &Policy, key: &GrantKey) -> bool {
    let addr = IpAddr::V6(Ipv6Addr::from(key.addr.octets()));
    policy
        .address_denied(addr, key.protocol, key.port)
        .is_some()
}
