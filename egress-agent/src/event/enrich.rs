//! Kernel records and refused names → lines of the stream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use egress_common::{
    abi::{RULE_DOOR, RULE_INBOUND, RULE_NONE, RULE_OWN},
    event::Event,
    key::Addr,
    verdict::{Action, Layer, Reason},
};

use super::{
    call::RefusedCall,
    codes,
    decode::Decoded,
    facts::{Cache, Caller, Facts, Proc, Source},
    model::{Body, Denial, Destination, Parent, ProcessFacts, Record},
    remedy,
};
use crate::host::clock::BootToWall;

/// How long a comparison of boot and wall clock is used. Nanoseconds.
const CLOCK_NS: u64 = 1_000_000_000;

/// What the numbers of a record stand for. Each answers `None` for what it does not know.
pub trait Lookups {
    /// Name of a connector, by its id.
    fn connector(&self, id: u32) -> Option<String>;
    /// Id of a policy's rule, by its slot in the data plane.
    fn rule(&self, slot: u32) -> Option<String>;
    /// Name under which an address was last granted to a connector.
    fn name(&self, connector: u32, addr: &Addr) -> Option<String>;
    /// By which interface a datagram was about to leave, and by which its user's leave now.
    fn ways(&self, index: u32, addr: IpAddr, user: u32) -> Option<Leaving>;
}

/// By which interfaces datagrams leave, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaving {
    /// The one that was refused.
    pub by: String,
    /// Those by which this host sends there.
    pub now: Vec<String>,
}

/// A name that the DNS door did not give an answer for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameRefusal {
    /// Boot clock, nanoseconds.
    pub time_ns: u64,
    /// Name of the connector.
    pub connector: String,
    /// The name as it was asked for; any text.
    pub name: String,
    /// Record type; empty where it could not be read.
    pub qtype: String,
    /// Id of the policy's rule concerned.
    pub rule: Option<String>,
    /// Why.
    pub reason: Reason,
    /// Where the query came from.
    pub client: SocketAddr,
    /// IP protocol of the query.
    pub protocol: u8,
    /// The connector is only audited: the name was answered nevertheless.
    pub audited: bool,
    /// Process that asked, where the caller knows.
    pub pid: Option<u32>,
    /// Its user, where the caller knows.
    pub uid: Option<u32>,
    /// The address that was left out of the answer.
    pub address: Option<IpAddr>,
    /// What is refused in particular, and what to do.
    pub message: Option<String>,
}

/// Turns records into lines.
pub struct Enricher {
    instance: String,
    cache: Cache,
    clock: BootToWall,
    sampled_ns: Option<u64>,
}

impl Enricher {
    /// For an instance of the data plane, with facts from /proc.
    pub fn new(instance: impl Into<String>) -> Self {
        Self::with_source(instance, Box::new(Proc::new()))
    }

    /// With facts from elsewhere.
    pub fn with_source(instance: impl Into<String>, source: Box<dyn Source + Send>) -> Self {
        Self {
            instance: instance.into(),
            cache: Cache::new(source),
            clock: BootToWall::fixed(0),
            sampled_ns: None,
        }
    }

    /// The line of one kernel record that passed [`decode`](super::decode()). `now_ns` is the boot
    /// clock; `backlog`: more records wait, so nothing slow may be done; `lost` is reported
    /// in the line. `None`: the record does not come from `decode`.
    pub fn denial(
        &mut self,
        decoded: &Decoded,
        lookups: &dyn Lookups,
        lost: u64,
        now_ns: u64,
        backlog: bool,
    ) -> Option<Record> {
        let event = &decoded.event;
        let layer = Layer::from_code(event.layer)?;
        let reason = Reason::from_code(event.reason)?;
        let action = Action::from_code(event.action)?;
        let process = self.process(event, now_ns, backlog);
        let destination = destination(decoded, layer, lookups);
        let leaving = (reason == Reason::Interface && !backlog)
            .then(|| lookups.ways(event.tid, address(&event.addr)?, event.uid))
            .flatten();
        let message = match &leaving {
            Some(leaving) => Some(misled(leaving)),
            None => remedy::of(reason, destination.path.as_deref()).map(Into::into),
        };
        let denial = Denial {
            connector: lookups.connector(event.connector),
            layer,
            protocol: protocol(event, layer),
            destination,
            reason,
            rule: rule(event.rule, lookups),
            process,
            count: u64::from(event.count),
            lost,
            family: codes::family(event.family).map(Into::into),
            instance: self.instance.clone(),
            call: None,
            message,
        };
        Some(Record::new(
            self.time(event.time_ns, now_ns),
            denied(denial, action == Action::Audit),
        ))
    }

    /// The line of a refused name.
    pub fn refusal(
        &mut self,
        refusal: &NameRefusal,
        lost: u64,
        now_ns: u64,
        backlog: bool,
    ) -> Record {
        let process = refusal.pid.filter(|&pid| pid != 0).map(|pid| {
            // The data plane noted who made the socket, and not its name.
            let caller = Caller {
                pid,
                uid: refusal.uid.unwrap_or(0),
                comm: [0; 16],
            };
            let facts = self.cache.facts(caller, refusal.time_ns, now_ns, backlog);
            known(pid, refusal.uid, String::new(), facts.as_deref())
        });
        let family = if refusal.client.is_ipv4() { 2 } else { 10 };
        let denial = Denial {
            connector: Some(refusal.connector.clone()),
            layer: Layer::Dns,
            protocol: codes::protocol(refusal.protocol.into()).into(),
            destination: Destination {
                ip: refusal.address,
                port: Some(egress_common::abi::DNS_PORT),
                name: Some(refusal.name.clone()),
                query: Some(refusal.qtype.clone()).filter(|query| !query.is_empty()),
                path: None,
            },
            reason: refusal.reason,
            rule: refusal.rule.clone(),
            process,
            count: 1,
            lost,
            family: codes::family(family).map(Into::into),
            instance: self.instance.clone(),
            call: None,
            message: refusal.message.clone(),
        };
        Record::new(
            self.time(refusal.time_ns, now_ns),
            denied(denial, refusal.audited),
        )
    }

    /// The line of a refused system call.
    pub fn call(
        &mut self,
        connector: String,
        call: &RefusedCall,
        lost: u64,
        now_ns: u64,
        backlog: bool,
    ) -> Record {
        let caller = Caller {
            pid: call.pid,
            uid: call.uid,
            comm: call.comm,
        };
        let process = (call.pid != 0).then(|| {
            let facts = self.cache.facts(caller, call.time_ns, now_ns, backlog);
            known(call.pid, Some(call.uid), comm(&call.comm), facts.as_deref())
        });
        let path = call.path.as_deref().map(String::from_utf8_lossy);
        let path = path.map(std::borrow::Cow::into_owned);
        let denial = Denial {
            connector: Some(connector),
            layer: if call.path.is_some() {
                Layer::Unix
            } else {
                Layer::Seccomp
            },
            protocol: match call.path {
                Some(_) => call.name,
                None => "syscall",
            }
            .to_owned(),
            destination: Destination {
                path: path.clone(),
                ..Destination::default()
            },
            reason: call.reason,
            rule: None,
            process,
            count: call.count,
            lost,
            family: path.as_ref().map(|_| "unix".to_owned()),
            instance: self.instance.clone(),
            call: path.is_none().then(|| call.name.to_owned()),
            message: remedy::of(call.reason, path.as_deref()).map(Into::into),
        };
        // Most are refused where the connector is only audited, too.
        let body = denied(denial, call.audited);
        Record::new(self.time(call.time_ns, now_ns), body)
    }

    /// The instance whose lines these are.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    fn process(&mut self, event: &Event, now_ns: u64, backlog: bool) -> Option<ProcessFacts> {
        if event.pid == 0 {
            return None;
        }
        let caller = Caller {
            pid: event.pid,
            uid: event.uid,
            comm: event.comm,
        };
        let facts = self.cache.facts(caller, event.time_ns, now_ns, backlog);
        let comm = comm(&event.comm);
        // A hook that could not know the name could not know the user either, unless the
        // socket's record had it; 0 then is no claim that it was root.
        let uid = (!comm.is_empty() || event.uid != 0).then_some(event.uid);
        Some(known(event.pid, uid, comm, facts.as_deref()))
    }

    fn time(&mut self, time_ns: u64, now_ns: u64) -> jiff::Timestamp {
        let fresh = self
            .sampled_ns
            .is_some_and(|sampled| now_ns.saturating_sub(sampled) < CLOCK_NS);
        if !fresh {
            self.clock = BootToWall::sample();
            self.sampled_ns = Some(now_ns);
        }
        self.clock.at(time_ns)
    }
}

/// What to say of a datagram on another way than the host's.
fn misled(leaving: &Leaving) -> String {
    let now = match leaving.now.as_slice() {
        [] => "has no route there".to_owned(),
        now => format!("sends there by {}", now.join(" or ")),
    };
    format!(
        "by {}, but this host {now}: let the program choose no interface, or mend the route \
         (docs/networks.md)",
        leaving.by
    )
}

fn denied(denial: Denial, audited: bool) -> Body {
    if audited {
        Body::WouldDeny(denial)
    } else {
        Body::Denied(denial)
    }
}

/// The kernel's record first; /proc fills in what it lacks.
fn known(pid: u32, uid: Option<u32>, comm: String, facts: Option<&Facts>) -> ProcessFacts {
    let Some(facts) = facts else {
        return ProcessFacts {
            pid,
            uid,
            comm,
            exe: None,
            cmdline: Vec::new(),
            parents: Vec::new(),
        };
    };
    let process = &facts.process;
    ProcessFacts {
        pid,
        uid: uid.or(Some(process.uid)),
        comm: if comm.is_empty() {
            process.stat.comm.clone()
        } else {
            comm
        },
        exe: process.exe.clone(),
        cmdline: process.cmdline.clone(),
        parents: facts
            .parents
            .iter()
            .map(|parent| Parent {
                pid: parent.pid,
                comm: parent.comm.clone(),
            })
            .collect(),
    }
}

fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    let name = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// For a refused socket the record has the socket's protocol in the place of the port, for a
/// unix socket its type. A refused option has no family: its level and its number stand there.
fn protocol(event: &Event, layer: Layer) -> String {
    if layer == Layer::Unix {
        return codes::socket(event.port).into();
    }
    if layer == Layer::Socket && event.family == 0 {
        return codes::option(event.protocol, event.port).into();
    }
    let number = match layer {
        Layer::Socket if event.protocol == 0 => event.port,
        _ => event.protocol.into(),
    };
    codes::protocol(number).into()
}

fn destination(decoded: &Decoded, layer: Layer, lookups: &dyn Lookups) -> Destination {
    let event = &decoded.event;
    let ip = address(&event.addr);
    Destination {
        ip,
        port: (layer != Layer::Socket && ip.is_some()).then_some(event.port),
        // For TLS the name that was said: the one that was granted is not what was wanted.
        name: match &decoded.sni {
            Some(stranger) if stranger.name.is_empty() => None,
            Some(stranger) => Some(String::from_utf8_lossy(&stranger.name).into_owned()),
            None => ip.and_then(|_| lookups.name(event.connector, &event.addr)),
        },
        query: None,
        path: decoded
            .unix
            .as_deref()
            .map(|name| String::from_utf8_lossy(name).into_owned()),
    }
}

/// All zero stands for no address.
fn address(addr: &Addr) -> Option<IpAddr> {
    if addr.halves == [0, 0] {
        return None;
    }
    Some(match addr.v4() {
        Some(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
        None => IpAddr::V6(Ipv6Addr::from(addr.octets())),
    })
}

/// What no policy declares stands in parentheses.
fn rule(slot: u32, lookups: &dyn Lookups) -> Option<String> {
    match slot {
        RULE_NONE => None,
        RULE_DOOR => Some("(dns-door)".into()),
        RULE_OWN => Some("(own-listener)".into()),
        RULE_INBOUND => Some("(inbound)".into()),
        slot => lookups
            .rule(slot)
            .or_else(|| Some(format!("(slot {slot})"))),
    }
}

#[cfg(test)]
#[path = "enrich_tests.rs"]
pub(crate) mod tests;
