//! What `inspect:` means, and what is no `inspect:`.

use std::path::Path;

use egress_envelope::{
    judge::{Inspect, Mode, OnViolation, Recipients, Unlisted},
    secret::Secret,
    value::Kind,
};

use super::{faults, policy};
use crate::policy::{
    explain::{Request, explain_request},
    judged,
    model::Policy,
    parse,
    slots::{Numbers, Slots},
};

/// A rule for Postmark with more keys, on a line of its own.
fn rule(rest: &str) -> String {
    format!("allow:\n  - {{host: api.postmarkapp.com, ports: [443], {rest}}}\n")
}

fn inspect(policy: &Policy) -> Inspect {
    match policy.inspected().next() {
        Some((0, name, inspect)) if name.as_str() == "api.postmarkapp.com" => inspect,
        other => panic!("{other:?}"),
    }
}

/// Asserts that a policy has exactly one fault, at a place, that says so, with advice.
#[track_caller]
fn fault(rest: &str, place: &str, message: &str) {
    let found = faults(rest);
    assert_eq!(found.len(), 1, "{rest}: {found:#?}");
    assert!(
        found[0].starts_with(&format!("p.yaml:{place}: ")),
        "{found:?}"
    );
    assert!(
        found[0].contains(message) && found[0].contains("; "),
        "{found:?} lacks {message:?}"
    );
}

#[test]
fn what_is_not_said_is_the_strict_one() {
    let policy = policy(&rule("inspect: {service: postmark}"));
    let inspect = inspect(&policy);
    assert_eq!(inspect.recipients, Recipients::FromCall);
    assert_eq!(inspect.unlisted, Unlisted::Refuse);
    assert_eq!(inspect.mode, Mode::Enforce);
    assert_eq!(inspect.limits.body, 1 << 20);
    assert_eq!(inspect.listed, []);
    assert!(
        inspect
            .service
            .operations
            .iter()
            .any(|operation| operation.id == "send")
    );
    assert!(policy.allow.iter().all(|rule| rule.tls));
}

#[test]
fn everything_that_can_be_said() {
    let policy = policy(
        r#"allow:
  - host: api.postmarkapp.com
    ports: [443, 8443]
    tls: require
    inspect:
      service: postmark
      recipients: listed
      listed: [Bob@Example.com, "*@example.org", "+4930123456", C0123ABC]
      unlisted: report
      mode: report
      limits: {body: 512KiB, requests: 60/m, recipients: 100/h, bytes: 10MiB/d}
      credentials: [header X-Other]
      operations:
        - {id: own, method: POST, path: "/own/{account}", body: form, recipients: {mail: /to, id: [path account]}}
"#,
    );
    let inspect = inspect(&policy);
    assert_eq!(inspect.recipients, Recipients::Listed);
    assert_eq!(inspect.listed.len(), 4);
    assert_eq!(
        (inspect.unlisted, inspect.mode),
        (Unlisted::Report, Mode::Report)
    );
    assert_eq!(inspect.limits.body, 512 << 10);
    let said = judged::meanings(&policy).join("");
    let limits = "at most requests 60/m, recipients 100/h, bytes of bodies 10485760/d";
    assert!(said.contains(limits), "{said}");
    assert_eq!(inspect.service.credentials.len(), 2);
    let own = inspect
        .service
        .operations
        .iter()
        .find(|operation| operation.id == "own");
    let own = own.unwrap_or_else(|| panic!("{inspect:?}"));
    assert_eq!(
        own.recipients.keys().copied().collect::<Vec<_>>(),
        [Kind::Mail, Kind::Id]
    );
}

#[test]
fn a_policy_that_only_reports_judges_so() {
    let text = rule("inspect: {service: postmark}");
    let policy = policy(&format!("mode: audit\n{text}"));
    assert_eq!(inspect(&policy).mode, Mode::Report);
}

#[test]
fn where_nothing_can_be_read() {
    let table = "inspect: {service: postmark}";
    let cases = [
        (
            format!("host: \"*.postmarkapp.com\", ports: [443], {table}"),
            "this is a wildcard",
        ),
        (
            format!("internet: [443], why: x, {table}"),
            "for the whole Internet",
        ),
        (
            format!("cidr: 192.0.2.1, ports: [443], {table}"),
            "needs a host name",
        ),
        (
            format!("host: 192.0.2.1, ports: [443], {table}"),
            "needs a host name",
        ),
        (format!("unix: /run/x, {table}"), "no TLS is spoken here"),
        (
            format!("host: api.postmarkapp.com, ports: [443], protocol: any, {table}"),
            "QUIC",
        ),
        (
            format!("host: api.postmarkapp.com, ports: [80], {table}"),
            "port 80 may go without",
        ),
        (
            format!("host: api.postmarkapp.com, ports: [443, \"8000-8010\"], {table}"),
            "ports 8000-8010",
        ),
        (
            format!("host: api.postmarkapp.com, ports: [443], tls: off, {table}"),
            "port 443 may go without",
        ),
        (
            format!("host: api.postmarkapp.com, ports: [443], ech: allow, {table}"),
            "“ech” has no meaning",
        ),
    ];
    for (rule, message) in cases {
        let rest = format!("allow:\n  - {{{rule}}}\n");
        let found = faults(&rest);
        assert_eq!(found.len(), 1, "{rule}: {found:#?}");
        assert!(found[0].starts_with("p.yaml:4:"), "{found:?}");
        assert!(found[0].contains(message), "{found:?} lacks {message}");
    }
    let denied =
        "deny:\n  - {host: api.postmarkapp.com, ports: [443], inspect: {service: postmark}}\n";
    fault(denied, "4:47", "belongs to “host” rules of “allow” only");
    policy(
        "allow:\n  - {host: api.postmarkapp.com, ports: [80], tls: require, inspect: {service: postmark}}\n",
    );
}

#[test]
fn keys_that_are_none() {
    for (inspect, message) in [
        ("{service: postmrak}", "did you mean “postmark”?"),
        ("{service: nothing-like-it}", "known here: "),
        (
            "{service: slack}",
            "the service slack is at slack.com, and this rule is for api.postmarkapp.com",
        ),
        ("{service: 7}", "“service” is the number 7"),
        ("postmark", "“inspect” is “postmark”"),
        ("{}", "no operation is known here, so no request would pass"),
        ("{operations: []}", "no operation is known here"),
        (
            "{service: postmark, shapes: report}",
            "unknown key “shapes” in “inspect”",
        ),
        (
            "{service: postmark, budget: 1MiB}",
            "unknown key “budget” in “inspect”",
        ),
        (
            "{service: postmark, recipient: any}",
            "did you mean “recipients:”?",
        ),
        (
            "{service: postmark, recipients: all}",
            "“recipients” is “all”",
        ),
        (
            "{service: postmark, recipients: listed}",
            "nobody is listed",
        ),
        (
            "{service: postmark, recipients: any, listed: [a@b.example]}",
            "“listed” says nothing",
        ),
        (
            "{service: postmark, unlisted: allow}",
            "write “unlisted: refuse” or “unlisted: report”",
        ),
        (
            "{service: postmark, mode: audit}",
            "write “mode: enforce” or “mode: report”",
        ),
        (
            "{service: postmark, limits: {request: 60/m}}",
            "unknown key “request” in “limits”",
        ),
        (
            "{service: postmark, limits: {body: 0KiB}}",
            "“0KiB” is no size",
        ),
        (
            "{service: postmark, limits: {body: 17MiB}}",
            "at most 16MiB",
        ),
        (
            "{service: postmark, limits: {body: 1MB}}",
            "“1MB” is no size",
        ),
        (
            "{service: postmark, limits: {body: 1024}}",
            "“body” is the number 1024",
        ),
        (
            "{service: postmark, limits: {requests: 60}}",
            "“requests” is the number 60",
        ),
        (
            "{service: postmark, limits: {requests: 0/m}}",
            "“0/m” is no limit in a time",
        ),
        (
            "{service: postmark, limits: {recipients: 10/w}}",
            "“10/w” is no limit in a time",
        ),
        (
            "{service: postmark, limits: {bytes: 10/m}}",
            "write a size and a time",
        ),
        (
            "{service: postmark, credentials: [X-Token]}",
            "“X-Token” is no place",
        ),
    ] {
        let found = faults(&rule(&format!("inspect: {inspect}")));
        assert_eq!(found.len(), 1, "{inspect}: {found:#?}");
        assert!(found[0].contains(message), "{found:?} lacks {message}");
    }
    policy(&rule("inspect: {unlisted: report}"));
}

#[test]
fn patterns_that_list_too_many() {
    for (pattern, message) in [
        ("*", "more than one recipient"),
        ("*@*", "everybody"),
        ("*@*.com", "everybody"),
        ("*@com", "everybody"),
        ("bob@*", "everybody"),
        ("C*", "more than one recipient"),
        ("*@*.example.com", "no usable pattern"),
        ("b*@example.com", "no usable pattern"),
        ("@example.com", "no usable pattern"),
        ("Bob <bob@example.com>", "no recipient"),
        ("", "no recipient"),
    ] {
        let found = faults(&rule(&format!(
            "inspect: {{service: postmark, listed: [\"{pattern}\"]}}"
        )));
        assert_eq!(found.len(), 1, "{pattern}: {found:#?}");
        assert!(found[0].contains(message), "{found:?} lacks {message}");
    }
    fault(
        &rule("inspect: {service: postmark, listed: [a@b.example, A@b.example]}"),
        "4:98",
        "stands here twice",
    );
}

#[test]
fn operations_that_cannot_match() {
    for (operation, message) in [
        ("{method: GET, path: /x}", "the operation has no “id”"),
        ("{id: x, path: /x}", "the operation has no “method”"),
        ("{id: x, method: GET}", "the operation has no “path”"),
        (
            "{id: X y, method: GET, path: /x}",
            "no name of an operation",
        ),
        ("{id: x, method: get, path: /x}", "“get” is no method"),
        (
            "{id: x, method: GET, path: x}",
            "does not begin with a slash",
        ),
        ("{id: x, method: GET, path: \"/x?y=1\"}", "no plain path"),
        ("{id: x, method: GET, path: /a%20b}", "no plain path"),
        ("{id: x, method: GET, path: /a/../b}", "servers take away"),
        ("{id: x, method: GET, path: \"/a/{}\"}", "no variable"),
        ("{id: x, method: GET, path: \"/a/{b}c\"}", "no variable"),
        (
            "{id: x, method: GET, path: /x, body: json}",
            "a GET has no body that counts",
        ),
        (
            "{id: x, method: POST, path: /x, body: xml}",
            "“body” is “xml”",
        ),
        (
            "{id: x, method: POST, path: /x, recipients: {mail: /to}}",
            "a field of a body, and here none is read",
        ),
        (
            "{id: x, method: POST, path: /x, body: json, recipients: {email: /to}}",
            "did you mean “mail:”?",
        ),
        (
            "{id: x, method: POST, path: /x, body: json, recipients: {mail: to}}",
            "“to” is no place",
        ),
        (
            "{id: x, method: POST, path: \"/x/{a}\", destinations: {id: path b}}",
            "the path has no “{b}”",
        ),
        (
            "{id: x, method: POST, path: /x, body: json, recipients: {mail: []}}",
            "0 places",
        ),
        (
            "{id: x, method: POST, path: /email, body: json}",
            "“send” takes the same requests already",
        ),
        (
            "{id: x, method: GET, path: \"/bounces/{other}\"}",
            "“bounce” takes the same requests already",
        ),
        (
            "{id: x, method: POST, path: /x, body: json-rpc}",
            "needs “rpc:”",
        ),
        (
            "{id: x, method: POST, path: /x, body: json, rpc: eth_call}",
            "“rpc” belongs to “body: json-rpc” only",
        ),
        (
            "{id: x, method: GET, path: /x, host: y}",
            "unknown key “host” in an operation",
        ),
        ("7", "an operation is the number 7"),
    ] {
        let found = faults(&rule(&format!(
            "inspect: {{service: postmark, operations: [{operation}]}}"
        )));
        assert_eq!(found.len(), 1, "{operation}: {found:#?}");
        assert!(found[0].contains(message), "{found:?} lacks {message}");
    }
}

#[test]
fn no_rule_leads_round_it() {
    let judged = "{host: api.postmarkapp.com, ports: [443], inspect: {service: postmark}}";
    for (other, message) in [
        (
            "{host: \"*.postmarkapp.com\", ports: [443]}",
            "name the hosts that are meant",
        ),
        (
            "{host: api.postmarkapp.com, ports: [8443]}",
            "write one rule for the host",
        ),
        ("{internet: [443], why: x}", "remove one of the two"),
        (
            "{host: api.postmarkapp.com, ports: [8443], tls: require, inspect: {service: postmark, recipients: any}}",
            "write one rule for the host",
        ),
    ] {
        let found = faults(&format!("allow:\n  - {judged}\n  - {other}\n"));
        assert!(
            found.iter().any(|fault| fault.starts_with("p.yaml:5:5: ")),
            "{found:#?}"
        );
        assert!(
            found
                .iter()
                .all(|fault| fault.contains("round “inspect” of entry")),
            "{found:#?}"
        );
        assert!(
            found.iter().any(|fault| fault.contains(message)),
            "{found:#?}"
        );
    }
    policy(&format!(
        "allow:\n  - {judged}\n  - {{host: postmarkapp.com, ports: [443]}}\n"
    ));
    policy(&format!(
        "allow:\n  - {judged}\ndeny:\n  - {{host: \"*.postmarkapp.com\", ports: [25]}}\n"
    ));
    let proxied = |direct: &str| {
        let text = format!(
            "version: 1\nconnector: x\nproxy: {{url: \"http://proxy.corp.example:3128\"{direct}}}\nallow:\n  - {judged}\n"
        );
        parse(Path::new("p.yaml"), &text).map_err(|faults| faults.to_string())
    };
    let found = proxied("").err().unwrap_or_default();
    assert!(
        found.starts_with("p.yaml:5:") && found.contains("where nothing is judged"),
        "{found}"
    );
    // Reached without it, the host would still be judged by nobody: a start refuses both together.
    let both = proxied(", direct: [api.postmarkapp.com]")
        .err()
        .unwrap_or_default();
    assert!(both.contains("do not go together"), "{both}");
}

#[test]
fn how_it_is_judged_may_change_while_flows_live() {
    let mut slots = Slots::new(Numbers::new(64));
    let mut slot = |rest: &str| slots.assign(&policy(&rule(rest)));
    let first = slot("inspect: {service: postmark}");
    assert_eq!(slot("inspect: {service: postmark, mode: report}"), first);
    assert_ne!(slot("why: it is not judged at all"), first);
    assert_eq!(slot("inspect: {service: postmark}"), first);
}

#[test]
fn what_it_means_is_said() {
    let said = |rest: &str| judged::meanings(&policy(rest)).join("\n");
    let text = said(&rule(
        "inspect: {service: postmark, listed: [\"*@example.com\"]}",
    ));
    assert!(
        text.starts_with("requests to api.postmarkapp.com are judged (postmark, "),
        "{text}"
    );
    assert!(
        text.contains("tool calls or the operator named, or the one listed"),
        "{text}"
    );
    assert!(text.ends_with("other operations are refused"), "{text}");
    let text = said(&rule(
        "inspect: {unlisted: report, mode: report, recipients: any}",
    ));
    assert!(
        text.contains("(no operation is known): everybody may be a recipient"),
        "{text}"
    );
    assert!(
        text.ends_with("pass and are reported; report mode: nothing is refused"),
        "{text}"
    );
    assert_eq!(said("allow: [api.postmarkapp.com:443]\n"), "");
}

#[test]
fn where_it_means_less_is_said() {
    let said = |rest: &str| judged::cautions(&policy(rest));
    let judged = rule("inspect: {service: postmark}");
    assert_eq!(said(&judged), [""; 0]);
    let called = format!("{judged}listen: [\"8080 from 10.0.0.0/8\"]\n");
    assert!(matches!(said(&called).as_slice(), [one] if one.contains("(listen)")));
    let by_address = format!("{judged}  - {{cidr: 192.0.2.0/24, ports: [\"400-500\"]}}\n");
    assert!(
        matches!(said(&by_address).as_slice(), [one] if one.contains("rule 192.0.2.0/24:400-500/tcp leads to"))
    );
    let elsewhere = format!("{judged}  - {{cidr: 192.0.2.0/24, ports: [5432]}}\n");
    assert_eq!(said(&elsewhere), [""; 0]);
    let any = rule("inspect: {service: postmark, recipients: any}");
    assert_eq!(
        said(&format!("{any}listen: [\"8080 from 10.0.0.0/8\"]\n")),
        [""; 0]
    );
}

#[test]
fn what_is_not_judged_is_not_put_in_force() {
    let proxy = "version: 1\nconnector: x\nproxy: http://proxy.corp.example:3128\n";
    let proxy = parse(Path::new("p.yaml"), proxy).map(|policy| policy.proxy);
    let mut judged = policy(&rule("inspect: {service: postmark}"));
    judged.proxy = proxy.clone().unwrap_or_default();
    let said = judged::unfit(&judged).unwrap_or_default();
    assert!(
        said.contains("go through the proxy http://proxy.corp.example:3128"),
        "{said}"
    );
    let mut plain = policy("allow: [api.postmarkapp.com:443]\n");
    plain.proxy = proxy.unwrap_or_default();
    assert_eq!(judged::unfit(&plain), None);
}

/// What is explained of a request: action, reason, operation, and all hints.
fn explained(inspect: &str, request: &str, recipients: &[&str]) -> (String, String, String) {
    let policy = policy(&rule(inspect));
    let request = Request::parse(request).unwrap_or_else(|complaint| panic!("{complaint}"));
    let recipients: Vec<String> = recipients.iter().map(|text| (*text).to_owned()).collect();
    let found = explain_request(&policy, &request, &recipients);
    let found = found.unwrap_or_else(|faults| panic!("{faults}"));
    let found = found.unwrap_or_else(|complaint| panic!("{complaint}"));
    let answer = &found.answers[0];
    let operation = found
        .operation
        .and_then(|operation| operation.id)
        .unwrap_or_default();
    (
        format!("{} {}", answer.action, answer.reason),
        operation,
        found.hints.join("; "),
    )
}

#[test]
fn requests_are_explained() {
    const SEND: &str = "POST https://api.postmarkapp.com/email";
    const TABLE: &str = "inspect: {service: postmark, listed: [\"*@example.com\"]}";
    let report = "inspect: {service: postmark, mode: report}";
    for (inspect, request, to, action, operation, hint) in [
        (
            TABLE,
            SEND,
            &[][..],
            "allow none",
            "send",
            "has to be named in a tool call",
        ),
        (
            TABLE,
            SEND,
            &["Phan <phan@giftshop.club>"],
            "deny recipient-not-in-call",
            "send",
            "“phan@giftshop.club” is right where a tool call",
        ),
        (
            TABLE,
            SEND,
            &["a@example.com"],
            "allow none",
            "send",
            "it is listed",
        ),
        (
            TABLE,
            SEND,
            &["a@example.com", "b@c.example"],
            "deny recipient-not-in-call",
            "send",
            "b@c.example",
        ),
        (
            report,
            SEND,
            &["b@c.example"],
            "audit recipient-not-in-call",
            "send",
            "",
        ),
        (
            "inspect: {service: postmark, recipients: any}",
            SEND,
            &["b@c.example"],
            "allow none",
            "send",
            "everybody",
        ),
        (
            "inspect: {service: postmark, recipients: listed, listed: [a@b.example]}",
            SEND,
            &["b@c.example"],
            "deny recipient-not-listed",
            "send",
            "is not listed",
        ),
        (
            TABLE,
            "POST https://api.postmarkapp.com/webhooks?x=1",
            &[],
            "deny unlisted-operation",
            "",
            "the table of postmark has no such operation",
        ),
        (
            TABLE,
            "GET https://api.postmarkapp.com/email",
            &[],
            "deny unlisted-operation",
            "",
            "listed for this path: POST",
        ),
        (
            "inspect: {service: postmark, unlisted: report}",
            "PUT https://api.postmarkapp.com/server",
            &[],
            "audit unlisted-operation",
            "",
            "",
        ),
        (
            TABLE,
            "GET https://api.postmarkapp.com/bounces/7",
            &[],
            "allow none",
            "bounce",
            "goes to nobody",
        ),
        (
            TABLE,
            "POST https://api.postmarkapp.com:8443/email",
            &[],
            "deny no-rule",
            "",
            "",
        ),
        (
            TABLE,
            "POST https://other.example/email",
            &[],
            "deny name-not-allowed",
            "",
            "not read",
        ),
        (
            "why: it is not judged",
            SEND,
            &["b@c.example"],
            "allow none",
            "",
            "its rule has no “inspect”",
        ),
    ] {
        let found = explained(inspect, request, to);
        assert_eq!(
            (found.0.as_str(), found.1.as_str()),
            (action, operation),
            "{inspect} {request} {to:?}"
        );
        assert!(found.2.contains(hint), "{found:?} lacks {hint}");
    }
}

#[test]
fn what_is_no_request() {
    for (text, message) in [
        ("post https://a.example/", "“post” is no method"),
        ("POST http://a.example/", "none in TLS"),
        (
            "POST https://u@a.example/",
            "names somebody before the host",
        ),
        ("POST https://a.example:0/", "is no port"),
        ("POST https:///x", "empty"),
    ] {
        let complaint = Request::parse(text)
            .err()
            .map(|complaint| complaint.to_string());
        assert!(
            complaint
                .as_ref()
                .is_some_and(|said| said.contains(message)),
            "{text}: {complaint:?}"
        );
    }
    assert!(Request::is_one("POST https://a.example/"));
    assert!(!Request::is_one("a.example:443"));
    let policy = policy(&rule("inspect: {service: postmark}"));
    let request = Request::parse("POST https://api.postmarkapp.com/email");
    let request = request.unwrap_or_else(|complaint| panic!("{complaint}"));
    let found = explain_request(&policy, &request, &["whoever".to_owned()]);
    assert!(matches!(found, Ok(Err(complaint)) if complaint.message.contains("is no recipient")));
}

#[test]
fn what_holds_for_every_request() {
    let judged = rule("inspect: {service: postmark}");
    let text = format!(
        "{judged}content: {{refuse: [private-key, own-secrets], belongs: {{A_TOKEN: \
         [API.postmarkapp.com]}}}}\non-violation: freeze\n"
    );
    let policy = policy(&text);
    let inspect = inspect(&policy);
    let content = inspect.content.unwrap_or_default();
    assert_eq!(content.refuse, [Secret::PrivateKey, Secret::OwnSecrets]);
    let belongs = content.belongs.get("A_TOKEN").map(Vec::as_slice);
    assert_eq!(belongs, Some(["api.postmarkapp.com".to_owned()].as_slice()));
    assert_eq!(inspect.on_violation, OnViolation::Freeze);
    let said = judged::meanings(&policy).join("; ");
    assert!(said.contains("(private-key, own-secrets)"), "{said}");
    assert!(said.contains("is frozen"), "{said}");
    for (text, message) in [
        ("content: {}", "“refuse” is missing"),
        ("content: {refuse: []}", "an empty list"),
        (
            "content: {refuse: [privat-key]}",
            "did you mean “private-key”?",
        ),
        (
            "content: {refuse: [web-token, web-token]}",
            "stands here twice",
        ),
        (
            "content: {refuse: [web-token], belong: {}}",
            "did you mean “belongs:”?",
        ),
        (
            "content: {refuse: [own-secrets], belongs: {A: [other.example]}}",
            "requests to other.example are not judged",
        ),
        (
            "content: {refuse: [own-secrets], belongs: {A: [\"*.a\"]}}",
            "the host “*.a”",
        ),
        ("on-violation: freze", "write “on-violation: refuse”"),
    ] {
        let found = faults(&format!("{judged}{text}\n"));
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].contains(message), "{found:?} lacks {message}");
    }
    let plain = "allow: [\"a.example:443\"]\n";
    for text in ["content: {refuse: [web-token]}", "on-violation: kill"] {
        let found = faults(&format!("{plain}{text}\n"));
        assert!(found[0].contains("no rule has “inspect”"), "{found:?}");
    }
}
