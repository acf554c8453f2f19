//! What was answered lately, for as long as it is granted. Pure; time is an argument.
//!
//! What is kept is the upstream's answer as it came. It is judged by the policy in force and
//! granted again each time it is told, to the end that it had from the beginning.

use std::{collections::HashMap, time::Duration};

use super::{
    lease::{Term, term},
    upstream::{Reply, UpstreamError},
    verdict::{Family, Wanted},
};
use crate::policy::{model::DnsSettings, name::Name};

/// Names kept at once.
pub const MAX_NAMES: usize = 2048;
/// How long a failure is kept: not asking a broken server more often is RFC 9520 section 3.2.
pub const FAILED: Duration = Duration::from_secs(1);
/// Nothing is kept for less.
const SHORTEST: Duration = Duration::from_secs(1);

/// One answer.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What came.
    pub answer: Result<Reply, UpstreamError>,
    /// When. Boot clock, nanoseconds.
    pub came_ns: u64,
}

/// Who keeps a name's answer from growing old.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upkeep {
    /// The refresher asks for it by its own clock. Meanwhile it is told as long as it is granted,
    /// so that no question of the connector's ever goes upstream for it.
    Refreshed,
    /// Nobody: it is told for the TTL that was told first.
    Asked,
}

/// Answers by name and what was asked for.
#[derive(Debug, Default)]
pub struct Cache {
    names: HashMap<Name, Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    v4: Option<Kept>,
    v6: Option<Kept>,
    services: Option<Kept>,
}

impl Cache {
    /// Keeps an answer in the place of the one before. Where there is no room, the name goes
    /// whose answer is oldest.
    pub fn put(&mut self, name: &Name, wanted: Wanted, kept: Kept) {
        if self.names.len() >= MAX_NAMES && !self.names.contains_key(name) {
            let oldest = self
                .names
                .iter()
                .min_by_key(|(_, answers)| answers.newest());
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.names.remove(&oldest);
            }
        }
        let answers = self.names.entry(name.clone()).or_default();
        *answers.slot(wanted) = Some(kept);
    }

    /// The answer for a name, if it is good now.
    pub fn get(
        &self,
        name: &Name,
        wanted: Wanted,
        upkeep: Upkeep,
        settings: &DnsSettings,
        now_ns: u64,
    ) -> Option<&Kept> {
        let Answers { v4, v6, services } = self.names.get(name)?;
        let (own, other) = match wanted {
            Wanted::Addresses(Family::V4) => (v4, v6),
            Wanted::Addresses(Family::V6) => (v6, v4),
            Wanted::Services => (services, &None),
        };
        let own = own.as_ref()?;
        let good = own.is_good(upkeep, settings, now_ns)
            // A name that has addresses of the other kind alone: that holds as long as those.
            || matches!(own.answer, Ok(Reply::NoData))
                && other.as_ref().is_some_and(|other| {
                    matches!(other.answer, Ok(Reply::Found(_)))
                        && other.is_good(upkeep, settings, now_ns)
                });
        good.then_some(own)
    }

    /// Forgets everything: another server may say otherwise.
    pub fn clear(&mut self) {
        self.names.clear();
    }
}

impl Kept {
    /// How long it is good for, from when it came.
    pub fn term(&self, settings: &DnsSettings) -> Term {
        term(
            match &self.answer {
                Ok(Reply::Found(found)) => found.ttl,
                Ok(Reply::Offers(offers)) => offers.ttl,
                _ => 0,
            },
            settings,
        )
    }

    /// How old it is.
    pub fn age(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(now_ns.saturating_sub(self.came_ns))
    }

    fn is_good(&self, upkeep: Upkeep, settings: &DnsSettings, now_ns: u64) -> bool {
        let term = self.term(settings);
        let told = Duration::from_secs(u64::from(term.ttl)).max(SHORTEST);
        let lasts = match (&self.answer, upkeep) {
            (Err(_), _) => FAILED,
            (Ok(Reply::Found(_)), Upkeep::Refreshed) => {
                told.max(term.lease.saturating_sub(2 * SHORTEST))
            }
            (Ok(_), _) => told,
        };
        self.age(now_ns) < lasts
    }
}

impl Answers {
    const fn slot(&mut self, wanted: Wanted) -> &mut Option<Kept> {
        match wanted {
            Wanted::Addresses(Family::V4) => &mut self.v4,
            Wanted::Addresses(Family::V6) => &mut self.v6,
            Wanted::Services => &mut self.services,
        }
    }

    fn newest(&self) -> u64 {
        let all = [&self.v4, &self.v6, &self.services];
        let came = all.into_iter().flatten().map(|kept| kept.came_ns);
        came.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::chain::Found;

    const V4: Wanted = Wanted::Addresses(Family::V4);
    const V6: Wanted = Wanted::Addresses(Family::V6);
    const SECOND: u64 = 1_000_000_000;

    fn name(number: usize) -> Name {
        Name::parse(&format!("n{number}.example.com"))
            .unwrap_or_else(|error| unreachable!("{error}"))
    }

    fn found(ttl: u32, came_ns: u64) -> Kept {
        Kept {
            answer: Ok(Reply::Found(Found {
                ttl,
                ..Found::default()
            })),
            came_ns,
        }
    }

    /// Seconds after which an answer is not told any more.
    fn lasts(kept: Kept, upkeep: Upkeep) -> u64 {
        let mut cache = Cache::default();
        cache.put(&name(0), V4, kept);
        let settings = DnsSettings::default();
        let good = |second: &u64| {
            let at = second * SECOND;
            cache.get(&name(0), V4, upkeep, &settings, at).is_some()
        };
        (0..10_000).take_while(good).count() as u64
    }

    #[test]
    fn answers_last_for_what_was_told_of_them() {
        assert_eq!(lasts(found(300, 0), Upkeep::Asked), 300);
        assert_eq!(lasts(found(0, 0), Upkeep::Asked), 30, "the floor");
        assert_eq!(
            lasts(found(u32::MAX, 0), Upkeep::Asked),
            3600,
            "the ceiling"
        );
        assert_eq!(lasts(found(300, 0), Upkeep::Refreshed), 328, "the lease");
        for reply in [Reply::NoData, Reply::NxDomain] {
            let kept = Kept {
                answer: Ok(reply),
                came_ns: 0,
            };
            assert_eq!(lasts(kept, Upkeep::Asked), 30);
        }
        let failed = Kept {
            answer: Err(UpstreamError::Timeout),
            came_ns: 0,
        };
        assert_eq!(lasts(failed.clone(), Upkeep::Asked), 1);
        assert_eq!(lasts(failed, Upkeep::Refreshed), 1);
    }

    #[test]
    fn having_none_of_a_kind_lasts_as_long_as_the_other_kind() {
        let mut cache = Cache::default();
        cache.put(&name(0), V4, found(300, 0));
        let none = Kept {
            answer: Ok(Reply::NoData),
            came_ns: 0,
        };
        cache.put(&name(0), V6, none);
        let settings = DnsSettings::default();
        let good = |at| {
            let kept = cache.get(&name(0), V6, Upkeep::Asked, &settings, at * SECOND);
            kept.is_some()
        };
        assert!(good(299) && !good(301));
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut cache = Cache::default();
        for number in 0..=MAX_NAMES {
            cache.put(&name(number), V4, found(3600, number as u64));
        }
        assert_eq!(cache.names.len(), MAX_NAMES);
        let settings = DnsSettings::default();
        let get = |number| cache.get(&name(number), V4, Upkeep::Asked, &settings, 0);
        assert!(get(0).is_none() && get(1).is_some() && get(MAX_NAMES).is_some());
    }
}
