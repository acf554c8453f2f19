//! Forms (application/x-www-form-urlencoded), read in one way only.

use crate::{keys, query};

/// Most fields.
const MAX_FIELDS: usize = 10_000;

/// The fields of a form in their order: keys and texts.
pub(crate) fn read(body: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "a form that is not UTF-8")?;
    // Some take `;` for `&`; programs write it as an escape.
    if text.contains(|c: char| c == ';' || !(c.is_ascii_graphic() || c == ' ')) {
        return Err("a form with characters that do not belong there");
    }
    let mut fields = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let read = |text| query::strictly(text, true).ok_or("an escape in a form that is none");
        let (key, value) = (read(key)?, read(value)?);
        plain(&key)?;
        fields.push((key, value));
        if fields.len() > MAX_FIELDS {
            return Err("a form with too many fields");
        }
    }
    Ok(fields)
}

/// Refuses a key that frameworks read in several ways.
pub(crate) fn plain(key: &str) -> Result<(), &'static str> {
    if key.trim().is_empty() || !keys::is_plain(key) {
        return Err("a key of the form");
    }
    if keys::overrides(key) {
        return Err("a key of the form that makes it another request");
    }
    keys::steps(key)
        .map(drop)
        .ok_or("brackets in a key of the form")
}
