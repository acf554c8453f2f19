//! The upstream servers, through hickory-resolver.
//!
//! Asked fresh each time: no cache, no hosts file, no search domains, A and AAAA only, the
//! normalised name only. Nothing of the client's query but the name gets here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name as WireName, RecordType},
    },
    system_conf::read_system_conf,
};

use super::{
    chain::{Found, follow},
    verdict::Family,
};
use crate::policy::{model::DnsSettings, name::Name};

/// Longest wait for an answer, all servers, retries and aliases together. Below the 5 s after
/// which glibc and musl ask again (resolv.conf(5) `timeout`).
pub const TOTAL: Duration = Duration::from_millis(4500);
/// The servers a policy's names are asked from.
pub struct Upstream {
    resolver: TokioResolver,
}

/// What the upstream said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Addresses.
    Found(Found),
    /// The name exists without addresses of this kind.
    NoData,
    /// The name does not exist.
    NxDomain,
}

/// Why there is no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No server to ask.
    #[error("no DNS server is known: {0}; name one under `dns: servers:` in the policy")]
    NoServers(String),
    /// No answer within [`TOTAL`].
    #[error("the DNS servers did not answer in time")]
    Timeout,
    /// The servers answered with an error, or not at all.
    #[error("the DNS servers gave no answer: {0}")]
    Failed(String),
}

impl Upstream {
    /// The servers of the policy, or else of `/etc/resolv.conf`. Asks nothing yet.
    pub fn new(settings: &DnsSettings) -> Result<Self, UpstreamError> {
        let servers = if settings.servers.is_empty() {
            let (system, _) =
                read_system_conf().map_err(|error| UpstreamError::NoServers(error.to_string()))?;
            system.name_servers
        } else {
            by_address(&settings.servers)
        };
        // The search list and options of resolv.conf are left behind on purpose: the client
        // has applied them already, and a name means what it says.
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options();
        let resolver = builder
            .build()
            .map_err(|error| UpstreamError::NoServers(error.to_string()))?;
        Ok(Self { resolver })
    }

    /// Asks for a name's addresses of one kind.
    pub async fn lookup(&self, name: &Name, family: Family) -> Result<Reply, UpstreamError> {
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        // By labels: hickory's text form refuses names that people do use, such as `-a.b` or
        // `a_b.c`. Names from labels are complete, so nothing is appended to them.
        let asked = WireName::from_labels(name.as_str().split('.').map(str::as_bytes))
            .map_err(|error| UpstreamError::Failed(error.to_string()))?;
        let answer = tokio::time::timeout(TOTAL, self.resolver.lookup(asked.clone(), kind))
            .await
            .map_err(|_| UpstreamError::Timeout)?;
        match answer {
            Ok(lookup) => Ok(match follow(&asked, family, lookup.answers()) {
                Some(found) => Reply::Found(found),
                None => Reply::NoData,
            }),
            Err(error) => negative(error),
        }
    }
}

/// NXDOMAIN and NODATA are replies; everything else is a failure.
fn negative(error: NetError) -> Result<Reply, UpstreamError> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Ok(Reply::NxDomain),
            ResponseCode::NoError => Ok(Reply::NoData),
            code => Err(UpstreamError::Failed(code.to_string())),
        },
        NetError::Timeout => Err(UpstreamError::Timeout),
        other => Err(UpstreamError::Failed(other.to_string())),
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = TOTAL;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options
}

/// One entry for each server address, with its ports for UDP and TCP.
fn by_address(servers: &[SocketAddr]) -> Vec<NameServerConfig> {
    let mut ports: BTreeMap<IpAddr, Vec<u16>> = BTreeMap::new();
    for server in servers {
        ports.entry(server.ip()).or_default().push(server.port());
    }
    ports
        .into_iter()
        .map(|(ip, ports)| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
                .into_iter()
                .flat_map(|connection| {
                    ports.iter().map(move |&port| {
                        let mut connection = connection.clone();
                        connection.port = port;
                        connection
                    })
                })
                .collect();
            NameServerConfig::new(ip, true, connections)
        })
        .collect()
}
