//! What a request is by its head and body: the operations that it can be, and what stands at their
//! places.

use crate::{
    content::{self, Content},
    document::Document,
    encoding,
    head::{Framing, Head},
    json,
    judge::{Reason, Refusal},
    query, rpc,
    service::{Body, OperationRule, Place, Template},
};

/// One thing that a request does: the operations that it can be by what it says, and what that is.
/// None: the table has no such operation.
pub(crate) struct Reading<'a> {
    pub(crate) rules: Vec<&'a OperationRule>,
    pub(crate) document: Document,
}

/// Reads a body as one of the operations whose method and path are those of the request. It does one
/// thing, or as many as it has calls.
pub(crate) fn readings<'a>(
    candidates: Vec<&'a OperationRule>,
    head: &Head,
    body: &[u8],
    most: u64,
) -> Result<Vec<Reading<'a>>, &'static str> {
    let one = |rules, document| Ok(vec![Reading { rules, document }]);
    let empty = body.is_empty() && head.framing != Framing::Stream;
    let unread = |rule: &&OperationRule| rule.body == Body::Any && !is_in_body(rule);
    if empty || candidates.iter().all(unread) {
        return one(candidates, Document::Nothing);
    }
    if candidates.iter().all(|rule| rule.body == Body::None) {
        return Err("a body where the table has none");
    }
    let content = content::of(head)?;
    let fits = |rule: &&OperationRule| rule.body != Body::None && content.is(rule.body);
    let rules: Vec<_> = candidates.into_iter().filter(fits).collect();
    if rules.is_empty() {
        return Err("a content type that the table does not have");
    }
    if rules.iter().all(unread) {
        return one(rules, Document::Nothing);
    }
    let body = encoding::decoded(head, &content, body, most)?;
    let is_call = |rule: &&OperationRule| rule.body == Body::JsonRpc;
    if content != Content::Json || !rules.iter().any(is_call) {
        return one(rules, Document::read(&content, &body)?);
    }
    let calls = rpc::calls(json::read(&body)?)?;
    let reading = |(method, call): (String, _)| {
        // Methods are compared as they are.
        let same = |rule: &&OperationRule| rule.rpc.as_deref() == Some(method.as_str());
        let rules = rules.iter().copied().filter(is_call).filter(same).collect();
        let document = Document::Json(call);
        Reading { rules, document }
    };
    Ok(calls.into_iter().map(reading).collect())
}

/// Whether an operation has a place in the body.
pub(crate) fn is_in_body(rule: &OperationRule) -> bool {
    rule.places()
        .any(|(_, place)| Place::parse(place).is_ok_and(|place| place.is_in_body()))
}

/// The texts at a place.
pub(crate) fn values(
    rule: Option<&OperationRule>,
    head: &Head,
    document: &Document,
    place: &Place,
) -> Result<Vec<String>, Refusal> {
    match place {
        Place::Field(_) | Place::Mime(_) | Place::Transaction(_) => {
            document.at(place).map_err(unread)
        }
        Place::Path(name) => {
            let template = rule.and_then(|rule| Template::parse(&rule.path).ok());
            let variables = template.as_ref().and_then(|it| it.matches(&head.path));
            let own = variables
                .into_iter()
                .flatten()
                .filter(|(own, _)| own == name);
            Ok(own.map(|(_, value)| query::decoded(value, false)).collect())
        }
        Place::Query(name) => Ok(query::values(head, name)),
        Place::Header(name) => Ok(head.read_as(name).map(str::to_owned).collect()),
    }
}

/// A body that is not read, or one of whose places is not.
pub(crate) fn unread(why: &str) -> Refusal {
    Refusal {
        reason: Reason::UnreadableBody,
        place: Some(why.to_owned()),
        value: None,
    }
}
