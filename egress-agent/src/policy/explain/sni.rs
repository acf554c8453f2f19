//! What the kernel makes of a name in a TLS ClientHello: its own reader of names, and its own
//! verdict on them.

use egress_common::{
    abi::RULE_NONE,
    hello::{self, Payload},
    sni::{NAME_ROOM, NameKey, NameQuery, by_name},
    verdict::{Action, Reason, Verdict},
};

use super::{near, story::CONNECTOR};
use crate::policy::{fault::quote, model::Policy, name::Name, tables::Memory};

/// The verdict on a name at a port. An empty one stands for a hello without any.
pub(super) fn verdict(memory: &Memory, name: &str, port: u16) -> Verdict {
    let octets = Octets(name.as_bytes());
    let mut key = NameKey {
        connector: u16::try_from(CONNECTOR).unwrap_or(0),
        name: [0; NAME_ROOM],
    };
    let form = match u32::try_from(name.len()) {
        Ok(0) => Reason::SniMissing,
        Ok(len) if name.len() < NAME_ROOM => hello::name(&octets, 0, len, &mut key),
        _ => Reason::SniMalformed,
    };
    if form != Reason::None {
        return Verdict {
            action: Action::Deny,
            reason: form,
            rule: RULE_NONE,
        };
    }
    let query = NameQuery {
        bits: NameKey::ALL_BITS,
        key,
    };
    by_name(&query, port, false, memory)
}

/// Rules that come close to a name that was refused.
pub(super) fn near(policy: &Policy, name: &str) -> Vec<String> {
    let Ok(name) = Name::parse(name) else {
        return Vec::new();
    };
    let own: Vec<_> = policy.rules_for(&name).map(|(_, rule)| rule).collect();
    if own.is_empty() {
        let rules = policy.written();
        return rules.filter_map(|rule| near::kin(rule, &name)).collect();
    }
    let permitted = |rule: &&_| format!("{name} may be said on {}", near::ports(rule));
    own.iter().map(permitted).collect()
}

/// What to say where no name is asked for.
pub(super) fn unasked(name: &str) -> String {
    format!(
        "no name is asked for there, so {} makes no difference",
        quote(name)
    )
}

struct Octets<'a>(&'a [u8]);

impl Payload for Octets<'_> {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = usize::try_from(offset).ok()?;
        let bytes = self.0.get(start..start.checked_add(N)?)?;
        bytes.try_into().ok()
    }
}
