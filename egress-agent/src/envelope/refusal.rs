//! What a program is answered when its request does not reach the server, so that people read why.
//! Pure.
//!
//! Client libraries show a message only from a field that they know: `Message` and `ErrorCode`
//! (Postmark), `message` (Resend and most others), `errors` (SendGrid), `error` (the rest).

use egress_envelope::judge::Judged;
use serde_json::json;

use super::{shared::Asked, why::Why};

/// A whole answer of the proxy's own.
pub(super) struct Own {
    /// The status.
    pub(super) status: u16,
    phrase: &'static str,
    /// JSON.
    pub(super) body: String,
    /// Seconds after which the same request can pass (RFC 9110 section 10.2.3).
    pub(super) again: Option<u64>,
}

/// Refuses a request.
pub(super) fn refused(asked: &Asked, judged: &Judged) -> Own {
    let refusals = &judged.refusals;
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
    let errors = errors.collect();
    // Client libraries wait and try again by themselves.
    if judged.again.is_some() && refusals.iter().all(|it| it.reason.is_limit()) {
        return Own {
            again: judged.again,
            ..Own::new(429, "Too Many Requests", &message, errors)
        };
    }
    Own::new(403, "Forbidden", &message, errors)
}

/// Says that the server was not reached.
pub(super) fn lost(asked: &Asked, why: &Why) -> Own {
    let message = format!("egress-agent could not reach {}: {why}", asked.name);
    let errors = vec![json!({ "message": &message, "code": "unreachable" })];
    Own::new(502, "Bad Gateway", &message, errors)
}

impl Own {
    fn new(
        status: u16,
        phrase: &'static str,
        message: &str,
        errors: Vec<serde_json::Value>,
    ) -> Self {
        let body = json!({
            "error": message,
            "message": message,
            "Message": message,
            "ErrorCode": status,
            "errors": errors,
        });
        Self {
            status,
            phrase,
            body: body.to_string(),
            again: None,
        }
    }

    /// In HTTP/1.1, where it ends the connection. `bodiless`: the answer to HEAD.
    pub(super) fn written(&self, bodiless: bool) -> Vec<u8> {
        let Self {
            status,
            phrase,
            body,
            again,
        } = self;
        let again = again.map(|seconds| format!("Retry-After: {seconds}\r\n"));
        let again = again.unwrap_or_default();
        let mut out = format!(
            "HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{again}Connection: close\r\n\r\n",
            body.len()
        );
        if !bodiless {
            out += body;
        }
        out.into_bytes()
    }
}
