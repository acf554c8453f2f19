//! Addresses where the table has no recipient: lists of header fields, models of templates, fields
//! that the service has and the table does not know. What nobody named may not stand there.
//!
//! Content is left out, whatever it quotes: nobody is written to by it. So are senders that the
//! operator set, in every setting.

use crate::{
    judge::{Inspect, Judged, Origin, Reason, Refusal},
    keys,
    ledger::Ledger,
    mail,
    value::Kind,
};

/// Keys of content: what it says is for those who get it.
const CONTENT: [&str; 12] = [
    "amp-html",
    "body",
    "bodypreview",
    "comment",
    "content",
    "html",
    "htmlbody",
    "htmlpart",
    "plain",
    "text",
    "textbody",
    "textpart",
];
/// Keys of content that is one line.
const LINES: [&str; 1] = ["subject"];
/// Keys under which content stands, below one of its own keys.
const BELOW: [&str; 3] = ["content", "data", "value"];

impl Inspect {
    /// Judges a text of the body at a place that is no recipient's.
    pub(crate) fn stray(&self, place: &[&str], text: &str, ledger: &Ledger, judged: &mut Judged) {
        let mut said = Vec::new();
        match content(place) {
            Some(true) if text.contains(['\r', '\n', '\0']) => {
                said.push((
                    Reason::TwoReadings,
                    "a subject of several lines".to_owned(),
                    None,
                ));
            }
            Some(_) => return,
            None => {
                let refused = |value: &str| {
                    judged
                        .operation
                        .recipients
                        .iter()
                        .any(|it| it.value == value)
                        || judged
                            .refusals
                            .iter()
                            .any(|it| it.value.as_deref() == Some(value))
                };
                let place = format!("/{}", place.join("/"));
                match mail::within(text) {
                    _ if refused(text) => {}
                    None => said.push((Reason::AddressElsewhere, place, Some(text.to_owned()))),
                    Some(found) => {
                        for value in found {
                            let origin = self.origin(Kind::Mail, &value, ledger);
                            let named = origin == Origin::Operator || self.permits(&origin);
                            if !named && !refused(&value) {
                                said.push((Reason::AddressElsewhere, place.clone(), Some(value)));
                            }
                        }
                    }
                }
            }
        }
        judged
            .refusals
            .extend(said.into_iter().map(|(reason, place, value)| Refusal {
                reason,
                place: Some(place),
                value,
            }));
    }
}

/// Whether a place holds content, and whether that is one line.
fn content(place: &[&str]) -> Option<bool> {
    let mut steps = place.iter().rev().map(|step| keys::folded(step));
    let last = steps.next()?;
    let is = |key: &str| {
        let line = LINES.contains(&key);
        (line || CONTENT.contains(&key)).then_some(line)
    };
    let above = steps.next().filter(|_| BELOW.contains(&last.as_str()));
    above.and_then(|key| is(&key)).or_else(|| is(&last))
}
