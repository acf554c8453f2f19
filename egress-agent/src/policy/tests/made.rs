//! Policies from drawn rules, for the properties.

use egress_common::abi::RULE_FIRST;
use proptest::prelude::*;

use super::oracle::ENFORCED;
use crate::policy::{
    Policy, Tables, compile,
    model::{DnsSettings, Listen, Mode, PortSpan, Rule},
    tables::Memory,
};

/// A policy with nothing but these rules.
pub(super) fn made(allow: Vec<Rule>, deny: Vec<Rule>, listen: Vec<Listen>) -> Policy {
    Policy {
        connector: "x".into(),
        mode: Mode::Enforce,
        allow,
        deny,
        listen,
        dns: DnsSettings::default(),
        content: None,
        on_violation: egress_envelope::judge::OnViolation::Refuse,
        run: None,
        proxy: crate::policy::proxy::Choice::Caller,
        starters: crate::policy::model::Starters::default(),
        pin: Vec::new(),
        require: Vec::new(),
        start: crate::policy::model::Start::Lenient,
        source: "p.yaml".into(),
    }
}

/// The tables of a policy as connector 7's; `None` where they do not fit: too many ranges under
/// one prefix, which is rare, and refused, which is right.
pub(super) fn installed(policy: &Policy) -> Option<(Tables, Memory)> {
    let tables = compile(policy, 7, RULE_FIRST).ok()?;
    let mut memory = Memory::default();
    memory.install(&tables, ENFORCED);
    Some((tables, memory))
}

/// A rule's ports.
pub(super) fn spans<S: Strategy<Value = u16>>(
    port: fn() -> S,
) -> impl Strategy<Value = Vec<PortSpan>> {
    let span = (port(), port()).prop_map(|(one, other)| PortSpan {
        first: one.min(other),
        last: one.max(other),
    });
    prop::collection::vec(span, 1..3)
}
