//! The verdict on a request: which operation it is, who gets something by it, and whether that is
//! right.
//!
//! Of bodies it reads JSON. An operation with recipients in a body of another kind is refused.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    head::{Framing, Head},
    json,
    judge::{Inspect, Judged, Next, Operation, Reason, Recipient, Refusal, Unlisted},
    ledger::Ledger,
    service::{Body, OperationRule, Place, Template},
    value::{Kind, canonical},
};

fn refusal(reason: Reason, place: Option<&str>, value: Option<&str>) -> Refusal {
    Refusal {
        reason,
        place: place.map(str::to_owned),
        value: value.map(str::to_owned),
    }
}

impl Inspect {
    /// The verdict on a head, before the body is there. `name` and `port`: where the connection
    /// goes, by the address that was called.
    pub fn head(&self, head: &Head, name: &str, port: u16) -> Next {
        let other = head.authority.port.is_some_and(|said| said != port);
        if head.authority.host != name || other {
            let value = Some(head.authority.host.as_str());
            return Next::Refuse(refusal(Reason::AuthorityMismatch, Some("host"), value));
        }
        if let Some(upgrade) = &head.upgrade {
            return Next::Refuse(refusal(Reason::Upgrade, None, Some(upgrade)));
        }
        let candidates = self.service.candidates(&head.method, &head.path);
        if candidates.is_empty() {
            return match self.unlisted {
                Unlisted::Refuse => Next::Refuse(refusal(Reason::UnlistedOperation, None, None)),
                Unlisted::Report => Next::Pass,
            };
        }
        let judged = candidates
            .iter()
            .any(|it| it.body != Body::Any || is_in_body(it));
        if !judged || matches!(head.framing, Framing::None | Framing::Length(0)) {
            return Next::Pass;
        }
        Next::Body {
            most: usize::try_from(self.limits.body).unwrap_or(usize::MAX),
        }
    }

    /// The verdict on a whole request. Where [`Inspect::head`] let it pass, `body` is empty.
    pub fn body(&self, head: &Head, body: &[u8], ledger: &Ledger) -> Judged {
        let mut judged = Judged {
            operation: Operation::of(head, body, ledger),
            refusals: Vec::new(),
        };
        let candidates = self.service.candidates(&head.method, &head.path);
        let Some(rule) = candidates.first() else {
            if self.unlisted == Unlisted::Refuse {
                judged
                    .refusals
                    .push(refusal(Reason::UnlistedOperation, None, None));
            }
            return judged;
        };
        let document = match candidates.len() {
            1 => document(rule, head, body),
            _ => Err("several operations with this path"),
        };
        let document = match document {
            Ok(document) => document,
            Err(why) => {
                judged
                    .refusals
                    .push(refusal(Reason::UnreadableBody, Some(why), None));
                return judged;
            }
        };
        judged.operation.id = Some(rule.id.clone());
        for (kind, place) in rule.places() {
            match values(rule, head, document.as_ref(), place) {
                Ok(texts) => {
                    for text in texts {
                        self.recipient(kind, place, &text, ledger, &mut judged);
                    }
                }
                Err(refusal) => judged.refusals.push(refusal),
            }
        }
        judged
    }

    fn recipient(&self, kind: Kind, place: &str, text: &str, ledger: &Ledger, judged: &mut Judged) {
        if text.trim().is_empty() {
            return;
        }
        let values = canonical(kind, text);
        if values.is_empty() {
            let unread = refusal(Reason::UnreadableRecipient, Some(place), Some(text));
            judged.refusals.push(unread);
        }
        for value in values {
            let origin = self.origin(kind, &value, ledger);
            if !self.permits(&origin) {
                let reason = Reason::of(self.recipients);
                judged
                    .refusals
                    .push(refusal(reason, Some(place), Some(&value)));
            }
            judged.operation.recipients.push(Recipient {
                kind,
                value,
                place: place.to_owned(),
                origin,
            });
        }
    }
}

fn is_in_body(rule: &OperationRule) -> bool {
    rule.places()
        .any(|(_, place)| Place::parse(place).is_ok_and(|place| place.is_in_body()))
}

/// The body where it is to be read.
fn document(rule: &OperationRule, head: &Head, body: &[u8]) -> Result<Option<Value>, &'static str> {
    match rule.body {
        Body::Any if !is_in_body(rule) => return Ok(None),
        _ if body.is_empty() && head.framing != Framing::Stream => return Ok(None),
        Body::Json => {}
        Body::None => return Err("a body where the table has none"),
        _ => return Err("a body of a kind that this version does not read"),
    }
    if head
        .values("content-encoding")
        .any(|it| !it.eq_ignore_ascii_case("identity"))
    {
        return Err("a content encoding");
    }
    let mut types = head.values("content-type");
    let kind = types
        .next()
        .unwrap_or("application/json")
        .to_ascii_lowercase();
    let mut parts = kind.split(';').map(str::trim);
    let json = parts
        .next()
        .is_some_and(|it| it == "application/json" || it.ends_with("+json"));
    let utf8 = parts.all(|it| matches!(it, "charset=utf-8" | "charset=\"utf-8\"" | ""));
    if !json || !utf8 {
        return Err("a content type that is not JSON in UTF-8");
    }
    json::read(body).map(Some)
}

/// The texts at a place.
fn values(
    rule: &OperationRule,
    head: &Head,
    document: Option<&Value>,
    place: &str,
) -> Result<Vec<String>, Refusal> {
    let unread = |why: &str| refusal(Reason::UnreadableBody, Some(why), None);
    let parsed = Place::parse(place).map_err(|_| unread("a place in the table that is none"))?;
    let mut found = Vec::new();
    match &parsed {
        Place::Field(steps) => {
            if let Some(document) = document {
                json::at(document, steps, &mut found);
            }
            let first = steps.first().map(String::as_str).unwrap_or_default();
            if query(head).any(|(name, _)| name.eq_ignore_ascii_case(first)) {
                let reason = Reason::TwoReadings;
                return Err(refusal(
                    reason,
                    Some("a query that says what the body says"),
                    None,
                ));
            }
        }
        Place::Mime(_) | Place::Transaction(_) => {
            return Err(unread("a place that this version does not read"));
        }
        Place::Path(name) => {
            let template = Template::parse(&rule.path).ok();
            let variables = template.as_ref().and_then(|it| it.matches(&head.path));
            let own = variables
                .into_iter()
                .flatten()
                .filter(|(own, _)| own == name);
            found.extend(own.map(|(_, value)| decoded(value, false)));
        }
        Place::Query(name) => {
            let own = query(head).filter(|(own, _)| own.eq_ignore_ascii_case(name));
            found.extend(own.map(|(_, value)| value));
        }
        Place::Header(name) => found.extend(head.values(name).map(str::to_owned)),
    }
    Ok(found)
}

/// Names and values of a query, each without its escapes.
fn query(head: &Head) -> impl Iterator<Item = (String, String)> {
    let query = head.query.as_deref().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name, true), decoded(value, true))
    })
}

/// Without escapes; what is no escape or no UTF-8 stays as it is, and so is no value.
fn decoded(text: &str, plus: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escape = after
            .get(..2)
            .filter(|it| byte == b'%' && it.iter().all(u8::is_ascii_hexdigit));
        let escape = escape.and_then(|it| std::str::from_utf8(it).ok());
        match escape.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if plus && byte == b'+' { b' ' } else { byte });
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

impl Operation {
    fn of(head: &Head, body: &[u8], ledger: &Ledger) -> Self {
        let names: HashSet<&String> = head.fields.iter().map(|(name, _)| name).collect();
        let mut headers: Vec<String> = names.into_iter().cloned().collect();
        headers.sort();
        Self {
            id: None,
            method: head.method.clone(),
            path: head.path.clone(),
            recipients: Vec::new(),
            headers,
            body: u64::try_from(body.len()).unwrap_or(u64::MAX),
            call: ledger.in_flight().next().cloned(),
        }
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
