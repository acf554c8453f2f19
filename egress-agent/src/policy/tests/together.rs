//! Connectors that share one data plane: whatever one of them changes, the others are decided as
//! their own policies say.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex},
};

use egress_common::{
    abi::{RULE_FIRST, TCP},
    decide::decide,
    grant::{Grant, PrefixRules},
    key::{Addr, GrantKey, PrefixKey},
    verdict::Action,
};
use proptest::prelude::*;

use super::oracle::{Answer, ENFORCED, address, cases, flow, oracle, policies, port};
use crate::{
    grant::{Keeper, Lease, Table, keeper::TableError},
    policy::{
        change::{Installed, Step, change},
        compile::{Tables, compile_at},
        model::{List, Policy},
        slots::{Numbers, Slots},
        tables::Memory,
    },
};

/// Connectors of one data plane.
const MANY: u32 = 3;
/// A destination that is granted by name, and in no policy's prefixes.
const GRANTED: u16 = 4_711;

/// The tables as one kernel has them: a rule's switch is there once, whoever throws it.
#[derive(Default)]
struct Kernel {
    prefixes: BTreeMap<(u32, PrefixKey), PrefixRules>,
    on: BTreeMap<u32, u16>,
}

impl Kernel {
    fn note(&mut self, step: &Step) {
        match step {
            Step::Off(rule, _) => drop(self.on.remove(rule)),
            Step::On(rule, flags) => drop(self.on.insert(*rule, *flags)),
            Step::Write(bits, key, rules) => {
                self.prefixes.insert((*bits, *key), *rules);
            }
            Step::Delete(bits, key) => drop(self.prefixes.remove(&(*bits, *key))),
            Step::WriteName(..) | Step::DeleteName(..) => {}
        }
    }

    fn memory(&self, grants: &Grants) -> Memory {
        Memory {
            connectors: (1..=MANY).map(|id| (id, ENFORCED)).collect(),
            prefixes: self
                .prefixes
                .iter()
                .map(|((bits, key), rules)| (*bits, *key, *rules))
                .collect(),
            flags: self.on.clone(),
            active: self.on.keys().copied().collect(),
            grants: grants.all(),
            now_ns: 1,
            ..Memory::default()
        }
    }
}

#[derive(Clone, Default)]
struct Grants(Arc<Mutex<BTreeMap<GrantKey, Grant>>>);

impl Grants {
    fn all(&self) -> BTreeMap<GrantKey, Grant> {
        self.0.lock().map(|all| all.clone()).unwrap_or_default()
    }
}

impl Table for Grants {
    fn put(&self, key: &GrantKey, grant: &Grant) -> Result<(), TableError> {
        let full = |_| TableError::Full;
        self.0.lock().map_err(full)?.insert(*key, *grant);
        Ok(())
    }

    fn delete(&self, key: &GrantKey) -> Result<(), TableError> {
        let full = |_| TableError::Full;
        self.0.lock().map_err(full)?.remove(key);
        Ok(())
    }
}

/// One connector as the agent keeps it.
struct One {
    id: u32,
    slots: Slots,
    installed: Installed,
    policy: Option<Policy>,
    /// Destinations that it was granted by name under a rule in force.
    granted: Vec<(GrantKey, u32)>,
}

/// Something that happens: a policy comes in force, or the connector ends and another one begins in
/// its place.
fn happenings() -> impl Strategy<Value = Vec<(u32, Policy, bool)>> {
    prop::collection::vec((1..=MANY, policies(), any::<bool>()), 1..8)
}

fn empty(id: u32) -> Tables {
    Tables {
        connector: id,
        rules: Vec::new(),
        prefixes: Vec::new(),
        names: Vec::new(),
        unix: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases() / 4 + 1))]

    #[test]
    fn connectors_of_one_data_plane_never_mix(
        happenings in happenings(),
        probes in prop::collection::vec((address(), port()), 12),
    ) {
        // Few, so that numbers come round.
        let numbers = Numbers::new(RULE_FIRST + 64);
        let (grants, mut kernel) = (Grants::default(), Kernel::default());
        let keeper = Keeper::new(Box::new(grants.clone()));
        let mut all: Vec<One> = (1..=MANY).map(|id| One {
            id,
            slots: Slots::new(numbers.clone()),
            installed: Installed::default(),
            policy: None,
            granted: Vec::new(),
        }).collect();
        for (id, policy, ends) in happenings {
            let index = usize::try_from(id - 1).unwrap_or(0);
            if ends {
                let one = &mut all[index];
                let steps = change(&one.installed, &empty(id)).unwrap_or_else(|e| panic!("{e}"));
                steps.steps().for_each(|step| kernel.note(step));
                prop_assert!(keeper.forget(id).is_ok());
                numbers.give_back(one.slots.all());
                one.slots = Slots::new(numbers.clone());
                one.installed = Installed::default();
                one.policy = None;
                one.granted.clear();
                check(&all, &kernel, &grants, &probes)?;
            }
            let Ok(slots) = all[index].slots.assign(&policy) else {
                continue;
            };
            let Ok(tables) = compile_at(&policy, id, &slots) else {
                continue;
            };
            let steps = change(&all[index].installed, &tables).unwrap_or_else(|e| panic!("{e}"));
            let before = all[index].policy.take();
            for step in steps.steps() {
                kernel.note(step);
                all[index].installed.note(step);
                if let Step::Off(rule, _) = step {
                    prop_assert!(keeper.remove_rule(*rule).is_ok());
                    all[index].granted.retain(|(_, of)| of != rule);
                }
                // The others, while this one is between two policies.
                check(&all, &kernel, &grants, &probes)?;
            }
            drop(before);
            let rule = tables.rules.iter().find(|rule| rule.list == List::Allow);
            if let Some(rule) = rule {
                let addr = Addr::from_octets(Ipv6Addr::from(u128::from(id) << 64 | 0xfd).octets());
                let key = GrantKey { addr, connector: id, port: GRANTED, protocol: TCP, pad: 0 };
                let lease = Lease { key, rule: rule.slot, expires_ns: 0, named: false };
                prop_assert!(keeper.grant("a.example", &[lease]).is_ok());
                all[index].granted.push((key, rule.slot));
            }
            all[index].policy = Some(policy);
            check(&all, &kernel, &grants, &probes)?;
        }
    }
}

/// Every connector that has a policy is decided by it, and has the grants that it was given and no
/// other's.
fn check(
    all: &[One],
    kernel: &Kernel,
    grants: &Grants,
    probes: &[(IpAddr, u16)],
) -> Result<(), TestCaseError> {
    let memory = kernel.memory(grants);
    let given: Vec<GrantKey> = all
        .iter()
        .flat_map(|one| one.granted.iter().map(|(key, _)| *key))
        .collect();
    for one in all {
        let Some(policy) = &one.policy else {
            continue;
        };
        for &(addr, port) in probes {
            let says = oracle(policy, addr, port, TCP) == Answer::Allowed;
            let allowed = decide(&flow(one.id, addr, port, TCP), &memory).action == Action::Allow;
            prop_assert_eq!(says, allowed, "connector {} to {} {}", one.id, addr, port);
        }
        for key in &given {
            let addr = IpAddr::V6(Ipv6Addr::from(key.addr.octets()));
            let own = key.connector == one.id;
            let says = own || oracle(policy, addr, key.port, TCP) == Answer::Allowed;
            let action = decide(&flow(one.id, addr, key.port, TCP), &memory).action;
            let allowed = matches!(action, Action::Allow | Action::Check);
            prop_assert_eq!(
                says,
                allowed,
                "connector {} to a grant of {}",
                one.id,
                key.connector
            );
        }
    }
    Ok(())
}
