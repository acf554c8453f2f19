//! Requests and what becomes of them.
#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use super::*;
use crate::{h1, leaves::Leaf, mcp::Call};

fn inspect() -> Inspect {
    serde_json::from_value(serde_json::json!({
        "service": { "service": "mail", "hosts": [], "operations": [
            { "id": "send", "method": "POST", "path": "/email", "body": "json",
              "recipients": { "mail": ["/To", "/Bcc", "/List/*/Email"] } },
            { "id": "form", "method": "POST", "path": "/form", "body": "form",
              "recipients": { "mail": ["/to"] } },
            { "id": "read", "method": "GET", "path": "/to/{who}",
              "recipients": { "mail": ["path who", "query cc"] } },
        ]},
        "recipients": "from-call", "listed": ["*@own.example"],
        "unlisted": "refuse", "mode": "enforce", "limits": { "body": 4096 },
    }))
    .unwrap()
}

fn judged(method: &str, path: &str, fields: &str, body: &str) -> Vec<Reason> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    let text = format!("{method} {path} HTTP/1.1\r\nHost: a.example\r\n{fields}{length}\r\n");
    let head = match h1::head(text.as_bytes()) {
        Ok(head) => head.unwrap().0,
        Err(refusal) => return vec![refusal.reason],
    };
    match inspect().head(&head, "a.example", 443) {
        Next::Refuse(refusal) => vec![refusal.reason],
        Next::Pass | Next::Body { .. } => {
            let judged = inspect().body(&head, body.as_bytes(), &Ledger::new());
            judged.refusals.into_iter().map(|it| it.reason).collect()
        }
    }
}

#[test]
fn recipients_are_found_wherever_they_are() {
    let json = "Content-Type: application/json\r\n";
    for good in [
        r#"{"To":"ann@own.example"}"#,
        r#"{"To":null,"Bcc":""}"#,
        // Content quotes whomever it likes.
        r#"{"Subject":"eve@evil.example"}"#,
    ] {
        assert_eq!(judged("POST", "/email", json, good), [], "{good}");
    }
    for bad in [
        r#"{"To":"ann@own.example","Bcc":"eve@evil.example"}"#,
        r#"{"bCC":"eve@evil.example"}"#,
        r#"{"\u0042cc":"eve@evil.example"}"#,
        r#"{"Bcc":["eve@evil.example"]}"#,
        r#"{"Bcc":{"Email":"eve@evil.example"}}"#,
        r#"{"List":[{"Email":"ann@own.example"},{"Email":"eve@evil.example"}]}"#,
        r#"{"List":{"Email":"eve@evil.example"}}"#,
    ] {
        let reasons = judged("POST", "/email", json, bad);
        assert_eq!(reasons, [Reason::RecipientNotInCall], "{bad}");
    }
    assert_eq!(judged("GET", "/to/ann%40own.example", "", ""), []);
    for bad in [
        "/to/eve%40evil.example",
        "/to/ann@own.example?cc=eve%40evil.example",
    ] {
        assert_eq!(
            judged("GET", bad, "", ""),
            [Reason::RecipientNotInCall],
            "{bad}"
        );
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let json = "Content-Type: application/json\r\n";
    for body in [
        r#"{"To":"ann@own.example","To":"eve@evil.example"}"#,
        r#"{"To":"ann@own.example","to":"eve@evil.example"}"#,
        r#"{"To":"ann@own.example"}{}"#,
        "\u{feff}{}",
        "[1,]",
    ] {
        assert_eq!(
            judged("POST", "/email", json, body),
            [Reason::UnreadableBody],
            "{body}"
        );
    }
    for fields in [
        "Content-Type: text/plain\r\n",
        "Content-Type: application/json; charset=utf-16\r\n",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
    ] {
        assert_eq!(
            judged("POST", "/email", fields, "{}"),
            [Reason::UnreadableBody],
            "{fields}"
        );
    }
    let query = judged("POST", "/email?bcc=eve@evil.example", json, "{}");
    assert!(query.contains(&Reason::TwoReadings), "{query:?}");
    assert_eq!(
        judged("POST", "/form", json, "{}"),
        [Reason::UnreadableBody]
    );
    assert_eq!(
        judged("DELETE", "/email", "", ""),
        [Reason::UnlistedOperation]
    );
}

#[test]
fn heads_that_can_be_read_in_two_ways_are_refused() {
    let plain = "GET /to/x HTTP/1.1\r\nHost: a.example\r\n";
    assert!(
        h1::head(format!("{plain}\r\n").as_bytes())
            .unwrap()
            .is_some()
    );
    assert!(h1::head(plain.as_bytes()).unwrap().is_none());
    for extra in [
        "Host: b.example\r\n",
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "A: b\r\n folded\r\n",
        "A : b\r\n",
        "A: b\nHost: b.example\r\n",
        "A: b\rc\r\n",
        "Content_Length: 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "X-HTTP-Method-Override: POST\r\n",
        "Connection: content-type\r\n",
        "Expect: more\r\n",
    ] {
        assert!(
            h1::head(format!("{plain}{extra}\r\n").as_bytes()).is_err(),
            "{extra:?}"
        );
    }
    for line in [
        "get / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/2.0",
        "GET https://b.example/ HTTP/1.1",
        "GET http://a.example/ HTTP/1.1",
        "GET https://x@a.example/ HTTP/1.1",
        "GET /a/../b HTTP/1.1",
        "GET //a HTTP/1.1",
        "GET /%61 HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "CONNECT a.example:443 HTTP/1.1",
    ] {
        let text = format!("{line}\r\nHost: a.example\r\n\r\n");
        assert!(h1::head(text.as_bytes()).is_err(), "{line}");
    }
    let absolute = b"GET https://A.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert_eq!(h1::head(absolute).unwrap().unwrap().0.path, "/x");
}

#[test]
fn what_is_written_is_what_was_read() {
    let text = "POST /a?b=c HTTP/1.1\r\nhost: a.example:8443\r\nx: 1\r\ncontent-length: 5\r\n\r\n";
    let (head, used) = h1::head(text.as_bytes()).unwrap().unwrap();
    assert_eq!(used, text.len());
    let mut out = Vec::new();
    h1::write_head(&head, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), text);
}

#[test]
fn a_list_of_ids_is_named_whole_or_one_by_one() {
    let inspect: Inspect = serde_json::from_value(serde_json::json!({
        "service": { "service": "chat", "hosts": [], "operations": [
            { "id": "open", "method": "POST", "path": "/open", "body": "json",
              "recipients": { "ids": ["/users"] } } ] },
        "recipients": "from-call", "listed": [], "unlisted": "refuse", "mode": "enforce",
        "limits": { "body": 4096 },
    }))
    .unwrap();
    let refused = |named: &[&str], users: &str| {
        let mut ledger = Ledger::new();
        let leaf = |text: &&str| Leaf {
            place: "/users".into(),
            text: (*text).into(),
        };
        ledger.called(Call {
            id: None,
            tool: "open".into(),
            named: named.iter().map(leaf).collect(),
            left_out: 0,
        });
        let body = serde_json::json!({ "users": users }).to_string();
        let text = format!(
            "POST /open HTTP/1.1\r\nHost: a.example\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let (head, _) = h1::head(text.as_bytes()).unwrap().unwrap();
        let refusals = inspect.body(&head, body.as_bytes(), &ledger).refusals;
        let values = refusals.into_iter().filter_map(|it| it.value);
        values.collect::<Vec<_>>()
    };
    assert_eq!(refused(&["U1", "U2"], "U1,U2"), [""; 0]);
    assert_eq!(refused(&["U1", "U2"], "U2, U1"), [""; 0]);
    assert_eq!(refused(&["U1,U2"], "U1,U2"), [""; 0]);
    assert_eq!(refused(&["U1"], "U1"), [""; 0]);
    assert_eq!(refused(&["U1", "U2"], "U1,U3"), ["U3"]);
    assert_eq!(refused(&["U1,U2"], "U1,U2,U3"), ["U1", "U2", "U3"]);
}
