//! What a policy means, once it is known to be free of faults.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, time::Duration};

use egress_common::abi::{TCP, UDP};
use egress_envelope::{
    judge::{self, Inspect, OnViolation},
    secret::Content,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    name::{HostPattern, Name},
    proxy,
    server::Server,
    session::Place,
};
use crate::host::layers::Layer;

/// One connector's policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Policy {
    /// The connector's name: 1 to 64 of `a-z 0-9 - _ .`, starting with a letter or digit.
    pub connector: String,
    /// Whether refusals are carried out or only reported.
    pub mode: Mode,
    /// What it may reach. Empty: nothing. A rule of the file that checks the name in TLS on
    /// some of its ports only stands here in two parts, one behind the other, with one id.
    pub allow: Vec<Rule>,
    /// What it may not reach whatever `allow` says.
    pub deny: Vec<Rule>,
    /// Who may call in, besides loopback.
    pub listen: Vec<Listen>,
    /// How names become addresses.
    pub dns: DnsSettings,
    /// The proxy that connections to names go through.
    pub proxy: proxy::Choice,
    /// What may not be in requests that are judged.
    pub content: Option<Content>,
    /// What becomes of the connector that tries what it must not in one.
    pub on_violation: OnViolation,
    /// How it is started, where the file says so.
    pub run: Option<Run>,
    /// Who may start it through the daemon, besides root.
    pub starters: Starters,
    /// What has to be as it was reviewed, or nothing is started.
    pub pin: Vec<Pin>,
    /// Layers without which it is not started.
    pub require: Vec<Layer>,
    /// Whether a permitted name without an address keeps it from starting.
    pub start: Start,
    /// The file it was read from.
    pub source: PathBuf,
}

/// Who may start a connector through the daemon, besides root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Starters {
    /// Names or numbers of users.
    pub users: Vec<String>,
    /// Names or numbers of groups.
    pub groups: Vec<String>,
}

impl Starters {
    /// The group whose members may, unless a policy says otherwise.
    pub const GROUP: &str = "egress-agent";
}

impl Default for Starters {
    fn default() -> Self {
        Self {
            users: Vec::new(),
            groups: vec![Self::GROUP.to_owned()],
        }
    }
}

/// A file or folder, and the hash of everything in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pin {
    /// Absolute, without links or `..`.
    pub path: PathBuf,
    /// SHA-256 in hexadecimal.
    pub hash: String,
}

/// What happens to a flow that no rule permits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// It is refused and reported.
    #[default]
    Enforce,
    /// It passes and is reported.
    Audit,
}

/// What a permitted name without an address means for the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// A line says so, and the name is asked for again until it has one.
    #[default]
    Lenient,
    /// Nothing is started.
    Strict,
}

/// One entry of `allow:` or `deny:`.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// Unique in the policy and the same as long as the entry means the same; from `id:` or
    /// derived from the destination, for example `api.postmarkapp.com:443/tcp`.
    pub id: String,
    /// Where to.
    pub target: Target,
    /// Which ports; sorted, not overlapping, never empty for a network target.
    pub ports: Vec<PortSpan>,
    /// Which protocols.
    pub protocols: Protocols,
    /// Why the connector needs it.
    pub why: Option<String>,
    /// Answers that point inside (private, loopback, link-local …) are accepted.
    pub private: bool,
    /// Names below a wildcard that may be looked up each minute.
    pub lookups_per_minute: u32,
    /// A TCP connection has to begin with a TLS ClientHello that names a permitted host.
    pub tls: bool,
    /// Such a ClientHello may carry an encrypted one.
    pub ech: bool,
    /// How requests are judged, where they are: then the target is one name, the protocol TCP,
    /// and `tls` holds on every port.
    pub inspect: Option<Box<Inspect>>,
}

/// Names below a wildcard that may be looked up each minute, where its rule does not say how
/// many.
pub const LOOKUPS_PER_MINUTE: u32 = 30;

/// How many of them at once, after a pause.
pub fn lookups_at_once(per_minute: u32) -> u32 {
    per_minute.saturating_mul(2).max(64)
}

/// One entry of `listen:`: callers that may reach a TCP port of the connector's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// Unique in the policy, as for [`Rule`]; for example `listen:8080/tcp:10.0.0.0/8`.
    pub id: String,
    /// Local ports; sorted, not overlapping, never empty.
    pub ports: Vec<PortSpan>,
    /// The callers' addresses; never empty, none inside another.
    pub from: Vec<IpNet>,
    /// What calls in, and why.
    pub why: Option<String>,
}

/// Which list of a policy a rule stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum List {
    /// What the connector may reach.
    Allow,
    /// What it may not reach whatever `allow` says.
    Deny,
    /// Who may reach it.
    Listen,
}

/// Where a rule leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A host name or wildcard; its addresses come from DNS.
    Host(HostPattern),
    /// An address prefix, in its normal form (host bits zero). A single address is a prefix
    /// of full length.
    Cidr(IpNet),
    /// A unix socket by path, or by abstract name (`@name`).
    Unix(String),
    /// A unix socket that the caller's session names; nothing until it is settled.
    Session(Place),
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortSpan {
    /// First port, 1 or more.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// Transport protocols of a rule; at least one is set for network targets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocols {
    /// TCP.
    pub tcp: bool,
    /// UDP.
    pub udp: bool,
}

/// How names become addresses, and for how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsSettings {
    /// Upstream servers in their order; empty: those of the host.
    pub servers: Vec<Server>,
    /// Servers for a domain and every name below it. Of several, the longest domain counts.
    pub domains: BTreeMap<Name, Vec<Server>>,
    /// A grant lasts at least this long, whatever the TTL.
    pub ttl_floor: Duration,
    /// A grant lasts at most this long.
    pub ttl_ceiling: Duration,
    /// Added to every grant, for programs that keep an answer a little past its TTL.
    pub grace: Duration,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            domains: BTreeMap::new(),
            ttl_floor: Duration::from_secs(30),
            ttl_ceiling: Duration::from_secs(3600),
            grace: Duration::from_secs(30),
        }
    }
}

/// How a connector is started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// Program and arguments; empty: they come from the command line.
    pub command: Vec<String>,
    /// User name or number; `None`: the calling user.
    pub user: Option<String>,
    /// Environment; `None`: the caller's, as it is.
    pub env: Option<Environment>,
    /// Which processes it sees and signals.
    pub processes: Processes,
    /// Devices, and folders of them, that it gets besides the harmless ones: normal paths
    /// below `/dev`.
    pub devices: Vec<PathBuf>,
}

/// Which processes a connector sees, signals and limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Processes {
    /// Its own alone.
    #[default]
    Own,
    /// Those of the host, as far as its user may.
    Host,
}

/// The whole environment of a connector, where the policy names it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment {
    /// Variables taken from the caller.
    pub pass: Vec<String>,
    /// Variables set here.
    pub set: BTreeMap<String, String>,
}

impl PortSpan {
    /// Whether two spans have a port in common.
    pub const fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the span holds a port.
    pub const fn holds(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Protocols {
    /// TCP alone.
    pub const TCP: Self = Self {
        tcp: true,
        udp: false,
    };
    /// UDP alone.
    pub const UDP: Self = Self {
        tcp: false,
        udp: true,
    };
    /// Both.
    pub const ANY: Self = Self {
        tcp: true,
        udp: true,
    };
    /// None, for what is no network target.
    pub const NONE: Self = Self {
        tcp: false,
        udp: false,
    };

    /// Whether an IP protocol number is among them.
    pub const fn has(&self, protocol: u8) -> bool {
        match protocol {
            TCP => self.tcp,
            UDP => self.udp,
            _ => false,
        }
    }

    /// Their IP protocol numbers.
    pub fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        let own = *self;
        [TCP, UDP]
            .into_iter()
            .filter(move |&number| own.has(number))
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.tcp, self.udp) {
            (true, true) => "any",
            (true, false) => "tcp",
            (false, true) => "udp",
            (false, false) => "none",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(pattern) => write!(f, "{pattern}"),
            Self::Cidr(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "{}", net.addr())
            }
            Self::Cidr(net) => write!(f, "{net}"),
            Self::Unix(path) => f.write_str(path),
            Self::Session(place) => write!(f, "{place}"),
        }
    }
}

impl Target {
    /// The unix socket's path or name, where it is one and known.
    pub fn socket(&self) -> Option<&str> {
        match self {
            Self::Unix(name) => Some(name),
            Self::Session(place) => place.found.as_deref(),
            Self::Host(_) | Self::Cidr(_) => None,
        }
    }
}

impl Rule {
    /// Whether the rule speaks of a port and IP protocol.
    pub fn takes(&self, port: u16, protocol: u8) -> bool {
        self.protocols.has(protocol) && self.ports.iter().any(|span| span.holds(port))
    }
}

impl Policy {
    /// Rules of `allow` as the file counts them: of one in two parts, the first.
    pub fn written(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.allow.chunk_by(|one, next| one.id == next.id);
        rules.filter_map(|parts| parts.first())
    }

    /// The rules whose requests are judged, with their place in `allow`, their name, and how.
    /// Where the policy only reports, so does each of them.
    pub fn inspected(&self) -> impl Iterator<Item = (usize, &Name, Inspect)> {
        self.allow.iter().enumerate().filter_map(|(index, rule)| {
            let inspect = rule.inspect.as_deref()?;
            let Target::Host(HostPattern::Exact(name)) = &rule.target else {
                return None;
            };
            let mut inspect = inspect.clone();
            if self.mode == Mode::Audit {
                inspect.mode = judge::Mode::Report;
            }
            inspect.content.clone_from(&self.content);
            inspect.on_violation = self.on_violation;
            Some((index, name, inspect))
        })
    }

    /// The proxy, where there is one.
    pub fn through(&self) -> Option<&proxy::Proxy> {
        match &self.proxy {
            proxy::Choice::Through(proxy) => Some(proxy),
            proxy::Choice::Caller | proxy::Choice::Off => None,
        }
    }

    /// Rules of all three lists.
    pub fn rule_count(&self) -> usize {
        self.allow
            .len()
            .saturating_add(self.deny.len())
            .saturating_add(self.listen.len())
    }

    /// The list, and the place in the file's list, of the rule that stands at a place in
    /// `allow`, `deny` and `listen` taken together.
    pub fn place_of(&self, index: usize) -> (List, usize) {
        let (allow, deny) = (self.allow.len(), self.deny.len());
        match index.checked_sub(allow) {
            None => {
                let mut parts = self.allow.chunk_by(|one, next| one.id == next.id);
                let mut seen = 0_usize;
                let written = parts.position(|parts| {
                    seen = seen.saturating_add(parts.len());
                    seen > index
                });
                (List::Allow, written.unwrap_or(index))
            }
            Some(rest) => match rest.checked_sub(deny) {
                None => (List::Deny, rest),
                Some(rest) => (List::Listen, rest),
            },
        }
    }

    /// The host rules of `allow` that cover a name, with their place in `allow`; without
    /// those of which host rules of `deny` leave no port. What is left of the others is told
    /// by [`Self::name_denied`], port by port.
    pub fn rules_for<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = (usize, &'a Rule)> {
        self.allow
            .iter()
            .enumerate()
            .filter(move |(_, rule)| match &rule.target {
                Target::Host(pattern) => pattern.covers(name) && !self.is_drained(rule, name),
                Target::Cidr(_) | Target::Unix(_) | Target::Session(_) => false,
            })
    }

    /// The host rule of `deny` that covers a name for a port and IP protocol. A caller that
    /// turns an answer into grants asks this for every one of them.
    pub fn name_denied(&self, name: &Name, port: u16, protocol: u8) -> Option<&Rule> {
        self.deny.iter().find(|rule| match &rule.target {
            Target::Host(pattern) => pattern.covers(name) && rule.takes(port, protocol),
            Target::Cidr(_) | Target::Unix(_) | Target::Session(_) => false,
        })
    }

    /// The prefix rule of `deny` that covers an address for an IP protocol and port. An exact
    /// grant is looked up before every prefix, so a caller that grants the addresses of a
    /// name asks this for every grant, and leaves out what it answers.
    pub fn address_denied(&self, addr: IpAddr, protocol: u8, port: u16) -> Option<&Rule> {
        let addr = canonical(addr);
        self.deny.iter().find(|rule| match &rule.target {
            Target::Cidr(net) => net.contains(&addr) && rule.takes(port, protocol),
            Target::Host(_) | Target::Unix(_) | Target::Session(_) => false,
        })
    }

    /// Whether `deny` leaves nothing of a host rule for a name.
    fn is_drained(&self, rule: &Rule, name: &Name) -> bool {
        let mut openings = rule.protocols.numbers().flat_map(|protocol| {
            let ports = rule.ports.iter().flat_map(|span| span.first..=span.last);
            ports.map(move |port| (port, protocol))
        });
        openings.all(|(port, protocol)| self.name_denied(name, port, protocol).is_some())
    }
}

/// An address as the data plane sees it (`egress_common::key::Addr`).
pub(super) fn canonical(addr: IpAddr) -> IpAddr {
    let octets = match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let octets = egress_common::key::Addr::from_octets(octets).octets();
    std::net::Ipv6Addr::from(octets).to_canonical()
}
