//! Exact names: resolved before the connector starts, and kept fresh while it runs, so that
//! a program which brings its own addresses (hosts file, cache) finds them permitted.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{
    files,
    names::{Current, Names, ResolveError, Resolved},
    opening::openings,
    servers::LAST,
    service::Asked,
    upstream::UpstreamError,
    verdict::Family,
};
use crate::{
    host::clock,
    policy::{
        model::{Start, Target},
        name::{HostPattern, Name},
    },
};

/// First wait after a failure; doubled with each further one.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
pub const RETRY_LAST: Duration = Duration::from_secs(60);
/// Longest time [`prefetch`] takes, however many names there are: a little more than servers
/// have to answer.
pub const PREFETCH: Duration = LAST.saturating_add(Duration::from_secs(1));
/// The same where the connector starts without the names: all servers have been asked by then.
pub const PREFETCH_LENIENT: Duration = Duration::from_secs(5);
/// How long addresses of one kind wait for those of the other: longer than a lost question takes
/// to be sent again.
const OTHER_KIND: Duration = Duration::from_secs(2);
/// Names of `/etc/hosts` below wildcards that are kept granted.
const MAX_HOSTS: usize = 256;

/// One exact name, resolved before the start.
#[derive(Debug)]
pub struct Prefetched {
    /// The name.
    pub name: Name,
    /// How many addresses were granted, or why none: to be told, not to be fatal.
    pub result: Result<usize, ResolveError>,
    /// When to resolve it again.
    next: Duration,
    /// Waits after failures so far.
    retry: Duration,
}

/// Resolves and grants every exact name of the policy, all at the same time.
pub async fn prefetch(names: &Arc<Names>, start: Start) -> Vec<Prefetched> {
    let most = match start {
        Start::Strict => PREFETCH,
        Start::Lenient => PREFETCH_LENIENT,
    };
    prefetch_within(names, most, |_slot| true).await
}

/// The same, for the names of some rules only, by their slots: those that a change of policy
/// brought.
pub async fn prefetch_for(names: &Arc<Names>, wanted: impl Fn(u32) -> bool) -> Vec<Prefetched> {
    prefetch_within(names, PREFETCH, wanted).await
}

async fn prefetch_within(
    names: &Arc<Names>,
    most: Duration,
    wanted: impl Fn(u32) -> bool,
) -> Vec<Prefetched> {
    let exact = exact_names(&names.current(), wanted);
    let mut tasks = JoinSet::new();
    for (index, name) in exact.iter().cloned().enumerate() {
        let names = Arc::clone(names);
        tasks.spawn(async move { (index, resolve(&names, &name).await) });
    }
    let mut outcomes: Vec<Option<Outcome>> = exact.iter().map(|_| None).collect();
    let all = async {
        while let Some(done) = tasks.join_next().await {
            if let Ok((index, outcome)) = done
                && let Some(slot) = outcomes.get_mut(index)
            {
                *slot = Some(outcome);
            }
        }
    };
    // A name that is not done by then is reported as late; the refresher tries again.
    drop(timeout(most, all).await);
    exact
        .into_iter()
        .zip(outcomes)
        .map(|(name, outcome)| {
            let result = outcome.unwrap_or(Err(UpstreamError::Timeout.into()));
            Prefetched {
                name,
                next: result.as_ref().map_or(RETRY_FIRST, |(_, next)| *next),
                retry: if result.is_ok() {
                    RETRY_FIRST
                } else {
                    RETRY_FIRST * 2
                },
                result: result.map(|(count, _)| count),
            }
        })
        .collect()
}

/// Keeps prefetched names fresh until `shutdown` becomes true or its sender is gone; those
/// that come through `more` later, as well. What fails is tried again at growing intervals;
/// what was granted before stays until it ends. A name that the policy in force no longer
/// has is left alone from its next turn on.
pub async fn refresh(
    names: Arc<Names>,
    prefetched: Vec<Prefetched>,
    mut more: mpsc::Receiver<Vec<Prefetched>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let mut running: HashMap<Name, AbortHandle> = HashMap::new();
    let news = names.news();
    let mut again = news.again();
    tasks.spawn({
        let (files, news) = (
            Arc::clone(names.current().upstream.files()),
            Arc::clone(&news),
        );
        async move { files::follow(&files, &news).await }
    });
    let mut start = |tasks: &mut JoinSet<()>, entries: Vec<Prefetched>| {
        running.retain(|_, task| !task.is_finished());
        for entry in entries {
            let name = entry.name.clone();
            let task = tasks.spawn(keep_fresh(Arc::clone(&names), entry));
            // The newer one knows the newer term.
            if let Some(older) = running.insert(name, task) {
                older.abort();
            }
        }
    };
    start(&mut tasks, prefetched);
    loop {
        // Leaving this function ends the tasks.
        tokio::select! {
            _ = shutdown.wait_for(|&stop| stop) => return,
            Some(entries) = more.recv() => start(&mut tasks, entries),
            // The sender lives as long as `news`.
            Ok(()) = again.changed() => {
                names.forget();
                let exact = exact_names(&names.current(), |_slot| true);
                let fresh = exact.into_iter().map(Prefetched::fresh).collect();
                start(&mut tasks, fresh);
            }
            Some(_ended) = tasks.join_next() => {}
        }
    }
}

type Outcome = Result<(usize, Duration), ResolveError>;

impl Prefetched {
    /// One that is asked for at once.
    fn fresh(name: Name) -> Self {
        Self {
            name,
            result: Ok(0),
            next: Duration::ZERO,
            retry: RETRY_FIRST,
        }
    }
}

async fn keep_fresh(names: Arc<Names>, entry: Prefetched) {
    let Prefetched {
        name,
        result,
        mut next,
        mut retry,
    } = entry;
    let mut late = result.is_err();
    loop {
        clock::sleep(next).await;
        if !exact_names(&names.current(), |_slot| true).contains(&name) {
            return;
        }
        match resolve(&names, &name).await {
            Ok((_, refresh)) => {
                if std::mem::take(&mut late) {
                    names.news().say(format!("{name} has an address now"));
                }
                next = refresh;
                retry = RETRY_FIRST;
            }
            Err(_) => {
                next = retry;
                retry = (retry * 2).min(RETRY_LAST);
            }
        }
    }
}

/// Both kinds of address at once. One kind is enough: most names have no AAAA record. Some servers
/// are silent to questions for it; then the name is no later for that.
async fn resolve(names: &Names, name: &Name) -> Outcome {
    let [v4, v6] = Family::ALL.map(|family| resolve_family(names, name, family));
    tokio::pin!(v4, v6);
    let late = || Err(UpstreamError::Timeout.into());
    let outcome = tokio::select! {
        v4 = &mut v4 => match v4 {
            Ok(v4) => (Ok(v4), timeout(OTHER_KIND, v6).await.unwrap_or_else(|_| late())),
            Err(error) => (Err(error), v6.await),
        },
        v6 = &mut v6 => match v6 {
            Ok(v6) => (timeout(OTHER_KIND, v4).await.unwrap_or_else(|_| late()), Ok(v6)),
            Err(error) => (v4.await, Err(error)),
        },
    };
    match outcome {
        (Ok(v4), Ok(v6)) => Ok((
            v4.addresses.len() + v6.addresses.len(),
            v4.refresh.min(v6.refresh),
        )),
        (Ok(one), Err(ResolveError::NoData)) | (Err(ResolveError::NoData), Ok(one)) => {
            Ok((one.addresses.len(), one.refresh))
        }
        // The other kind failed for the moment: take what there is, and ask again soon.
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => {
            Ok((one.addresses.len(), one.refresh.min(RETRY_LAST)))
        }
        (Err(ResolveError::NoData), Err(error)) | (Err(error), Err(_)) => Err(error),
    }
}

async fn resolve_family(
    names: &Names,
    name: &Name,
    family: Family,
) -> Result<Resolved, ResolveError> {
    names.resolve(name, family).await
}

/// Names of `/etc/hosts` that a wildcard covers. The C library reads that file by itself, so
/// that a program is told their addresses without a question.
fn below_wildcards(current: &Current, wanted: impl Fn(u32) -> bool) -> Vec<Name> {
    let policy = &current.policy;
    let wildcards: Vec<&HostPattern> = policy
        .allow
        .iter()
        .enumerate()
        .filter(|(index, _)| wanted(current.holder.slot(*index)))
        .filter_map(|(_, rule)| match &rule.target {
            Target::Host(pattern @ HostPattern::Below(_)) => Some(pattern),
            _ => None,
        })
        .collect();
    if wildcards.is_empty() {
        return Vec::new();
    }
    let hosts = current.upstream.files().hosts();
    hosts
        .names()
        .filter(|name| wildcards.iter().any(|pattern| pattern.covers(name)))
        .filter(|name| !openings(policy, name).is_empty())
        .take(MAX_HOSTS)
        .collect()
}

/// Names of exact host rules that `deny:` leaves open, each once; only of rules whose slot is
/// wanted.
fn exact_names(current: &Current, wanted: impl Fn(u32) -> bool) -> Vec<Name> {
    let policy = &current.policy;
    let rules = policy.allow.iter().enumerate();
    let mut exact: Vec<Name> = rules
        .filter(|(index, _)| wanted(current.holder.slot(*index)))
        .filter_map(|(_, rule)| match &rule.target {
            Target::Host(HostPattern::Exact(name)) => Some(name.clone()),
            _ => None,
        })
        .filter(|name| !openings(policy, name).is_empty())
        // A service is asked for, and has no address.
        .filter(|name| Asked::of(name).is_none())
        .collect();
    exact.extend(below_wildcards(current, wanted));
    exact.sort();
    exact.dedup();
    exact
}
