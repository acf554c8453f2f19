//! What was judged, in the words of events. Pure.

use egress_envelope::judge::{Origin, Recipient};
use serde::Serialize;

use crate::event::model;

/// A recipient and where it came from.
pub(super) fn recipient(recipient: Recipient) -> model::Recipient {
    let (origin, named) = match recipient.origin {
        Origin::Call { tool, place, .. } => ("call", Some(format!("{tool} {place}"))),
        Origin::Operator => ("operator", None),
        Origin::Service => ("service", None),
        Origin::Listed => ("listed", None),
        Origin::Nowhere => ("nowhere", None),
    };
    model::Recipient {
        kind: name(&recipient.kind),
        value: recipient.value,
        place: recipient.place,
        origin: origin.to_owned(),
        named,
    }
}

/// The name of a plain variant, as it is written in policies.
pub(super) fn name(variant: &impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "other".to_owned(),
    }
}
