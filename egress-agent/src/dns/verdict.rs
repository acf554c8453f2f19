//! What a query gets, before anything is asked upstream. Pure.

use egress_common::verdict::Reason;

use std::net::IpAddr;

use super::{
    opening::{Opening, denier, openings},
    service::Asked,
    wire,
};
use crate::policy::{
    cover::{self, Cover, cover},
    model::{LOOKUPS_PER_MINUTE, Mode, Policy, Rule, Target},
    name::{HostPattern, Name},
};

/// The kinds of address record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// Both, in the order in which they are asked.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of a QTYPE.
    pub fn of(kind: u16) -> Option<Self> {
        match kind {
            wire::A => Some(Self::V4),
            wire::AAAA => Some(Self::V6),
            _ => None,
        }
    }
}

/// What is looked up for a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Wanted {
    /// Its addresses of one kind.
    Addresses(Family),
    /// Who offers a service (SRV records).
    Services,
}

impl Wanted {
    /// What a QTYPE asks for; `None`: what is never given.
    pub fn of(kind: u16) -> Option<Self> {
        match kind {
            wire::SRV => Some(Self::Services),
            kind => Family::of(kind).map(Self::Addresses),
        }
    }
}

/// What happens to a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The name is resolved and its addresses granted, through what the rules then leave open.
    Resolve {
        /// What for.
        wanted: Wanted,
        /// The place in `allow` of the rule whose budget pays for a look-up.
        rule: usize,
        /// The rule is a wildcard: asking upstream tells the zone's owner the labels.
        wildcard: bool,
    },
    /// A permitted name, asked for records that are never given: an empty answer.
    Empty,
    /// The name is not permitted.
    Refuse(Denial),
}

/// Why a name is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// The reason code.
    pub reason: Reason,
    /// Id of the rule that refused it, or whose bounds it broke.
    pub rule: Option<String>,
    /// The address that is left out of the answer.
    pub address: Option<IpAddr>,
    /// What is refused in particular, and what to do.
    pub message: Option<String>,
}

impl Denial {
    /// For a reason that says everything.
    pub const fn because(reason: Reason) -> Self {
        Self {
            reason,
            rule: None,
            address: None,
            message: None,
        }
    }

    /// The same, by a rule.
    pub fn by(reason: Reason, rule: Option<&Rule>) -> Self {
        Self {
            rule: rule.map(|rule| rule.id.clone()),
            ..Self::because(reason)
        }
    }
}

/// Decides a query by its name and QTYPE.
pub fn judge(policy: &Policy, name: &Name, kind: u16) -> Verdict {
    if kind == wire::SRV
        && let Some(asked) = Asked::of(name)
    {
        return judge_service(policy, name, &asked);
    }
    let openings = openings(policy, name);
    if openings.is_empty() {
        return Verdict::Refuse(not_open(policy, name));
    }
    let Some(family) = Family::of(kind) else {
        return Verdict::Empty;
    };
    let wanted = Wanted::Addresses(family);
    let (rule, wildcard) = match covered_by(policy, name, &openings) {
        Cover::Exact(rule) => (rule, false),
        Cover::Wildcard(rule) => (rule, true),
        Cover::TooLong(rule) => return Verdict::Refuse(too_long(policy, rule)),
    };
    Verdict::Resolve {
        wanted,
        rule,
        wildcard,
    }
}

/// Who offers a service may be asked where a rule covers the service's whole name, or the name
/// whose service it is; and `deny` leaves both open.
fn judge_service(policy: &Policy, name: &Name, asked: &Asked<'_>) -> Verdict {
    let open = |name: &Name, other: &Name| {
        let open = openings(policy, name).into_iter();
        let open = open.filter_map(|opening| opening.without_name(policy, other));
        open.collect::<Vec<_>>()
    };
    let (own, parents) = (open(name, &asked.parent), open(&asked.parent, name));
    let of_parent = (!parents.is_empty()).then(|| covered_by(policy, &asked.parent, &parents));
    let cover = match (own.is_empty(), of_parent) {
        (_, Some(cover @ Cover::Exact(_))) if asked.is_listed() => cover,
        (false, _) => covered_by(policy, name, &own),
        (true, Some(Cover::Exact(rule))) => {
            return Verdict::Refuse(Denial {
                message: Some(format!(
                    "`_{}` is no service that is asked for at a permitted name; a rule with host \
                     {name} permits the question",
                    asked.service
                )),
                ..Denial::by(Reason::NameNotAllowed, policy.allow.get(rule))
            });
        }
        _ => {
            let denied = [name, &asked.parent]
                .into_iter()
                .find_map(|name| denier(policy, name));
            return Verdict::Refuse(match denied {
                Some(rule) => Denial::by(Reason::DenyRule, Some(rule)),
                None => Denial::because(Reason::NameNotAllowed),
            });
        }
    };
    let (rule, wildcard) = match cover {
        Cover::Exact(rule) => (rule, false),
        Cover::Wildcard(rule) => (rule, true),
        Cover::TooLong(rule) => return Verdict::Refuse(too_long(policy, rule)),
    };
    Verdict::Resolve {
        wanted: Wanted::Services,
        rule,
        wildcard,
    }
}

/// The denial of a name that says more than one may below its wildcard. It never comes later.
pub fn too_long(policy: &Policy, rule: usize) -> Denial {
    Denial {
        message: Some(cover::too_long()),
        ..Denial::by(Reason::NameBudget, policy.allow.get(rule))
    }
}

/// The denial of a name for whose look-up nothing is left now.
pub fn over_budget(policy: &Policy, rule: usize) -> Denial {
    let rule = policy.allow.get(rule);
    let exact = matches!(
        rule.map(|rule| &rule.target),
        Some(Target::Host(HostPattern::Exact(_)))
    );
    let rate = rule.map_or(LOOKUPS_PER_MINUTE, |rule| rule.lookups_per_minute);
    Denial {
        message: Some(if exact {
            format!(
                "exact names have {LOOKUPS_PER_MINUTE} look-ups a minute together, beside those \
                 that keep them fresh; it works again in a moment"
            )
        } else {
            format!(
                "{rate} new names a minute, `lookups-per-minute` of the rule; it works again in a \
                 moment"
            )
        }),
        ..Denial::by(Reason::NameBudget, rule)
    }
}

/// Whether refusals are only reported.
pub fn audited(policy: &Policy) -> bool {
    policy.mode == Mode::Audit
}

/// The denial of a name that nothing is left open for.
pub fn not_open(policy: &Policy, name: &Name) -> Denial {
    match denier(policy, name) {
        Some(rule) => Denial::by(Reason::DenyRule, Some(rule)),
        None => Denial::because(Reason::NameNotAllowed),
    }
}

/// The cover of a name by the rules that leave something open for it.
pub(super) fn covered_by(policy: &Policy, name: &Name, openings: &[Opening]) -> Cover {
    let rules = openings.iter().filter_map(|opening| {
        let rule = policy.allow.get(opening.rule)?;
        Some((opening.rule, rule))
    });
    cover(rules, name).unwrap_or(Cover::Exact(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dns::tests::stub::{cidr, host, policy};

    const HTTPS: &[(u16, u16)] = &[(443, 443)];

    fn of(policy: &Policy, name: &str, kind: u16) -> Verdict {
        let name = Name::parse(name).unwrap_or_else(|error| unreachable!("{name} {error}"));
        judge(policy, &name, kind)
    }

    fn reason(verdict: Verdict) -> Option<(Reason, Option<String>)> {
        match verdict {
            Verdict::Refuse(denial) => Some((denial.reason, denial.rule)),
            _ => None,
        }
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let empty = policy(Vec::new());
        let addresses = policy(vec![cidr("0.0.0.0/0", HTTPS)]);
        for rules in [empty, addresses] {
            for kind in [wire::A, wire::AAAA, 12, 16, 255] {
                let told = reason(of(&rules, "7.113.0.203.in-addr.arpa", kind));
                assert_eq!(told, Some((Reason::NameNotAllowed, None)));
            }
        }
    }

    #[test]
    fn only_addresses_are_resolved() {
        let rules = policy(vec![host("api.example.com", HTTPS)]);
        for kind in 0..=u16::MAX {
            let verdict = of(&rules, "api.example.com", kind);
            match Family::of(kind) {
                Some(_) => assert!(matches!(
                    verdict,
                    Verdict::Resolve {
                        wildcard: false,
                        ..
                    }
                )),
                None => assert_eq!(verdict, Verdict::Empty),
            }
        }
    }

    #[test]
    fn deny_beats_allow_and_says_which_rule() {
        let mut rules = policy(vec![
            host("*.example.com", HTTPS),
            host("a.example.com", HTTPS),
        ]);
        rules.deny = vec![host("a.example.com", &[(1, 65535)])];
        let told = reason(of(&rules, "a.example.com", wire::A));
        assert_eq!(
            told,
            Some((Reason::DenyRule, Some("a.example.com".to_owned())))
        );
    }

    #[test]
    fn wildcards_are_bounded_and_exact_names_are_not() {
        let rules = policy(vec![
            host("*.example.com", HTTPS),
            host("*.deep.example.com", HTTPS),
            host("a.b.c.d.e.example.com", HTTPS),
        ]);
        let over = |id: &str| Some((Reason::NameBudget, Some(id.to_owned())));
        assert_eq!(reason(of(&rules, "a.b.c.d.example.com", wire::A)), None);
        assert_eq!(
            reason(of(&rules, "x.b.c.d.e.example.com", wire::A)),
            over("*.example.com")
        );
        assert_eq!(reason(of(&rules, "a.b.c.d.e.example.com", wire::A)), None);
        let longest = format!("{}.example.com", "x".repeat(63));
        assert_eq!(reason(of(&rules, &longest, wire::A)), None);
        let longer = format!("{}.y.example.com", "x".repeat(62));
        assert_eq!(reason(of(&rules, &longer, wire::A)), over("*.example.com"));
        // The nearer wildcard leaves fewer labels to choose.
        assert_eq!(
            reason(of(&rules, "a.b.c.d.deep.example.com", wire::A)),
            None
        );
    }

    proptest! {
        /// No name but those the rules mean, whatever is put around them.
        #[test]
        fn look_alikes_are_refused(prefix in "[a-z0-9-]{0,10}", suffix in "[a-z0-9-]{0,10}") {
            let rules = policy(vec![host("api.example.com", HTTPS), host("*.cdn.example", HTTPS)]);
            for base in ["api.example.com", "cdn.example"] {
                for name in [format!("{prefix}{base}{suffix}"), format!("{prefix}.{base}.{suffix}")] {
                    let Ok(parsed) = Name::from_ascii(name.as_bytes()) else { continue };
                    let permitted = !matches!(judge(&rules, &parsed, wire::A), Verdict::Refuse(_));
                    let meant = parsed.as_str() == "api.example.com"
                        || parsed.as_str().ends_with(".cdn.example");
                    prop_assert_eq!(permitted, meant, "{}", name);
                }
            }
        }
    }
}
