//! What a program is answered when its request does not reach the server, so that people read why.
//! Pure.
//!
//! Client libraries show a message only from a field that they know: `Message` and `ErrorCode`
//! (Postmark), `message` (Resend and most others), `errors` (SendGrid), `error` (the rest).

use egress_envelope::judge::Refusal;
use serde_json::json;

use super::{shared::Asked, why::Why};

/// A whole answer that refuses a request, and ends the connection. `bodiless`: the answer to HEAD.
pub(super) fn refused(asked: &Asked, refusals: &[Refusal], bodiless: bool) -> Vec<u8> {
    let sentences: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    let message = format!(
        "egress-agent refused this request to {}: {}. It was not sent. If it is right, let the \
         inspect of the connector's policy permit it",
        asked.name,
        sentences.join("; ")
    );
    let errors = refusals.iter().map(|refusal| {
        json!({
            "message": refusal.to_string(),
            "code": refusal.reason,
            "field": refusal.place,
        })
    });
    whole(403, "Forbidden", &message, errors.collect(), bodiless)
}

/// A whole answer that says that the server was not reached, and ends the connection.
pub(super) fn lost(asked: &Asked, why: &Why, bodiless: bool) -> Vec<u8> {
    let message = format!("egress-agent could not reach {}: {why}", asked.name);
    let errors = vec![json!({ "message": &message, "code": "unreachable" })];
    whole(502, "Bad Gateway", &message, errors, bodiless)
}

fn whole(
    status: u16,
    phrase: &str,
    message: &str,
    errors: Vec<serde_json::Value>,
    bodiless: bool,
) -> Vec<u8> {
    let body = json!({
        "error": message,
        "message": message,
        "Message": message,
        "ErrorCode": status,
        "errors": errors,
    })
    .to_string();
    let mut out = format!(
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    if !bodiless {
        out += &body;
    }
    out.into_bytes()
}
