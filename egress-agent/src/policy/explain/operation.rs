//! `METHOD URL`: what becomes of one request to a host whose requests are judged.

use egress_envelope::{
    judge::{Inspect, Mode, Origin, Recipients, Unlisted},
    ledger::Ledger,
    service::OperationRule,
    value::{Kind, canonical},
};
use serde::Serialize;

use super::{
    dest::{Dest, Place, number, place},
    story::{Answer, Explanation, RuleRef, Stage, explain},
};
use crate::policy::{
    fault::{Complaint, Faults, quote},
    judged::limits,
    model::{self, Policy},
};

/// A request to explain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    method: String,
    dest: Dest,
    /// From the first slash on, without the query.
    path: String,
    /// As it was written.
    url: String,
}

/// The operation that a request is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Operation {
    /// Its name; `None`: it is not listed.
    pub id: Option<String>,
    /// Where such a request says who it goes to.
    pub places: Vec<String>,
    /// What becomes of the recipients that were asked about.
    pub recipients: Vec<Judged>,
}

/// What becomes of one recipient.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Judged {
    /// In its canonical form.
    pub value: String,
    /// Why it may be a recipient: `listed`, `operator`, or `nowhere`.
    pub origin: &'static str,
    /// Whether it may.
    pub permitted: bool,
}

impl Request {
    /// Whether a text is meant as one.
    pub fn is_one(text: &str) -> bool {
        text.split_once(' ')
            .is_some_and(|(_, url)| url.contains("://"))
    }

    /// Reads `POST https://host[:port]/path`.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        const HELP: &str = "write method and URL, such as “POST https://api.example.org/v1/mails”";
        let wrong = |what: String| Complaint::new(what, HELP);
        let (method, url) = text.split_once(' ').unwrap_or_default();
        let url = url.trim();
        if method.is_empty() || !method.chars().all(|c| c.is_ascii_uppercase() || c == '-') {
            return Err(wrong(format!("{} is no method", quote(method))));
        }
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("https") {
            let message = format!(
                "requests are read in TLS, and {} is none in TLS",
                quote(url)
            );
            return Err(wrong(message));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, number(port)?),
            _ => (authority, 443),
        };
        if host.contains('@') {
            return Err(wrong(format!(
                "{} names somebody before the host",
                quote(authority)
            )));
        }
        let path = path.split(['?', '#']).next().unwrap_or_default();
        Ok(Self {
            method: method.to_owned(),
            dest: Dest {
                place: place(host)?,
                port: Some(port),
                protocol: Some(egress_common::abi::TCP),
            },
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            url: url.split(['?', '#']).next().unwrap_or_default().to_owned(),
        })
    }
}

/// Explains a request: its way to the host, then what the envelope proxy makes of it, with these
/// recipients, of which no call has named any.
pub fn explain_request(
    policy: &Policy,
    request: &Request,
    recipients: &[String],
) -> Result<Result<Explanation, Complaint>, Faults> {
    let mut explanation = explain(policy, &request.dest, None)?;
    for answer in &mut explanation.answers {
        answer.destination = format!("{} {}", request.method, request.url);
    }
    let Place::Name(name) = &request.dest.place else {
        return Ok(Ok(unread(explanation)));
    };
    let judged = policy.inspected().find(|(_, own, _)| *own == name);
    let Some((index, _, inspect)) = judged else {
        return Ok(Ok(unread(explanation)));
    };
    if !explanation.answers.iter().all(Answer::is_allowed) {
        return Ok(Ok(explanation));
    }
    let verdict = match judge(&inspect, request, recipients) {
        Ok(verdict) => verdict,
        Err(complaint) => return Ok(Err(complaint)),
    };
    let rule = policy.allow.get(index).map(|rule| RuleRef {
        id: rule.id.clone(),
        why: rule.why.clone(),
    });
    let refused = verdict.refused.unwrap_or("none");
    let passes = verdict.refused == Some(UNLISTED) && inspect.unlisted == Unlisted::Report;
    let action = match verdict.refused {
        None => "allow",
        Some(_) if passes || inspect.mode == Mode::Report => "audit",
        Some(_) => "deny",
    };
    for answer in &mut explanation.answers {
        answer.stages.push(Stage {
            layer: LAYER,
            action,
            reason: refused,
            rule: rule.clone(),
        });
        (answer.action, answer.layer, answer.reason) = (action, LAYER, refused);
        answer.rule = rule.clone();
    }
    explanation.hints.extend(verdict.hints);
    explanation.operation = Some(verdict.operation);
    if policy.mode == model::Mode::Audit {
        explanation
            .hints
            .push("the policy only reports (mode: audit)".to_owned());
    }
    Ok(Ok(explanation))
}

const LAYER: &str = "envelope";
const UNLISTED: &str = "unlisted-operation";

fn unread(mut explanation: Explanation) -> Explanation {
    let told = "requests to this host are not read: its rule has no “inspect”, so what they say and \
                who they go to is not looked at";
    explanation.hints.push(told.to_owned());
    explanation
}

struct Verdict {
    operation: Operation,
    refused: Option<&'static str>,
    hints: Vec<String>,
}

fn judge(
    inspect: &Inspect,
    request: &Request,
    recipients: &[String],
) -> Result<Verdict, Complaint> {
    let candidates = inspect.service.candidates(&request.method, &request.path);
    let Some(first) = candidates.first() else {
        let hint = unlisted(inspect, request);
        let operation = Operation {
            id: None,
            places: Vec::new(),
            recipients: Vec::new(),
        };
        return Ok(Verdict {
            operation,
            refused: Some(UNLISTED),
            hints: vec![hint],
        });
    };
    let mut places: Vec<String> = Vec::new();
    let mut kinds: Vec<Kind> = Vec::new();
    for (kind, place) in candidates.iter().flat_map(|operation| operation.places()) {
        if !places.iter().any(|known| known == place) {
            places.push(place.to_owned());
        }
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let mut hints = vec![said(first, &places)];
    // Which of them a call is stands in the body, which may have several.
    let calls: Vec<&str> = candidates
        .iter()
        .filter_map(|operation| operation.rpc.as_deref())
        .collect();
    if !calls.is_empty() {
        hints = vec![format!(
            "each call of the body, one or a batch, is an operation of its own, and one that is not \
             listed refuses all; listed here: {}",
            calls.join(", ")
        )];
        if !places.is_empty() {
            hints.push(format!("who they go to stands in {}", places.join(", ")));
        }
    }
    let mut all = Vec::new();
    for text in recipients {
        all.extend(one(inspect, &kinds, text)?);
    }
    let reason = match inspect.recipients {
        Recipients::Listed => "recipient-not-listed",
        Recipients::FromCall | Recipients::Any => "recipient-not-in-call",
    };
    let refused = all.iter().any(|judged| !judged.permitted).then_some(reason);
    hints.extend(all.iter().map(|judged| spoken(inspect, judged)));
    let limits = limits(&inspect.limits);
    if !limits.is_empty() {
        hints.push(format!(
            "it counts towards the limits of the rule: at most {}",
            limits.join(", ")
        ));
    }
    if recipients.is_empty() && !places.is_empty() {
        hints.push(rule_of(inspect).to_owned());
    }
    Ok(Verdict {
        operation: Operation {
            id: Some(if calls.is_empty() {
                first.id.clone()
            } else {
                ids(&candidates)
            }),
            places,
            recipients: all,
        },
        refused,
        hints,
    })
}

/// The names of what a request can be, each once, as events have those of a batch.
fn ids(candidates: &[&OperationRule]) -> String {
    let mut ids: Vec<&str> = Vec::new();
    for operation in candidates {
        if !ids.contains(&operation.id.as_str()) {
            ids.push(&operation.id);
        }
    }
    ids.join(", ")
}

/// What becomes of the values that a text says.
fn one(inspect: &Inspect, kinds: &[Kind], text: &str) -> Result<Vec<Judged>, Complaint> {
    let ledger = Ledger::new();
    let found = kinds.iter().find_map(|kind| {
        let values = canonical(*kind, text);
        (!values.is_empty()).then_some((*kind, values))
    });
    let Some((kind, values)) = found else {
        let what = if kinds.is_empty() {
            "this operation goes to nobody who could be named"
        } else {
            "it is of no kind that this operation goes to"
        };
        let message = format!("{} is no recipient: {what}", quote(text));
        return Err(Complaint::new(
            message,
            "leave “--recipient” out, or write the address alone",
        ));
    };
    let judged = values.into_iter().map(|value| {
        let origin = inspect.origin(kind, &value, &ledger);
        Judged {
            permitted: inspect.permits(&origin),
            origin: match origin {
                Origin::Listed => "listed",
                Origin::Operator => "operator",
                _ => "nowhere",
            },
            value,
        }
    });
    Ok(judged.collect())
}

fn spoken(inspect: &Inspect, judged: &Judged) -> String {
    let Judged {
        value, permitted, ..
    } = judged;
    let value = quote(value);
    match (judged.origin, inspect.recipients) {
        ("listed", _) => format!("{value} is always right: it is listed"),
        (_, Recipients::Any) => format!("{value} is right: everybody may be a recipient here"),
        (_, Recipients::Listed) => {
            format!("{value} is not listed; add it to “listed” if it is meant")
        }
        (_, Recipients::FromCall) if *permitted => format!("{value} is right"),
        (_, Recipients::FromCall) => format!(
            "{value} is right where a tool call of the session names it, or the connector's \
             environment or arguments; otherwise it is refused"
        ),
    }
}

fn rule_of(inspect: &Inspect) -> &'static str {
    match inspect.recipients {
        Recipients::Any => "everybody may be a recipient",
        Recipients::Listed => "each recipient has to be listed",
        Recipients::FromCall => {
            "each recipient has to be named in a tool call of the session, by the operator, or listed"
        }
    }
}

fn said(operation: &OperationRule, places: &[String]) -> String {
    let id = quote(&operation.id);
    match places {
        [] => format!("the operation is {id}, which goes to nobody who could be named"),
        places => format!(
            "the operation is {id}; who it goes to stands in {}",
            places.join(", ")
        ),
    }
}

fn unlisted(inspect: &Inspect, request: &Request) -> String {
    let others: Vec<&str> = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        .into_iter()
        .filter(|method| !inspect.service.candidates(method, &request.path).is_empty())
        .collect();
    let near = if others.is_empty() {
        String::new()
    } else {
        format!("; listed for this path: {}", others.join(", "))
    };
    let table = if inspect.service.service.is_empty() {
        "the policy's operations".to_owned()
    } else {
        format!("the table of {}", inspect.service.service)
    };
    format!(
        "{table} has no such operation{near}; add it under “operations:” if the connector needs it"
    )
}
