//! Names whose requests are judged: each is answered with a loopback address that stands for it,
//! and its real addresses are granted to the envelope proxy alone.
//!
//! The connector never has a grant for those, so there is no way round. The proxy knows both, and
//! the kernel has the grants, before the answer is given.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use egress_common::{
    abi::{RULE_INSPECTED, TCP},
    key::{Addr, GrantKey},
};
use egress_envelope::judge::Inspect;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    chain::Found,
    dropped::{Dropped, Why},
    lease::{self, Granted, Holder, IsOwn, MAX_LEASES},
    opening::{Opening, openings},
    stand::{Learn, Stand, TTL, What},
    upstream::{Reply, Upstream, UpstreamError},
    verdict::{Family, Wanted, audited},
};
use crate::policy::{
    model::{DnsSettings, Policy, Rule},
    name::Name,
    proxy::rule_to,
};

/// How long addresses of one kind wait for those of the other: longer than a lost question takes
/// to be sent again.
const OTHER_KIND: Duration = Duration::from_secs(2);

/// What a connector's names need where requests are judged.
pub struct Inspected {
    stand: Stand,
    /// The proxy's id in the data plane.
    process: u32,
    /// Where names are that were granted to it.
    at: Mutex<HashMap<Name, Vec<IpAddr>>>,
    /// Names that the proxy can speak for.
    names: BTreeSet<Name>,
    rules: watch::Sender<Rules>,
}

/// How requests are judged, by name.
pub type Rules = HashMap<String, Inspect>;

/// Who answers for such a name.
#[derive(Clone)]
pub(super) struct Judged {
    pub(super) inspected: Arc<Inspected>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) policy: Arc<Policy>,
    pub(super) is_own: IsOwn,
}

impl Inspected {
    /// The addresses begin at `net`; the proxy hears of names through `proxy`, and has the id
    /// `process` in the data plane.
    pub fn new(policy: &Policy, net: Ipv4Addr, proxy: mpsc::Sender<Learn>, process: u32) -> Self {
        Self {
            names: policy
                .inspected()
                .map(|(_, name, _)| name.clone())
                .collect(),
            rules: watch::Sender::new(rules(policy)),
            stand: Stand::new(net, proxy, "the envelope proxy"),
            process,
            at: Mutex::default(),
        }
    }

    /// How requests are judged, now and whenever it changes.
    pub fn rules(&self) -> watch::Receiver<Rules> {
        self.rules.subscribe()
    }

    /// Judges by another policy from now on.
    pub fn judge_by(&self, policy: &Policy) {
        self.rules.send_replace(rules(policy));
    }

    /// The first name of a policy that the proxy cannot speak for: its authority was made for
    /// others.
    pub fn foreign<'a>(&self, policy: &'a Policy) -> Option<&'a Name> {
        let mut names = policy.inspected().map(|(_, name, _)| name);
        names.find(|name| !self.names.contains(name))
    }

    /// The proxy's id in the data plane.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Whether a grant is for an address that stands for a name.
    pub fn holds(&self, addr: &Addr) -> bool {
        self.stand.holds(addr)
    }

    /// Whether a policy still means what was granted to the proxy. Always, where it was granted to
    /// somebody else.
    pub fn keeps(&self, policy: &Policy, key: &GrantKey) -> bool {
        key.connector != self.process
            || self.judge_at(policy, key).is_some()
                && policy
                    .address_denied(address(&key.addr), key.protocol, key.port)
                    .is_none()
    }

    /// Whether a rule takes it that an address points inside.
    pub(super) fn is_private(&self, policy: &Policy, addr: &Addr) -> bool {
        self.rules_at(policy, addr).any(|rule| rule.private)
    }

    fn rules_at<'a>(&self, policy: &'a Policy, addr: &Addr) -> impl Iterator<Item = &'a Rule> {
        let at = self.at();
        let here = |name: &Name| {
            let mut addresses = at.get(name).into_iter().flatten();
            addresses.any(|&address| lease::canonical(address) == *addr)
        };
        let rules: Vec<&Rule> = policy
            .inspected()
            .filter(|(_, name, _)| here(name))
            .filter_map(|(index, _, _)| policy.allow.get(index))
            .collect();
        rules.into_iter()
    }

    /// The leases for what was answered for a name: its real addresses for the proxy, and the one
    /// that stands for it for the connector. Other names never lead to what stands for one.
    pub(super) fn grant(
        &self,
        policy: &Policy,
        name: &Name,
        openings: &[Opening],
        found: &Found,
        holder: &Holder,
        by: (u64, IsOwn),
    ) -> Granted {
        if !takes(policy, name) {
            let granted = lease::grant(policy, openings, found, holder, by);
            return self.not_round(policy, granted);
        }
        let openings = judged(policy, openings);
        let real = self.leases(policy, &openings, found, by);
        if real.leases.is_empty() {
            return Granted {
                addresses: Vec::new(),
                ..real
            };
        }
        let addresses = &found.addresses;
        let stands = self.stand.grant(name, &openings, addresses, holder, by.0);
        if stands.leases.is_empty() {
            return stands;
        }
        self.at().insert(name.clone(), real.addresses);
        // The proxy's first: who is led to it finds it able to go on.
        Granted {
            addresses: stands.addresses,
            leases: real.leases.into_iter().chain(stands.leases).collect(),
            dropped: real.dropped,
        }
    }

    /// What is granted of another name, less what leads to a host that is judged: whoever is served
    /// at its address by another name could ask for that host nevertheless.
    fn not_round(&self, policy: &Policy, mut granted: Granted) -> Granted {
        granted.leases.retain(|lease| {
            !self.holds(&lease.key.addr) && self.judge_at(policy, &lease.key).is_none()
        });
        let (leases, dropped) = (&granted.leases, &mut granted.dropped);
        granted.addresses.retain(|&address| {
            let addr = lease::canonical(address);
            let left = leases.iter().any(|lease| lease.key.addr == addr);
            if !left {
                let rule = self.rules_at(policy, &addr).next();
                let id = rule.map(|rule| rule.id.clone()).unwrap_or_default();
                let why = Why::Judged(id);
                dropped.push(Dropped { address, why });
            }
            left
        });
        granted
    }

    /// The rule by which requests to a destination are judged.
    fn judge_at<'a>(&self, policy: &'a Policy, key: &GrantKey) -> Option<&'a Rule> {
        let mut rules = self.rules_at(policy, &key.addr);
        rules.find(|rule| rule.takes(key.port, key.protocol))
    }

    /// Whether a grant of the connector's goes round the judgement. It may be older than what is
    /// known of where a name is.
    pub(super) fn is_round(&self, policy: &Policy, key: &GrantKey) -> bool {
        key.connector != self.process
            && !self.holds(&key.addr)
            && self.judge_at(policy, key).is_some()
    }

    /// What the proxy is granted of a name's real addresses: what the connector would be, without
    /// `inspect`.
    fn leases(
        &self,
        policy: &Policy,
        openings: &[Opening],
        found: &Found,
        by: (u64, IsOwn),
    ) -> Granted {
        let holder = Holder {
            connector: self.process,
            slots: vec![RULE_INSPECTED; policy.allow.len()],
            named: BTreeSet::from([RULE_INSPECTED]),
        };
        let found = Found {
            addresses: found.real.clone(),
            ..found.clone()
        };
        let granted = lease::grant(policy, openings, &found, &holder, by);
        debug_assert!(granted.leases.len() <= MAX_LEASES);
        granted
    }

    /// A panic while the lock was held leaves a whole map.
    fn at(&self) -> MutexGuard<'_, HashMap<Name, Vec<IpAddr>>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rules(policy: &Policy) -> Rules {
    let rules = policy.inspected();
    rules
        .map(|(_, name, inspect)| (name.as_str().to_owned(), inspect))
        .collect()
}

/// Whether requests to a name are judged.
pub(super) fn takes(policy: &Policy, name: &Name) -> bool {
    policy.inspected().any(|(_, own, _)| own == name)
}

/// Of a name's openings those under rules that judge: no other way leads to it.
fn judged(policy: &Policy, openings: &[Opening]) -> Vec<Opening> {
    let judges = |rule: &Rule| rule.inspect.is_some();
    let mut openings = openings.to_vec();
    openings.retain(|it| it.protocol == TCP && policy.allow.get(it.rule).is_some_and(judges));
    openings
}

fn address(addr: &Addr) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(addr.octets())).to_canonical()
}

impl Judged {
    /// What is answered for a name: the address that stands for it. The proxy knows by then which
    /// name that is, and where it really is.
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
        let mut found = match self.both(name).await? {
            Reply::Found(found) => found,
            none => return Ok(none),
        };
        // No longer than the address stands for the name.
        found.ttl = found.ttl.min(TTL);
        found.real = std::mem::take(&mut found.addresses);
        if let Some(way) = self.way_round(name, &found.real) {
            return Err(UpstreamError::Failed(way));
        }
        let inspected = &self.inspected;
        let stands = inspected.stand.take(name, settings, now_ns).await?;
        let open = judged(&self.policy, &openings(&self.policy, name));
        let by = (u64::MAX, self.is_own);
        let usable = if audited(&self.policy) {
            found.real.clone()
        } else {
            inspected.leases(&self.policy, &open, &found, by).addresses
        };
        let learn = What::IsAt(name.clone(), usable);
        inspected.stand.learn(learn).await?;
        found.addresses = vec![stands.into()];
        Ok(Reply::Found(found))
    }

    /// How the connector would reach an address of a name directly, by a rule about addresses.
    fn way_round(&self, name: &Name, addresses: &[IpAddr]) -> Option<String> {
        let rules = self.policy.inspected().filter(|(_, own, _)| *own == name);
        let rules = rules.filter_map(|(index, _, _)| self.policy.allow.get(index));
        let ports: Vec<u16> = rules
            .flat_map(|rule| &rule.ports)
            .map(|span| span.first)
            .collect();
        let mut ways = addresses.iter().flat_map(|&address| {
            let rules = ports
                .iter()
                .map(move |&port| rule_to(&self.policy, address, port));
            rules.flatten().map(move |rule| (address, rule))
        });
        let (address, rule) = ways.next()?;
        Some(format!(
            "it is at {address}, where rule {rule} leads directly, round “inspect”; narrow that rule"
        ))
    }

    /// Addresses of both kinds. One kind is enough: most names have no AAAA record. Some servers
    /// are silent to questions for it; then the name is no later for that.
    async fn both(&self, name: &Name) -> Result<Reply, UpstreamError> {
        let [v4, v6] = Family::ALL
            .map(Wanted::Addresses)
            .map(|wanted| self.upstream.lookup(name, wanted));
        tokio::pin!(v4, v6);
        let late = || Err(UpstreamError::Timeout);
        let has_some = |reply: &Result<Reply, _>| matches!(reply, Ok(Reply::Found(_)));
        let (first, second) = tokio::select! {
            v4 = &mut v4 => match has_some(&v4) {
                true => (v4, timeout(OTHER_KIND, v6).await.unwrap_or_else(|_| late())),
                false => (v4, v6.await),
            },
            v6 = &mut v6 => match has_some(&v6) {
                true => (timeout(OTHER_KIND, v4).await.unwrap_or_else(|_| late()), v6),
                false => (v4.await, v6),
            },
        };
        merged(first, second)
    }
}

/// Two answers as one.
fn merged(
    first: Result<Reply, UpstreamError>,
    second: Result<Reply, UpstreamError>,
) -> Result<Reply, UpstreamError> {
    match (first, second) {
        (Ok(Reply::Found(mut found)), Ok(Reply::Found(other))) => {
            found.addresses.extend(other.addresses);
            found.ttl = found.ttl.min(other.ttl);
            let new = |alias: &Name| !found.aliases.contains(alias);
            let aliases: Vec<Name> = other.aliases.into_iter().filter(new).collect();
            found.aliases.extend(aliases);
            let prefixes = other.nat64.into_iter();
            let new: Vec<_> = prefixes.filter(|it| !found.nat64.contains(it)).collect();
            found.nat64.extend(new);
            Ok(Reply::Found(found))
        }
        (Ok(Reply::Found(found)), _) | (_, Ok(Reply::Found(found))) => Ok(Reply::Found(found)),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(Reply::NxDomain), _) | (_, Ok(Reply::NxDomain)) => Ok(Reply::NxDomain),
        (Ok(_), Ok(_)) => Ok(Reply::NoData),
    }
}
