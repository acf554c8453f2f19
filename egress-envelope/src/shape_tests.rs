//! What is new is told from what an operation is.
#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use super::{Baseline, LEARNED_FROM, Shown, Things, key, sentence};
use crate::{document::Document, h1};

fn request(path: &str, fields: &str, body: &str, operation: Option<&str>) -> Things {
    let text = format!("POST {path} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
    let (head, _) = h1::head(text.as_bytes()).unwrap().unwrap();
    let mut things = Things::of_head(&head, operation);
    if !body.is_empty() {
        things.add_body(&Document::Json(serde_json::from_str(body).unwrap()));
    }
    things
}

fn send(baseline: &Baseline) -> &Shown {
    baseline.operations.get("send").unwrap()
}

fn mail(body: &str) -> Things {
    request("/email?tag=1", "X-Token: 1\r\n", body, Some("send"))
}

#[test]
fn what_a_request_is_made_of() {
    let body = r#"{"To":"a","List":[{"Email":"b","Tags":{"7":1}},{"Name":"c"}],"a@b.example":1}"#;
    let things: Vec<String> = mail(body).things.into_iter().collect();
    assert_eq!(
        things,
        [
            "/List",
            "/List/Email",
            "/List/Name",
            "/List/Tags",
            "/List/Tags/{}",
            "/To",
            "/{}",
            "header x-token",
            "query tag"
        ]
    );
    let things = request("/v1/users/12345/mails/ab12cd34ef", "", "", None);
    assert_eq!(things.operation, "unlisted");
    assert!(
        things.things.contains("path POST /v1/users/{}/mails/{}"),
        "{things:?}"
    );
    for (name, folded) in [
        ("To", "To"),
        ("address2", "address2"),
        ("x-amz-date", "x-amz-date"),
        ("2026", "{}"),
        ("550e8400-e29b-41d4-a716-446655440000", "{}"),
        ("U0123ABCDE", "{}"),
    ] {
        assert_eq!(key(name), folded, "{name}");
    }
}

#[test]
fn what_comes_later_is_new_until_somebody_accepts_it() {
    let mut baseline = Baseline::default();
    let plain = mail(r#"{"To":"a"}"#);
    let with = mail(r#"{"To":"a","Bcc":"b"}"#);
    for _ in 0..LEARNED_FROM {
        let (new, _) = baseline.new_of(&plain);
        assert!(baseline.learns("send"));
        baseline.note("send", &new, "1.0.15");
    }
    assert!(!baseline.learns("send"));
    assert_eq!(baseline.new_of(&plain), (vec![], LEARNED_FROM));
    for times in 1..3 {
        let (new, before) = baseline.new_of(&with);
        assert_eq!(new, ["/Bcc"]);
        baseline.note("send", &new, "1.0.16");
        let kept = send(&baseline).new.get("/Bcc").unwrap().clone();
        assert_eq!((kept.before, kept.requests), (LEARNED_FROM, times));
        assert_eq!(
            sentence(new.first().unwrap(), "send", before, &kept.version),
            format!("/Bcc is new in 1.0.16: {before} requests of operation send never had it")
        );
    }
    assert_eq!(baseline.accept(Some("other")), 0);
    assert_eq!(baseline.accept(None), 1);
    assert_eq!(baseline.new_of(&with).0, [""; 0]);
    assert_eq!(send(&baseline).known.get("/Bcc").unwrap(), "1.0.16");
    assert_eq!(baseline.forget(Some("send")), 1);
    assert_eq!(baseline.new_of(&plain).0.len(), plain.things.len());
}

#[test]
fn names_without_end_take_no_memory_without_end() {
    let mut baseline = Baseline::default();
    for operation in 0..1_000 {
        let new: Vec<String> = (0..100).map(|it| format!("/k{operation}x{it}")).collect();
        for _ in 0..30 {
            baseline.note("one", &new, "1");
        }
        baseline.note(&operation.to_string(), &new, "1");
    }
    assert!(baseline.operations.len() <= 256);
    let one = baseline.operations.get("one").unwrap();
    assert!(one.known.len() + one.new.len() <= 1_024);
    let many: serde_json::Map<String, serde_json::Value> = (0..5_000)
        .map(|it| {
            (
                format!("k{}", "x".repeat(it % 300)) + &"y".repeat(it / 300),
                1.into(),
            )
        })
        .collect();
    let things = mail(&serde_json::to_string(&many).unwrap());
    assert!(things.things.len() <= 2_048 && things.things.iter().all(|it| it.len() <= 160));
    let huge: serde_json::Map<String, serde_json::Value> = (0..3_000_u32)
        .map(|it| {
            (
                it.to_string()
                    .bytes()
                    .map(|digit| char::from(digit + 49))
                    .collect(),
                1.into(),
            )
        })
        .collect();
    let things = mail(&serde_json::to_string(&huge).unwrap());
    assert!(
        things.more
            && baseline
                .new_of(&things)
                .0
                .last()
                .unwrap()
                .contains("more than")
    );
}
