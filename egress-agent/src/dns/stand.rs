//! Loopback addresses that stand for names, and the process behind them, which knows what each
//! stands for before anybody is told.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
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
    dropped::{Dropped, Why},
    lease::{self, Granted, Holder, MAX_LEASES},
    opening::Opening,
    places::Places,
    upstream::UpstreamError,
};
use crate::{
    grant::Lease,
    policy::{model::DnsSettings, name::Name},
};

/// What the policy's bounds are applied to, in the place of a TTL: an address stands for its name
/// as long as it is asked for. Seconds.
pub(super) const TTL: u32 = 300;
/// How long the process may take to learn something.
const LEARN_WITHIN: Duration = Duration::from_secs(2);

/// Something the process is to know before it is used.
#[derive(Debug)]
pub struct Learn {
    /// What.
    pub what: What,
    /// Told when it knows.
    pub done: oneshot::Sender<()>,
}

/// What the process learns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// An address of its range stands for a name from now on.
    Stands(Ipv4Addr, Name),
    /// A name is at these addresses from now on.
    IsAt(Name, Vec<IpAddr>),
}

/// The addresses of one range, and who is behind them.
pub(super) struct Stand {
    places: Mutex<Places>,
    process: mpsc::Sender<Learn>,
    /// Who that is, for people.
    who: &'static str,
}

impl Stand {
    /// The addresses begin at `net`; `who` hears of names through `process`.
    pub(super) fn new(net: Ipv4Addr, process: mpsc::Sender<Learn>, who: &'static str) -> Self {
        Self {
            places: Mutex::new(Places::new(net)),
            process,
            who,
        }
    }

    /// The name that an address stands for.
    pub(super) fn name_at(&self, address: Ipv4Addr) -> Option<Name> {
        self.places().name_at(address).cloned()
    }

    /// Whether an address is of the range.
    pub(super) fn holds(&self, addr: &Addr) -> bool {
        addr.v4()
            .is_some_and(|address| self.places().holds(address.into()))
    }

    /// The address that stands for a name, which the process knows by then.
    pub(super) async fn take(
        &self,
        name: &Name,
        settings: &DnsSettings,
        now_ns: u64,
    ) -> Result<Ipv4Addr, UpstreamError> {
        // What is kept of it may be granted once more before it is asked for again.
        let lasts = lease::term(TTL, settings).lease.saturating_mul(2);
        let lasts = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
        let until_ns = now_ns.saturating_add(lasts);
        let taken = self.places().take(name, now_ns, until_ns);
        let Some((address, known)) = taken else {
            return Err(failed("all addresses that stand for names are in use"));
        };
        if !known {
            self.learn(What::Stands(address, name.clone())).await?;
            self.places().learned(name, address);
        }
        Ok(address)
    }

    /// Has the process learn something.
    pub(super) async fn learn(&self, what: What) -> Result<(), UpstreamError> {
        let (done, learned) = oneshot::channel();
        let heard = async {
            let learn = Learn { what, done };
            self.process.send(learn).await.map_err(drop)?;
            learned.await.map_err(drop)
        };
        match timeout(LEARN_WITHIN, heard).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(())) => Err(failed(&format!("{} is gone", self.who))),
            Err(_) => Err(failed(&format!("{} does not answer", self.who))),
        }
    }

    /// The leases for a name's TCP ports at the address that stands for it.
    pub(super) fn grant(
        &self,
        name: &Name,
        openings: &[Opening],
        addresses: &[IpAddr],
        holder: &Holder,
        expires_ns: u64,
    ) -> Granted {
        let places = self.places();
        let stands = |address: &&IpAddr| match address {
            IpAddr::V4(v4) => places.name_at(*v4) == Some(name),
            IpAddr::V6(_) => false,
        };
        let mut granted = Granted::default();
        for address in addresses.iter().filter(stands) {
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
    /// is told to the process after the lock.
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(why: &str) -> UpstreamError {
    UpstreamError::Failed(why.to_owned())
}
