//! What a policy means, once it is known to be free of faults.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::name::{HostPattern, Name};

/// One connector's policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Policy {
    /// The connector's name: 1 to 64 of `a-z 0-9 - _ .`, starting with a letter or digit.
    pub connector: String,
    /// Whether refusals are carried out or only reported.
    pub mode: Mode,
    /// What it may reach. Empty: nothing.
    pub allow: Vec<Rule>,
    /// What it may not reach whatever `allow` says.
    pub deny: Vec<Rule>,
    /// How names become addresses.
    pub dns: DnsSettings,
    /// How it is started, where the file says so.
    pub run: Option<Run>,
    /// The file it was read from.
    pub source: PathBuf,
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
    /// Upstream servers; empty: those of the host.
    pub servers: Vec<std::net::SocketAddr>,
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
}

/// The whole environment of a connector, where the policy names it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment {
    /// Variables taken from the caller.
    pub pass: Vec<String>,
    /// Variables set here.
    pub set: BTreeMap<String, String>,
}

impl Policy {
    /// The host rules of `allow` that cover a name, with their place in `allow`. None where
    /// a host rule of `deny` covers it for every port.
    pub fn rules_for<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = (usize, &'a Rule)> {
        self.allow
            .iter()
            .enumerate()
            .filter(move |(_, rule)| match &rule.target {
                Target::Host(pattern) => pattern.covers(name),
                Target::Cidr(_) | Target::Unix(_) => false,
            })
    }
}
