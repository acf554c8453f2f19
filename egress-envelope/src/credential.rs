//! What authenticates a request has to be the operator's own: a stranger's key sends everything to
//! the stranger's account.

use crate::{
    base64,
    judge::{Reason, Refusal},
    ledger::Ledger,
    value::{Kind, canonical},
};

/// Whether a text that authenticates, or the secret in it, is known from the operator. The text is
/// not told: it is a secret.
pub(crate) fn own(text: &str, place: &str, ledger: &Ledger) -> Result<(), Refusal> {
    let is_own = |secret: &str| {
        let forms = canonical(Kind::Id, secret);
        !forms.is_empty() && forms.iter().all(|form| ledger.is_operators(Kind::Id, form))
    };
    let own = |secrets: Vec<String>| secrets.iter().all(|secret| is_own(secret));
    if text.trim().is_empty() || is_own(text) || secrets(text).is_some_and(own) {
        return Ok(());
    }
    Err(Refusal {
        reason: Reason::CredentialNotOwn,
        place: Some(place.to_owned()),
        value: None,
    })
}

/// Halves of `Basic` that stand for a key in the other half.
const NO_SECRET: [&str; 6] = [
    "",
    "api",
    "apikey",
    "x-access-token",
    "x-oauth-basic",
    "x-token-auth",
];

/// What proves something in the value of `Authorization` (RFC 9110 section 11.4), all of it.
fn secrets(text: &str) -> Option<Vec<String>> {
    let (scheme, rest) = text.trim().split_once(' ')?;
    let rest = rest.trim_start();
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" | "token" | "bot" => Some(vec![rest.to_owned()]),
        "basic" => {
            let pair = String::from_utf8(base64::read(rest)?).ok()?;
            let (user, word) = pair.split_once(':')?;
            // Services that know one key alone take it from one half, and what is in the other one
            // for nothing.
            match (NO_SECRET.contains(&user), NO_SECRET.contains(&word)) {
                (true, true) => None,
                (true, false) => Some(vec![word.to_owned()]),
                (false, true) => Some(vec![user.to_owned()]),
                (false, false) => Some(vec![user.to_owned(), word.to_owned()]),
            }
        }
        // The signature proves that the sender has the secret of this key.
        "aws4-hmac-sha256" => {
            let mut own = rest
                .split(',')
                .map(str::trim)
                .filter_map(|it| it.strip_prefix("Credential="));
            let (key, None) = (own.next()?, own.next()) else {
                return None;
            };
            key.split('/').next().map(|key| vec![key.to_owned()])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::own;
    use crate::ledger::Ledger;

    #[test]
    fn only_the_operators_own() {
        let mut ledger = Ledger::new();
        ledger.operator("s3cret-key");
        ledger.operator("AKIAOWN");
        for (text, good) in [
            ("s3cret-key", true),
            ("Bearer s3cret-key", true),
            ("bearer  s3cret-key", true),
            ("Bot s3cret-key", true),
            // api:s3cret-key, s3cret-key:
            ("Basic YXBpOnMzY3JldC1rZXk=", true),
            ("Basic czNjcmV0LWtleTo=", true),
            (
                "AWS4-HMAC-SHA256 Credential=AKIAOWN/20261128/eu/ses/aws4_request, SignedHeaders=host, Signature=ab",
                true,
            ),
            ("", true),
            ("strangers", false),
            ("Bearer strangers", false),
            ("Bearer s3cret-key strangers", false),
            ("Other s3cret-key", false),
            // s3cret-key:strangers, strangers:s3cret-key, api:, strangers:x-oauth-basic
            ("Basic czNjcmV0LWtleTpzdHJhbmdlcnM=", false),
            ("Basic c3RyYW5nZXJzOnMzY3JldC1rZXk=", false),
            ("Basic YXBpOg==", false),
            ("Basic c3RyYW5nZXJzOngtb2F1dGgtYmFzaWM=", false),
            // AKIAOWN:s3cret-key, s3cret-key:x-oauth-basic
            ("Basic QUtJQU9XTjpzM2NyZXQta2V5", true),
            ("Basic czNjcmV0LWtleTp4LW9hdXRoLWJhc2lj", true),
            (
                "AWS4-HMAC-SHA256 Credential=AKIAOTHER/x, Credential=AKIAOWN/x",
                false,
            ),
            ("AWS4-HMAC-SHA256 Credential=AKIAOTHER/AKIAOWN", false),
        ] {
            assert_eq!(own(text, "header x", &ledger).is_ok(), good, "{text}");
        }
    }
}
