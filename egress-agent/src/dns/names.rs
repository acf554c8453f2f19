//! One name from verdict to grant: what the door and the refresher share.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use egress_common::{
    key::{Addr, GrantKey},
    verdict::Reason,
};
use tokio::sync::{Semaphore, mpsc};

use super::{
    cache::Kept,
    chain::Found,
    dropped::{self, Said},
    files::Files,
    inspected::{self, Inspected, Judged},
    lease::{self, Holder, IsOwn},
    lookup::{Asker, Begun, Lookups, Source, wait},
    news::News,
    opening::{Opening, denier, openings},
    proxied::Proxied,
    report::{DoorStats, Refusal},
    service::Asked,
    upstream::{Reply, Upstream, UpstreamError},
    verdict::{Denial, Family, Wanted, audited, not_open},
};
use crate::{
    grant::{Keeper, KeeperError},
    host::switch::{self, Part},
    policy::{model::Policy, name::Name},
};

/// Questions of the connector's that wait for an answer at once.
pub const MAX_QUESTIONS: usize = 128;

/// What a connector's names need.
pub struct NamesConfig {
    /// The connector and its rules' slots in the data plane.
    pub holder: Holder,
    /// Its policy.
    pub policy: Arc<Policy>,
    /// Who writes grants to the kernel.
    pub keeper: Arc<Keeper>,
    /// Boot clock, nanoseconds.
    pub now_ns: fn() -> u64,
    /// Whether an address is this host's own.
    pub is_own: IsOwn,
    /// Where refusals go. When it is full, refusals are counted as lost.
    pub refusals: mpsc::Sender<Refusal>,
    /// The host's own files about names.
    pub files: Arc<Files>,
    /// Who carries names that are answered with an address that stands for them.
    pub carrier: Option<Carrier>,
}

/// Who carries names that are answered with an address that stands for them.
#[derive(Clone)]
pub enum Carrier {
    /// A company's proxy, which alone resolves them.
    Proxy(Arc<Proxied>),
    /// The envelope proxy, which judges what is asked of them.
    Envelope(Arc<Inspected>),
}

/// The names of one connector.
pub struct Names {
    /// Written by [`Names::replace`] alone. Grants are entered while it is held for reading,
    /// so that none comes from a policy that is no longer in force.
    current: RwLock<Arc<Current>>,
    pub(super) now_ns: fn() -> u64,
    is_own: IsOwn,
    pub(super) refusals: mpsc::Sender<Refusal>,
    pub(super) stats: Arc<DoorStats>,
    pub(super) questions: Arc<Semaphore>,
    keeper: Arc<Keeper>,
    carrier: Option<Carrier>,
    lookups: Lookups,
    said: Mutex<Said>,
}

/// What names are judged by now.
pub(super) struct Current {
    pub(super) policy: Arc<Policy>,
    pub(super) holder: Holder,
    pub(super) upstream: Arc<Upstream>,
}

/// A policy that is ready to take the place of the one in force.
pub struct Successor(Current);

/// Addresses that are in the kernel and may be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The addresses; never empty.
    pub addresses: Vec<IpAddr>,
    /// The TTL to tell. Seconds.
    pub ttl: u32,
    /// When to ask again so that the grants do not end in between.
    pub refresh: Duration,
    /// What an enforced policy would have refused the answer for.
    pub would_deny: Option<Denial>,
    /// Why some of its addresses are left out.
    pub left_out: Option<Denial>,
}

/// Why a name has no addresses for the connector.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    /// The upstream says the name does not exist.
    #[error("the name does not exist")]
    NxDomain,
    /// The name has no address of this kind.
    #[error("the name has no address")]
    NoData,
    /// The upstream gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// There are addresses, but none that may be granted.
    #[error("no address of the name may be reached: {}", told(.0))]
    Denied(Denial),
    /// The kernel did not take the grants.
    #[error("the kernel did not take the grants: {0}")]
    Table(String),
}

impl Names {
    /// The names of a connector. Asks nothing yet.
    pub fn new(config: NamesConfig) -> Self {
        let upstream = Upstream::new(&config.policy.dns, config.files, Arc::default());
        Self {
            current: RwLock::new(Arc::new(Current {
                policy: config.policy,
                holder: config.holder,
                upstream: Arc::new(upstream),
            })),
            now_ns: config.now_ns,
            is_own: config.is_own,
            refusals: config.refusals,
            stats: Arc::default(),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            keeper: config.keeper,
            carrier: config.carrier,
            lookups: Lookups::default(),
            said: Mutex::default(),
        }
    }

    /// What is to be told of the network.
    pub fn news(&self) -> Arc<News> {
        Arc::clone(self.current().upstream.news())
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<DoorStats> {
        &self.stats
    }

    /// What names are judged by now. It may be replaced at any time: what is granted is
    /// decided again where it is written.
    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.in_force())
    }

    /// The same, which is not replaced while it is held.
    pub(super) fn in_force(&self) -> std::sync::RwLockReadGuard<'_, Arc<Current>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a policy ready to be put in force. Changes nothing yet.
    pub fn prepare(&self, policy: Arc<Policy>, holder: Holder) -> Successor {
        let current = self.current();
        let upstream = if current.policy.dns == policy.dns {
            Arc::clone(&current.upstream)
        } else {
            let (files, news) = (current.upstream.files(), current.upstream.news());
            Arc::new(Upstream::new(
                &policy.dns,
                Arc::clone(files),
                Arc::clone(news),
            ))
        };
        Successor(Current {
            policy,
            holder,
            upstream,
        })
    }

    /// Puts a policy in force. When it returns, no grant comes from the one before any more,
    /// that of a look-up under way included.
    pub fn replace(&self, successor: Successor) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let judged = |current: &Current| -> Vec<Name> {
            let names = current.policy.inspected();
            names.map(|(_, name, _)| name.clone()).collect()
        };
        let others = !Arc::ptr_eq(&current.upstream, &successor.0.upstream)
            || judged(&current) != judged(&successor.0);
        *current = Arc::new(successor.0);
        if others {
            self.lookups.forget();
        }
    }

    /// Asks upstream anew, by the refresher's clock; then as [`Names::settle`].
    pub(super) async fn resolve(
        &self,
        name: &Name,
        family: Family,
    ) -> Result<Resolved, ResolveError> {
        let wanted = Wanted::Addresses(family);
        let kept = match self.begin(name, wanted, Asker::Schedule) {
            Begun::Kept(kept) => kept,
            Begun::Awaited(awaited) => wait(awaited).await?,
            // No look-up is refused to the refresher.
            Begun::OverBudget => return Err(UpstreamError::Timeout.into()),
        };
        self.settle(name, &kept)
    }

    /// As if nothing had been asked before: the network is another, or its servers.
    pub(super) fn forget(&self) {
        self.lookups.forget();
    }

    /// Answers a question from what is kept, or has it answered.
    pub(super) fn begin(&self, name: &Name, wanted: Wanted, asker: Asker) -> Begun {
        let current = self.current();
        let source = match self.carrier(&current.policy, name, wanted) {
            Some(Carrier::Proxy(proxied)) => Source::Proxy(Arc::clone(proxied)),
            Some(Carrier::Envelope(inspected)) => Source::Envelope(Judged {
                inspected: Arc::clone(inspected),
                upstream: Arc::clone(&current.upstream),
                policy: Arc::clone(&current.policy),
                is_own: self.is_own,
            }),
            None => Source::Upstream(Arc::clone(&current.upstream)),
        };
        let from = (&source, &current.policy.dns);
        self.lookups.begin((name, wanted), asker, from, self.now_ns)
    }

    /// Who carries a name.
    pub(super) fn carrier(&self, policy: &Policy, name: &Name, wanted: Wanted) -> Option<&Carrier> {
        let carrier = self.carrier.as_ref()?;
        let whose = whose(name, wanted);
        let takes = match carrier {
            Carrier::Proxy(proxied) => proxied.takes(policy, &whose),
            Carrier::Envelope(_) => inspected::takes(policy, &whose),
        };
        takes.then_some(carrier)
    }

    /// The names that go through a company's proxy, where there is one.
    pub fn proxied(&self) -> Option<&Proxied> {
        match &self.carrier {
            Some(Carrier::Proxy(proxied)) => Some(proxied),
            _ => None,
        }
    }

    /// The names whose requests are judged, where some are.
    pub fn inspected(&self) -> Option<&Inspected> {
        match &self.carrier {
            Some(Carrier::Envelope(inspected)) => Some(inspected),
            _ => None,
        }
    }

    /// Whether an address stands for a name.
    pub fn stands(&self, addr: &Addr) -> bool {
        match &self.carrier {
            Some(Carrier::Proxy(proxied)) => proxied.holds(addr),
            Some(Carrier::Envelope(inspected)) => inspected.holds(addr),
            None => false,
        }
    }

    /// Filters and grants an answer. When it returns `Ok`, every address is in the kernel's
    /// table through every opening (but for a would-be denial, where the policy is only
    /// audited and the kernel lets it pass anyway).
    pub(super) fn settle(&self, name: &Name, kept: &Kept) -> Result<Resolved, ResolveError> {
        self.enter(name, found(kept)?, kept)
    }

    /// Takes back what was granted of addresses that have become this host's own since, unless
    /// the rule takes private ones. The kernel has none of them when it returns `Ok`.
    pub fn forget_own(&self) -> Result<(), KeeperError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let holder = &current.holder;
        let rules = current.policy.allow.iter().enumerate();
        let private: BTreeSet<u32> = rules
            .filter(|(_, rule)| rule.private)
            .map(|(index, _)| holder.slot(index))
            .collect();
        let mut looked_at: HashMap<Addr, bool> = HashMap::new();
        let mut gone: HashSet<GrantKey> = HashSet::new();
        for (key, grant) in self.own_ids(holder).flat_map(|id| self.keeper.grants(id)) {
            let judged = self.inspected();
            let judged = judged.filter(|it| it.process() == key.connector);
            if private.contains(&grant.rule)
                || judged.is_some_and(|it| it.is_private(&current.policy, &key.addr))
                || self.stands(&key.addr)
            {
                continue;
            }
            let own = looked_at.entry(key.addr).or_insert_with(|| {
                let address = Ipv6Addr::from(key.addr.octets());
                (self.is_own)(IpAddr::V6(address).to_canonical())
            });
            if *own && !switch::is_off(Part::Rebinding) {
                gone.insert(key);
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let ids = self.own_ids(holder);
        // Each is tried, whatever became of the one before.
        ids.map(|id| self.keeper.retain(id, |key| !gone.contains(key)))
            .fold(Ok(()), Result::and)
    }

    /// The connector's number in the data plane, and that of the envelope proxy beside it.
    fn own_ids(&self, holder: &Holder) -> impl Iterator<Item = u32> + use<> {
        let beside = self.inspected().map(Inspected::process);
        std::iter::once(holder.connector).chain(beside)
    }

    /// Grants what the policy that is in force now leaves open of an answer.
    fn enter(&self, name: &Name, found: &Found, kept: &Kept) -> Result<Resolved, ResolveError> {
        let current = self.in_force();
        let policy = &current.policy;
        let term = kept.term(&policy.dns);
        let resolved = |addresses, would_deny, left_out| Resolved {
            addresses,
            left_out,
            ttl: term.left(kept.age((self.now_ns)())),
            refresh: term.refresh,
            would_deny,
        };
        let lease_ns = u64::try_from(term.lease.as_nanos()).unwrap_or(u64::MAX);
        let expires_ns = kept.came_ns.saturating_add(lease_ns);
        let openings = openings(policy, name);
        let closed = openings.is_empty().then(|| not_open(policy, name));
        let (openings, alias_denial) = past_aliases(policy, openings, found);
        let by = (expires_ns, self.is_own);
        let holder = &current.holder;
        let granted = match &self.carrier {
            Some(Carrier::Proxy(proxied)) => {
                proxied.grant(policy, name, &openings, found, holder, by)
            }
            Some(Carrier::Envelope(inspected)) => {
                inspected.grant(policy, name, &openings, found, holder, by)
            }
            None => lease::grant(policy, &openings, found, holder, by),
        };
        let written = self
            .keeper
            .grant(name.as_str(), &granted.leases)
            .map_err(|error| ResolveError::Table(error.to_string()));
        let written = written.and_then(|()| match self.inspected() {
            Some(judges) if inspected::takes(policy, name) => self
                .keeper
                .retain(current.holder.connector, |key| {
                    !judges.is_round(policy, key)
                })
                .map_err(|error| ResolveError::Table(error.to_string())),
            _ => Ok(()),
        });
        let left_out = dropped::denial(policy, &openings, &granted.dropped);
        let (denial, left_out) = if granted.addresses.is_empty() {
            let denial = closed.or(alias_denial).or(left_out);
            let inside = || Denial::because(Reason::PrivateAnswer);
            (Some(denial.unwrap_or_else(inside)), None)
        } else {
            (None, left_out)
        };
        if audited(policy) {
            let denial = match written {
                Ok(()) => denial,
                Err(_) => Some(TABLE_FULL),
            };
            return Ok(resolved(found.addresses.clone(), denial, left_out));
        }
        written?;
        if let Some(denial) = denial {
            return Err(ResolveError::Denied(denial));
        }
        Ok(resolved(granted.addresses, None, left_out))
    }

    /// Whether it is to be said now that an address is left out of a name's answer.
    pub(super) fn is_news(&self, name: &Name, denial: &Denial) -> bool {
        let Some(address) = denial.address else {
            return true;
        };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.first(name, address, (self.now_ns)())
    }

    /// What to tell of a name that the policy does not permit, where it is only audited:
    /// answered, never granted. What is then connected to is told by that name.
    pub(super) fn settle_unchecked(
        &self,
        name: &Name,
        kept: &Kept,
        denial: Denial,
    ) -> Result<Resolved, ResolveError> {
        let found = found(kept)?;
        let addresses = found
            .addresses
            .iter()
            .map(|&address| lease::canonical(address));
        let connector = self.current().holder.connector;
        self.keeper.answered(connector, name.as_str(), addresses);
        let term = kept.term(&self.current().policy.dns);
        Ok(Resolved {
            addresses: found.addresses.clone(),
            ttl: term.left(kept.age((self.now_ns)())),
            refresh: term.refresh,
            would_deny: Some(denial),
            left_out: None,
        })
    }
}

/// The name that a proxy would have to carry.
fn whose(name: &Name, wanted: Wanted) -> Name {
    match (wanted, Asked::of(name)) {
        (Wanted::Services, Some(asked)) => asked.parent,
        _ => name.clone(),
    }
}

/// A denial in words.
fn told(denial: &Denial) -> String {
    let reason = denial.reason.as_str();
    match &denial.message {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    }
}

/// The addresses of an answer that has some.
fn found(kept: &Kept) -> Result<&Found, ResolveError> {
    match &kept.answer {
        Ok(Reply::Found(found)) => Ok(found),
        answer => Err(none(answer)),
    }
}

/// Why an answer has none of what was asked for.
pub(super) fn none(answer: &Result<Reply, UpstreamError>) -> ResolveError {
    match answer {
        Ok(Reply::NxDomain) => ResolveError::NxDomain,
        Ok(_) => ResolveError::NoData,
        Err(error) => error.clone().into(),
    }
}

/// Openings less what `deny:` says of the names on the way, and the rule that closed the
/// last one.
fn past_aliases(
    policy: &Policy,
    mut openings: Vec<Opening>,
    found: &Found,
) -> (Vec<Opening>, Option<Denial>) {
    for alias in &found.aliases {
        openings = openings
            .into_iter()
            .filter_map(|opening| opening.without_name(policy, alias))
            .collect();
        if openings.is_empty() {
            let denial = Denial::by(Reason::DenyRule, denier(policy, alias));
            return (openings, Some(denial));
        }
    }
    (openings, None)
}

/// The denial of a name whose grants the kernel did not take.
pub(super) const TABLE_FULL: Denial = Denial::because(Reason::TableFull);
