//! Where names are looked up: `/etc/hosts`, then the name servers of the policy or the host.
//!
//! Asked fresh each time: no cache, no search domains, the normalised name only. Nothing of the
//! client's query but the name and the kind of records gets here.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name as WireName, RecordType},
};
use tokio::time::{Instant, timeout};

use super::{
    chain::{Found, MAX_ALIASES, Offers, Rest, follow, offers, rest},
    exchange::Question,
    files::Files,
    nat64::{self, Prefix},
    news::{Health, News},
    resolv_conf::Options,
    servers::Servers,
    verdict::{Family, Wanted},
};
use crate::policy::{model::DnsSettings, name::Name};

/// For how long an address of `/etc/hosts` is good. Seconds. Short, because the file is at
/// hand, and an address that is taken out should not last.
const HOSTS_TTL: u32 = 10;
/// Answers that one name is put together from, at most: some servers tell one alias at a time, and
/// systemd-resolved follows 16 (`CNAME_REDIRECTS_MAX`).
const MAX_PARTS: usize = 16;
/// For how long the answer about a network's NAT64 prefixes is good.
const PREFIXES_FOR: Duration = Duration::from_secs(300);
/// The same, where there was no answer.
const PREFIXES_AGAIN: Duration = Duration::from_secs(60);
/// How long an answer waits for them.
const PREFIXES_WAIT: Duration = Duration::from_secs(2);

/// Where a policy's names are looked up.
pub struct Upstream {
    /// The policy's servers; `None`: those of the host.
    own: Option<Arc<Servers>>,
    /// Servers for a domain, the longest first.
    domains: Vec<Domain>,
    health: Health,
    files: Arc<Files>,
    news: Arc<News>,
    prefixes: tokio::sync::Mutex<Option<Prefixes>>,
}

struct Domain {
    name: Name,
    servers: Arc<Servers>,
    health: Health,
}

/// NAT64 prefixes of the network, and who told them.
struct Prefixes {
    from: Arc<Servers>,
    until: Instant,
    found: Vec<Prefix>,
}

/// What the upstream said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Addresses.
    Found(Found),
    /// Who offers a service.
    Offers(Offers),
    /// The name exists without records of this kind.
    NoData,
    /// The name does not exist.
    NxDomain,
}

/// Why there is no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No answer in the time that a caller had.
    #[error("the DNS servers did not answer in time")]
    Timeout,
    /// Nothing came from any server.
    #[error("no DNS server answers: {0}")]
    NoAnswer(String),
    /// The servers answered with errors.
    #[error("the DNS servers gave no answer: {0}")]
    Failed(String),
}

impl Upstream {
    /// For a policy, by the host's files. Asks nothing yet.
    pub fn new(settings: &DnsSettings, files: Arc<Files>, news: Arc<News>) -> Self {
        let servers = |list: &[_]| Arc::new(Servers::new(list, Options::default()));
        let mut domains: Vec<Domain> = settings
            .domains
            .iter()
            .map(|(name, list)| Domain {
                name: name.clone(),
                servers: servers(list),
                health: Health::default(),
            })
            .collect();
        domains.sort_by_key(|domain| std::cmp::Reverse(domain.name.as_str().len()));
        Self {
            own: (!settings.servers.is_empty()).then(|| servers(&settings.servers)),
            domains,
            health: Health::default(),
            files,
            news,
            prefixes: tokio::sync::Mutex::default(),
        }
    }

    /// The host's files.
    pub fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// What is to be told.
    pub fn news(&self) -> &Arc<News> {
        &self.news
    }

    /// Looks for a name's addresses of one kind, or for services.
    pub async fn lookup(&self, name: &Name, wanted: Wanted) -> Result<Reply, UpstreamError> {
        let kind = match wanted {
            Wanted::Addresses(family) => {
                if let Some(reply) = self.in_the_file(name, family) {
                    return Ok(reply);
                }
                match family {
                    Family::V4 => RecordType::A,
                    Family::V6 => RecordType::AAAA,
                }
            }
            Wanted::Services => RecordType::SRV,
        };
        let asked = wire_name(name)?;
        let mut next = name.clone();
        let mut records = Vec::new();
        for _ in 0..=MAX_PARTS {
            let answer = self.ask(&next, kind).await?;
            records.extend(answer.answers);
            let reply = match wanted {
                Wanted::Addresses(family) => follow(&asked, family, &records).map(Reply::Found),
                Wanted::Services => offers(&asked, &records).map(Reply::Offers),
            };
            if let Some(mut reply) = reply {
                if let (Wanted::Addresses(Family::V6), Reply::Found(found)) = (wanted, &mut reply) {
                    found.nat64 = self.prefixes().await;
                }
                return Ok(reply);
            }
            if answer.metadata.response_code == ResponseCode::NXDomain {
                return Ok(Reply::NxDomain);
            }
            // Some servers name an alias and leave it to others to follow it.
            match rest(&asked, &records) {
                Rest::Alias(alias) if alias != next => next = alias,
                Rest::Alias(_) | Rest::Nothing => return Ok(Reply::NoData),
                Rest::TooLong => break,
            }
        }
        Err(UpstreamError::Failed(format!(
            "{name} has more than {MAX_ALIASES} aliases, or more than {MAX_PARTS} that its server \
             tells one by one"
        )))
    }

    fn in_the_file(&self, name: &Name, family: Family) -> Option<Reply> {
        let addresses = self.files.hosts().find(name, family)?;
        if addresses.is_empty() {
            return Some(Reply::NoData);
        }
        Some(Reply::Found(Found {
            addresses,
            ttl: HOSTS_TTL,
            ..Found::default()
        }))
    }

    /// Asks the servers of a name for its records. The answer's code is NOERROR or NXDOMAIN.
    pub async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, UpstreamError> {
        let question = Question {
            name: wire_name(name)?,
            kind,
        };
        let domain = self.domains.iter().find(|domain| domain.holds(name));
        let (servers, health, whose) = match domain {
            Some(domain) => (
                Arc::clone(&domain.servers),
                &domain.health,
                format!("the DNS servers for {} in the policy", domain.name),
            ),
            None => (self.servers(), &self.health, self.whose().to_owned()),
        };
        let result = servers.ask(&question).await;
        health.note(&result, &whose, &self.news, Instant::now());
        result
    }

    fn servers(&self) -> Arc<Servers> {
        match &self.own {
            Some(own) => Arc::clone(own),
            None => self.files.servers(),
        }
    }

    fn whose(&self) -> &'static str {
        match self.own {
            Some(_) => "the DNS servers of the policy",
            None => "the DNS servers of /etc/resolv.conf",
        }
    }

    /// The network's own NAT64 prefixes, asked for where they are not known. Without an answer
    /// there are none: then only the well-known prefix is.
    async fn prefixes(&self) -> Vec<Prefix> {
        let servers = self.servers();
        let mut known = self.prefixes.lock().await;
        if let Some(known) = &*known
            && Arc::ptr_eq(&known.from, &servers)
            && Instant::now() < known.until
        {
            return known.found.clone();
        }
        let (found, lasts) = match timeout(PREFIXES_WAIT, told(&servers)).await {
            Ok(Ok(found)) => (found, PREFIXES_FOR),
            Ok(Err(_)) | Err(_) => (Vec::new(), PREFIXES_AGAIN),
        };
        *known = Some(Prefixes {
            from: servers,
            until: Instant::now() + lasts,
            found: found.clone(),
        });
        found
    }
}

impl Domain {
    fn holds(&self, name: &Name) -> bool {
        name.as_str()
            .strip_suffix(self.name.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// The prefixes that these servers tell.
async fn told(servers: &Servers) -> Result<Vec<Prefix>, UpstreamError> {
    let name = WireName::from_labels(nat64::KNOWN_NAME.split('.').map(str::as_bytes))
        .map_err(|error| UpstreamError::Failed(error.to_string()))?;
    let question = Question {
        name: name.clone(),
        kind: RecordType::AAAA,
    };
    let answer = servers.ask(&question).await?;
    let found = follow(&name, Family::V6, &answer.answers);
    let addresses: Vec<IpAddr> = found.map(|found| found.addresses).unwrap_or_default();
    Ok(nat64::prefixes(&addresses))
}

/// By labels: hickory's text form refuses names that people do use, such as `-a.b` or `a_b.c`.
fn wire_name(name: &Name) -> Result<WireName, UpstreamError> {
    WireName::from_labels(name.as_str().split('.').map(str::as_bytes))
        .map_err(|error| UpstreamError::Failed(error.to_string()))
}
