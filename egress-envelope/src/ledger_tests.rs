//! What counts as named, and by whom.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use serde_json::{Value, json};

use super::*;
use crate::mcp::{Heard, Wire};

/// What a ledger knows after the client has called tools, one after the other.
fn after(calls: &[Value]) -> Ledger {
    let mut ledger = Ledger::new();
    let mut wire = Wire::new();
    for (id, arguments) in calls.iter().enumerate() {
        let params = json!({"name": format!("tool{id}"), "arguments": arguments});
        let line = json!({"id": id, "method": "tools/call", "params": params});
        wire.client(format!("{line}\n").as_bytes(), &mut |heard| match heard {
            Heard::Called(call) => ledger.called(call),
            other => panic!("{other:?}"),
        });
    }
    ledger
}

fn found(ledger: &Ledger, kind: Kind, value: &str) -> String {
    match ledger.find(kind, value) {
        None => "nowhere".to_owned(),
        Some(Origin::Call { tool, place, .. }) => format!("{tool} {place}"),
        Some(other) => format!("{other:?}").to_lowercase(),
    }
}

fn mail(ledger: &Ledger, value: &str) -> String {
    found(ledger, Kind::Mail, value)
}

#[test]
fn whole_values_and_lists_of_them_are_named() {
    let ledger = after(&[json!({
        "to": "Bob Doe <Bob@Shop.example>",
        "more": {"cc": ["a@b.example, c@d.example", "e@f.example\ng@h.example"]},
        "chat": -100_123,
        "phone": "+49 30 9876-543",
        "written": "{\"parent\": {\"page_id\": \"abc-1\"}, \"to\": [\"i@j.example\"]}",
        "keyed": {"k@l.example": {"name": "K"}},
    })]);
    for (kind, value, place) in [
        (Kind::Mail, "bob@shop.example", "tool0 /to"),
        (Kind::Mail, "a@b.example", "tool0 /more/cc/0"),
        (Kind::Mail, "c@d.example", "tool0 /more/cc/0"),
        (Kind::Mail, "g@h.example", "tool0 /more/cc/1"),
        (Kind::Mail, "i@j.example", "tool0 /written/to/0"),
        (Kind::Mail, "k@l.example", "tool0 /keyed/k@l.example"),
        (Kind::Channel, "-100123", "tool0 /chat"),
        (Kind::Id, "-100123", "tool0 /chat"),
        (Kind::Phone, "49309876543", "tool0 /phone"),
        (Kind::Id, "abc-1", "tool0 /written/parent/page_id"),
    ] {
        assert_eq!(found(&ledger, kind, value), place);
    }
}

#[test]
fn parts_of_arguments_are_not_named() {
    let ledger = after(&[json!({
        "to": "bob@shop.example.org",
        "text": "On Monday eve@evil.example wrote: …",
        "subject": "eve@evil.example",
        "list": "a@b.example, or else eve2@evil.example",
        "id": "C0123ABC",
        "url": "https://a.example/x",
        "phone": "+49301234567",
    })]);
    for value in [
        "bob@shop.example",
        "ob@shop.example.org",
        "eve2@evil.example",
        "a@b.example",
    ] {
        assert_eq!(mail(&ledger, value), "nowhere", "{value}");
    }
    // An argument that says an address and nothing else names it, whatever it is called.
    assert_eq!(mail(&ledger, "eve@evil.example"), "tool0 /subject");
    assert_eq!(found(&ledger, Kind::Id, "C0123AB"), "nowhere");
    assert_eq!(found(&ledger, Kind::Channel, "c0123ab"), "nowhere");
    assert_eq!(found(&ledger, Kind::Url, "https://a.example/"), "nowhere");
    assert_eq!(found(&ledger, Kind::Phone, "49309876543"), "nowhere");
    assert_eq!(found(&ledger, Kind::Phone, "49301234567"), "tool0 /phone");
}

#[test]
fn sources_have_ranks_and_the_latest_call_is_told() {
    let mut ledger = Ledger::new();
    ledger.answered(Kind::Mail, "a@b.example");
    assert_eq!(mail(&ledger, "a@b.example"), "service");
    ledger.operator("--from=A@b.example");
    assert_eq!(mail(&ledger, "a@b.example"), "operator");
    assert!(ledger.is_operators(Kind::Mail, "a@b.example"));
    let ledger = after(&[
        json!({"to": "a@b.example"}),
        json!({"cc": "a@b.example", "to": "c@d.example"}),
    ]);
    assert_eq!(mail(&ledger, "a@b.example"), "tool1 /cc");
    assert!(!ledger.is_operators(Kind::Mail, "a@b.example"));
    // What was named as one kind stays named when it is named as another.
    let ledger = after(&[json!({"id": "abc"}), json!({"channel": "#abc"})]);
    assert_eq!(found(&ledger, Kind::Id, "abc"), "tool1 /channel");
}

#[test]
fn an_operator_names_several_values_in_one_text() {
    let mut ledger = Ledger::new();
    for text in [
        "C1,C2; C3",
        "--to=bob@shop.example",
        "Ann <ann@shop.example>",
        "secret+token=",
    ] {
        ledger.operator(text);
    }
    for (kind, value) in [
        (Kind::Channel, "c2"),
        (Kind::Id, "C3"),
        (Kind::Mail, "bob@shop.example"),
        (Kind::Mail, "ann@shop.example"),
        (Kind::Id, "secret+token="),
    ] {
        assert_eq!(found(&ledger, kind, value), "operator", "{value}");
    }
    assert_eq!(found(&ledger, Kind::Id, "secret+toke"), "nowhere");
    // As what it can be, and nothing else.
    ledger.operator("#ops");
    assert_eq!(found(&ledger, Kind::Channel, "ops"), "operator");
    assert_eq!(found(&ledger, Kind::Id, "ops"), "nowhere");
    let token = "j".repeat(2000);
    ledger.operator(&token);
    assert!(ledger.is_operators(Kind::Id, &token));
}

#[test]
fn the_session_counts_and_calls_under_way_are_told() {
    let mut ledger = after(&[json!({"to": "a@b.example"}), json!({})]);
    let under_way = |ledger: &Ledger| -> Vec<String> {
        ledger.in_flight().map(|call| call.tool.clone()).collect()
    };
    assert_eq!(under_way(&ledger), ["tool1", "tool0"]);
    ledger.ended(&Id::Number("0".into()));
    ledger.ended(&Id::Text("1".into()));
    assert_eq!(under_way(&ledger), ["tool1"]);
    assert_eq!(mail(&ledger, "a@b.example"), "tool0 /to");
    assert_eq!(ledger.forgotten(), 0);
}

#[test]
fn what_is_forgotten_is_not_found_and_told() {
    let mut calls = vec![json!({"to": "first@shop.example"})];
    let many: Vec<String> = (0..4000).map(|n| format!("a{n}@b.example")).collect();
    for _ in 0..2 {
        calls.push(json!({"to": many}));
    }
    let mut ledger = after(&calls);
    assert_eq!(mail(&ledger, "first@shop.example"), "tool0 /to");
    // Other values, until two generations are full of them.
    let mut id = 0;
    while ledger.forgotten() == 0 {
        let more: Vec<String> = (0..1000).map(|n| format!("x{id}-{n}@b.example")).collect();
        let named = more.iter().map(|text| crate::leaves::Leaf {
            place: String::new(),
            text: text.clone(),
        });
        ledger.called(Call {
            id: None,
            tool: "x".into(),
            named: named.collect(),
            left_out: 0,
        });
        id += 1;
        assert!(id < 100, "nothing is ever forgotten");
    }
    assert_eq!(mail(&ledger, "first@shop.example"), "nowhere");
    let values = ledger.calls.young.len() + ledger.calls.old.len();
    assert!(values <= 2 * MAX_VALUES, "{values}");
    // So are values for which a call had no room, and messages that nobody read.
    let mut ledger = after(&[json!({"to": (0..5000).map(|n| n.to_string()).collect::<Vec<_>>()})]);
    assert_eq!(ledger.forgotten(), 5000 - 4096);
    ledger.missed();
    assert_eq!(ledger.forgotten(), 5000 - 4096 + 1);
}
