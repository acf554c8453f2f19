//! What is left out of an answer, and the key of the policy that would let it pass. Pure.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use egress_common::verdict::Reason;

use super::{opening::Opening, verdict::Denial, verdict::Family};
use crate::policy::{
    model::{Policy, Target},
    name::{HostPattern, Name},
    special::{self, AddressClass},
};

/// An address that is not granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub why: Why,
}

/// Why an address is not granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// It points inside, and no rule takes that.
    Inside {
        /// How far inside.
        class: AddressClass,
        /// It is this host's own, or leads there.
        own: bool,
        /// What a translator makes of it.
        behind: Option<Ipv4Addr>,
    },
    /// A `deny:` prefix covers it on every port of the rules; that rule's id.
    Denied(Option<String>),
    /// Requests to a name at this address are judged, by the rule with this id: a connection of the
    /// connector's own would go round that.
    Judged(String),
    /// There was no room for all its ports.
    Excess,
}

/// The denial of addresses that are left out of a name's answer; `None` where none is. The worst
/// reason counts: what no key permits last, because another address may be permitted by one.
pub fn denial(policy: &Policy, openings: &[Opening], dropped: &[Dropped]) -> Option<Denial> {
    let first = dropped.iter().min_by_key(|one| match &one.why {
        Why::Excess => 0,
        Why::Denied(_) | Why::Judged(_) => 1,
        Why::Inside { class, .. } if *class < AddressClass::Never => 2,
        Why::Inside { .. } => 3,
    })?;
    let rules = || openings.iter().filter_map(|it| policy.allow.get(it.rule));
    // The rule to which a key would be added.
    let rule = rules()
        .find(|rule| !rule.private)
        .or_else(|| rules().next());
    let public = rules().all(|rule| rule.target == Target::Host(HostPattern::Public));
    let address = first.address;
    let (reason, concerned, said) = match &first.why {
        Why::Excess => (
            Reason::TableFull,
            rule.map(|rule| rule.id.clone()),
            format!(
                "{address} found no room: fewer ports in the rules leave room for more addresses"
            ),
        ),
        Why::Denied(id) => (
            Reason::DenyRule,
            id.clone(),
            format!("{address} is covered by `deny`: narrow that rule if it is meant"),
        ),
        Why::Judged(id) => (
            Reason::DenyRule,
            Some(id.clone()),
            format!(
                "requests to a host at {address} are judged (“inspect”), and a connection there would \
                 go round that: add “inspect” to this name's rule as well, with “mode: report” if it \
                 is only to be carried"
            ),
        ),
        Why::Inside { class, own, behind } => (
            Reason::PrivateAnswer,
            rule.map(|rule| rule.id.clone()),
            format!(
                "{address} {}: {}",
                what(address, *own, *behind),
                remedy(address, *class, public)
            ),
        ),
    };
    let more = match dropped.len().saturating_sub(1) {
        0 => String::new(),
        more => format!(" ({more} more addresses of the answer are left out)"),
    };
    Some(Denial {
        reason,
        rule: concerned,
        address: Some(address),
        message: Some(format!("{said}{more}")),
    })
}

fn what(address: IpAddr, own: bool, behind: Option<Ipv4Addr>) -> String {
    if address.is_unspecified() {
        return "leads nowhere".to_owned();
    }
    let place = |address| match special::of(address) {
        Some(special) => format!("leads to {}", special.what),
        None if own => "is an address of this host".to_owned(),
        None => "is taken for no public one".to_owned(),
    };
    match behind {
        Some(v4) => format!("is translated to {v4}, which {}", place(v4.into())),
        None => place(address),
    }
}

fn remedy(address: IpAddr, class: AddressClass, public: bool) -> &'static str {
    if class == AddressClass::Never {
        return if address.is_unspecified() {
            "DNS servers that filter answer so; no key takes it"
        } else {
            "no key of a host rule takes it; a `cidr` rule with the address does, if it is meant"
        };
    }
    match (address, public) {
        (_, true) => "a `host` rule of its own for the name, with `private: true`, takes it",
        // What proxies in TUN mode answer for every name.
        (IpAddr::V4(v4), _) if matches!(v4.octets(), [198, 18 | 19, ..]) => {
            "`private: true` on the rule takes it (a VPN or proxy that answers every name with \
             such an address resolves names itself)"
        }
        _ => "`private: true` on the rule takes it, if the name is meant to be inside",
    }
}

/// What was said of answers that are told without some of their addresses: such a line is not
/// repeated with every question.
#[derive(Debug, Default)]
pub(super) struct Said(HashMap<(Name, Family, IpAddr), u64>);

impl Said {
    /// How long it is not repeated. Nanoseconds.
    const AGAIN: u64 = 60_000_000_000;
    /// Most that is remembered.
    const MOST: usize = 1024;

    /// Whether it is to be said now.
    pub(super) fn first(&mut self, name: &Name, address: IpAddr, now_ns: u64) -> bool {
        let family = match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        let key = (name.clone(), family, address);
        let last = self.0.get(&key);
        if last.is_some_and(|&last| now_ns.saturating_sub(last) < Self::AGAIN) {
            return false;
        }
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(key, now_ns);
        true
    }
}
