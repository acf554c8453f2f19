//! Operations that a policy describes itself.

use std::collections::BTreeMap;

use egress_envelope::{
    service::{self, OperationRule, Place, Service, Template},
    value::Kind,
};

use super::value;
use crate::policy::{
    fault::{Findings, quote},
    schema::Loose,
    written::{Body, Inspect, Operation, Places},
};

/// Operations of one policy's rule.
const MAX_OPERATIONS: usize = 500;
/// Places of one kind in one operation.
const MAX_PLACES: usize = 64;

/// Adds to a table what the policy writes beside it.
pub(super) fn add(table: &mut Service, inspect: &Inspect, findings: &mut Findings) {
    const HELP: &str = "write a list of mappings, each with “id:”, “method:” and “path:”";
    let list = value::field("operations", &inspect.operations, HELP, findings);
    findings.within("operations", |findings| {
        let list = list.map(Vec::as_slice).unwrap_or_default();
        if list.len() > MAX_OPERATIONS {
            let message = format!("{} operations; at most {MAX_OPERATIONS} fit", list.len());
            findings.note(message, "leave out what the connector does not use");
        }
        for (index, operation) in list.iter().enumerate() {
            findings.within(index, |findings| {
                let Some(operation) = value::entry("an operation", operation, HELP, findings) else {
                    return;
                };
                let Some(operation) = lower(operation, findings) else {
                    return;
                };
                if let Some(first) = table.operations.iter().find(|other| same(other, &operation)) {
                    let message = format!(
                        "the operation {} takes the same requests already, so this one never matches",
                        quote(&first.id)
                    );
                    findings.note(message, "remove one of the two");
                }
                table.operations.push(operation);
            });
        }
    });
}

/// Adds to a table where else requests hold what authenticates.
pub(super) fn add_credentials(table: &mut Service, inspect: &Inspect, findings: &mut Findings) {
    const HELP: &str = "write a list of places, such as “credentials: [header Authorization]”";
    let Some(list) = value::field("credentials", &inspect.credentials, HELP, findings) else {
        return;
    };
    findings.within("credentials", |findings| {
        if list.is_empty() {
            findings.note("an empty list says nothing", HELP);
        }
        for (index, place) in list.iter().enumerate() {
            findings.within(index, |findings| {
                let Some(place) = value::entry("a place", place, HELP, findings) else {
                    return;
                };
                match Place::parse(place) {
                    Ok(Place::Mime(_) | Place::Transaction(_)) => {
                        findings.note(
                            format!("{} holds nothing that authenticates", quote(place)),
                            HELP,
                        );
                    }
                    Ok(_) => {}
                    Err(error) => findings.note(format!("{} {error}", quote(place)), HELP),
                }
                table.credentials.push(place.clone());
            });
        }
    });
}

/// Whether two operations take the same requests.
fn same(one: &OperationRule, other: &OperationRule) -> bool {
    let paths = Template::parse(&one.path)
        .ok()
        .zip(Template::parse(&other.path).ok());
    let alike = paths.is_some_and(|(one, other)| one.is_like(&other));
    alike && (&one.method, one.body, &one.rpc) == (&other.method, other.body, &other.rpc)
}

fn lower(operation: &Operation, findings: &mut Findings) -> Option<OperationRule> {
    value::unknown::<Operation>("an operation", &operation.unknown, findings);
    for (key, is_there) in [
        ("id", operation.id.is_some()),
        ("method", operation.method.is_some()),
        ("path", operation.path.is_some()),
    ] {
        if !is_there {
            findings.note(
                format!("the operation has no “{key}”"),
                "write “id:”, “method:” and “path:”",
            );
        }
    }
    let id = value::field("id", &operation.id, ID, findings);
    let method = value::field("method", &operation.method, METHOD, findings);
    let path = value::field("path", &operation.path, PATH, findings);
    let help = "write “none”, “json”, “form”, “multipart”, “mime”, “json-rpc” or “any”";
    let body = value::field("body", &operation.body, help, findings);
    let rpc = value::field(
        "rpc",
        &operation.rpc,
        "write the method of the call, such as “eth_call”",
        findings,
    );
    let operation = OperationRule {
        id: id?.clone(),
        method: method?.clone(),
        path: path?.clone(),
        rpc: rpc.cloned(),
        body: body.map_or_else(service::Body::default, |body| self::body(*body)),
        recipients: places("recipients", &operation.recipients, findings),
        destinations: places("destinations", &operation.destinations, findings),
    };
    faults(&operation, findings);
    Some(operation)
}

const ID: &str = "write 1 to 64 of a-z 0-9 - _ . with a letter or digit first, such as “send”";
const METHOD: &str = "write a method in capitals, such as “POST”";
const PATH: &str = "write a path from the first slash on, such as “/v1/{account}/mails”";

const fn body(body: Body) -> service::Body {
    match body {
        Body::None => service::Body::None,
        Body::Json => service::Body::Json,
        Body::Form => service::Body::Form,
        Body::Multipart => service::Body::Multipart,
        Body::Mime => service::Body::Mime,
        Body::Any => service::Body::Any,
        Body::JsonRpc => service::Body::JsonRpc,
    }
}

type Written = Option<Loose<BTreeMap<String, Loose<Places>>>>;

fn places(key: &str, written: &Written, findings: &mut Findings) -> BTreeMap<Kind, Vec<String>> {
    const HELP: &str = "write kinds with their places, such as “{ mail: [/to, /cc] }”";
    const LIST: &str = "write a list of places, such as “[/to, /cc]”";
    let Some(written) = value::field(key, written, HELP, findings) else {
        return BTreeMap::new();
    };
    findings.within(key, |findings| {
        let mut places = BTreeMap::new();
        for (kind, list) in written {
            let Some(kind_of) = kinds().find(|(name, _)| name == kind).map(|(_, kind)| kind) else {
                findings.note_key(
                    kind,
                    0,
                    format!("{} is no kind of value", quote(kind)),
                    known(kind),
                );
                continue;
            };
            findings.within(kind.as_str(), |findings| {
                let Some(list) = value::entry("the list of places", list, LIST, findings) else {
                    return;
                };
                let found = match list {
                    Places::One(place) => vec![place.clone()],
                    Places::Many(list) => texts(list, LIST, findings),
                };
                if found.is_empty() || found.len() > MAX_PLACES {
                    findings.note(
                        format!("{} places; 1 to {MAX_PLACES} fit", found.len()),
                        LIST,
                    );
                }
                places.insert(kind_of, found);
            });
        }
        places
    })
}

/// The entries of a list that are texts.
pub(super) fn texts(list: &[Loose<String>], help: &str, findings: &mut Findings) -> Vec<String> {
    let mut found = Vec::new();
    for (index, text) in list.iter().enumerate() {
        findings.within(index, |findings| {
            if let Some(text) = value::entry("a place", text, help, findings) {
                found.push(text.clone());
            }
        });
    }
    found
}

/// Kinds of values by their names.
fn kinds() -> impl Iterator<Item = (&'static str, Kind)> {
    [
        ("mail", Kind::Mail),
        ("phone", Kind::Phone),
        ("url", Kind::Url),
        ("id", Kind::Id),
        ("channel", Kind::Channel),
        ("ids", Kind::Ids),
        ("address", Kind::Address),
    ]
    .into_iter()
}

fn known(kind: &str) -> String {
    let names: Vec<String> = kinds().map(|(name, _)| name.to_owned()).collect();
    match value::nearest(kind, &names) {
        Some(meant) => format!("did you mean “{meant}:”?"),
        None => format!("known here: {}", names.join(", ")),
    }
}

/// Notes what keeps an operation from ever matching, or from being judged where it does.
fn faults(operation: &OperationRule, findings: &mut Findings) {
    let OperationRule {
        id,
        method,
        path,
        body,
        ..
    } = operation;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if id.is_empty()
        || id.len() > 64
        || !id.starts_with(plain)
        || !id.chars().all(|c| plain(c) || "-_.".contains(c))
    {
        findings.within("id", |findings| {
            findings.note(format!("{} is no name of an operation", quote(id)), ID)
        });
    }
    if method.is_empty() || !method.chars().all(|c| c.is_ascii_uppercase() || c == '-') {
        findings.within("method", |findings| {
            findings.note(format!("{} is no method", quote(method)), METHOD);
        });
    }
    let template = Template::parse(path);
    if let Err(error) = &template {
        findings.within("path", |findings| {
            findings.note(format!("{} {error}", quote(path)), PATH)
        });
    }
    match (&operation.rpc, *body == service::Body::JsonRpc) {
        (None, true) => findings.note(
            "“body: json-rpc” needs “rpc:”: every call is a request of its own there",
            "add the method of the call, such as “rpc: eth_call”",
        ),
        (Some(_), false) => {
            let help = "remove it, or write “body: json-rpc”";
            findings.note_key("rpc", 0, "“rpc” belongs to “body: json-rpc” only", help);
        }
        _ => {}
    }
    if *body != service::Body::None && matches!(method.as_str(), "GET" | "HEAD") {
        let help = "remove “body”: what such a request carries in one is refused";
        findings.note_key(
            "body",
            0,
            format!("a {method} has no body that counts"),
            help,
        );
    }
    for (key, places) in [
        ("recipients", &operation.recipients),
        ("destinations", &operation.destinations),
    ] {
        for (kind, list) in places {
            let kind = kinds()
                .find(|(_, other)| other == kind)
                .map_or("", |(name, _)| name);
            for (index, place) in list.iter().enumerate() {
                if let Some((message, help)) = no_place(place, operation) {
                    let path = [key.into(), kind.into(), index.into()];
                    let place = findings.path().iter().cloned().chain(path).collect();
                    findings.note_at(place, message, help);
                }
            }
        }
    }
}

/// Why a place is none of an operation, and what to write.
fn no_place(text: &str, operation: &OperationRule) -> Option<(String, &'static str)> {
    const PLACES: &str = "write a field such as “/to” or “/copies/*/address”, or “path NAME”, “query \
                          NAME” or “header NAME”";
    let place = match Place::parse(text) {
        Ok(place) => place,
        Err(error) => return Some((format!("{} {error}", quote(text)), PLACES)),
    };
    if place.is_in_body() && matches!(operation.body, service::Body::None | service::Body::Any) {
        let message = format!(
            "{} is a field of a body, and here none is read",
            quote(text)
        );
        return Some((message, "add “body:”, for example “body: json”"));
    }
    let template = Template::parse(&operation.path).ok()?;
    match place {
        Place::Path(name) if !template.variables().any(|variable| variable == name) => Some((
            format!("the path has no “{{{name}}}”"),
            "name a variable of “path:”, which stands in braces",
        )),
        _ => None,
    }
}
