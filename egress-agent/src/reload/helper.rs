//! The process beside a connector in the data plane: the forwarder to a company's proxy, or the
//! envelope proxy. A connector of its own that has no policy, so that what is granted to it is all
//! that it reaches.

use std::net::Ipv4Addr;

use egress_common::{
    abi::{MAX_RANGES, RULE_INSPECTED, RULE_PROXY},
    grant::{Connector, PortRange, PrefixRules, Rule},
    key::Addr,
    sni::NameKey,
};

use super::{
    fault::StartError,
    plane::{Live, number},
};
use crate::{
    host::Cgroup,
    kernel::PlaneError,
    policy::{
        model::{Mode, Policy, PortSpan},
        name::{HostPattern, Name},
        names,
    },
};

impl Live {
    /// Lets a connector's forwarder in, whose processes are to join `cgroup`. To be called before
    /// the data plane is attached.
    pub fn admit_forwarder(&mut self, id: u32, cgroup: &Cgroup) -> Result<(), StartError> {
        self.enter(id, cgroup)?;
        self.switches.set_rule(RULE_PROXY, 0, true, 0)?;
        Ok(self.switches.set_connector(id, &record(Mode::Enforce))?)
    }

    /// Lets a connector's envelope proxy in, in the same way. It reaches granted addresses with a
    /// name in TLS that is judged, and no other name that is served there.
    pub fn admit_envelope(&mut self, id: u32, cgroup: &Cgroup) -> Result<(), StartError> {
        self.enter(id, cgroup)?;
        // What it answers the connector counts there.
        self.switches.set_rule(RULE_PROXY, 0, true, 0)?;
        let policy = std::sync::Arc::clone(self.policy());
        Ok(self.set_inspected(id, &policy)?)
    }

    /// Which names the envelope proxy may call, by the policy in force. Nothing is refused to it
    /// that its connector would not be refused.
    pub(super) fn set_inspected(&mut self, id: u32, policy: &Policy) -> Result<(), PlaneError> {
        let mut before = std::mem::take(&mut self.judged);
        for (bits, key, rules) in entries(id, policy) {
            self.switches.set_name(bits, &key, &rules)?;
            before.retain(|other| *other != (bits, key));
            self.judged.push((bits, key));
        }
        for (bits, key) in before {
            self.switches.delete_name(bits, &key)?;
        }
        self.switches.set_connector(id, &record(policy.mode))?;
        self.switches.set_rule(RULE_INSPECTED, 0, true, Rule::TLS)
    }
}

fn record(mode: Mode) -> Connector {
    Connector {
        door_v6: Addr::from_v4(u32::from(Ipv4Addr::LOCALHOST)),
        door_v4: 0,
        door_port: 0,
        mode: number(mode),
        unix: 0,
        flags: 0,
    }
}

/// A name's entry: length in bits, key, ports.
fn entries(id: u32, policy: &Policy) -> Vec<(u32, NameKey, PrefixRules)> {
    let mut all: Vec<(Name, Vec<PortSpan>)> = Vec::new();
    for (index, name, _) in policy.inspected() {
        let rule = policy.allow.get(index);
        let spans = rule.map(|rule| rule.ports.clone()).unwrap_or_default();
        match all.iter_mut().find(|(other, _)| other == name) {
            Some((_, ports)) => ports.extend(spans),
            None => all.push((name.clone(), spans)),
        }
    }
    let entry = |(name, spans): (Name, Vec<PortSpan>)| {
        let (bits, key) = names::key(id, &HostPattern::Exact(name))?;
        Some((bits, key, ranges(&spans)))
    };
    all.into_iter().filter_map(entry).collect()
}

/// Spans that find no room stay closed.
fn ranges(spans: &[PortSpan]) -> PrefixRules {
    let mut rules = PrefixRules {
        count: 0,
        ranges: [PortRange::EMPTY; MAX_RANGES],
    };
    for (range, span) in rules.ranges.iter_mut().zip(spans) {
        *range = PortRange {
            first: span.first,
            last: span.last,
            effect: PortRange::ALLOW,
            pad: 0,
            rule: RULE_INSPECTED,
        };
        rules.count = rules.count.saturating_add(1);
    }
    rules
}
