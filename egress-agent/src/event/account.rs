//! The account of one connector: what was refused to it and who told of it, and its summary.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use egress_common::{
    event::Event,
    key::Addr,
    stat::RuleStat,
    verdict::{Action, Reason},
};

use super::{
    call::{CallStats, RefusedCall},
    decode::{Decoded, Stranger},
    enrich::{Enricher, Leaving, Lookups, NameRefusal},
    model::{Body, Exit, RuleTotal, Stopped, Warning},
    sink::Sink,
    stream::Stream,
    tally::{Exact, by_name, judged},
};
use crate::{
    dns::{DoorStats, Refusal},
    grant::Keeper,
    host::{
        routes,
        sockets::{self, Connection},
    },
    kernel::{PlaneError, maps::Maps},
};

/// Whose account it is, and where its lines go.
pub struct Owner {
    /// Name of the connector.
    pub connector: String,
    /// Its id in the data plane.
    pub id: u32,
    /// The same of the process beside it, where it has one.
    pub beside: Option<u32>,
    /// Name of the instance.
    pub instance: String,
    /// Names of the rules by their slots, reserved ones included.
    pub rules: HashMap<u32, String>,
    /// Who knows the names of granted addresses.
    pub keeper: Arc<Keeper>,
    /// The exact counters of its DNS door.
    pub door: Arc<DoorStats>,
    /// The exact counters of its refused system calls.
    pub calls: Arc<CallStats>,
    /// Where its lines go.
    pub sinks: Vec<Box<dyn Sink>>,
}

/// One connector's account.
pub(super) struct Account {
    known: Known,
    door: Arc<DoorStats>,
    stream: Stream,
    received: BTreeMap<Reason, u64>,
    call_stats: Arc<CallStats>,
    /// Refused calls that lines have shown.
    told: BTreeMap<Reason, u64>,
    /// Requests that were refused, by reason.
    judged: BTreeMap<String, u64>,
    /// What had passed under its rules when they became its own.
    before: HashMap<u32, RuleStat>,
    started: Instant,
    begun: bool,
    /// Records lost so far.
    lost: u64,
    /// It has the records of processes without a connector.
    is_host: bool,
}

/// What the numbers of a record stand for.
struct Known {
    connector: String,
    id: u32,
    rules: HashMap<u32, String>,
    keeper: Arc<Keeper>,
    /// It was said that a refused connection could not be ended.
    unended: Cell<bool>,
}

impl Lookups for Known {
    fn connector(&self, id: u32) -> Option<String> {
        (id == self.id).then(|| self.connector.clone())
    }

    fn rule(&self, slot: u32) -> Option<String> {
        self.rules.get(&slot).cloned()
    }

    fn name(&self, connector: u32, addr: &Addr) -> Option<String> {
        let granted = self.keeper.name_of(connector, addr);
        granted.or_else(|| self.keeper.answered_as(connector, addr))
    }

    fn ways(&self, index: u32, addr: IpAddr, user: u32) -> Option<Leaving> {
        let now = routes::interfaces(user, addr).ok()?;
        Some(Leaving {
            by: routes::name(index),
            now: now.into_iter().map(routes::name).collect(),
        })
    }
}

impl Account {
    /// Nothing is counted yet. `is_host`: it is given the records of processes without a
    /// connector, too.
    pub(super) fn open(owner: Owner, maps: &Maps, is_host: bool) -> Self {
        let mut stream = Stream::new(Enricher::new(owner.instance), owner.sinks);
        if is_host {
            stream.open(0, None, Exact::default());
        }
        stream.open(owner.id, Some(&owner.connector), Exact::default());
        let mut account = Self {
            known: Known {
                connector: owner.connector,
                id: owner.id,
                rules: HashMap::new(),
                keeper: owner.keeper,
                unended: Cell::new(false),
            },
            door: owner.door,
            stream,
            received: BTreeMap::new(),
            call_stats: owner.calls,
            told: BTreeMap::new(),
            judged: BTreeMap::new(),
            before: HashMap::new(),
            started: Instant::now(),
            begun: false,
            lost: 0,
            is_host,
        };
        account.learn(owner.rules, maps);
        account
    }

    /// Rules that are its own from here on.
    pub(super) fn learn(&mut self, rules: HashMap<u32, String>, maps: &Maps) {
        for &slot in rules.keys() {
            if self.known.rules.contains_key(&slot) {
                continue;
            }
            // The number may have been another connector's; what cannot be read counts from 0.
            if let Ok(stat) = maps.rule_stat(slot) {
                self.before.insert(slot, stat);
            }
        }
        self.known.rules.extend(rules);
    }

    /// Something that happened now.
    pub(super) fn say(&mut self, body: Body) {
        judged(&body, &mut self.judged);
        self.stream.note(body);
    }

    /// Begins the account: what the launcher was refused was a probe, and not the connector's.
    pub(super) fn baseline(&mut self, maps: &Maps) -> Result<(), PlaneError> {
        let exact = self.exact(maps)?;
        self.stream
            .open(self.known.id, Some(&self.known.connector), exact);
        self.begun = true;
        Ok(())
    }

    /// A record of the ring. Before the account has begun it is the launcher's.
    pub(super) fn record(&mut self, decoded: &Decoded, backlog: bool) {
        if !self.begun {
            return;
        }
        self.stream.decoded(decoded, &self.known, backlog);
        let event = &decoded.event;
        if event.action == Action::Deny.code()
            && let Some(stranger) = &decoded.sni
            && let Err(error) = sockets::end_connection(&connection(event, stranger))
            && !self.known.unended.replace(true)
        {
            let instance = self.stream.instance().to_owned();
            self.stream.note(Body::Warning(Warning {
                connector: Some(self.known.connector.clone()),
                instance,
                topic: "sni".into(),
                message: format!(
                    "a connection that was refused for its name could not be ended: {error}; \
                     nothing of it leaves, but its program waits"
                ),
            }));
        }
    }

    /// A record that cannot be read.
    pub(super) fn malformed(&mut self) {
        if self.begun {
            self.stream.malformed();
        }
    }

    pub(super) fn refusal(&mut self, refusal: &Refusal, maps: &Maps, backlog: bool) {
        let count = self.received.entry(refusal.reason).or_default();
        *count = count.saturating_add(1);
        let asker = maps.client(self.known.id, refusal.protocol, refusal.client);
        let refusal = NameRefusal {
            time_ns: refusal.time_ns,
            connector: self.known.connector.clone(),
            name: refusal.name.clone(),
            qtype: refusal.qtype.clone(),
            rule: refusal.rule.clone(),
            reason: refusal.reason,
            client: refusal.client,
            protocol: refusal.protocol,
            audited: refusal.audited,
            pid: asker.map(|client| client.pid),
            uid: asker.map(|client| client.uid),
            address: refusal.address,
            message: refusal.message.clone(),
        };
        self.stream.refusal(self.known.id, &refusal, backlog);
    }

    pub(super) fn call(&mut self, call: &RefusedCall, backlog: bool) {
        let count = self.told.entry(call.reason).or_default();
        *count = count.saturating_add(call.count);
        self.stream.call(self.known.id, call, backlog);
    }

    /// Compares the exact counters with what was shown; the ring was read empty.
    pub(super) fn compare(&mut self, maps: &Maps) {
        if !self.begun {
            return;
        }
        // Without counters there is nothing to compare; the next second tries again.
        if let Ok(exact) = self.exact(maps) {
            if exact.lost > self.lost {
                self.lost = exact.lost;
                // Among the lost may be some by which a refused connection would have been
                // ended. One that cannot be ended stays refused.
                let _still_refused = maps.end_refused();
            }
            self.stream.counters(self.known.id, exact);
        }
        if self.is_host
            && let Ok(exact) = kernel_counters(maps, 0)
        {
            self.stream.counters(0, exact);
        }
        self.stream.flush();
    }

    /// Hands over what waits.
    pub(super) fn flush(&mut self) {
        self.stream.flush();
    }

    /// Writes the summary and closes the files.
    pub(super) fn finish(&mut self, exit: Exit, maps: &Maps) {
        self.compare(maps);
        let allowed = self.allowed(maps);
        let duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let instance = self.stream.instance().to_owned();
        let tally = self.stream.tally(self.known.id);
        let mut denied = by_name(&tally.denied());
        denied.append(&mut self.judged);
        let summary = Body::Stopped(Stopped {
            connector: self.known.connector.clone(),
            instance,
            exit,
            duration_ms,
            allowed,
            denied,
            not_shown: by_name(&tally.not_shown()),
            lost: tally.lost(),
            unwritten: tally.lines_unwritten(),
            unanswered: self.door.failed(),
        });
        self.stream.note(summary);
        self.stream.close();
    }

    /// What passed under each rule that anything passed under.
    fn allowed(&self, maps: &Maps) -> Vec<RuleTotal> {
        let mut slots: Vec<_> = self.known.rules.iter().collect();
        slots.sort();
        let mut totals: Vec<RuleTotal> = Vec::new();
        for (slot, rule) in slots {
            let Ok(stat) = maps.rule_stat(*slot) else {
                continue;
            };
            let before = self.before.get(slot).copied().unwrap_or_default();
            let stat = RuleStat {
                connections: stat.connections.saturating_sub(before.connections),
                packets: stat.packets.saturating_sub(before.packets),
                bytes: stat.bytes.saturating_sub(before.bytes),
            };
            if stat.connections == 0 && stat.packets == 0 {
                continue;
            }
            // A rule has several slots where it checks names on some of its ports only, or
            // was changed under the same id.
            match totals.iter_mut().find(|total| total.rule == *rule) {
                Some(total) => {
                    total.connections = total.connections.saturating_add(stat.connections);
                    total.packets = total.packets.saturating_add(stat.packets);
                    total.bytes = total.bytes.saturating_add(stat.bytes);
                }
                None => totals.push(RuleTotal {
                    rule: rule.clone(),
                    connections: stat.connections,
                    packets: stat.packets,
                    bytes: stat.bytes,
                }),
            }
        }
        totals
    }

    /// The kernel's counters, and the refusals of door and filter that never reached the stream.
    fn exact(&self, maps: &Maps) -> Result<Exact, PlaneError> {
        let mut exact = kernel_counters(maps, self.known.id)?;
        for &reason in Reason::ALL {
            let received = self.received.get(&reason).copied().unwrap_or(0);
            let told = self.told.get(&reason).copied().unwrap_or(0);
            let missed = self.door.refused(reason).saturating_sub(received);
            let untold = self.call_stats.refused(reason).saturating_sub(told);
            let missed = missed.saturating_add(untold);
            if missed > 0 {
                let count = exact.denied.entry(reason).or_default();
                *count = count.saturating_add(missed);
            }
        }
        Ok(exact)
    }
}

fn kernel_counters(maps: &Maps, connector: u32) -> Result<Exact, PlaneError> {
    let mut denied = BTreeMap::new();
    for &reason in Reason::ALL {
        let count = maps.denials(connector, reason)?;
        if count > 0 {
            denied.insert(reason, count);
        }
    }
    Ok(Exact {
        denied,
        lost: maps.lost(connector)?,
    })
}

/// The socket of a connection that was refused for its name.
fn connection(event: &Event, stranger: &Stranger) -> Connection {
    Connection {
        local: (stranger.source, stranger.source_port),
        peer: (event.addr, event.port),
        cookie: stranger.cookie,
    }
}
