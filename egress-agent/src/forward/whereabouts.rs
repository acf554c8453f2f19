//! Where the proxy is: its name resolved and kept fresh, granted to the forwarder, and kept from
//! the connector.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use egress_common::{
    abi::{RULE_PROXY, TCP},
    key::{Addr, GrantKey},
};
use tokio::sync::mpsc;

use crate::{
    dns::{Names, proxied::Proxied},
    grant::{Keeper, Lease},
    host::clock,
    policy::{
        Policy,
        proxy::{Host, Proxy, rule_to},
    },
};

/// The proxy is looked for again no sooner and no later than this.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// A grant lasts until some looks later, so that a failed one closes nothing.
const LOOKS: u32 = 4;
/// Addresses of the proxy that are used.
const MAX_ADDRESSES: usize = 8;

/// Why the proxy was not found, or what of it cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Lookless {
    /// It has no address now.
    #[error("{0}")]
    Nowhere(String),
    /// The connector reaches it directly.
    #[error("{0}")]
    Passed(String),
}

/// Looks for the proxy.
pub struct Whereabouts {
    /// The proxy.
    pub proxy: Proxy,
    /// Who resolves its name.
    pub names: Arc<Names>,
    /// What the connector's names need of it.
    pub proxied: Arc<Proxied>,
    /// Who grants it to the forwarder.
    pub keeper: Arc<Keeper>,
    /// The forwarder's id in the data plane, and the connector's.
    pub ids: (u32, u32),
    /// The forwarder hears of it here.
    pub forwarder: mpsc::Sender<Vec<SocketAddr>>,
}

impl Whereabouts {
    /// Looks once, grants what was found and tells the forwarder. Answers when to look again; an
    /// error says why nothing was found, or what of it cannot be used, and holds what was before.
    pub async fn look(&self, policy: &Policy) -> Result<Duration, Lookless> {
        let (found, ttl) = match &self.proxy.host {
            Host::Address(address) => (vec![*address], u32::MAX),
            Host::Name(name) => self.names.look_up(name).await.map_err(|error| {
                Lookless::Nowhere(format!("{} has no address now: {error}", self.proxy))
            })?,
        };
        if found.is_empty() {
            return Err(Lookless::Nowhere(format!(
                "{} has no address now: its name does not exist",
                self.proxy
            )));
        }
        let mut usable = Vec::new();
        let mut passed = None;
        for address in found.into_iter().take(MAX_ADDRESSES) {
            match self.way_round(policy, address) {
                Some(way) => passed = Some((address, way)),
                None if !usable.contains(&address) => usable.push(address),
                None => {}
            }
        }
        if let (Some((address, way)), true) = (passed, usable.is_empty()) {
            return Err(Lookless::Passed(format!(
                "{} is at {address}, which the connector reaches directly ({way}), and by it \
                 anywhere; narrow that rule",
                self.proxy
            )));
        }
        let again = Duration::from_secs(ttl.into()).clamp(AGAIN.0, AGAIN.1);
        self.take(&usable, again).map_err(Lookless::Nowhere)?;
        let sockets = usable
            .iter()
            .map(|&address| SocketAddr::new(address, self.proxy.port));
        // A forwarder that is gone has been told of.
        let _gone = self.forwarder.send(sockets.collect()).await;
        Ok(again)
    }

    /// Looks again and again. `tell` takes what people should know, once for each change.
    pub async fn keep(self, mut next: Result<Duration, Lookless>, tell: mpsc::Sender<String>) {
        let mut said = None;
        loop {
            let wait = match next {
                Ok(again) => {
                    said = None;
                    again
                }
                Err(error) => {
                    // What is granted stays so, as long as nobody knows better.
                    let own = self.proxied.own();
                    let _refused_then = self.take(&own, AGAIN.0);
                    if said.as_ref() != Some(&error) {
                        let _gone = tell.send(error.to_string()).await;
                        said = Some(error);
                    }
                    AGAIN.0
                }
            };
            clock::sleep(wait).await;
            let policy = self.names.policy();
            next = self.look(&policy).await;
        }
    }

    /// How the connector would reach an address of the proxy directly.
    fn way_round(&self, policy: &Policy, address: IpAddr) -> Option<String> {
        if let Some(rule) = rule_to(policy, address, self.proxy.port) {
            return Some(format!("rule {rule}"));
        }
        let key = self.key(self.ids.1, address);
        let granted = self
            .keeper
            .grants(key.connector)
            .into_iter()
            .any(|(other, _)| other == key);
        let name = self.keeper.name_of(key.connector, &key.addr);
        granted.then(|| format!("as {}", name.unwrap_or_default()))
    }

    fn take(&self, addresses: &[IpAddr], again: Duration) -> Result<(), String> {
        self.proxied.set_own(addresses.to_vec());
        let lasts = again.saturating_mul(LOOKS).saturating_add(AGAIN.1);
        let lasts = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
        let expires_ns = clock::boot_ns().saturating_add(lasts);
        let leases: Vec<Lease> = addresses
            .iter()
            .map(|&address| Lease {
                key: self.key(self.ids.0, address),
                rule: RULE_PROXY,
                expires_ns,
                named: false,
            })
            .collect();
        self.keeper
            .grant(&self.proxy.host.to_string(), &leases)
            .map_err(|error| format!("{} is not granted: {error}", self.proxy))
    }

    fn key(&self, connector: u32, address: IpAddr) -> GrantKey {
        GrantKey {
            addr: canonical(address),
            connector,
            port: self.proxy.port,
            protocol: TCP,
            pad: 0,
        }
    }
}

fn canonical(address: IpAddr) -> Addr {
    match address {
        IpAddr::V4(v4) => Addr::from_v4(v4.into()),
        IpAddr::V6(v6) => Addr::from_octets(v6.octets()),
    }
}
