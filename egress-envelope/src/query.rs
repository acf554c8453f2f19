//! Queries and other pairs with escapes, such as `a=b&c=d`.

use crate::{
    head::Head,
    judge::{Reason, Refusal},
    keys,
    service::{OperationRule, Place},
};

/// Names and values of a query, each without its escapes.
pub(crate) fn pairs(head: &Head) -> impl Iterator<Item = (String, String)> {
    let query = head.query.as_deref().unwrap_or_default();
    split(query, '&')
}

fn split(text: &str, at: char) -> impl Iterator<Item = (String, String)> {
    let pairs = text.split(at).filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name, true), decoded(value, true))
    })
}

/// The values of a key, however it is nested or written.
pub(crate) fn values(head: &Head, name: &str) -> Vec<String> {
    let place = [name.to_owned()];
    let own = pairs(head).filter(|(key, _)| keys::meets(key, &place) == Some(true));
    own.map(|(_, value)| value).collect()
}

/// Refuses a query that some server reads otherwise: with a key that makes it another request, one
/// that says what the body says, or one behind `;`, which some take for `&`.
pub(crate) fn plain(
    head: &Head,
    rules: &[&OperationRule],
    credentials: &[String],
) -> Result<(), Refusal> {
    let refuse = |what: &str| {
        Err(Refusal {
            reason: Reason::TwoReadings,
            place: Some(what.to_owned()),
            value: None,
        })
    };
    let places = rules.iter().flat_map(|rule| rule.places());
    let places = places.map(|(_, place)| place);
    // A key that authenticates may stand in the body or in the query.
    let queries = credentials.iter().map(String::as_str);
    let queries = queries.filter(|place| place.starts_with("query "));
    let places: Vec<Place> = places
        .chain(queries)
        .filter_map(|place| Place::parse(place).ok())
        .collect();
    let query = head.query.as_deref().unwrap_or_default();
    for (index, piece) in query.split(';').enumerate() {
        for (at, (name, _)) in split(piece, '&').enumerate() {
            if !keys::is_plain(&name) || keys::overrides(&name) {
                return refuse("a key of the query");
            }
            if keys::steps(&name).is_none() {
                return refuse("brackets in the query");
            }
            // No escape, but one for some (`%u0063`), or escaped twice.
            if name.contains('%') {
                return refuse("an escape in a key of the query");
            }
            for place in &places {
                let (place, what) = match place {
                    Place::Field(steps) => {
                        (steps.as_slice(), "a query that says what the body says")
                    }
                    Place::Query(own) if index > 0 && at == 0 => {
                        (std::slice::from_ref(own), "a key behind a semicolon")
                    }
                    _ => continue,
                };
                let Some(meets) = keys::meets(&name, place) else {
                    return refuse("brackets in the query");
                };
                if meets {
                    return refuse(what);
                }
            }
        }
    }
    Ok(())
}

/// Without escapes; what is no escape or no UTF-8 stays as it is, and so is no value.
pub(crate) fn decoded(text: &str, plus: bool) -> String {
    strictly(text, plus).unwrap_or_else(|| text.to_owned())
}

/// Without escapes. `None`: something is no escape, or the whole no UTF-8.
pub(crate) fn strictly(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(if plus && byte == b'+' { b' ' } else { byte });
            continue;
        }
        let (two, after) = after.split_at_checked(2)?;
        let digits = std::str::from_utf8(two).ok()?;
        let good = two.iter().all(u8::is_ascii_hexdigit);
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| good)?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}
