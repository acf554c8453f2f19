//! The stages a destination passes, and the one that refuses it.

use std::net::{IpAddr, Ipv4Addr};

use egress_common::{
    abi::{DNS_PORT, RULE_FIRST, TCP, UDP},
    decide::{Flow, audited, decide},
    grant::{Connector, Grant},
    key::{Addr, GrantKey},
    unix,
    verdict::{Action, Layer, Reason, Verdict},
};
use serde::Serialize;

use super::{
    dest::{Dest, Place, protocol_name},
    near,
    operation::Operation,
    sni,
};
use crate::policy::{
    compile::{self, Tables},
    cover::{Cover, cover},
    fault::Faults,
    model::{Mode, Policy, Rule, Target},
    name::Name,
    proxy::Proxy,
    tables::Memory,
};

/// Version of the JSON form.
const SCHEMA: &str = "egress-agent/explain/v1";
/// The connector's number while it is explained.
pub(super) const CONNECTOR: u32 = 1;
/// Stands for whatever address the DNS door answers with (RFC 5737).
const ANSWER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Port and protocol pairs shown where the destination leaves them open.
const MAX_ANSWERS: usize = 16;

/// What a policy says of a destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Explanation {
    /// Name and version of this form.
    pub schema: &'static str,
    /// The connector.
    pub connector: String,
    /// `enforce` or `audit`.
    pub mode: &'static str,
    /// One answer for each port and protocol; never empty.
    pub answers: Vec<Answer>,
    /// What is nearly right, and what else to know.
    pub hints: Vec<String>,
    /// Of a request that is judged: which operation it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
}

/// What happens to one destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Answer {
    /// `out`: the connector calls; `in`: it is called.
    pub direction: &'static str,
    /// `name:port/protocol`, `address:port/protocol` or `unix:path`; of a call that comes in,
    /// `address to port port/protocol`.
    pub destination: String,
    /// What happens at last: `allow`, `deny`, `audit` or `redirect`.
    pub action: &'static str,
    /// The layer that decides it.
    pub layer: &'static str,
    /// Why it is refused; `none` where it is not.
    pub reason: &'static str,
    /// The rule that decides it.
    pub rule: Option<RuleRef>,
    /// Every layer that is asked, in order.
    pub stages: Vec<Stage>,
}

impl Answer {
    /// Whether the policy permits it. In audit mode what it does not permit passes, too.
    pub fn is_allowed(&self) -> bool {
        self.action == Action::Allow.as_str() || self.action == Action::Redirect.as_str()
    }
}

/// What one layer does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Stage {
    /// The layer.
    pub layer: &'static str,
    /// What it does.
    pub action: &'static str,
    /// Why it refuses; `none` where it does not.
    pub reason: &'static str,
    /// The rule it goes by.
    pub rule: Option<RuleRef>,
}

/// A rule, as an explanation names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RuleRef {
    /// Its id.
    pub id: String,
    /// Why the connector needs it.
    pub why: Option<String>,
}

/// Explains a destination, and what becomes of a TLS ClientHello with a name; without one, with
/// the destination's own. Fails where the policy does not fit the data plane.
pub fn explain(policy: &Policy, dest: &Dest, sni: Option<&str>) -> Result<Explanation, Faults> {
    let case = Case {
        sni,
        ..Case::new(policy)?
    };
    let answers = match &dest.place {
        Place::Unix(path) => vec![case.unix(path)],
        Place::Name(name) => case.each(dest, |port, protocol| case.name(name, port, protocol)),
        Place::Addr(addr) => case.each(dest, |port, protocol| case.addr(*addr, port, protocol)),
    };
    let refused = answers.iter().any(|answer| !answer.is_allowed());
    let mut hints = near::hints(policy, dest, refused);
    hints.extend(case.about_name(&answers));
    hints.extend(proxied(policy, dest));
    Ok(Explanation::new(policy, answers, hints))
}

impl Explanation {
    pub(super) fn new(policy: &Policy, answers: Vec<Answer>, hints: Vec<String>) -> Self {
        Self {
            schema: SCHEMA,
            connector: policy.connector.clone(),
            mode: match policy.mode {
                Mode::Enforce => "enforce",
                Mode::Audit => "audit",
            },
            answers,
            hints,
            operation: None,
        }
    }
}

/// A policy, and the tables it is compiled to.
pub(super) struct Case<'a> {
    policy: &'a Policy,
    tables: Tables,
    sni: Option<&'a str>,
}

impl<'a> Case<'a> {
    /// Fails where the policy does not fit the data plane.
    pub(super) fn new(policy: &'a Policy) -> Result<Self, Faults> {
        let tables = compile::compile(policy, CONNECTOR, RULE_FIRST)?;
        let sni = None;
        Ok(Self {
            policy,
            tables,
            sni,
        })
    }

    fn each(&self, dest: &Dest, stages: impl Fn(u16, u8) -> Vec<Stage>) -> Vec<Answer> {
        openings(self.policy, dest)
            .into_iter()
            .map(|(port, protocol)| {
                let name = protocol_name(protocol);
                answer(
                    format!("{}:{port}/{name}", dest.place),
                    stages(port, protocol),
                )
            })
            .collect()
    }

    /// The DNS door first; then an address that it answered with.
    fn name(&self, name: &Name, port: u16, protocol: u8) -> Vec<Stage> {
        let dns = self.dns(name);
        if dns.action != Action::Allow.as_str() {
            return vec![dns];
        }
        let mut memory = self.memory(false);
        if let Some(rule) = self.policy.name_denied(name, port, protocol) {
            let verdict = refusal(Reason::DenyRule);
            return vec![dns, self.stage(Layer::Connect, verdict, Some(rule))];
        }
        let granted = self.policy.rules_for(name);
        let through = through(self.policy, name).is_some();
        let granted = granted.filter(|(_, rule)| rule.takes(port, protocol));
        // A proxy carries TCP alone.
        let granted = granted.filter(|_| protocol != UDP || !through);
        let slots = granted.filter_map(|(index, _)| self.tables.slot_of_allow(index));
        // A rule that asks for no name goes first, as in the ledger.
        let asks = |slot: &u32| self.tables.rule(*slot).is_some_and(|rule| rule.flags != 0);
        if let Some(rule) = slots.min_by_key(|slot| (asks(slot), *slot)) {
            let grant = Grant {
                expires_ns: 0,
                rule,
                pad: 0,
            };
            memory.grants.insert(key(ANSWER, port, protocol), grant);
        }
        let mut stages = vec![dns];
        stages.extend(self.network(&memory, ANSWER, port, protocol));
        if stages.last().is_some_and(|stage| stage.action == CHECK) {
            let said = self.sni.unwrap_or(name.as_str());
            let verdict = sni::verdict(&memory, said, port);
            stages.push(self.stage(Layer::Sni, verdict, None));
        }
        stages
    }

    /// What to say of the name in TLS.
    fn about_name(&self, answers: &[Answer]) -> Vec<String> {
        let Some(name) = self.sni else {
            return Vec::new();
        };
        let mut stages = answers.iter().flat_map(|answer| &answer.stages);
        let asked = stages
            .clone()
            .any(|stage| stage.layer == Layer::Sni.as_str());
        let stranger = Reason::SniStranger.as_str();
        if stages.any(|stage| stage.reason == stranger) {
            sni::near(self.policy, name)
        } else if asked {
            Vec::new()
        } else {
            vec![sni::unasked(name)]
        }
    }

    fn dns(&self, name: &Name) -> Stage {
        let covering = self.policy.allow.iter().find(|rule| covers(rule, name));
        let rules = || self.policy.rules_for(name);
        if let Some(Cover::TooLong(place)) = cover(rules(), name) {
            let rule = self.policy.allow.get(place);
            return self.stage(Layer::Dns, refusal(Reason::NameBudget), rule);
        }
        match (rules().next(), covering) {
            (Some((_, rule)), _) => self.stage(Layer::Dns, PERMITTED, Some(rule)),
            (None, Some(_)) => {
                let deny = self.policy.deny.iter().find(|rule| covers(rule, name));
                self.stage(Layer::Dns, refusal(Reason::DenyRule), deny)
            }
            (None, None) => self.stage(Layer::Dns, refusal(Reason::NameNotAllowed), None),
        }
    }

    fn addr(&self, addr: IpAddr, port: u16, protocol: u8) -> Vec<Stage> {
        self.network(&self.memory(true), addr, port, protocol)
    }

    /// The hooks of one connection, to the first that refuses.
    fn network(&self, memory: &Memory, addr: IpAddr, port: u16, protocol: u8) -> Vec<Stage> {
        let first = if protocol == UDP {
            Layer::Sendmsg
        } else {
            Layer::Connect
        };
        let mut stages = Vec::new();
        for layer in [first, Layer::Packet] {
            let mut memory = memory.clone();
            if port == DNS_PORT {
                memory.connectors.insert(CONNECTOR, self.connector(1));
            }
            let flow = Flow {
                addr: canonical(addr),
                connector: CONNECTOR,
                port,
                protocol,
                layer,
                inbound: false,
                local_port: 0,
                ifindex: 0,
            };
            let verdict = decide(&flow, &memory);
            stages.push(self.stage(layer, verdict, None));
            if verdict.action != Action::Allow {
                break;
            }
        }
        stages
    }

    fn unix(&self, path: &str) -> Answer {
        let verdict = match compile::unix_key(CONNECTOR, path) {
            Some(key) => unix::decide(&key, &self.memory(true)),
            None => refusal(Reason::UnixPath),
        };
        let stage = self.stage(Layer::Unix, verdict, None);
        answer(format!("unix:{path}"), vec![stage])
    }

    /// A stage; the rule is the verdict's own unless one is given.
    pub(super) fn stage(&self, layer: Layer, verdict: Verdict, rule: Option<&Rule>) -> Stage {
        let verdict = match self.policy.mode {
            Mode::Audit => audited(verdict),
            Mode::Enforce => verdict,
        };
        let given = rule.map(|rule| RuleRef {
            id: rule.id.clone(),
            why: rule.why.clone(),
        });
        let own = || {
            self.tables.rule(verdict.rule).map(|rule| RuleRef {
                id: rule.id.clone(),
                why: rule.why.clone(),
            })
        };
        Stage {
            layer: layer.as_str(),
            action: verdict.action.as_str(),
            reason: verdict.reason.as_str(),
            rule: given.or_else(own),
        }
    }

    /// The data plane's tables, with or without prefixes.
    pub(super) fn memory(&self, prefixes: bool) -> Memory {
        let mut memory = Memory::default();
        memory.install(&self.tables, self.connector(0));
        if !prefixes {
            memory.prefixes.clear();
        }
        memory
    }

    fn connector(&self, door_port: u16) -> Connector {
        Connector {
            door_v6: canonical(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            door_v4: Ipv4Addr::LOCALHOST.to_bits(),
            door_port,
            mode: match self.policy.mode {
                Mode::Enforce => Connector::ENFORCE,
                Mode::Audit => Connector::AUDIT,
            },
            unix: Connector::OWN_PATHS,
            flags: 0,
        }
    }
}

/// The proxy that connections to a name go through.
fn through<'a>(policy: &'a Policy, name: &Name) -> Option<&'a Proxy> {
    let carried = policy.rules_for(name).any(|(_, rule)| rule.protocols.tcp);
    policy
        .through()
        .filter(|proxy| carried && proxy.takes(name))
}

/// What to say of the proxy.
fn proxied(policy: &Policy, dest: &Dest) -> Option<String> {
    let Place::Name(name) = &dest.place else {
        return None;
    };
    let proxy = through(policy, name)?;
    Some(format!(
        "connections to {name} go through the proxy {proxy}, which alone resolves it; over UDP it is \
         not reached"
    ))
}

/// The address is permitted; the name is looked at next.
const CHECK: &str = Action::Check.as_str();

const PERMITTED: Verdict = Verdict {
    action: Action::Allow,
    reason: Reason::None,
    rule: 0,
};

const fn refusal(reason: Reason) -> Verdict {
    Verdict {
        action: Action::Deny,
        reason,
        rule: 0,
    }
}

/// The outcome of stages: that of the first one that does not permit.
pub(super) fn answer(destination: String, stages: Vec<Stage>) -> Answer {
    let denied = |stage: &&Stage| ![Action::Allow.as_str(), CHECK].contains(&stage.action);
    let decisive = stages.iter().find(denied).or(stages.last());
    let (action, layer, reason) = decisive.map_or(
        (
            Action::Deny.as_str(),
            Layer::Connect.as_str(),
            Reason::NoRule.as_str(),
        ),
        |stage| (stage.action, stage.layer, stage.reason),
    );
    let rule = decisive.and_then(|stage| stage.rule.clone());
    Answer {
        direction: "out",
        destination,
        action,
        layer,
        reason,
        rule,
        stages,
    }
}

/// The ports and protocols to tell of: those asked for, or those that rules speak of.
fn openings(policy: &Policy, dest: &Dest) -> Vec<(u16, u8)> {
    let mut openings: Vec<(u16, u8)> = Vec::new();
    for rule in &policy.allow {
        let concerned = match &dest.place {
            Place::Name(name) => covers(rule, name),
            Place::Addr(addr) => matches!(&rule.target, Target::Cidr(net) if net.contains(addr)),
            Place::Unix(_) => false,
        };
        if !concerned {
            continue;
        }
        for protocol in rule.protocols.numbers() {
            let ports: Vec<u16> = match dest.port {
                Some(port) => rule
                    .ports
                    .iter()
                    .filter(|s| s.holds(port))
                    .map(|_| port)
                    .collect(),
                None => rule.ports.iter().map(|span| span.first).collect(),
            };
            let asked = dest.protocol.is_none_or(|asked| asked == protocol);
            openings.extend(
                ports
                    .into_iter()
                    .filter(|_| asked)
                    .map(|port| (port, protocol)),
            );
        }
    }
    openings.sort_unstable();
    openings.dedup();
    openings.truncate(MAX_ANSWERS);
    if openings.is_empty() {
        openings.push((dest.port.unwrap_or(443), dest.protocol.unwrap_or(TCP)));
    }
    openings
}

/// Whether a rule is a host rule that covers a name.
fn covers(rule: &Rule, name: &Name) -> bool {
    matches!(&rule.target, Target::Host(pattern) if pattern.covers(name))
}

fn key(addr: IpAddr, port: u16, protocol: u8) -> GrantKey {
    GrantKey {
        addr: canonical(addr),
        connector: CONNECTOR,
        port,
        protocol,
        pad: 0,
    }
}

pub(super) fn canonical(addr: IpAddr) -> Addr {
    Addr::from_octets(match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    })
}
