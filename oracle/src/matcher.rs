//! The verdict, read naively from plain lists: what `egress_common::decide` must say.

use std::net::IpAddr;

use egress_common::{
    abi::{DNS_PORT, MAX_RANGES, RULE_DOOR, RULE_INBOUND, RULE_NONE, RULE_OWN, TCP, UDP},
    decide::decide,
    verdict::{Action, Layer, Reason, Verdict},
};

use crate::{
    draw::Draw,
    flow::{Attempt, canonical, number},
    world::{Member, Prefix, Range, World, first_bits},
};

/// Draws tables and attempts on them and compares the two verdicts. Answers how many
/// attempts there were; panics where they differ.
pub fn compare(draw: &mut impl Draw, edges: &[IpAddr], attempts: usize) -> u64 {
    let world = World::draw(draw, edges);
    let memory = world.memory();
    for _ in 0..attempts {
        let attempt = world.attempt(draw, edges);
        let found = decide(&attempt.flow(), &memory);
        let expected = verdict(&world, &attempt);
        assert_eq!(found, expected, "{attempt:?} in {world:#?}");
    }
    attempts as u64
}

/// What happens to an attempt.
pub fn verdict(world: &World, attempt: &Attempt) -> Verdict {
    let member = world
        .connectors
        .iter()
        .find(|it| it.id == attempt.connector);
    let Some(member) = member.filter(|it| it.mode == 1 || it.mode == 2) else {
        return refused(Reason::UnknownConnector, RULE_NONE);
    };
    let to = canonical(attempt.to);
    let transport = attempt.protocol == TCP || attempt.protocol == UDP;
    if let Some((v4, v6, port)) = member.door
        && transport
    {
        let doors = [IpAddr::V4(v4), canonical(v6.into())];
        if attempt.port == port && doors.contains(&to) {
            return allowed(RULE_DOOR);
        }
        let rewritable = matches!(attempt.layer, Layer::Connect | Layer::Sendmsg);
        if attempt.port == DNS_PORT && rewritable {
            return Verdict {
                action: Action::Redirect,
                reason: Reason::None,
                rule: RULE_DOOR,
            };
        }
    }
    let verdict = by_rule(world, attempt, to);
    if verdict.action == Action::Allow && !may_leave(world, attempt, to) {
        return softened(member, refused(Reason::Interface, verdict.rule));
    }
    softened(member, verdict)
}

/// An audited connector is refused nothing.
fn softened(member: &Member, verdict: Verdict) -> Verdict {
    match verdict.action {
        Action::Deny if member.mode == 2 => Verdict {
            action: Action::Audit,
            ..verdict
        },
        _ => verdict,
    }
}

/// Every reason to permit in order; where there is none, the most telling refusal.
fn by_rule(world: &World, attempt: &Attempt, to: IpAddr) -> Verdict {
    // The first and the last address of 127.0.0.0/8.
    let broadcast = [[127, 0, 0, 0], [127, 255, 255, 255]].map(IpAddr::from);
    if broadcast.contains(&to) && !attempt.inbound {
        return refused(Reason::Broadcast, RULE_NONE);
    }
    let (mut refusal, mut with_a_name) = (None, None);
    match by_grant(world, attempt, to) {
        Some(Ok(rule)) if attempt.protocol == TCP && asks_for_a_name(world, rule) => {
            with_a_name = Some(rule);
        }
        Some(Ok(rule)) => return allowed(rule),
        Some(Err(why)) => refusal = Some(why),
        None => {}
    }
    let outward = longest(world, attempt, to, false);
    match outward.and_then(|it| by_ranges(world, it, attempt.port)) {
        Some(Ok(rule)) => return allowed(rule),
        Some(Err(why)) => refusal = Some(why),
        None => {}
    }
    if let Some(rule) = with_a_name.filter(|_| !attempt.inbound) {
        return Verdict {
            action: Action::Check,
            reason: Reason::None,
            rule,
        };
    }
    if attempt.inbound {
        return to_caller(world, attempt, to);
    }
    let denied = matches!(refusal, Some((Reason::DenyRule, _)));
    let own = world.own.contains(&(attempt.connector, attempt.port));
    if attempt.protocol == TCP && to.is_loopback() && !denied && own {
        return allowed(RULE_OWN);
    }
    let (reason, rule) = refusal.unwrap_or((class(to), RULE_NONE));
    refused(reason, rule)
}

/// The rule that permits, or why it does not.
type Opinion = Result<u32, (Reason, u32)>;

fn by_grant(world: &World, attempt: &Attempt, to: IpAddr) -> Option<Opinion> {
    let grant = world.grants.iter().find(|it| {
        it.connector == attempt.connector
            && it.to == to
            && it.port == attempt.port
            && it.protocol == attempt.protocol
    })?;
    let why = if !world.active.contains(&grant.rule) {
        Reason::Revoked
    } else if grant.expires_ns != 0 && grant.expires_ns <= world.now_ns {
        Reason::Expired
    } else {
        return Some(Ok(grant.rule));
    };
    Some(Err((why, grant.rule)))
}

/// Whether what a rule permits has to begin with a name in TLS.
fn asks_for_a_name(world: &World, rule: u32) -> bool {
    world.named.iter().any(|(named, _)| *named == rule)
}

/// The entry with the longest prefix around an address.
fn longest<'a>(
    world: &'a World,
    attempt: &Attempt,
    to: IpAddr,
    inbound: bool,
) -> Option<&'a Prefix> {
    let around = world.prefixes.iter().filter(|it| {
        it.connector == attempt.connector
            && it.protocol == attempt.protocol
            && it.inbound == inbound
            && first_bits(number(to), it.length) == it.bits
    });
    around.max_by_key(|it| it.length)
}

/// The first range that decides; else what the last one that holds the port had against it.
fn by_ranges(world: &World, prefix: &Prefix, port: u16) -> Option<Opinion> {
    let used = (prefix.count as usize).min(MAX_RANGES);
    let holding = prefix.ranges.iter().take(used);
    let opinions: Vec<Opinion> = holding
        .filter(|range| (range.first..=range.last).contains(&port))
        .map(|range| by_range(world, range))
        .collect();
    let decisive = |opinion: &&Opinion| matches!(opinion, Ok(_) | Err((Reason::DenyRule, _)));
    let first = opinions.iter().find(decisive);
    first.or(opinions.last()).copied()
}

fn by_range(world: &World, range: &Range) -> Opinion {
    if range.effect != 1 {
        return Err((Reason::DenyRule, range.rule));
    }
    if !world.active.contains(&range.rule) {
        return Err((Reason::Revoked, range.rule));
    }
    Ok(range.rule)
}

/// Answers to callers: over TCP, to this host itself or to those that may call in.
fn to_caller(world: &World, attempt: &Attempt, to: IpAddr) -> Verdict {
    let closed = refused(Reason::Inbound, RULE_NONE);
    if attempt.protocol != TCP {
        return closed;
    }
    if to.is_loopback() {
        return allowed(RULE_INBOUND);
    }
    let entry = longest(world, attempt, to, true);
    match entry.and_then(|it| by_ranges(world, it, attempt.local_port)) {
        Some(Ok(rule)) => allowed(rule),
        Some(Err((reason, rule))) => refused(reason, rule),
        None => closed,
    }
}

/// The reason for a destination that nothing mentions.
fn class(to: IpAddr) -> Reason {
    let link_local = match to {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_string() == "fd00:ec2::254",
    };
    let everybody = match to {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    if to.is_loopback() {
        Reason::Loopback
    } else if link_local {
        Reason::LinkLocal
    } else if to.is_multicast() || everybody {
        Reason::Multicast
    } else {
        Reason::NoRule
    }
}

/// Whether the routes lead a datagram by the interface by which it is about to leave. What means
/// something on every link may leave by any.
fn may_leave(world: &World, attempt: &Attempt, to: IpAddr) -> bool {
    let every = match to {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    };
    if attempt.protocol != UDP || attempt.interface == 0 || every {
        return true;
    }
    let around = world.routes.iter().filter(|it| {
        it.connector == attempt.connector
            && it.interface == attempt.interface
            && first_bits(number(to), it.length) == it.bits
    });
    let narrowest = around.max_by_key(|it| it.length);
    narrowest.is_some_and(|it| it.way == 1)
}

fn allowed(rule: u32) -> Verdict {
    Verdict {
        action: Action::Allow,
        reason: Reason::None,
        rule,
    }
}

fn refused(reason: Reason, rule: u32) -> Verdict {
    Verdict {
        action: Action::Deny,
        reason,
        rule,
    }
}
