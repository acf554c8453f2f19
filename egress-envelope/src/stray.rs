//! Addresses where the table has no recipient: lists of header fields, models of templates, fields
//! that the service has and the table does not know. What nobody named may not stand there.
//!
//! Content is left out, whatever it quotes: nobody is written to by it. So are senders that the
//! operator set, in every setting.

use std::collections::HashSet;

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
/// Keys of what is one line: subjects, and the names of parts and of other mails.
const LINES: [&str; 8] = [
    "content_id",
    "contentid",
    "h:in-reply-to",
    "h:message-id",
    "h:references",
    "in-reply-to",
    "references",
    "subject",
];
/// Keys under which content stands, below one of its own keys.
const BELOW: [&str; 3] = ["content", "data", "value"];

/// What was said of a body already, and what is to be said besides.
pub(crate) struct Said {
    known: HashSet<String>,
    pub(crate) refusals: Vec<Refusal>,
}

impl Said {
    /// What recipients and refusals say from these on.
    pub(crate) fn of(judged: &Judged, (recipients, refusals): (usize, usize)) -> Self {
        let values = judged.operation.recipients.iter().skip(recipients);
        let refused = judged.refusals.iter().skip(refusals);
        let values = values.map(|it| it.value.clone());
        let refused = refused.filter_map(|it| it.value.clone());
        Self {
            known: values.chain(refused).collect(),
            refusals: Vec::new(),
        }
    }

    fn push(&mut self, reason: Reason, place: &str, value: Option<String>) {
        self.refusals.push(Refusal {
            reason,
            place: Some(place.to_owned()),
            value,
        });
    }
}

impl Inspect {
    /// Judges a text of the body at a place that is no recipient's.
    pub(crate) fn stray(&self, place: &[&str], text: &str, ledger: &Ledger, said: &mut Said) {
        match content(place) {
            Some(true) if text.contains(ends_line) => {
                said.push(Reason::TwoReadings, "a line that is several", None);
            }
            Some(_) => {}
            None => self.elsewhere(&format!("/{}", place.join("/")), text, ledger, said),
        }
    }

    /// Judges a text that is no content at a place that is no recipient's.
    pub(crate) fn elsewhere(&self, place: &str, text: &str, ledger: &Ledger, said: &mut Said) {
        if said.known.contains(text) {
            return;
        }
        let Some(found) = mail::within(text) else {
            said.push(Reason::AddressElsewhere, place, Some(text.to_owned()));
            return;
        };
        for value in found {
            if said.known.contains(&value) {
                continue;
            }
            let origin = self.origin(Kind::Mail, &value, ledger);
            if origin != Origin::Operator && !self.permits(&origin) {
                said.known.insert(value.clone());
                said.push(Reason::AddressElsewhere, place, Some(value));
            }
        }
    }
}

/// What ends a line for some server: Python takes more for that than others.
fn ends_line(c: char) -> bool {
    c != '\t' && c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
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
