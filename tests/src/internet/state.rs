//! What the internet knows and what it has seen.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::{
    protocol::{
        Behaviour, Connection, FlowCount, HttpRequest, Proxied, Proxy, Query, Record, Sighting,
    },
    token,
};

/// Shared by every task and the packet thread.
pub(super) struct State {
    seen: Mutex<Seen>,
    missed: AtomicU64,
    issuer: Issuer<'static, KeyPair>,
    authority_pem: String,
}

#[derive(Default)]
struct Seen {
    zone: BTreeMap<String, Record>,
    flips: BTreeMap<String, usize>,
    tokens: BTreeMap<String, Vec<Sighting>>,
    flows: BTreeMap<(IpAddr, u8, u16), u64>,
    queries: Vec<Query>,
    requests: Vec<HttpRequest>,
    connections: Vec<Arc<Mutex<Connection>>>,
    certificates: BTreeMap<String, Arc<ServerConfig>>,
    repositories: Option<PathBuf>,
    proxies: BTreeMap<SocketAddr, Proxy>,
    proxied: Vec<Proxied>,
}

impl State {
    pub(super) fn new(zone: Vec<Record>) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Embedded Internet Test Authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_pem = params.self_signed(&key)?.pem();
        let seen = Seen {
            zone: zone.into_iter().map(|r| (r.name.clone(), r)).collect(),
            ..Seen::default()
        };
        Ok(Self {
            seen: Mutex::new(seen),
            missed: AtomicU64::new(0),
            issuer: Issuer::new(params, key),
            authority_pem,
        })
    }

    pub(super) fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// The records of a name for a question of one kind, wildcards included; with
    /// [`Behaviour::Flip`] only the address whose turn it is for that kind.
    pub(super) fn record(&self, name: &str, kind: &str) -> Option<Record> {
        let mut seen = self.seen();
        let mut record = lookup(&seen.zone, name)?.clone();
        if record.behaviour == Behaviour::Flip {
            let key = format!("{} {kind}", record.name);
            let turn = seen.flips.entry(key).or_default();
            record.a = pick(&record.a, *turn);
            record.aaaa = pick(&record.aaaa, *turn);
            *turn += 1;
        }
        Some(record)
    }

    /// Whether somebody forges answers about a name. Takes no turn of [`Behaviour::Flip`].
    pub(super) fn is_lied_about(&self, name: &str) -> bool {
        let seen = self.seen();
        lookup(&seen.zone, name).is_some_and(|record| record.behaviour == Behaviour::Lie)
    }

    /// A TLS configuration with a certificate for the name of the handshake, or for the address
    /// where there was none. A name outside the zone gets one that fits no name.
    pub(super) fn certificate(
        &self,
        name: Option<&str>,
        address: IpAddr,
    ) -> Result<Arc<ServerConfig>> {
        let mut seen = self.seen();
        let subject = match name {
            Some(name) if lookup(&seen.zone, name).is_some() => name.to_owned(),
            Some(_) => "name-not-served.invalid".to_owned(),
            None => address.to_canonical().to_string(),
        };
        if let Some(config) = seen.certificates.get(&subject) {
            return Ok(config.clone());
        }
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec![subject.clone()])?.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if seen.repositories.is_some() {
            // They are answered over HTTP/1.1 alone.
            config.alpn_protocols.remove(0);
        }
        let config = Arc::new(config);
        seen.certificates.insert(subject, config.clone());
        Ok(config)
    }

    pub(super) fn set(&self, record: Record) {
        let mut seen = self.seen();
        seen.zone.insert(record.name.clone(), record);
    }

    pub(super) fn remove(&self, name: &str) {
        self.seen().zone.remove(name);
    }

    /// Looks for tokens in what arrived and remembers each with where it was sent.
    pub(super) fn scan(&self, bytes: &[u8], sighting: &Sighting) {
        for token in token::find(bytes) {
            let mut seen = self.seen();
            let places = seen.tokens.entry(token).or_default();
            if !places.contains(sighting) {
                places.push(sighting.clone());
            }
        }
    }

    pub(super) fn count(&self, to: IpAddr, protocol: u8, port: u16) {
        *self.seen().flows.entry((to, protocol, port)).or_default() += 1;
    }

    pub(super) fn add_query(&self, query: Query) {
        self.seen().queries.push(query);
    }

    pub(super) fn add_request(&self, request: HttpRequest) {
        self.seen().requests.push(request);
    }

    pub(super) fn add_connection(&self, connection: Arc<Mutex<Connection>>) {
        self.seen().connections.push(connection);
    }

    /// Every TCP connection to an address, as far as it has come.
    pub(super) fn connections(&self, ip: IpAddr) -> Vec<Connection> {
        let seen = self.seen();
        let all = seen.connections.iter();
        all.map(|one| one.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .filter(|one| one.to.ip() == ip)
            .collect()
    }

    /// The folder whose repositories every HTTP server offers.
    pub(super) fn set_repositories(&self, folder: PathBuf) {
        self.seen().repositories = Some(folder);
    }

    pub(super) fn repositories(&self) -> Option<PathBuf> {
        self.seen().repositories.clone()
    }

    /// Says what a proxy does; whether it is new.
    pub(super) fn set_proxy(&self, proxy: Proxy) -> bool {
        self.seen().proxies.insert(proxy.at, proxy).is_none()
    }

    /// Notes a request to a proxy. Answers what that does.
    pub(super) fn proxied(&self, at: SocketAddr, asked: Proxied) -> Option<Proxy> {
        let mut seen = self.seen();
        seen.proxied.push(asked);
        seen.proxies.get(&at).cloned()
    }

    pub(super) fn all_proxied(&self) -> Vec<Proxied> {
        self.seen().proxied.clone()
    }

    pub(super) fn add_missed(&self, packets: u64) {
        self.missed.fetch_add(packets, Ordering::Relaxed);
    }

    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    pub(super) fn sightings(&self, token: &str) -> Vec<Sighting> {
        let key = token.to_ascii_lowercase();
        self.seen().tokens.get(&key).cloned().unwrap_or_default()
    }

    pub(super) fn flows(&self, ip: IpAddr) -> Vec<FlowCount> {
        let seen = self.seen();
        seen.flows
            .range((ip, 0, 0)..=(ip, u8::MAX, u16::MAX))
            .map(|(&(_, protocol, port), &packets)| FlowCount {
                protocol,
                port,
                packets,
            })
            .collect()
    }

    pub(super) fn queries(&self) -> Vec<Query> {
        self.seen().queries.clone()
    }

    pub(super) fn requests(&self) -> Vec<HttpRequest> {
        self.seen().requests.clone()
    }

    /// A task that panicked while it held the lock left plain collections behind: still good.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lookup<'a>(zone: &'a BTreeMap<String, Record>, name: &str) -> Option<&'a Record> {
    let name = name.to_ascii_lowercase();
    if let Some(record) = zone.get(&name) {
        return Some(record);
    }
    let mut rest = name.as_str();
    while let Some((_, parent)) = rest.split_once('.') {
        if let Some(record) = zone.get(&format!("*.{parent}")) {
            return Some(record);
        }
        rest = parent;
    }
    None
}

fn pick<T: Copy>(all: &[T], turn: usize) -> Vec<T> {
    let index = turn.checked_rem(all.len());
    index.map(|index| vec![all[index]]).unwrap_or_default()
}
