//! Names that go through a company's proxy: each is answered with a loopback address that stands
//! for it, and nobody but the proxy is asked where it is.
//!
//! The forwarder knows which name an address stands for before the answer is given, and the kernel
//! has the grant before that, too.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError, RwLock},
    time::Duration,
};

use egress_common::{
    abi::TCP,
    key::{Addr, GrantKey},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    chain::Found,
    dropped::{Dropped, Why},
    lease::{self, Granted, Holder, IsOwn, MAX_LEASES},
    names::Names,
    opening::{Opening, openings},
    places::Places,
    upstream::{Reply, UpstreamError},
    verdict::{Family, Wanted},
};
use crate::{
    grant::Lease,
    policy::{
        model::{DnsSettings, Policy},
        name::Name,
        proxy::Proxy,
    },
};

/// What the policy's bounds are applied to, in the place of a TTL: an address stands for its name
/// as long as it is asked for. Seconds.
const TTL: u32 = 300;
/// How long the forwarder may take to learn a name.
const LEARN_WITHIN: Duration = Duration::from_secs(2);

/// Something the forwarder is to know before it is used.
#[derive(Debug)]
pub struct Learn {
    /// An address of its range.
    pub address: Ipv4Addr,
    /// The name that it stands for from now on.
    pub name: Name,
    /// Told when the forwarder knows.
    pub done: oneshot::Sender<()>,
}

/// What a connector's names need where there is a proxy.
pub struct Proxied {
    proxy: Proxy,
    places: Mutex<Places>,
    forwarder: mpsc::Sender<Learn>,
    /// The proxy's own addresses, which the connector must not reach.
    own: RwLock<Vec<IpAddr>>,
}

impl Proxied {
    /// The addresses begin at `net`; the forwarder hears of names through `forwarder`.
    pub fn new(proxy: Proxy, net: Ipv4Addr, forwarder: mpsc::Sender<Learn>) -> Self {
        Self {
            proxy,
            places: Mutex::new(Places::new(net)),
            forwarder,
            own: RwLock::default(),
        }
    }

    /// The name that an address stands for.
    pub fn name_at(&self, address: Ipv4Addr) -> Option<Name> {
        self.places().name_at(address).cloned()
    }

    /// Says where the proxy is now.
    pub fn set_own(&self, addresses: Vec<IpAddr>) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Where the proxy is.
    pub fn own(&self) -> Vec<IpAddr> {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        own.clone()
    }

    /// Whether a destination is the proxy itself.
    pub(super) fn is_own(&self, key: &GrantKey) -> bool {
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        key.port == self.proxy.port
            && key.protocol == TCP
            && own
                .iter()
                .any(|&address| lease::canonical(address) == key.addr)
    }

    /// Whether a grant is for an address that stands for a name.
    pub fn holds(&self, addr: &Addr) -> bool {
        addr.v4()
            .is_some_and(|address| self.places().holds(address.into()))
    }

    /// Whether a name goes through the proxy: it carries TCP alone, so what rules permit over UDP
    /// only goes its own way.
    pub(super) fn takes(&self, policy: &Policy, name: &Name) -> bool {
        let openings = openings(policy, name);
        let carried = |opening: &Opening| opening.protocol == TCP;
        self.proxy.takes(name) && (openings.is_empty() || openings.iter().any(carried))
    }

    /// What is answered for a name: the address that stands for it, which the forwarder knows by
    /// then.
    pub(super) async fn answer(
        &self,
        name: &Name,
        family: Family,
        settings: &DnsSettings,
        now_ns: u64,
    ) -> Result<Reply, UpstreamError> {
        if family == Family::V6 {
            return Ok(Reply::NoData);
        }
        // What is kept of it may be granted once more before it is asked for again.
        let lasts = lease::term(TTL, settings).lease.saturating_mul(2);
        let lasts = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
        let taken = self
            .places()
            .take(name, now_ns, now_ns.saturating_add(lasts));
        let Some((address, known)) = taken else {
            return Err(failed("all addresses that stand for names are in use"));
        };
        if !known {
            self.learn(name, address).await?;
        }
        Ok(Reply::Found(Found {
            addresses: vec![address.into()],
            ttl: TTL,
            ..Found::default()
        }))
    }

    /// Has the forwarder learn what an address stands for.
    async fn learn(&self, name: &Name, address: Ipv4Addr) -> Result<(), UpstreamError> {
        let (done, learned) = oneshot::channel();
        let learn = Learn {
            address,
            name: name.clone(),
            done,
        };
        let heard = async {
            self.forwarder.send(learn).await.map_err(drop)?;
            learned.await.map_err(drop)
        };
        match timeout(LEARN_WITHIN, heard).await {
            Ok(Ok(())) => {
                self.places().learned(name, address);
                Ok(())
            }
            Ok(Err(())) => Err(failed("the forwarder to the proxy is gone")),
            Err(_) => Err(failed("the forwarder to the proxy does not answer")),
        }
    }

    /// The leases for what was answered for a name. Where it goes through the proxy they are for
    /// its TCP ports at the address that stands for it; otherwise they never lead to the proxy
    /// itself, or to what stands for another name.
    pub(super) fn grant(
        &self,
        policy: &Policy,
        name: &Name,
        openings: &[Opening],
        found: &Found,
        holder: &Holder,
        (expires_ns, is_own): (u64, IsOwn),
    ) -> Granted {
        if !self.takes(policy, name) {
            let by = (expires_ns, is_own);
            let mut granted = lease::grant(policy, openings, found, holder, by);
            granted
                .leases
                .retain(|lease| !self.is_own(&lease.key) && !self.holds(&lease.key.addr));
            return granted;
        }
        let places = self.places();
        let stands = |address: &&IpAddr| match address {
            IpAddr::V4(v4) => places.name_at(*v4) == Some(name),
            IpAddr::V6(_) => false,
        };
        let mut granted = Granted::default();
        for address in found.addresses.iter().filter(stands) {
            for opening in openings.iter().filter(|opening| opening.protocol == TCP) {
                let rule = holder.slot(opening.rule);
                let ports = opening.spans.iter().flat_map(|span| span.first..=span.last);
                granted.leases.extend(ports.map(|port| Lease {
                    key: GrantKey {
                        addr: lease::canonical(*address),
                        connector: holder.connector,
                        port,
                        protocol: TCP,
                        pad: 0,
                    },
                    rule,
                    expires_ns,
                    named: holder.named.contains(&rule),
                }));
            }
            granted.addresses.push(*address);
        }
        if granted.leases.is_empty() || granted.leases.len() > MAX_LEASES {
            let excess = granted.addresses.drain(..).map(|address| Dropped {
                address,
                why: Why::Excess,
            });
            granted.dropped = excess.collect();
            granted.leases.clear();
        }
        granted
    }

    /// A panic while the lock was held cannot leave an address that stands for two names: a name
    /// is told to the forwarder after the lock.
    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(why: &str) -> UpstreamError {
    UpstreamError::Failed(why.to_owned())
}

impl Names {
    /// The names that go through a proxy, where there is one.
    pub fn proxied(&self) -> Option<&Proxied> {
        self.proxied.as_deref()
    }

    /// The policy in force.
    pub fn policy(&self) -> std::sync::Arc<Policy> {
        std::sync::Arc::clone(&self.in_force().policy)
    }

    /// Addresses of a name that nobody grants to the connector, such as the proxy's own, and their
    /// TTL in seconds.
    pub async fn look_up(&self, name: &Name) -> Result<(Vec<IpAddr>, u32), UpstreamError> {
        if name.as_str() == "localhost" {
            // RFC 6761 section 6.3.
            return Ok((vec![Ipv4Addr::LOCALHOST.into()], TTL));
        }
        let current = self.current();
        let [v4, v6] = Family::ALL
            .map(Wanted::Addresses)
            .map(|wanted| current.upstream.lookup(name, wanted));
        let (v4, v6) = tokio::join!(v4, v6);
        let mut addresses = Vec::new();
        let mut ttl = TTL;
        let mut failure = None;
        for reply in [v4, v6] {
            match reply {
                Ok(Reply::Found(found)) => {
                    ttl = ttl.min(found.ttl);
                    addresses.extend(found.addresses);
                }
                Ok(Reply::Offers(_) | Reply::NoData | Reply::NxDomain) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if addresses.is_empty() => Err(error),
            _ => Ok((addresses, ttl)),
        }
    }
}
