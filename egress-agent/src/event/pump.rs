//! The thread that carries the evidence of one instance: ring and door in, lines out.
//!
//! A thread of its own, because it reads /proc and writes files, and neither may hold up an
//! answer of the DNS door.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use egress_common::{
    event::Event,
    key::Addr,
    verdict::{Action, Reason},
};
use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    call::{CallStats, RefusedCall},
    decode::Stranger,
    enrich::{Enricher, Leaving, Lookups, NameRefusal},
    model::{Body, Exit, RuleTotal, Stopped, Warning},
    sink::{self, Sink, SinkError},
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
    kernel::{
        PlaneError,
        maps::Maps,
        ring::{Ring, RingMap},
    },
};

/// Records taken from the ring before anything else gets its turn.
const BATCH: usize = 1024;
/// With more than this many records at once, nothing slow is done for each.
const BACKLOG: usize = 64;
/// How often the exact counters are compared with what was shown.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// Everything the thread owns.
pub struct PumpConfig {
    /// Name of the connector.
    pub connector: String,
    /// Its id in the data plane.
    pub connector_id: u32,
    /// Name of the instance.
    pub instance: String,
    /// Names of the rules by their slots, reserved ones included.
    pub rules: HashMap<u32, String>,
    /// Who knows the names of granted addresses.
    pub keeper: Arc<Keeper>,
    /// The door's exact counters.
    pub door: Arc<DoorStats>,
    /// The data plane's tables, for its counters.
    pub maps: Maps,
    /// The data plane's records.
    pub ring: RingMap,
    /// The door's refusals.
    pub refusals: mpsc::Receiver<Refusal>,
    /// System calls that were refused.
    pub calls: mpsc::Receiver<RefusedCall>,
    /// Their exact counters.
    pub call_stats: Arc<CallStats>,
    /// A further file for events.
    pub extra: Option<PathBuf>,
    /// Nothing on standard error.
    pub quiet: bool,
    /// Colours on standard error.
    pub color: bool,
}

/// Why the evidence cannot be carried on.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// An event file cannot be opened.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A thread of the stream cannot be started.
    #[error("cannot start the event stream: {0}")]
    Thread(#[source] std::io::Error),
    /// The counters cannot be read.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The thread ended early.
    #[error("the event stream ended early; denials are still enforced and counted")]
    Gone,
}

/// The way to talk to the running thread. Dropping it ends the thread.
pub struct Pump {
    orders: mpsc::UnboundedSender<Order>,
}

enum Order {
    Say(Box<Body>),
    Learn(HashMap<u32, String>),
    Baseline(oneshot::Sender<Result<(), PlaneError>>),
    Finish(Exit, oneshot::Sender<()>),
}

impl Pump {
    /// Opens the files and starts the thread.
    pub fn start(config: PumpConfig) -> Result<Self, PumpError> {
        let jsonl = sink::jsonl::Jsonl::start(&config.connector, &config.instance)?;
        let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(jsonl)];
        if let Some(path) = &config.extra {
            sinks.push(Box::new(sink::append::UserFile::open(path)?));
        }
        if !config.quiet {
            let terminal = sink::terminal::Terminal::start(std::io::stderr(), config.color);
            sinks.push(Box::new(terminal.map_err(PumpError::Thread)?));
        }
        let stream = Stream::new(Enricher::new(config.instance.clone()), sinks);
        let (orders, ordered) = mpsc::unbounded_channel();
        let known = Known {
            connector: config.connector,
            id: config.connector_id,
            rules: config.rules,
            keeper: config.keeper,
            unended: Cell::new(false),
        };
        let (door, maps, ring) = (config.door, config.maps, config.ring);
        let (refusals, calls) = (config.refusals, config.calls);
        let call_stats = config.call_stats;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(PumpError::Thread)?;
        let ring = {
            let _inside = runtime.enter();
            ring.open()?
        };
        let running = Running {
            known,
            door,
            maps,
            ring,
            stream,
            received: BTreeMap::new(),
            call_stats,
            told: BTreeMap::new(),
            judged: BTreeMap::new(),
            started: Instant::now(),
            begun: false,
            lost: 0,
        };
        thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || runtime.block_on(running.run(ordered, refusals, calls)))
            .map_err(PumpError::Thread)?;
        Ok(Self { orders })
    }

    /// Writes a line about something that happened now.
    pub fn say(&self, body: Body) {
        // A task that is gone has been reported by whoever waits for it.
        let _gone = self.orders.send(Order::Say(Box::new(body)));
    }

    /// Adds names of rules by their slots, before anything is decided by them.
    pub fn learn(&self, rules: HashMap<u32, String>) {
        let _gone = self.orders.send(Order::Learn(rules));
    }

    /// Begins the account. Until now only the launcher has run, and what was refused is its
    /// probe of the boundary.
    pub async fn baseline(&self) -> Result<(), PumpError> {
        let (done, wait) = oneshot::channel();
        let _gone = self.orders.send(Order::Baseline(done));
        Ok(wait.await.map_err(|_| PumpError::Gone)??)
    }

    /// Reads everything that is left, writes the summary, and closes the files.
    pub async fn finish(self, exit: Exit) -> Result<(), PumpError> {
        let (done, wait) = oneshot::channel();
        let _gone = self.orders.send(Order::Finish(exit, done));
        wait.await.map_err(|_| PumpError::Gone)
    }
}

struct Running {
    known: Known,
    door: Arc<DoorStats>,
    maps: Maps,
    ring: Ring,
    stream: Stream,
    received: BTreeMap<Reason, u64>,
    call_stats: Arc<CallStats>,
    /// Refused calls that lines have shown.
    told: BTreeMap<Reason, u64>,
    /// Requests that were refused, by reason.
    judged: BTreeMap<String, u64>,
    started: Instant,
    begun: bool,
    /// Records lost so far.
    lost: u64,
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

    fn name(&self, _connector: u32, addr: &Addr) -> Option<String> {
        let granted = self.keeper.name_of(addr);
        granted.or_else(|| self.keeper.answered_as(addr))
    }

    fn ways(&self, index: u32, addr: IpAddr, user: u32) -> Option<Leaving> {
        let now = routes::interfaces(user, addr).ok()?;
        Some(Leaving {
            by: routes::name(index),
            now: now.into_iter().map(routes::name).collect(),
        })
    }
}

impl Running {
    async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut refusals: mpsc::Receiver<Refusal>,
        mut calls: mpsc::Receiver<RefusedCall>,
    ) {
        self.stream.open(0, None, Exact::default());
        let name = self.known.connector.clone();
        self.stream
            .open(self.known.id, Some(&name), Exact::default());
        let mut compare = interval(COMPARE_EVERY);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watched = true;
        loop {
            tokio::select! {
                read = self.ring.read(BATCH, take(&mut self.stream, &self.known)),
                    if watched && self.begun => {
                    if read.is_err() {
                        // The counters stay exact; the summary says what was not shown.
                        watched = false;
                    }
                    self.stream.flush();
                }
                Some(refusal) = refusals.recv() => {
                    self.refusal(&refusal, false);
                    while let Ok(refusal) = refusals.try_recv() {
                        self.refusal(&refusal, true);
                    }
                    self.stream.flush();
                }
                Some(call) = calls.recv() => {
                    self.call(&call, false);
                    while let Ok(call) = calls.try_recv() {
                        self.call(&call, true);
                    }
                    self.stream.flush();
                }
                order = orders.recv() => match order {
                    Some(Order::Say(body)) => {
                        judged(&body, &mut self.judged);
                        self.stream.note(*body);
                        self.stream.flush();
                    }
                    Some(Order::Learn(rules)) => self.known.rules.extend(rules),
                    Some(Order::Baseline(done)) => {
                        let _asker_gone = done.send(self.baseline());
                    }
                    Some(Order::Finish(exit, done)) => {
                        while let Ok(refusal) = refusals.try_recv() {
                            self.refusal(&refusal, true);
                        }
                        while let Ok(call) = calls.try_recv() {
                            self.call(&call, true);
                        }
                        self.finish(exit);
                        let _asker_gone = done.send(());
                        return;
                    }
                    None => return,
                },
                _ = compare.tick() => self.compare(),
            }
        }
    }

    /// The launcher's probe is no denial of the connector's: its record is thrown away, and
    /// the counters begin behind it.
    fn baseline(&mut self) -> Result<(), PlaneError> {
        self.ring.drain(|_probe| {});
        let exact = self.exact()?;
        self.stream
            .open(self.known.id, Some(&self.known.connector), exact);
        self.begun = true;
        Ok(())
    }

    fn refusal(&mut self, refusal: &Refusal, backlog: bool) {
        let count = self.received.entry(refusal.reason).or_default();
        *count = count.saturating_add(1);
        let asker = self
            .maps
            .client(self.known.id, refusal.protocol, refusal.client);
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

    fn call(&mut self, call: &RefusedCall, backlog: bool) {
        let count = self.told.entry(call.reason).or_default();
        *count = count.saturating_add(call.count);
        self.stream.call(self.known.id, call, backlog);
    }

    fn compare(&mut self) {
        if !self.begun {
            return;
        }
        let mut each = take(&mut self.stream, &self.known);
        self.ring.drain(&mut each);
        drop(each);
        // Without counters there is nothing to compare; the next second tries again.
        if let Ok(exact) = self.exact() {
            if exact.lost > self.lost {
                self.lost = exact.lost;
                // Among the lost may be some by which a refused connection would have been
                // ended. One that cannot be ended stays refused.
                let _still_refused = self.maps.end_refused();
            }
            self.stream.counters(self.known.id, exact);
        }
        if let Ok(exact) = self.kernel_counters(0) {
            self.stream.counters(0, exact);
        }
        self.stream.flush();
    }

    fn finish(&mut self, exit: Exit) {
        self.compare();
        let allowed = self.allowed();
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
    fn allowed(&self) -> Vec<RuleTotal> {
        let mut slots: Vec<_> = self.known.rules.iter().collect();
        slots.sort();
        let mut totals: Vec<RuleTotal> = Vec::new();
        for (slot, rule) in slots {
            let Ok(stat) = self.maps.rule_stat(*slot) else {
                continue;
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
    fn exact(&self) -> Result<Exact, PlaneError> {
        let mut exact = self.kernel_counters(self.known.id)?;
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

    fn kernel_counters(&self, connector: u32) -> Result<Exact, PlaneError> {
        let mut denied = BTreeMap::new();
        for &reason in Reason::ALL {
            let count = self.maps.denials(connector, reason)?;
            if count > 0 {
                denied.insert(reason, count);
            }
        }
        Ok(Exact {
            denied,
            lost: self.maps.lost(connector)?,
        })
    }
}

/// Turns each record into a line.
fn take<'a>(stream: &'a mut Stream, known: &'a Known) -> impl FnMut(&[u8]) + 'a {
    let mut taken = 0_usize;
    move |bytes| {
        taken = taken.saturating_add(1);
        // One that cannot be read is counted as malformed.
        if let Ok(decoded) = stream.record(bytes, known, taken > BACKLOG)
            && decoded.event.action == Action::Deny.code()
            && let Some(stranger) = &decoded.sni
            && let Err(error) = sockets::end_connection(&connection(&decoded.event, stranger))
            && !known.unended.replace(true)
        {
            stream.note(Body::Warning(Warning {
                connector: Some(known.connector.clone()),
                instance: stream.instance().to_owned(),
                topic: "sni".into(),
                message: format!(
                    "a connection that was refused for its name could not be ended: {error}; \
                     nothing of it leaves, but its program waits"
                ),
            }));
        }
    }
}

/// The socket of a connection that was refused for its name.
fn connection(event: &Event, stranger: &Stranger) -> Connection {
    Connection {
        local: (stranger.source, stranger.source_port),
        peer: (event.addr, event.port),
        cookie: stranger.cookie,
    }
}
