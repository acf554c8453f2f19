//! Names that go through a company's proxy: each is answered with a loopback address that stands
//! for it, and nobody but the proxy is asked where it is.
//!
//! The forwarder knows which name an address stands for before the answer is given, and the kernel
//! has the grant before that, too.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{PoisonError, RwLock},
};

use egress_common::{
    abi::TCP,
    key::{Addr, GrantKey},
};
use tokio::sync::mpsc;

use super::{
    chain::Found,
    lease::{self, Granted, Holder, IsOwn},
    names::Names,
    opening::{Opening, openings},
    stand::{Learn, Stand, TTL},
    upstream::{Reply, UpstreamError},
    verdict::{Family, Wanted},
};
use crate::policy::{
    model::{DnsSettings, Policy},
    name::Name,
    proxy::Proxy,
};

/// What a connector's names need where there is a proxy.
pub struct Proxied {
    proxy: Proxy,
    stand: Stand,
    /// The proxy's own addresses, which the connector must not reach.
    own: RwLock<Vec<IpAddr>>,
}

impl Proxied {
    /// The addresses begin at `net`; the forwarder hears of names through `forwarder`.
    pub fn new(proxy: Proxy, net: Ipv4Addr, forwarder: mpsc::Sender<Learn>) -> Self {
        Self {
            proxy,
            stand: Stand::new(net, forwarder, "the forwarder to the proxy"),
            own: RwLock::default(),
        }
    }

    /// The name that an address stands for.
    pub fn name_at(&self, address: Ipv4Addr) -> Option<Name> {
        self.stand.name_at(address)
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
        self.stand.holds(addr)
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
        let address = self.stand.take(name, settings, now_ns).await?;
        Ok(Reply::Found(Found {
            addresses: vec![address.into()],
            ttl: TTL,
            ..Found::default()
        }))
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
        let addresses = &found.addresses;
        self.stand
            .grant(name, openings, addresses, holder, expires_ns)
    }
}

impl Names {
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
