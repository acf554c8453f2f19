//! The verdict on a request: which operation it is, who gets something by it, and whether that is
//! right.

use std::collections::HashSet;

use crate::{
    credential,
    document::Document,
    head::{Framing, Head},
    judge::{Inspect, Judged, Next, Operation, Reason, Recipient, Refusal, Unlisted},
    ledger::Ledger,
    limit::Cost,
    mail,
    mime::Field,
    query,
    reading::{Reading, is_in_body, readings, unread, values},
    service::{Body, OperationRule, Place},
    shape::{Shape, Things},
    stray::Said,
    value::{Kind, canonical},
};

/// Why a request is refused whose table has a fault.
const NO_PLACE: &str = "a place in the table that is none";

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
        if self.service.has_two_readings(&head.method, &head.path) {
            let what = Some("an escaped slash in the path");
            return Next::Refuse(refusal(Reason::TwoReadings, what, None));
        }
        let candidates = self.service.candidates(&head.method, &head.path);
        if candidates.is_empty() {
            return match self.unlisted {
                Unlisted::Refuse => Next::Refuse(refusal(Reason::UnlistedOperation, None, None)),
                Unlisted::Report => self.unjudged(head),
            };
        }
        let judged = candidates
            .iter()
            .any(|it| it.body != Body::Any || is_in_body(it));
        if !judged || matches!(head.framing, Framing::None | Framing::Length(0)) {
            return self.unjudged(head);
        }
        self.whole()
    }

    /// A body with nothing to judge in it is streamed, unless secrets are looked for in it or it
    /// has to be known how long it is.
    fn unjudged(&self, head: &Head) -> Next {
        match head.framing {
            Framing::None | Framing::Length(0) => Next::Pass,
            _ if self.content.is_some() => self.whole(),
            Framing::Chunked | Framing::Stream if self.limits.bytes.is_some() => self.whole(),
            _ => Next::Pass,
        }
    }

    fn whole(&self) -> Next {
        Next::Body {
            most: usize::try_from(self.limits.body).unwrap_or(usize::MAX),
        }
    }

    /// The verdict on a whole request. Where [`Inspect::head`] let it pass, `body` is empty.
    pub fn body(&self, head: &Head, body: &[u8], ledger: &Ledger) -> Judged {
        let mut judged = Judged {
            operation: Operation::of(head, body, ledger),
            cost: cost(head, body),
            shape: (self.shape != Shape::Off).then(|| Things::of_head(head, None)),
            ..Judged::default()
        };
        let candidates = self.service.candidates(&head.method, &head.path);
        if candidates.is_empty() {
            if self.unlisted == Unlisted::Refuse {
                judged
                    .refusals
                    .push(refusal(Reason::UnlistedOperation, None, None));
            }
            let plain = query::plain(head, &[], &self.service.credentials);
            judged.refusals.extend(plain.err());
            self.credentials(None, head, &Document::Nothing, ledger, &mut judged);
            return judged;
        }
        judged
            .refusals
            .extend(query::plain(head, &candidates, &self.service.credentials).err());
        let readings = match readings(candidates, head, body, self.limits.body) {
            Ok(readings) => readings,
            Err(why) => {
                judged.refusals.push(unread(why));
                return judged;
            }
        };
        judged.operation.id = id(&readings);
        if let Some(shape) = &mut judged.shape {
            *shape = Things::of_head(head, judged.operation.id.as_deref());
            readings.iter().for_each(|it| shape.add_body(&it.document));
        }
        judged.cost.requests = u64::try_from(readings.len()).unwrap_or(u64::MAX);
        for reading in &readings {
            self.reading(reading, head, ledger, &mut judged);
        }
        judged
    }

    /// Judges one thing that a request does.
    fn reading(&self, reading: &Reading<'_>, head: &Head, ledger: &Ledger, judged: &mut Judged) {
        let Reading { rules, document } = reading;
        if rules.is_empty() && self.unlisted == Unlisted::Refuse {
            let unlisted = refusal(Reason::UnlistedOperation, None, None);
            judged.refusals.push(unlisted);
        }
        if rules.is_empty() {
            self.credentials(None, head, document, ledger, judged);
        }
        let first = (judged.operation.recipients.len(), judged.refusals.len());
        // Of several that it can be each says who gets something.
        for rule in rules {
            for (kind, place) in rule.places() {
                let before = judged.operation.recipients.len();
                if let Err(refusal) =
                    self.place((rule, kind, place), head, document, ledger, judged)
                {
                    judged.refusals.push(refusal);
                }
                if rule.is_recipient(place) {
                    let new = judged.operation.recipients.len().saturating_sub(before);
                    judged.cost.recipients = judged.cost.recipients.saturating_add(new as u64);
                }
            }
            self.credentials(Some(rule), head, document, ledger, judged);
        }
        let mails = |rule: &&OperationRule| rule.places().any(|(kind, _)| kind == Kind::Mail);
        if rules.iter().any(mails) {
            let mut said = Said::of(judged, first);
            document.texts(&mut |place, text| self.stray(place, text, ledger, &mut said));
            judged.refusals.extend(said.refusals);
        }
    }

    /// Judges what stands at one place of an operation.
    fn place(
        &self,
        (rule, kind, place): (&OperationRule, Kind, &str),
        head: &Head,
        document: &Document,
        ledger: &Ledger,
        judged: &mut Judged,
    ) -> Result<(), Refusal> {
        let parsed = Place::parse(place).map_err(|_| unread(NO_PLACE))?;
        let Place::Mime(steps) = &parsed else {
            for text in values(Some(rule), head, document, &parsed)? {
                self.recipient(kind, place, &text, ledger, judged);
            }
            return Ok(());
        };
        let word = place.split(' ').next().unwrap_or_default();
        for fields in document.mails(word, steps).map_err(unread)? {
            let first = (judged.operation.recipients.len(), judged.refusals.len());
            let named = |field: &Field| format!("{place} {}", field.name);
            for field in fields.iter().filter(|field| field.is_recipients()) {
                self.recipient(kind, &named(field), &field.value, ledger, judged);
            }
            let mut said = Said::of(judged, first);
            let others = |field: &&Field| !field.is_recipients() && !field.is_content();
            for field in fields.iter().filter(others) {
                self.elsewhere(&named(field), &field.value, ledger, &mut said);
            }
            judged.refusals.extend(said.refusals);
        }
        Ok(())
    }

    /// What authenticates; of an operation that is not listed, in its head.
    fn credentials(
        &self,
        rule: Option<&OperationRule>,
        head: &Head,
        document: &Document,
        ledger: &Ledger,
        judged: &mut Judged,
    ) {
        for place in &self.service.credentials {
            match Place::parse(place).map(|parsed| values(rule, head, document, &parsed)) {
                Ok(Ok(texts)) => {
                    for text in texts {
                        match credential::own(&text, place, ledger) {
                            Ok(()) => judged.own.extend(Place::parse(place).map(|it| (it, text))),
                            Err(refusal) => judged.refusals.push(refusal),
                        }
                    }
                }
                Ok(Err(refusal)) => judged.refusals.push(refusal),
                Err(_) => judged.refusals.push(unread(NO_PLACE)),
            }
        }
    }

    fn recipient(&self, kind: Kind, place: &str, text: &str, ledger: &Ledger, judged: &mut Judged) {
        if kind == Kind::Ids {
            // Somebody may have named the list as it is.
            let whole = |id: &String| self.permits(&self.origin(Kind::Id, id, ledger));
            if canonical(Kind::Id, text).iter().any(whole) {
                return self.recipient(Kind::Id, place, text, ledger, judged);
            }
            for id in text.split(',') {
                self.recipient(Kind::Id, place, id, ledger, judged);
            }
            return;
        }
        if text.trim().is_empty() || (kind == Kind::Mail && mail::is_nobody(text)) {
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

/// The operations of a request by their names, each once.
fn id(readings: &[Reading<'_>]) -> Option<String> {
    let mut ids: Vec<&str> = Vec::new();
    let mut known = HashSet::new();
    for rule in readings.iter().filter_map(|reading| reading.rules.first()) {
        if known.insert(&rule.id) {
            ids.push(&rule.id);
        }
    }
    (!ids.is_empty()).then(|| ids.join(", "))
}

/// What a request takes of its rule's limits, as far as its head and length say.
fn cost(head: &Head, body: &[u8]) -> Cost {
    let read = u64::try_from(body.len()).unwrap_or(u64::MAX);
    Cost {
        bytes: match head.framing {
            Framing::Length(length) => length,
            _ => read,
        },
        ..Cost::default()
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
            shape: None,
        }
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
