//! `tls:` and `ech:` of a rule: on which of its ports the name in the ClientHello counts.

use super::value;
use crate::policy::{
    fault::Findings,
    model::{PortSpan, Rule, Target},
    schema::{self, Long},
};

/// The port on which a host speaks TLS unless its rule says otherwise (RFC 9110 section
/// 4.2.2).
const HTTPS: PortSpan = PortSpan {
    first: 443,
    last: 443,
};

/// The ports of a rule on which names are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Checked {
    None,
    Https,
    All,
}

/// A rule as it was written.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Written {
    /// With all its ports.
    pub(super) rule: Rule,
    checked: Checked,
    /// Its `tls: require` stands in the file: without the layer for it nothing is to start.
    pub(super) insists: bool,
}

impl Written {
    /// A rule that says nothing about TLS.
    pub(super) fn silent(rule: Rule, deny: bool) -> Self {
        let checked = by_default(&rule, deny);
        Self {
            rule,
            checked,
            insists: false,
        }
    }

    /// A rule with what its `tls:` and `ech:` say.
    pub(super) fn said(mut rule: Rule, long: &Long, deny: bool, findings: &mut Findings) -> Self {
        let help = "write “tls: require” or “tls: off”";
        let tls = value::field("tls", &long.tls, help, findings);
        let ech = value::field(
            "ech",
            &long.ech,
            "write “ech: allow” or “ech: refuse”",
            findings,
        );
        let is_host = matches!(rule.target, Target::Host(_)) && !deny;
        let checked = match tls {
            Some(schema::Tls::Require) => Checked::All,
            Some(schema::Tls::Off) => Checked::None,
            None => by_default(&rule, deny),
        };
        let why = if !is_host {
            Some("belongs to “host” rules of “allow” only")
        } else if !rule.protocols.tcp {
            Some("belongs to rules for TCP only: QUIC is not looked into")
        } else {
            None
        };
        for (key, present) in [("tls", long.tls.is_some()), ("ech", long.ech.is_some())] {
            if let (Some(why), true) = (why, present) {
                findings.note_key(key, 0, format!("“{key}” {why}"), "remove it");
            }
        }
        if why.is_none() && long.ech.is_some() && checked == Checked::None {
            let message = "“ech” belongs to rules whose TLS is checked";
            findings.note_key("ech", 0, message, "remove it, or write “tls: require”");
        }
        rule.ech = ech == Some(&schema::Ech::Allow);
        Self {
            rule,
            checked,
            insists: tls == Some(&schema::Tls::Require),
        }
    }

    /// Ports on which no name is checked.
    pub(super) fn unchecked(&self) -> Vec<PortSpan> {
        match self.checked {
            Checked::None => self.rule.ports.clone(),
            Checked::Https => self.rule.ports.iter().flat_map(around_https).collect(),
            Checked::All => Vec::new(),
        }
    }

    /// The rule as the data plane takes it: in two where only some ports are checked, both
    /// with one id.
    pub(super) fn parts(self) -> impl Iterator<Item = Rule> {
        let Self { rule, checked, .. } = self;
        let (named, plain) = match checked {
            Checked::None => (None, Some(rule)),
            Checked::All => (Some(rule), None),
            Checked::Https => {
                let rest = Rule {
                    ports: rule.ports.iter().flat_map(around_https).collect(),
                    ech: false,
                    ..rule.clone()
                };
                let named = Rule {
                    ports: vec![HTTPS],
                    ..rule
                };
                (Some(named), Some(rest))
            }
        };
        let named = named.map(|rule| Rule { tls: true, ..rule });
        named.into_iter().chain(plain)
    }
}

fn by_default(rule: &Rule, deny: bool) -> Checked {
    let is_host = matches!(rule.target, Target::Host(_)) && !deny;
    if !is_host || !rule.protocols.tcp || !rule.ports.iter().any(|span| span.meets(&HTTPS)) {
        Checked::None
    } else if rule.ports == [HTTPS] {
        Checked::All
    } else {
        Checked::Https
    }
}

/// What a span holds besides the port of HTTPS.
fn around_https(span: &PortSpan) -> impl Iterator<Item = PortSpan> + use<> {
    let below = PortSpan {
        first: span.first,
        last: span.last.min(HTTPS.first - 1),
    };
    let above = PortSpan {
        first: span.first.max(HTTPS.last + 1),
        last: span.last,
    };
    [below, above]
        .into_iter()
        .filter(|span| span.first <= span.last)
}
