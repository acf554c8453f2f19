//! The verdict: one pure function that every caller shares.

use crate::{
    abi::{DNS_PORT, RULE_DOOR, RULE_INBOUND, RULE_NONE, RULE_OWN, TCP, UDP},
    grant::{Connector, Grant, PortRange, PrefixRules, Rule},
    key::{Addr, GrantKey, PrefixKey, RouteKey},
    sni::NameQuery,
    unix::{UnixGrant, UnixKey},
    verdict::{Action, Layer, Reason, Verdict},
};

/// One attempt to send something somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Destination in canonical form.
    pub addr: Addr,
    /// Connector id; 0 = none.
    pub connector: u32,
    /// Destination port, host order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The hook that asks.
    pub layer: Layer,
    /// The packet answers a connection that came in: its socket was made by `accept()` or
    /// listens.
    pub inbound: bool,
    /// Local port, host order; only read for `inbound` flows.
    pub local_port: u16,
    /// The interface the packet leaves by; 0 = not known yet.
    pub ifindex: u32,
}

/// The tables a verdict is taken from: maps in the kernel, plain collections elsewhere.
///
/// Methods answer by reference or by value as the maps do; none may fail. `None` is always
/// the refusing answer.
pub trait Lookup {
    /// The connector's record; `None` or a record without a mode refuses everything.
    fn connector(&self, id: u32) -> Option<&Connector>;
    /// The exact grant for a key.
    fn exact(&self, key: &GrantKey) -> Option<&Grant>;
    /// The longest prefix that covers a key whose address counts whole.
    fn prefix(&self, key: &PrefixKey) -> Option<&PrefixRules>;
    /// Whether this host sends to an address by an interface, when nobody chooses one.
    fn leads(&self, key: &RouteKey) -> bool;
    /// What holds for the name of a unix socket.
    fn unix(&self, key: &UnixKey) -> Option<&UnixGrant>;
    /// What holds for a name in TLS: the longest entry that covers it.
    fn name(&self, name: &NameQuery) -> Option<&PrefixRules>;
    /// Whether a rule is in force.
    fn rule_active(&self, rule: u32) -> bool;
    /// The flags of a rule; 0 where there is none.
    fn rule_flags(&self, rule: u32) -> u16;
    /// Whether what is sent by TCP to a loopback destination reaches the connector of the flow
    /// itself, and nobody else.
    fn own_peer(&self, flow: &Flow) -> bool;
    /// Boot clock, nanoseconds.
    fn now_ns(&self) -> u64;
    /// The same verdict. In the kernel, its verifier then knows nothing of it: where ways meet that
    /// differ in their verdict alone, it follows one of them instead of all.
    #[inline(always)]
    fn blurred(&self, verdict: Verdict) -> Verdict {
        verdict
    }
}

/// Decides a flow. Total: every input has an answer, and every unclear one is a refusal.
#[inline(always)]
pub fn decide<L: Lookup>(flow: &Flow, lookup: &L) -> Verdict {
    let Some(connector) = lookup.connector(flow.connector) else {
        return Verdict::deny(Reason::UnknownConnector, RULE_NONE);
    };
    let mode = connector.mode;
    if mode != Connector::ENFORCE && mode != Connector::AUDIT {
        return Verdict::deny(Reason::UnknownConnector, RULE_NONE);
    }
    if is_door(flow, connector) {
        return Verdict::allow(RULE_DOOR);
    }
    if is_dns(flow) && connector.door_port != 0 {
        return Verdict {
            action: Action::Redirect,
            reason: Reason::None,
            rule: RULE_DOOR,
        };
    }
    let mut verdict = lookup.blurred(by_rule(flow, lookup));
    if matches!(verdict.action, Action::Allow)
        && flow.protocol == UDP
        && flow.ifindex != 0
        && !on_route(flow.connector, flow.addr, flow.ifindex, lookup)
    {
        verdict = lookup.blurred(Verdict::deny(Reason::Interface, verdict.rule));
    }
    if mode == Connector::AUDIT {
        return audited(verdict);
    }
    verdict
}

/// Whether a datagram may leave by an interface: the one by which this host sends to its address
/// when nobody chooses one. A control message can choose another (`IP_PKTINFO`), and no hook sees
/// those. TCP has none.
#[inline(always)]
pub fn on_route<L: Lookup>(connector: u32, addr: Addr, ifindex: u32, lookup: &L) -> bool {
    let key = RouteKey {
        connector,
        ifindex,
        addr,
    };
    addr.is_of_every_link() || lookup.leads(&key)
}

/// A refusal for a reason that lies outside the tables, or its report where the connector is
/// only audited.
#[inline(always)]
pub fn refused<L: Lookup>(connector: u32, reason: Reason, rule: u32, lookup: &L) -> Verdict {
    let verdict = Verdict::deny(reason, rule);
    match lookup.connector(connector) {
        Some(connector) if connector.mode == Connector::AUDIT => audited(verdict),
        _ => verdict,
    }
}

/// Turns a refusal into a report, for a connector that is only audited.
#[inline(always)]
pub fn audited(verdict: Verdict) -> Verdict {
    if matches!(verdict.action, Action::Deny) {
        return Verdict {
            action: Action::Audit,
            ..verdict
        };
    }
    verdict
}

/// Grants first, then prefixes, then the connector's own connections over loopback. A grant that
/// permits the address only together with a name gives way to a prefix that asks for none.
///
/// Nothing permits a broadcast address of loopback: everybody on the host hears it. Datagrams to
/// loopback need a rule, for no connection says who takes them.
#[inline(always)]
fn by_rule<L: Lookup>(flow: &Flow, lookup: &L) -> Verdict {
    if flow.addr.is_loopback_broadcast() && !flow.inbound {
        return Verdict::deny(Reason::Broadcast, RULE_NONE);
    }
    let granted = lookup.blurred(by_grant(flow, lookup));
    if matches!(granted.action, Action::Allow) {
        return granted;
    }
    let key = PrefixKey {
        connector: flow.connector,
        protocol: u32::from(flow.protocol),
        addr: flow.addr,
    };
    let ranged = lookup.blurred(match lookup.prefix(&key) {
        Some(rules) => by_port(flow.port, rules, lookup),
        None => Verdict::deny(Reason::NoRule, RULE_NONE),
    });
    if matches!(ranged.action, Action::Allow) {
        return ranged;
    }
    // A caller's port may be that of a granted server; it is answered as a caller.
    if matches!(granted.action, Action::Check) && !flow.inbound {
        return granted;
    }
    let denied = if matches!(ranged.reason, Reason::NoRule) {
        granted
    } else {
        ranged
    };
    if flow.inbound {
        return to_caller(flow, lookup);
    }
    if flow.protocol == TCP
        && !matches!(denied.reason, Reason::DenyRule)
        && flow.addr.is_loopback()
        && lookup.own_peer(flow)
    {
        return Verdict::allow(RULE_OWN);
    }
    let reason = match denied.reason {
        Reason::NoRule => by_class(&flow.addr),
        reason => reason,
    };
    Verdict::deny(reason, denied.rule)
}

/// What the exact grant says.
#[inline(always)]
pub fn by_grant<L: Lookup>(flow: &Flow, lookup: &L) -> Verdict {
    let Some(grant) = lookup.exact(&flow.grant_key()) else {
        return Verdict::deny(Reason::NoRule, RULE_NONE);
    };
    let rule = grant.rule;
    if !lookup.rule_active(rule) {
        Verdict::deny(Reason::Revoked, rule)
    } else if grant.expires_ns != 0 && lookup.now_ns() >= grant.expires_ns {
        Verdict::deny(Reason::Expired, rule)
    } else if flow.protocol == TCP && lookup.rule_flags(rule) & Rule::TLS != 0 {
        Verdict {
            action: Action::Check,
            reason: Reason::None,
            rule,
        }
    } else {
        Verdict::allow(rule)
    }
}

/// Whether a group of receivers may be joined: where a rule permits datagrams to it, at whatever
/// port. The kernel then tells the network of it, in a packet that no hook sees (IGMP, MLD).
#[inline(always)]
pub fn joins<L: Lookup>(connector: u32, group: Addr, lookup: &L) -> Verdict {
    let key = PrefixKey {
        connector,
        protocol: u32::from(UDP),
        addr: group,
    };
    let Some(rules) = lookup.prefix(&key).filter(|_| group.is_multicast()) else {
        return Verdict::deny(Reason::Multicast, RULE_NONE);
    };
    // A constant number of turns, as in `by_port`.
    for (range, index) in rules.ranges.iter().zip(0_u32..) {
        if index >= rules.count {
            break;
        }
        if range.effect == PortRange::ALLOW {
            if lookup.rule_active(range.rule) {
                return Verdict::allow(range.rule);
            }
        } else if range.first <= 1 && range.last == u16::MAX {
            return Verdict::deny(Reason::DenyRule, range.rule);
        }
    }
    Verdict::deny(Reason::Multicast, RULE_NONE)
}

/// Answers to somebody who called in: loopback peers may, so that a browser can reach an
/// OAuth call-back, and those whom a `listen:` rule lets in. Answers to others would be a way
/// out.
#[inline(always)]
fn to_caller<L: Lookup>(flow: &Flow, lookup: &L) -> Verdict {
    if flow.protocol != TCP {
        return Verdict::deny(Reason::Inbound, RULE_NONE);
    }
    if flow.addr.is_loopback() {
        return Verdict::allow(RULE_INBOUND);
    }
    let key = PrefixKey {
        connector: flow.connector,
        protocol: PrefixKey::INBOUND | u32::from(flow.protocol),
        addr: flow.addr,
    };
    match lookup.prefix(&key) {
        Some(rules) => match by_port(flow.local_port, rules, lookup) {
            Verdict {
                reason: Reason::NoRule,
                ..
            } => Verdict::deny(Reason::Inbound, RULE_NONE),
            verdict => verdict,
        },
        None => Verdict::deny(Reason::Inbound, RULE_NONE),
    }
}

/// The first range that holds the port decides; a range of an inactive rule is passed over.
#[inline(always)]
pub(crate) fn by_port<L: Lookup>(port: u16, rules: &PrefixRules, lookup: &L) -> Verdict {
    let mut verdict = lookup.blurred(Verdict::deny(Reason::NoRule, RULE_NONE));
    // A constant number of turns, left early: what the verifier of 5.10 can follow.
    for (range, index) in rules.ranges.iter().zip(0_u32..) {
        if index >= rules.count {
            break;
        }
        if range.first <= port && port <= range.last {
            if range.effect != PortRange::ALLOW {
                return Verdict::deny(Reason::DenyRule, range.rule);
            }
            if lookup.rule_active(range.rule) {
                return Verdict::allow(range.rule);
            }
            verdict = lookup.blurred(Verdict::deny(Reason::Revoked, range.rule));
        }
    }
    verdict
}

/// The most telling reason for a destination that no rule mentions.
#[inline(always)]
fn by_class(addr: &Addr) -> Reason {
    if addr.is_loopback() {
        Reason::Loopback
    } else if addr.is_link_local() {
        Reason::LinkLocal
    } else if addr.is_multicast() {
        Reason::Multicast
    } else {
        Reason::NoRule
    }
}

/// Whether the flow goes to the connector's door itself.
#[inline(always)]
fn is_door(flow: &Flow, connector: &Connector) -> bool {
    connector.door_port != 0
        && flow.port == connector.door_port
        && flow.protocol_has_door()
        && (flow.addr == connector.door_v6 || flow.addr == Addr::from_v4(connector.door_v4))
}

/// Whether a hook that can still rewrite the destination sees DNS.
#[inline(always)]
fn is_dns(flow: &Flow) -> bool {
    flow.port == DNS_PORT
        && matches!(flow.layer, Layer::Connect | Layer::Sendmsg)
        && flow.protocol_has_door()
}

impl Flow {
    /// For what is refused without a destination: a socket, an option, a name.
    #[inline(always)]
    pub const fn nowhere(connector: u32, layer: Layer) -> Self {
        Self {
            addr: Addr { halves: [0, 0] },
            connector,
            port: 0,
            protocol: 0,
            layer,
            inbound: false,
            local_port: 0,
            ifindex: 0,
        }
    }

    /// The key of the exact grant that would permit the flow.
    #[inline(always)]
    pub const fn grant_key(&self) -> GrantKey {
        GrantKey {
            addr: self.addr,
            connector: self.connector,
            port: self.port,
            protocol: self.protocol,
            pad: 0,
        }
    }

    #[inline(always)]
    fn protocol_has_door(&self) -> bool {
        self.protocol == UDP || self.protocol == TCP
    }
}
