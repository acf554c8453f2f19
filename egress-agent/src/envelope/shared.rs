//! What every connection of the envelope proxy needs: what the agent told it, and what it tells.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use egress_envelope::{
    head::Framing,
    judge::Inspect,
    ledger::Ledger,
    limit::Meter,
    secret::{Finder, FinderError, Own},
    shape::{Baseline, UNVERSIONED},
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit, mpsc, oneshot},
};

use super::{
    ca::{Ca, CaError},
    pool::Pool,
    spec::Said,
    upstream::{Upstream, UpstreamError},
};

/// Bodies that are judged at a time, all together. Bytes.
const BODIES: usize = 64 << 20;
/// Streams at a time, those of all connections together.
const STREAMS: usize = 4_096;
/// The unit in which that is counted. Bytes.
const UNIT: usize = 1 << 10;
/// Connections that may wait for the agent's orders to be read.
const SETTLING: usize = 64;

/// Who waits until every order that was given is carried out.
pub(super) type Settle = oneshot::Sender<()>;

/// Why the proxy cannot work.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// Its own authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The host's trust.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// What is looked for in requests.
    #[error(transparent)]
    Finder(#[from] FinderError),
}

/// What every connection needs.
pub(super) struct Shared {
    pub(super) ca: Ca,
    pub(super) upstream: Upstream,
    pub(super) pool: Pool,
    /// What is looked for in requests.
    pub(super) finder: Finder,
    /// Streams in HTTP/2, those of all connections together.
    pub(super) streams: Arc<Semaphore>,
    known: Mutex<Known>,
    ledger: Mutex<Ledger>,
    bodies: Semaphore,
    settling: mpsc::Sender<Settle>,
    said: mpsc::Sender<Said>,
    missed: AtomicU64,
    /// What passed lately, by name. Names are those that were judged at the start and no others, so
    /// there is an end to them; a change of the policy forgets nothing.
    meters: Mutex<HashMap<String, Meter>>,
    /// What operations have shown.
    baseline: Mutex<Baseline>,
    /// The version of the connector's package.
    pub(super) version: String,
    /// When that began.
    pub(super) started: Instant,
}

#[derive(Default)]
struct Known {
    names: HashMap<Ipv4Addr, String>,
    addresses: HashMap<String, Vec<IpAddr>>,
    inspects: HashMap<String, Arc<Inspect>>,
}

/// Where a connection was to go.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) port: u16,
}

impl Shared {
    /// `roots`: the host's trust anchors, PEM. `secrets`: the connector's own. `inspects`: by name, or by `*.` and the name above.
    /// The receiver is for who carries out the agent's orders: whatever lies in its pipe has to be
    /// carried out before it answers.
    pub(super) fn new(
        (roots, secrets): (&str, &[Own]),
        inspects: HashMap<String, Inspect>,
        said: mpsc::Sender<Said>,
    ) -> Result<(Self, mpsc::Receiver<Settle>), StartError> {
        let names: Vec<String> = inspects.keys().cloned().collect();
        let (settling, settles) = mpsc::channel(SETTLING);
        let inspects = inspects
            .into_iter()
            .map(|(name, inspect)| (name, Arc::new(inspect)))
            .collect();
        let known = Known {
            inspects,
            ..Known::default()
        };
        let shared = Self {
            ca: Ca::new(&names)?,
            upstream: Upstream::new(roots)?,
            pool: Pool::default(),
            finder: Finder::new(secrets)?,
            streams: Arc::new(Semaphore::new(STREAMS)),
            known: Mutex::new(known),
            ledger: Mutex::new(Ledger::new()),
            bodies: Semaphore::new(BODIES / UNIT),
            settling,
            said,
            missed: AtomicU64::new(0),
            meters: Mutex::default(),
            baseline: Mutex::default(),
            version: UNVERSIONED.to_owned(),
            started: Instant::now(),
        };
        Ok((shared, settles))
    }

    /// An address stands for a name from now on.
    pub(super) fn learn(&self, address: Ipv4Addr, name: String) {
        self.known().names.insert(address, name);
    }

    /// Where a name is from now on.
    pub(super) fn is_at(&self, name: String, addresses: Vec<IpAddr>) {
        self.known().addresses.insert(name, addresses);
    }

    /// How requests are judged from now on, by name; a name without is closed.
    pub(super) fn inspect(&self, rules: HashMap<String, Inspect>) {
        let rules = rules.into_iter();
        self.known().inspects = rules
            .map(|(name, inspect)| (name, Arc::new(inspect)))
            .collect();
    }

    /// What the session named.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What passed lately.
    pub(super) fn meters(&self) -> MutexGuard<'_, HashMap<String, Meter>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What operations have shown.
    pub(super) fn baseline(&self) -> MutexGuard<'_, Baseline> {
        self.baseline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a connection was to go, by the address that was called.
    pub(super) fn asked(&self, client: &TcpStream) -> Option<Asked> {
        let called = client.local_addr().ok()?;
        let IpAddr::V4(address) = called.ip() else {
            return None;
        };
        let name = self.known().names.get(&address).cloned()?;
        Some(Asked {
            name,
            port: called.port(),
        })
    }

    /// Where a name is; empty: nowhere that is granted.
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let addresses = self.known().addresses.get(name).cloned();
        addresses.unwrap_or_default()
    }

    /// How a name is judged: by its own rule, or by that of the nearest name above.
    pub(super) fn judge(&self, name: &str) -> Option<Arc<Inspect>> {
        let known = self.known();
        if let Some(own) = known.inspects.get(name) {
            return Some(Arc::clone(own));
        }
        let mut rest = name;
        while let Some((_, above)) = rest.split_once('.') {
            if let Some(wide) = known.inspects.get(&format!("*.{above}")) {
                return Some(Arc::clone(wide));
            }
            rest = above;
        }
        None
    }

    /// Waits until every order that the agent has given is carried out: a call is known before the
    /// request that it causes is judged. Answers `false` where nobody listens to the agent any
    /// more; what is known then may be too little, never too much.
    pub(super) async fn settle(&self) -> bool {
        let (done, settled) = oneshot::channel();
        self.settling.send(done).await.is_ok() && settled.await.is_ok()
    }

    /// Room for a body that says so, or that has at most so many bytes.
    pub(super) async fn room(&self, framing: Framing, most: usize) -> Option<SemaphorePermit<'_>> {
        let bytes = match framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(most).min(most),
            _ => most,
        };
        let units = bytes.div_ceil(UNIT).clamp(1, BODIES / UNIT);
        let units = u32::try_from(units).ok()?;
        self.bodies.acquire_many(units).await.ok()
    }

    /// The most that a body can be whatever a policy says. Bytes.
    pub(super) const fn most() -> usize {
        BODIES
    }

    /// Tells the agent. One that does not listen loses lines, not connections; how many is told
    /// as soon as there is room again.
    pub(super) fn tell(&self, said: Said) {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        let before = match missed {
            0 => Ok(()),
            missed => self.said.try_send(Said::Missed(missed)),
        };
        let lost = match before {
            Ok(()) => u64::from(self.said.try_send(said).is_err()),
            Err(_) => missed.saturating_add(1),
        };
        self.missed.fetch_add(lost, Ordering::Relaxed);
    }
}
