//! Questions on their way upstream, and what came of them.
//!
//! What a connector asks is answered from what is kept. Where nothing is, a look-up counts
//! against its budget and brings both kinds of address at once; whoever asks meanwhile waits for
//! it. So neither the order nor the number of a connector's questions reaches a server, but
//! only that a name was looked up, no more often than the budget says.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use egress_common::abi::RULE_NONE;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    answer::MAX_ADDRESSES,
    budget::Budget,
    cache::{Cache, Kept, Upkeep},
    inspected::Judged,
    proxied::Proxied,
    service::MAX_SERVICES,
    upstream::{Reply, Upstream, UpstreamError},
    verdict::{Family, Wanted},
};
use crate::policy::{
    model::{DnsSettings, LOOKUPS_PER_MINUTE},
    name::Name,
};

/// Questions to upstream servers at once.
const MAX_UPSTREAM: usize = 128;

/// An answer that is waited for.
pub(super) type Awaited = watch::Receiver<Option<Kept>>;

/// Who wants an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// The refresher, by its own clock: a new answer.
    Schedule,
    /// The connector: one that is kept, or one that its budget pays for. The budget is named as
    /// for [`Budget::spend`]; `None`: it needs none.
    Connector(Upkeep, Option<(u32, u32)>),
}

impl Asker {
    /// The connector, for a name below a wildcard with this budget, or for an exact one.
    pub(super) fn connector(wanted: Wanted, wildcard: Option<(u32, u32)>) -> Self {
        let exact = Some((RULE_NONE, LOOKUPS_PER_MINUTE));
        match (wildcard, wanted) {
            (Some(budget), _) => Self::Connector(Upkeep::Asked, Some(budget)),
            (None, Wanted::Addresses(_)) => Self::Connector(Upkeep::Refreshed, exact),
            // Nobody asks for services by the clock.
            (None, Wanted::Services) => Self::Connector(Upkeep::Asked, exact),
        }
    }
}

/// Where answers come from.
#[derive(Clone)]
pub(super) enum Source {
    /// Servers and the host's own file.
    Upstream(Arc<Upstream>),
    /// Nobody: the name goes through a proxy, which alone resolves it.
    Proxy(Arc<Proxied>),
    /// Servers, for the envelope proxy; the connector is told what stands for the name.
    Envelope(Judged),
}

impl Source {
    async fn lookup(
        &self,
        name: &Name,
        wanted: Wanted,
        settings: &DnsSettings,
        now_ns: u64,
    ) -> Result<Reply, UpstreamError> {
        match (self, wanted) {
            (Self::Upstream(upstream), wanted) => upstream.lookup(name, wanted).await,
            (Self::Proxy(proxied), Wanted::Addresses(family)) => {
                proxied.answer(name, family, settings, now_ns).await
            }
            (Self::Envelope(judged), Wanted::Addresses(family)) => {
                judged.answer(name, family, settings, now_ns).await
            }
            // They tell no such records.
            (Self::Proxy(_) | Self::Envelope(_), Wanted::Services) => Ok(Reply::NoData),
        }
    }
}

/// What becomes of a question.
pub(super) enum Begun {
    /// It is answered.
    Kept(Kept),
    /// It will be.
    Awaited(Awaited),
    /// It is not asked: nothing is left of the budget.
    OverBudget,
}

/// The look-ups of one connector.
#[derive(Default)]
pub(super) struct Lookups {
    state: Arc<Mutex<State>>,
    /// Ends with this value.
    tasks: Mutex<JoinSet<()>>,
}

struct State {
    cache: Cache,
    budget: Budget,
    under_way: HashMap<(Name, Wanted), Awaited>,
    /// Goes up when the servers change. What was asked before is not kept.
    generation: u64,
    room: Arc<Semaphore>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cache: Cache::default(),
            budget: Budget::default(),
            under_way: HashMap::new(),
            generation: 0,
            room: Arc::new(Semaphore::new(MAX_UPSTREAM)),
        }
    }
}

impl State {
    /// The answer that is on its way. One whose task has died is not.
    fn awaited(&self, name: &Name, wanted: Wanted) -> Option<&Awaited> {
        let awaited = self.under_way.get(&(name.clone(), wanted))?;
        awaited.has_changed().is_ok().then_some(awaited)
    }
}

impl Lookups {
    /// Answers a question, or has it answered. Needs a tokio runtime.
    pub(super) fn begin(
        &self,
        (name, wanted): (&Name, Wanted),
        asker: Asker,
        (source, settings): (&Source, &DnsSettings),
        now_ns: fn() -> u64,
    ) -> Begun {
        let mut state = lock(&self.state);
        let now = now_ns();
        let mut asked = vec![wanted];
        if let Asker::Connector(upkeep, budget) = asker {
            let kept = |state: &State, wanted| {
                let kept = state.cache.get(name, wanted, upkeep, settings, now);
                kept.cloned()
            };
            if let Some(kept) = kept(&state, wanted) {
                return Begun::Kept(kept);
            }
            if let Some(awaited) = state.awaited(name, wanted) {
                return Begun::Awaited(awaited.clone());
            }
            if let Some((slot, per_minute)) = budget
                && !state.budget.spend(slot, per_minute, now)
            {
                return Begun::OverBudget;
            }
            if let Wanted::Addresses(_) = wanted {
                asked = Family::ALL.map(Wanted::Addresses).into();
                asked.retain(|&each| each == wanted || kept(&state, each).is_none());
            }
        }
        // In this order, whichever was asked for.
        for each in asked {
            if state.awaited(name, each).is_none() {
                let key = (name.clone(), each);
                let awaited = self.ask(&state, key.clone(), (source, settings), now_ns);
                state.under_way.insert(key, awaited);
            }
        }
        match state.awaited(name, wanted) {
            Some(awaited) => Begun::Awaited(awaited.clone()),
            None => Begun::OverBudget,
        }
    }

    /// Forgets what the servers said: others are asked from now on.
    pub(super) fn forget(&self) {
        let mut state = lock(&self.state);
        state.cache.clear();
        state.under_way.clear();
        state.generation = state.generation.wrapping_add(1);
    }

    fn ask(
        &self,
        state: &State,
        key: (Name, Wanted),
        (source, settings): (&Source, &DnsSettings),
        now_ns: fn() -> u64,
    ) -> Awaited {
        let (sender, awaited) = watch::channel(None);
        let (source, settings) = (source.clone(), settings.clone());
        let shared = Arc::clone(&self.state);
        let (room, generation) = (Arc::clone(&state.room), state.generation);
        let mut tasks = lock(&self.tasks);
        // Finished ones hold nothing.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let (name, wanted) = &key;
            // Never closed; without a permit nothing but the bound would be lost.
            let _permit = room.acquire().await.ok();
            let mut answer = source.lookup(name, *wanted, &settings, now_ns()).await;
            match &mut answer {
                Ok(Reply::Found(found)) => {
                    found.addresses.truncate(MAX_ADDRESSES);
                    found.real.truncate(MAX_ADDRESSES);
                }
                Ok(Reply::Offers(offers)) => offers.services.truncate(MAX_SERVICES),
                _ => {}
            }
            let kept = Kept {
                answer,
                came_ns: now_ns(),
            };
            let mut state = lock(&shared);
            if state.generation == generation {
                state.cache.put(name, *wanted, kept.clone());
                state.under_way.remove(&key);
            }
            drop(state);
            // Nobody waits any more: it is kept all the same.
            let _nobody = sender.send(Some(kept));
        });
        awaited
    }
}

/// The answer that is waited for.
pub(super) async fn wait(mut awaited: Awaited) -> Result<Kept, UpstreamError> {
    let came = awaited.wait_for(Option::is_some).await;
    let came = came.map_err(|_| UpstreamError::Timeout)?;
    came.clone().ok_or(UpstreamError::Timeout)
}

/// No panic can leave the books half written: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
