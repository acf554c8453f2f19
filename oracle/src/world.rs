//! Drawn tables: what a data plane could hold, sound or not, as plain lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_agent::policy::tables::Memory;
use egress_common::{
    abi::{MAX_RANGES, TCP, UDP},
    grant::{Connector, Grant, PortRange, PrefixRules, Rule},
    key::{Addr, GrantKey, PrefixKey, RouteKey},
    verdict::Layer,
};

use crate::{
    draw::Draw,
    flow::{self, Attempt, PORTS},
};

/// The tables of one data plane.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Connectors, each id once.
    pub connectors: Vec<Member>,
    /// Exact grants, each key once.
    pub grants: Vec<Exact>,
    /// Prefix entries, each key and length once.
    pub prefixes: Vec<Prefix>,
    /// Entries for routes, each key and length once.
    pub routes: Vec<Route>,
    /// Rules in force.
    pub active: Vec<u32>,
    /// Rules that ask for a name in TLS, and those of them that take an encrypted hello.
    pub named: Vec<(u32, bool)>,
    /// Ports of loopback at which connectors reach themselves by TCP: connector, port.
    pub own: Vec<(u32, u16)>,
    /// Boot clock.
    pub now_ns: u64,
}

/// A connector.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: u32,
    /// 1 enforces, 2 audits, anything else is no connector.
    pub mode: u16,
    /// Its DNS door: IPv4 address, IPv6 address, port.
    pub door: Option<(Ipv4Addr, Ipv6Addr, u16)>,
}

/// An exact grant.
#[derive(Clone, Debug)]
pub struct Exact {
    /// Whose.
    pub connector: u32,
    /// To where.
    pub to: IpAddr,
    /// To which port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// End on the boot clock; 0 = none.
    pub expires_ns: u64,
    /// By which rule.
    pub rule: u32,
}

/// An entry for a route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Whose.
    pub connector: u32,
    /// The interface.
    pub interface: u32,
    /// The address, IPv4 as mapped, bits behind the prefix zero.
    pub bits: u128,
    /// Length of the prefix, 0 to 128.
    pub length: u32,
    /// 1: the host sends by the interface.
    pub way: u32,
}

/// An entry of the prefix table.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// Whose.
    pub connector: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// About callers, not destinations.
    pub inbound: bool,
    /// The address, IPv4 as mapped, bits behind the prefix zero.
    pub bits: u128,
    /// Length of the prefix, 0 to 128.
    pub length: u32,
    /// What the table says are in use of the ranges; may be more than there are.
    pub count: u32,
    /// Ranges of ports.
    pub ranges: Vec<Range>,
}

/// A range of ports.
#[derive(Clone, Debug)]
pub struct Range {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// 1 permits, anything else refuses.
    pub effect: u16,
    /// The rule.
    pub rule: u32,
}

/// Ids that attempts and tables use; the last one has no record.
const CONNECTORS: [u32; 4] = [1, 2, 1023, 7];
/// Rules; some are reserved numbers, which a table could hold by a fault.
const RULES: [u32; 6] = [8, 9, 10, 11, 8191, 1];
/// Protocols: TCP, UDP, and two that have no door.
const PROTOCOLS: [u8; 5] = [TCP, UDP, TCP, UDP, 132];
/// Interfaces; 0 means unknown.
const INTERFACES: [u32; 4] = [0, 0, 2, 3];
/// The port of doors.
const DOOR: u16 = 5353;

impl World {
    /// Draws one.
    pub fn draw(draw: &mut impl Draw, edges: &[IpAddr]) -> Self {
        let mut world = Self {
            now_ns: u64::from(draw.bits8()),
            ..Self::default()
        };
        for id in CONNECTORS.into_iter().take(3) {
            let door = (
                Ipv4Addr::LOCALHOST,
                draw.pick(&[DOOR_V6, DOOR_V4_MAPPED]),
                DOOR,
            );
            world.connectors.push(Member {
                id,
                mode: draw.pick(&[1, 1, 1, 2, 2, 0, 3]),
                door: (!draw.one_in(4)).then_some(door),
            });
        }
        for rule in RULES {
            if !draw.one_in(4) {
                world.active.push(rule);
            }
            if draw.one_in(3) {
                world.named.push((rule, draw.one_in(2)));
            }
        }
        for _ in 0..draw.below(4) {
            let port = draw.pick(&PORTS);
            world.own.push((draw.pick(&CONNECTORS), port));
        }
        for _ in 0..draw.below(7) {
            world.draw_grant(draw, edges);
        }
        for _ in 0..draw.below(10) {
            world.draw_prefix(draw, edges);
        }
        for _ in 0..draw.below(10) {
            world.draw_route(draw, edges);
        }
        world
    }

    fn draw_grant(&mut self, draw: &mut impl Draw, edges: &[IpAddr]) {
        let grant = Exact {
            connector: draw.pick(&CONNECTORS),
            to: flow::canonical(flow::address(draw, edges, &[])),
            port: draw.pick(&PORTS),
            protocol: draw.pick(&PROTOCOLS),
            expires_ns: draw.pick(&[0, 0, 1, 100, 200, u64::MAX]),
            rule: draw.pick(&RULES),
        };
        let key = |it: &Exact| (it.connector, it.to, it.port, it.protocol);
        if !self.grants.iter().any(|other| key(other) == key(&grant)) {
            self.grants.push(grant);
        }
    }

    fn draw_route(&mut self, draw: &mut impl Draw, edges: &[IpAddr]) {
        let length = length(draw);
        let bits = flow::number(flow::address(draw, edges, &self.addresses()));
        let route = Route {
            connector: draw.pick(&CONNECTORS),
            interface: draw.pick(&INTERFACES),
            bits: first_bits(bits, length),
            length,
            way: draw.pick(&[1, 1, 1, 0, 2]),
        };
        let key = |it: &Route| (it.connector, it.interface, it.bits, it.length);
        if !self.routes.iter().any(|other| key(other) == key(&route)) {
            self.routes.push(route);
        }
    }

    fn draw_prefix(&mut self, draw: &mut impl Draw, edges: &[IpAddr]) {
        let length = length(draw);
        let bits = flow::number(flow::address(draw, edges, &[]));
        let ranges: Vec<Range> = (0..draw.below(5)).map(|_| Range::draw(draw)).collect();
        let count = ranges.len() as u32;
        let prefix = Prefix {
            connector: draw.pick(&CONNECTORS),
            protocol: draw.pick(&PROTOCOLS),
            inbound: draw.one_in(5),
            bits: first_bits(bits, length),
            length,
            count: if draw.one_in(16) {
                draw.bits32()
            } else {
                count
            },
            ranges,
        };
        let key = |it: &Prefix| (it.connector, it.protocol, it.inbound, it.bits, it.length);
        if !self.prefixes.iter().any(|other| key(other) == key(&prefix)) {
            self.prefixes.push(prefix);
        }
    }

    /// Draws an attempt that has something to do with these tables.
    pub fn attempt(&self, draw: &mut impl Draw, edges: &[IpAddr]) -> Attempt {
        let mut attempt = Attempt {
            to: flow::address(draw, edges, &self.addresses()),
            connector: draw.pick(&CONNECTORS),
            port: draw.pick(&PORTS),
            protocol: draw.pick(&PROTOCOLS),
            layer: draw.pick(&[Layer::Connect, Layer::Sendmsg, Layer::Packet]),
            inbound: draw.one_in(5),
            local_port: draw.pick(&PORTS),
            interface: draw.pick(&INTERFACES),
        };
        match draw.below(8) {
            // What a grant names.
            0 | 1 if !self.grants.is_empty() => {
                let grant = &self.grants[draw.below(self.grants.len())];
                attempt.connector = grant.connector;
                attempt.to = grant.to;
                attempt.port = grant.port;
                attempt.protocol = grant.protocol;
            }
            // What a prefix is about.
            2 | 3 if !self.prefixes.is_empty() => {
                let prefix = &self.prefixes[draw.below(self.prefixes.len())];
                attempt.connector = prefix.connector;
                attempt.protocol = prefix.protocol;
                attempt.inbound = prefix.inbound;
            }
            4 => attempt.port = DOOR,
            _ => {}
        }
        attempt
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let grants = self.grants.iter().map(|grant| grant.to);
        let prefixes = self.prefixes.iter();
        let prefixes = prefixes.map(|prefix| Ipv6Addr::from_bits(prefix.bits).to_canonical());
        grants.chain(prefixes).collect()
    }

    /// The tables as the shared function looks them up.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory {
            now_ns: self.now_ns,
            active: self.active.iter().copied().collect(),
            own: self.own.iter().copied().collect(),
            flags: self.named.iter().map(flags).collect(),
            ..Memory::default()
        };
        for member in &self.connectors {
            memory.connectors.insert(member.id, member.record());
        }
        for grant in &self.grants {
            let (key, value) = grant.entry();
            memory.grants.insert(key, value);
        }
        memory.prefixes = self.prefixes.iter().map(Prefix::entry).collect();
        memory.routes = self.routes.iter().map(Route::entry).collect();
        memory
    }
}

/// The flags of a rule that asks for a name.
fn flags((rule, encrypted): &(u32, bool)) -> (u32, u16) {
    let encrypted = if *encrypted { Rule::ECH } else { 0 };
    (*rule, Rule::TLS | encrypted)
}

const DOOR_V6: Ipv6Addr = Ipv6Addr::LOCALHOST;
const DOOR_V4_MAPPED: Ipv6Addr = Ipv4Addr::LOCALHOST.to_ipv6_mapped();

impl Member {
    /// The record of the data plane.
    pub fn record(&self) -> Connector {
        let (v4, v6, port) = match self.door {
            Some((v4, v6, port)) => (v4.to_bits(), Addr::from_octets(v6.octets()), port),
            None => (0, Addr { halves: [0, 0] }, 0),
        };
        Connector {
            door_v6: v6,
            door_v4: v4,
            door_port: port,
            mode: self.mode,
            unix: 0,
            flags: 0,
        }
    }
}

impl Exact {
    fn entry(&self) -> (GrantKey, Grant) {
        let key = GrantKey {
            addr: raw(flow::number(self.to)),
            connector: self.connector,
            port: self.port,
            protocol: self.protocol,
            pad: 0,
        };
        let value = Grant {
            expires_ns: self.expires_ns,
            rule: self.rule,
            pad: 0,
        };
        (key, value)
    }
}

impl Prefix {
    /// The ranges as a record holds them.
    pub fn rules(&self) -> PrefixRules {
        let mut value = PrefixRules {
            count: self.count,
            ranges: [PortRange::EMPTY; MAX_RANGES],
        };
        for (place, range) in value.ranges.iter_mut().zip(&self.ranges) {
            *place = PortRange {
                first: range.first,
                last: range.last,
                effect: range.effect,
                pad: 0,
                rule: range.rule,
            };
        }
        value
    }

    fn entry(&self) -> (u32, PrefixKey, PrefixRules) {
        let marker = if self.inbound { PrefixKey::INBOUND } else { 0 };
        let key = PrefixKey {
            connector: self.connector,
            protocol: marker | u32::from(self.protocol),
            addr: raw(self.bits),
        };
        (PrefixKey::FIXED_BITS + self.length, key, self.rules())
    }
}

impl Route {
    fn entry(&self) -> (u32, RouteKey, u32) {
        let key = RouteKey {
            connector: self.connector,
            ifindex: self.interface,
            addr: raw(self.bits),
        };
        (RouteKey::FIXED_BITS + self.length, key, self.way)
    }
}

impl Range {
    /// Draws one.
    pub fn draw(draw: &mut impl Draw) -> Self {
        let (one, other) = (draw.pick(&PORTS), draw.pick(&PORTS));
        let (first, last) = match draw.below(4) {
            0 => (0, u16::MAX),
            1 => (one, one),
            2 => (one, other),
            _ => (one.min(other), one.max(other)),
        };
        Self {
            first,
            last,
            effect: draw.pick(&[1, 1, 1, 1, 0, 0, 2]),
            rule: draw.pick(&RULES),
        }
    }
}

/// The length of a prefix.
fn length(draw: &mut impl Draw) -> u32 {
    match draw.below(8) {
        0 => 0,
        1 => 96,
        2 => 128,
        3..=5 => 96 + draw.below(33) as u32,
        _ => draw.below(129) as u32,
    }
}

/// A number with all but its first bits zero.
pub fn first_bits(bits: u128, length: u32) -> u128 {
    let behind = 128 - length;
    bits.checked_shr(behind)
        .and_then(|kept| kept.checked_shl(behind))
        .unwrap_or(0)
}

/// The bytes of a number as a record holds them: no canonical form is made, for a prefix is
/// no address.
fn raw(bits: u128) -> Addr {
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    Addr {
        halves: [high.to_be(), low.to_be()],
    }
}
