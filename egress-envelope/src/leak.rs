//! Secrets in a request, but for those that authenticate it where the table says so.

use crate::{
    content::Content,
    credential, encoding,
    head::Head,
    judge::{Inspect, Judged, Reason, Refusal},
    ledger::Ledger,
    query,
    reading::unread,
    secret::{Finder, Found, Secret},
    service::Place,
};

/// What is told instead of a secret.
const HIDDEN: &str = "(a secret)";

impl Inspect {
    /// Looks through a request that was judged for what its rule refuses. `host`: where it goes.
    pub fn content(
        &self,
        finder: &Finder,
        host: &str,
        (head, body): (&Head, &[u8]),
        ledger: &Ledger,
        judged: &mut Judged,
    ) {
        let Some(content) = &self.content else {
            return;
        };
        let at_home = |name: &str| {
            let hosts = content.belongs.get(name);
            hosts.is_some_and(|hosts| hosts.iter().any(|own| own == host))
        };
        // One that authenticates here belongs elsewhere where the policy says so.
        let own_here = |name: &str| !content.belongs.contains_key(name) || at_home(name);
        let mut look = |place: &str, text: &[u8], authenticates: bool| {
            let found = if authenticates {
                let own: &[Secret] = match content.refuse.contains(&Secret::OwnSecrets) {
                    true => &[Secret::OwnSecrets],
                    false => &[],
                };
                finder.find(text, own, &own_here)
            } else {
                finder.find(text, &content.refuse, &at_home)
            };
            let value = match found {
                None => return,
                Some(Found::TooMany) => {
                    let why = "more encodings than are looked through for secrets";
                    return judged.refusals.push(unread(why));
                }
                Some(Found::Form(kind)) => kind.name().to_owned(),
                Some(Found::Own(name)) => format!("{} {name}", Secret::OwnSecrets.name()),
            };
            judged.refusals.push(Refusal {
                reason: Reason::SecretInRequest,
                place: Some(place.to_owned()),
                value: Some(value),
            });
        };
        let (mut path, mut query) = (head.path.clone(), head.query.clone().unwrap_or_default());
        let decoded = match encoding::decoded(head, &Content::Json, body, self.limits.body) {
            Ok(decoded) => decoded,
            Err(why) => {
                judged.refusals.push(unread(why));
                return;
            }
        };
        let mut body = decoded.into_owned();
        for (place, own) in &judged.own {
            match place {
                Place::Path(_) => without(&mut path, own, false),
                Place::Query(_) => without(&mut query, own, true),
                Place::Field(_) => blank(&mut body, own),
                _ => {}
            }
        }
        for own in judged.own.clone() {
            // Where it authenticates it may still belong to another host.
            look("what authenticates", own.1.as_bytes(), true);
        }
        let authenticates = |name: &str, value: &str| {
            let marked =
                self.service.credentials.iter().any(
                    |place| matches!(Place::parse(place), Ok(Place::Header(own)) if own == name),
                );
            let marked = marked || name == "authorization";
            marked && credential::own(value, name, ledger).is_ok()
        };
        look("path", path.as_bytes(), false);
        look("query", query.as_bytes(), false);
        for (name, value) in &head.fields {
            look("the name of a header field", name.as_bytes(), false);
            let own = authenticates(name, value);
            look(&format!("header {name}"), value.as_bytes(), own);
        }
        look("body", &body, false);
        let found = |it: &Refusal| it.reason == Reason::SecretInRequest;
        if judged.refusals.iter().any(found) {
            let told = |text: &str| finder.find(text.as_bytes(), &content.refuse, &|_| false);
            hide(judged, &|text| told(text).is_some());
        }
    }
}

/// What is told of a request never says what was found in it.
fn hide(judged: &mut Judged, is_secret: &dyn Fn(&str) -> bool) {
    let operation = &mut judged.operation;
    let recipients = operation.recipients.iter_mut();
    let refusals = judged.refusals.iter_mut();
    let texts = recipients
        .map(|it| &mut it.value)
        .chain(operation.headers.iter_mut())
        .chain(refusals.flat_map(|it| it.place.iter_mut().chain(&mut it.value)))
        .chain([&mut operation.path]);
    for text in texts {
        if is_secret(text) {
            HIDDEN.clone_into(text);
        }
    }
}

/// Takes the first copy of a value that authenticates out of a text, however that is escaped.
fn without(text: &mut String, own: &str, plus: bool) {
    let cut = if plus { '&' } else { '/' };
    let mut pieces: Vec<String> = text.split(cut).map(str::to_owned).collect();
    let has = |piece: &&mut String| query::decoded(piece, plus).contains(own);
    if let Some(piece) = pieces.iter_mut().find(has) {
        *piece = query::decoded(piece, plus).replacen(own, "", 1);
    }
    *text = pieces.join(&cut.to_string());
}

/// The same of a body, where it stands as it is, or as forms have it.
fn blank(body: &mut Vec<u8>, own: &str) {
    let at = |needle: &str| {
        let needle = needle.as_bytes();
        let mut windows = body.windows(needle.len().max(1));
        windows.position(|part| part == needle)
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
    let escaped: String = own
        .bytes()
        .map(|byte| match byte {
            byte if plain(byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    for form in [own, escaped.as_str()] {
        if let Some(start) = at(form).filter(|_| !form.is_empty()) {
            body.drain(start..start.saturating_add(form.len()));
            return;
        }
    }
}
