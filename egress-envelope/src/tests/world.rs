//! A service, a session, and requests to it.
#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use crate::{
    h1::{self, Chunk, Chunks},
    head::Framing,
    judge::{Inspect, Next, Reason, Refusal},
    leaves::Leaf,
    ledger::Ledger,
    mcp::Call,
};

/// The type of most bodies.
pub(super) const JSON: &str = "application/json";
/// The type of forms.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// Mail goes to `*@own.example`, `called@shop.example` and `operator@shop.example`.
pub(super) fn inspect() -> Inspect {
    serde_json::from_value(serde_json::json!({
        "service": { "service": "mail", "hosts": [],
          "credentials": ["header X-Token", "header Authorization", "query key"],
          "operations": [
            { "id": "send", "method": "POST", "path": "/email", "body": "json",
              "recipients": { "mail": ["/To", "/Cc", "/Bcc", "/List/*/Email", "/Recipients"] } },
            { "id": "batch", "method": "POST", "path": "/batch", "body": "json",
              "recipients": { "mail": ["/*/To", "/*/Bcc"] } },
            { "id": "form", "method": "POST", "path": "/form", "body": "form",
              "recipients": { "mail": ["/to", "/bcc"] } },
            { "id": "parts", "method": "POST", "path": "/parts", "body": "multipart",
              "recipients": { "mail": ["/to", "/bcc"] } },
            { "id": "mail", "method": "POST", "path": "/mail", "body": "mime",
              "recipients": { "mail": ["mime"] } },
            { "id": "raw", "method": "POST", "path": "/raw", "body": "json",
              "recipients": { "mail": ["mime /raw"] } },
            { "id": "plain", "method": "POST", "path": "/plain", "body": "json",
              "recipients": { "mail": ["mime-base64 /raw"] } },
            { "id": "url", "method": "POST", "path": "/url", "body": "json",
              "recipients": { "mail": ["mime-base64url /raw"] } },
            { "id": "post-json", "method": "POST", "path": "/post", "body": "json",
              "recipients": { "channel": ["/channel"] } },
            { "id": "post-form", "method": "POST", "path": "/post", "body": "form",
              "recipients": { "channel": ["/channel"] } },
            { "id": "pay", "method": "POST", "path": "/rpc", "body": "json-rpc", "rpc": "pay",
              "recipients": { "id": ["/params/0/to"] } },
            { "id": "balance", "method": "POST", "path": "/rpc", "body": "json-rpc", "rpc": "balance" },
            { "id": "signed", "method": "POST", "path": "/chain", "body": "json-rpc", "rpc": "eth_sendRawTransaction",
              "recipients": { "address": ["transaction /params/0"] } },
            { "id": "unsigned", "method": "POST", "path": "/chain", "body": "json-rpc", "rpc": "eth_sendTransaction",
              "recipients": { "address": ["transaction /params/0"] } },
            { "id": "block", "method": "POST", "path": "/chain", "body": "json-rpc", "rpc": "eth_blockNumber" },
            { "id": "get", "method": "GET", "path": "/get/{id}" },
            { "id": "tail", "method": "GET", "path": "/tail/{rest...}" },
            { "id": "own", "method": "GET", "path": "/{own}/tail/{rest...}" },
            { "id": "to", "method": "GET", "path": "/to/{who}", "recipients": { "mail": ["path who", "query cc"] } },
            { "id": "upload", "method": "PUT", "path": "/file", "body": "any" },
        ]},
        "recipients": "from-call", "listed": ["*@own.example"],
        "unlisted": "refuse", "mode": "enforce", "limits": { "body": 65536 },
    }))
    .unwrap()
}

/// What was named in the session.
pub(super) fn ledger() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.operator("operator@shop.example");
    ledger.operator("own-token");
    let named = |place: &str, text: &str| Leaf {
        place: place.into(),
        text: text.into(),
    };
    ledger.called(Call {
        id: None,
        tool: "send".into(),
        named: vec![
            named("/to", "called@shop.example"),
            named("/channel", "C1"),
            named("/to", "acct1"),
            named("/to", "0x3535353535353535353535353535353535353535"),
        ],
        left_out: 0,
    });
    ledger
}

/// A request with a body of a type.
pub(super) fn post(path: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let fields = format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n");
    raw(&format!("POST {path}"), &fields, body.as_bytes())
}

/// A request with these fields.
pub(super) fn raw(line: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let mut all = format!("{line} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n").into_bytes();
    all.extend(body);
    all
}

/// Why a request does not pass; nothing: it does.
pub(super) fn refusals(request: &[u8]) -> Vec<Refusal> {
    let (head, used) = match h1::head(request) {
        Ok(Some(read)) => read,
        Ok(None) => return vec![unread("an unfinished head")],
        Err(refusal) => return vec![refusal],
    };
    let rest = request.get(used..).unwrap_or_default();
    let body = match body(head.framing, rest) {
        Ok(body) => body,
        Err(refusal) => return vec![refusal],
    };
    match inspect().head(&head, "a.example", 443) {
        Next::Refuse(refusal) => vec![refusal],
        Next::Pass => inspect().body(&head, b"", &ledger()).refusals,
        Next::Body { most } if body.len() > most => vec![Refusal::too_large(most)],
        Next::Body { .. } => inspect().body(&head, &body, &ledger()).refusals,
    }
}

fn body(framing: Framing, rest: &[u8]) -> Result<Vec<u8>, Refusal> {
    match framing {
        Framing::Length(length) if rest.len() as u64 == length => Ok(rest.to_vec()),
        Framing::None if rest.is_empty() => Ok(Vec::new()),
        Framing::Chunked => {
            let (mut chunks, mut rest, mut body) = (Chunks::new(), rest, Vec::new());
            loop {
                let (used, data) = match chunks.next(rest)? {
                    Chunk::More => return Err(unread("an unfinished body")),
                    Chunk::End(_) => return Ok(body),
                    Chunk::Skip(used) => (used, false),
                    Chunk::Data(used) => (used, true),
                };
                let (now, after) = rest.split_at(used);
                if data {
                    body.extend(now);
                }
                rest = after;
            }
        }
        _ => Err(unread("a body of another length")),
    }
}

fn unread(what: &str) -> Refusal {
    Refusal {
        reason: Reason::UnreadableBody,
        place: Some(what.to_owned()),
        value: None,
    }
}

/// Each row is refused for its reason, and perhaps for others.
pub(super) fn all_refused(rows: &[(&str, Vec<u8>, Reason)]) {
    let mut passed = Vec::new();
    for (name, request, reason) in rows {
        let found = refusals(request);
        if !found.iter().any(|refusal| refusal.reason == *reason) {
            passed.push(format!("{name}: {found:?}"));
        }
    }
    assert!(passed.is_empty(), "{}", passed.join("\n"));
}

/// Each row passes.
pub(super) fn all_pass(rows: &[(&str, Vec<u8>)]) {
    let refused = rows.iter().filter_map(|(name, request)| {
        let found = refusals(request);
        (!found.is_empty()).then(|| format!("{name}: {found:?}"))
    });
    let refused: Vec<String> = refused.collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
