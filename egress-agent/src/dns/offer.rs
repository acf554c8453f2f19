//! Who offers a service: from the answer of a server to what is told of it.

use egress_common::verdict::Reason;

use super::{
    answer::Record,
    cache::Kept,
    chain::Offers,
    names::{Names, ResolveError, none},
    opening::denier,
    service::{self, Asked, Service},
    upstream::Reply,
    verdict::{Denial, Verdict, audited, judge},
    wire,
};
use crate::policy::name::Name;

/// Services that may be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Offered {
    /// Those whose target a rule permits; all of them where the policy is only audited.
    pub(super) services: Vec<Service>,
    /// The TTL to tell. Seconds.
    pub(super) ttl: u32,
    /// Why some or all are left out, or would be.
    pub(super) left_out: Option<Denial>,
}

impl Names {
    /// The services of an answer that the policy in force now lets be told.
    pub(super) fn offer(&self, name: &Name, kept: &Kept) -> Result<Offered, ResolveError> {
        let offers = offers(kept)?;
        let current = self.in_force();
        let policy = &current.policy;
        let offered = |services, left_out| Offered {
            services,
            ttl: kept.term(&policy.dns).left(kept.age((self.now_ns)())),
            left_out,
        };
        let all = || offers.services.clone();
        let refused = |denial: Denial| {
            if audited(policy) {
                return Ok(offered(all(), Some(denial)));
            }
            Err(ResolveError::Denied(denial))
        };
        if let Verdict::Refuse(denial) = judge(policy, name, wire::SRV) {
            return refused(denial);
        }
        let mut denied = offers.aliases.iter().filter_map(|it| denier(policy, it));
        if let Some(rule) = denied.next() {
            return refused(Denial::by(Reason::DenyRule, Some(rule)));
        }
        let protocol = Asked::of(name).map_or(0, |asked| asked.protocol);
        let (permitted, others) = service::permitted(policy, protocol, &offers.services);
        let left_out = (!others.is_empty()).then(|| Denial {
            message: Some(service::advice(&others)),
            ..Denial::because(Reason::ServiceTarget)
        });
        match left_out {
            Some(denial) if permitted.is_empty() => refused(denial),
            left_out if audited(policy) => Ok(offered(all(), left_out)),
            left_out => Ok(offered(permitted, left_out)),
        }
    }

    /// The same of a name that the policy does not permit, where it is only audited.
    pub(super) fn offer_unchecked(
        &self,
        kept: &Kept,
        denial: Denial,
    ) -> Result<Offered, ResolveError> {
        Ok(Offered {
            services: offers(kept)?.services.clone(),
            ttl: kept
                .term(&self.current().policy.dns)
                .left(kept.age((self.now_ns)())),
            left_out: Some(denial),
        })
    }
}

/// The services of an answer that has some.
fn offers(kept: &Kept) -> Result<&Offers, ResolveError> {
    match &kept.answer {
        Ok(Reply::Offers(offers)) => Ok(offers),
        answer => Err(none(answer)),
    }
}

/// A service as an answer carries it; `None` where the target is no host name.
pub(super) fn record(service: Service) -> Option<Record> {
    Some(Record::Service {
        priority: service.priority,
        weight: service.weight,
        port: service.port,
        target: service.target.ok()?,
    })
}

/// What programs that ask for such records do without them.
pub(super) fn advice(kind: u16) -> Option<&'static str> {
    match kind {
        wire::TXT => Some(
            "no text is ever told; options that a service puts there (mongodb+srv: authSource, \
             replicaSet) go into the connection string",
        ),
        wire::MX => Some("name the mail server in the program's settings, and in a rule"),
        wire::SRV => Some("services are asked for as _service._tcp.NAME or _service._udp.NAME"),
        _ => None,
    }
}
