//! Lines of the stream → what a connector's runs reached and wanted. Pure.
//!
//! Names and paths in it were chosen by the connector. What is kept is bounded, and what is beyond
//! that is counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use egress_common::verdict::{Layer, Reason};
use jiff::Timestamp;

use crate::{
    event::model::{Body, Denial, Operation, Record},
    policy::name::Name,
};

/// Different things that are kept of one kind.
const MAX_KEPT: usize = 4_096;

/// Where a connector went, or would have gone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// A name, port and protocol (`tcp`, `udp`).
    Name(String, u16, String),
    /// An address that had no name.
    Address(IpAddr, u16, String),
    /// A unix socket.
    Unix(String),
    /// A name that was asked for, and nothing followed.
    Asked(String),
    /// Something that no rule permits: layer, reason, and what it was.
    Never(&'static str, &'static str, String),
}

/// How something was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Which runs.
    pub runs: BTreeSet<usize>,
    /// Users that the processes ran as.
    pub users: BTreeSet<u32>,
    /// First time.
    pub first: Timestamp,
    /// Last time.
    pub last: Timestamp,
    /// How often.
    pub count: u64,
    /// Names of programs, each with how often.
    pub programs: BTreeMap<String, u64>,
    /// Why it was refused.
    pub reasons: BTreeSet<&'static str>,
    /// It was refused, not only reported.
    pub refused: bool,
}

/// One run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Instance of the data plane.
    pub instance: String,
    /// When it began, or its first line.
    pub begun: Timestamp,
    /// `enforce` or `audit`; empty: not known.
    pub mode: String,
    /// User id; `None`: not known.
    pub uid: Option<u32>,
    /// Its account was read.
    pub ended: bool,
}

/// What passed under a rule, in all runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Used {
    /// Runs in which something passed.
    pub runs: u64,
    /// Connections.
    pub connections: u64,
    /// Bytes sent.
    pub bytes: u64,
}

/// Requests of one kind to one host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Requests {
    /// How many.
    pub count: u64,
    /// Runs.
    pub runs: BTreeSet<usize>,
    /// Of these refused, or reported as such, by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// Everything that was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Runs, in the order of their first lines.
    pub runs: Vec<Run>,
    /// What no rule permitted.
    pub places: BTreeMap<Place, Seen>,
    /// Names whose answers point inside.
    pub inside: BTreeSet<String>,
    /// Rules, by their ids.
    pub used: BTreeMap<String, Used>,
    /// Requests that were judged: host, port, operation or method and path.
    pub requests: BTreeMap<(String, u16, String), Requests>,
    /// Programs that were seen, by their path or name.
    pub programs: BTreeSet<String>,
    /// Refusals of which the stream has no line.
    pub unseen: u64,
    /// Things beyond what is kept.
    pub beyond: u64,
    /// The run that an instance is in.
    at: BTreeMap<String, usize>,
}

impl Observed {
    /// Takes one line of the connector's.
    pub fn take(&mut self, record: &Record) {
        let time = record.time;
        match &record.body {
            Body::Started(started) => {
                self.at.insert(started.instance.clone(), self.runs.len());
                self.runs.push(Run {
                    instance: started.instance.clone(),
                    begun: time,
                    mode: started.mode.clone(),
                    uid: Some(started.uid),
                    ended: false,
                });
            }
            Body::Denied(denial) => self.denial(denial, time, true),
            Body::WouldDeny(denial) => self.denial(denial, time, false),
            Body::Operation(operation) => self.operation(operation, time),
            Body::Stopped(stopped) => {
                let run = self.run(&stopped.instance, time);
                if let Some(run) = self.runs.get_mut(run) {
                    run.ended = true;
                }
                for total in &stopped.allowed {
                    if total.packets > 0 || total.connections > 0 {
                        let used = self.used.entry(total.rule.clone()).or_default();
                        used.runs += 1;
                        used.connections = used.connections.saturating_add(total.connections);
                        used.bytes = used.bytes.saturating_add(total.bytes);
                    }
                }
                let unseen: u64 = stopped.not_shown.values().sum();
                self.unseen = self.unseen.saturating_add(unseen);
            }
            _ => {}
        }
    }

    /// Names that were asked for and then connected to are one wish.
    pub fn settle(&mut self) {
        let connected: BTreeSet<String> = self
            .places
            .keys()
            .filter_map(|place| match place {
                Place::Name(name, ..) => Some(name.clone()),
                _ => None,
            })
            .collect();
        self.places
            .retain(|place, _| !matches!(place, Place::Asked(name) if connected.contains(name)));
    }

    fn run(&mut self, instance: &str, time: Timestamp) -> usize {
        if let Some(&run) = self.at.get(instance) {
            return run;
        }
        self.at.insert(instance.to_owned(), self.runs.len());
        self.runs.push(Run {
            instance: instance.to_owned(),
            begun: time,
            mode: String::new(),
            uid: None,
            ended: false,
        });
        self.runs.len() - 1
    }

    fn denial(&mut self, denial: &Denial, time: Timestamp, refused: bool) {
        let run = self.run(&denial.instance, time);
        if denial.reason == Reason::PrivateAnswer
            && let Some(name) = name(denial)
        {
            self.inside.insert(name);
        }
        let place = place(denial);
        if !self.places.contains_key(&place) && self.places.len() >= MAX_KEPT {
            self.beyond = self.beyond.saturating_add(denial.count);
            return;
        }
        let user = self.runs.get(run).and_then(|run| run.uid);
        let seen = self.places.entry(place).or_insert_with(|| Seen {
            runs: BTreeSet::new(),
            users: BTreeSet::new(),
            first: time,
            last: time,
            count: 0,
            programs: BTreeMap::new(),
            reasons: BTreeSet::new(),
            refused: false,
        });
        seen.runs.insert(run);
        seen.users.extend(user);
        seen.first = seen.first.min(time);
        seen.last = seen.last.max(time);
        seen.count = seen.count.saturating_add(denial.count);
        seen.reasons.insert(denial.reason.as_str());
        seen.refused |= refused;
        if let Some(process) = &denial.process {
            if seen.programs.len() < 64 || seen.programs.contains_key(&process.comm) {
                let times = seen.programs.entry(process.comm.clone()).or_default();
                *times = times.saturating_add(denial.count);
            }
            if self.programs.len() < MAX_KEPT {
                let program = process.exe.as_ref().unwrap_or(&process.comm);
                self.programs.insert(program.clone());
            }
        }
    }

    fn operation(&mut self, operation: &Operation, time: Timestamp) {
        let run = self.run(&operation.instance, time);
        let what = operation.operation.clone();
        let what = what.unwrap_or_else(|| format!("{} {}", operation.method, operation.path));
        let key = (operation.name.clone(), operation.port, what);
        if !self.requests.contains_key(&key) && self.requests.len() >= MAX_KEPT {
            self.beyond = self.beyond.saturating_add(1);
            return;
        }
        let requests = self.requests.entry(key).or_default();
        requests.count = requests.count.saturating_add(1);
        requests.runs.insert(run);
        for refusal in &operation.refusals {
            *requests.reasons.entry(refusal.reason.clone()).or_default() += 1;
        }
    }
}

fn name(denial: &Denial) -> Option<String> {
    let name = Name::parse(denial.destination.name.as_deref()?).ok()?;
    Some(name.as_str().to_owned())
}

/// What a refusal was about.
fn place(denial: &Denial) -> Place {
    let destination = &denial.destination;
    let protocol = denial.protocol.as_str();
    let transport = matches!(protocol, "tcp" | "udp");
    let never = || {
        let what = match (&destination.name, destination.ip, &destination.path) {
            _ if denial.call.is_some() => denial.call.clone().unwrap_or_default(),
            (Some(name), ..) => name.clone(),
            (None, Some(ip), _) => ip.to_string(),
            (None, None, Some(path)) => path.clone(),
            (None, None, None) => protocol.to_owned(),
        };
        Place::Never(denial.layer.as_str(), denial.reason.as_str(), what)
    };
    if let (Layer::Unix, Reason::UnixPath, Some(path)) =
        (denial.layer, denial.reason, &destination.path)
    {
        return Place::Unix(path.clone());
    }
    if denial.layer == Layer::Dns {
        let asked = matches!(
            denial.reason,
            Reason::NameNotAllowed | Reason::PrivateAnswer
        );
        return match name(denial) {
            Some(name) if asked => Place::Asked(name),
            _ => never(),
        };
    }
    let may = matches!(
        denial.reason,
        Reason::NoRule
            | Reason::Expired
            | Reason::Loopback
            | Reason::LinkLocal
            | Reason::Multicast
            | Reason::SniStranger
            | Reason::Revoked
    );
    match (destination.ip, destination.port, name(denial)) {
        (_, Some(port), Some(name)) if may && transport => {
            Place::Name(name, port, protocol.to_owned())
        }
        (Some(ip), Some(port), None)
            if may && transport && denial.reason != Reason::SniStranger =>
        {
            Place::Address(ip.to_canonical(), port, protocol.to_owned())
        }
        _ => never(),
    }
}
