//! The verdict on a request: which operation it is, who gets something by it, and whether that is
//! right.

use std::collections::HashSet;

use crate::{
    content, credential,
    document::Document,
    encoding,
    head::{Framing, Head},
    judge::{Inspect, Judged, Next, Operation, Reason, Recipient, Refusal, Unlisted},
    ledger::Ledger,
    query,
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
        if candidates.is_empty() {
            if self.unlisted == Unlisted::Refuse {
                judged
                    .refusals
                    .push(refusal(Reason::UnlistedOperation, None, None));
            }
            return judged;
        }
        judged
            .refusals
            .extend(query::plain(head, &candidates).err());
        let (rules, document) = match fitting(candidates, head, body, self.limits.body) {
            Ok(read) => read,
            Err(why) => {
                let unread = refusal(Reason::UnreadableBody, Some(why), None);
                judged.refusals.push(unread);
                return judged;
            }
        };
        judged.operation.id = rules.first().map(|rule| rule.id.clone());
        // Of several that it can be each says who gets something.
        for rule in &rules {
            for (kind, place) in rule.places() {
                match values(rule, head, &document, place) {
                    Ok(texts) => {
                        for text in texts {
                            self.recipient(kind, place, &text, ledger, &mut judged);
                        }
                    }
                    Err(refusal) => judged.refusals.push(refusal),
                }
            }
            for place in &self.service.credentials {
                match values(rule, head, &document, place) {
                    Ok(texts) => {
                        for text in texts {
                            let own = credential::own(&text, place, ledger);
                            judged.refusals.extend(own.err());
                        }
                    }
                    Err(refusal) => judged.refusals.push(refusal),
                }
            }
        }
        let mails = |rule: &&OperationRule| rule.places().any(|(kind, _)| kind == Kind::Mail);
        if rules.iter().any(mails) {
            document.texts(&mut |place, text| self.stray(place, text, ledger, &mut judged));
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

/// The operations that a request can be by its body, and the body.
fn fitting<'a>(
    candidates: Vec<&'a OperationRule>,
    head: &Head,
    body: &[u8],
    most: u64,
) -> Result<(Vec<&'a OperationRule>, Document), &'static str> {
    let empty = body.is_empty() && head.framing != Framing::Stream;
    let unread = |rule: &&OperationRule| rule.body == Body::Any && !is_in_body(rule);
    if empty || candidates.iter().all(unread) {
        return Ok((candidates, Document::Nothing));
    }
    if candidates.iter().all(|rule| rule.body == Body::None) {
        return Err("a body where the table has none");
    }
    let content = content::of(head)?;
    let fits = |rule: &&OperationRule| rule.body != Body::None && content.is(rule.body);
    let rules: Vec<_> = candidates.into_iter().filter(fits).collect();
    match rules.iter().all(unread) {
        _ if rules.is_empty() => Err("a content type that the table does not have"),
        true => Ok((rules, Document::Nothing)),
        false => {
            let body = encoding::decoded(head, &content, body, most)?;
            let document = Document::read(&content, &body)?;
            Ok((rules, document))
        }
    }
}

/// The texts at a place.
fn values(
    rule: &OperationRule,
    head: &Head,
    document: &Document,
    place: &str,
) -> Result<Vec<String>, Refusal> {
    let unread = |why: &str| refusal(Reason::UnreadableBody, Some(why), None);
    let parsed = Place::parse(place).map_err(|_| unread("a place in the table that is none"))?;
    match &parsed {
        Place::Field(_) | Place::Mime(_) | Place::Transaction(_) => {
            document.at(&parsed).map_err(unread)
        }
        Place::Path(name) => {
            let template = Template::parse(&rule.path).ok();
            let variables = template.as_ref().and_then(|it| it.matches(&head.path));
            let own = variables
                .into_iter()
                .flatten()
                .filter(|(own, _)| own == name);
            Ok(own.map(|(_, value)| query::decoded(value, false)).collect())
        }
        Place::Query(name) => Ok(query::values(head, name)),
        Place::Header(name) => Ok(head.values(name).map(str::to_owned).collect()),
    }
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
