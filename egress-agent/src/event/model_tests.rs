//! The schema, byte by byte where it is promised.

#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use super::*;

pub(crate) fn denial() -> Denial {
    Denial {
        connector: Some("postmark".into()),
        layer: Layer::Connect,
        protocol: "tcp".into(),
        destination: Destination {
            ip: Some("203.0.113.7".parse().unwrap()),
            port: Some(443),
            name: Some("giftshop.club".into()),
            query: None,
            path: None,
        },
        reason: Reason::NoRule,
        rule: None,
        process: Some(ProcessFacts {
            pid: 4242,
            uid: Some(1000),
            comm: "node".into(),
            exe: Some("/usr/bin/node".into()),
            cmdline: vec!["node".into(), "server.js".into()],
            parents: vec![Parent {
                pid: 4200,
                comm: "npx".into(),
            }],
        }),
        count: 1,
        lost: 0,
        family: Some("inet".into()),
        instance: "i1".into(),
        call: None,
        message: None,
    }
}

pub(crate) fn record(body: Body) -> Record {
    Record::new("2026-03-04T05:06:07.089Z".parse().unwrap(), body)
}

#[test]
fn the_denial_line_is_stable() {
    let line = serde_json::to_string(&record(Body::Denied(denial()))).unwrap();
    assert_eq!(
        line,
        concat!(
            r#"{"schema":"egress-agent/event/v1","time":"2026-03-04T05:06:07.089000000Z","#,
            r#""kind":"denied","connector":"postmark","layer":"connect","protocol":"tcp","#,
            r#""destination":{"ip":"203.0.113.7","port":443,"name":"giftshop.club"},"#,
            r#""reason":"no-rule","rule":null,"process":{"pid":4242,"uid":1000,"comm":"node","#,
            r#""exe":"/usr/bin/node","cmdline":["node","server.js"],"#,
            r#""parents":[{"pid":4200,"comm":"npx"}]},"count":1,"lost":0,"#,
            r#""family":"inet","instance":"i1"}"#,
        )
    );
}

pub(crate) fn every_kind() -> Vec<Record> {
    let (connector, instance) = (|| "postmark".to_owned(), || "i1".to_owned());
    let reasons = || BTreeMap::from([("no-rule".to_owned(), 3)]);
    [
        Body::Denied(denial()),
        Body::WouldDeny(Denial {
            process: None,
            ..denial()
        }),
        Body::Layers(LayersFound {
            connector: connector(),
            instance: instance(),
            active: vec!["connect".into(), "packet".into()],
            missing: vec![MissingLayer {
                layer: "lsm".into(),
                why: "bpf is not in lsm=".into(),
                open: "descriptors passed in".into(),
            }],
        }),
        Body::Operation(Operation {
            connector: connector(),
            instance: instance(),
            verdict: Operation::REFUSED.to_owned(),
            name: "api.postmarkapp.com".into(),
            port: 443,
            operation: Some("send".into()),
            method: "POST".into(),
            path: "/email".into(),
            tool: Some("sendEmail".into()),
            call: Some("7".into()),
            recipients: vec![Recipient {
                kind: "mail".into(),
                value: "ann@example.com".into(),
                place: "/To".into(),
                origin: "call".into(),
                named: Some("sendEmail /to".into()),
            }],
            refusals: vec![OperationRefusal {
                reason: "recipient-not-in-call".into(),
                place: Some("/Bcc".into()),
                value: Some("phan@giftshop.club".into()),
                message: "phan@giftshop.club in /Bcc was named in no tool call".into(),
            }],
            headers: vec!["host".into()],
            body: 120,
            status: Some(403),
            new: vec!["/Bcc is new: 412 requests of operation send never had it".into()],
        }),
        Body::Started(Started {
            connector: connector(),
            instance: instance(),
            mode: "enforce".into(),
            policy: Some("/etc/p.yaml".into()),
            rules: 2,
            pid: Some(7),
            uid: 1000,
            command: vec!["npx".into()],
            proxy: None,
        }),
        Body::Stopped(Stopped {
            connector: connector(),
            instance: instance(),
            exit: Exit {
                code: Some(0),
                signal: None,
            },
            duration_ms: 1500,
            allowed: vec![RuleTotal {
                rule: "api.postmarkapp.com:443/tcp".into(),
                connections: 1,
                packets: 12,
                bytes: 4096,
            }],
            denied: reasons(),
            not_shown: reasons(),
            lost: 1,
            unwritten: 0,
            unanswered: 0,
        }),
        Body::Lost(Lost {
            connector: Some(connector()),
            instance: instance(),
            lost: 5,
            denied: 9,
            shown: 6,
            not_shown: reasons(),
            unwritten: 0,
            malformed: 0,
        }),
        Body::Policy(PolicyChange {
            connector: connector(),
            instance: instance(),
            policy: None,
            mode: "audit".into(),
            added: vec!["a:443/tcp".into()],
            removed: vec![],
        }),
        Body::NameUnresolved(NameUnresolved {
            connector: connector(),
            instance: instance(),
            name: "x.example".into(),
            rule: None,
            message: "no answer".into(),
        }),
        Body::Warning(Warning {
            connector: None,
            instance: instance(),
            topic: "foreign-program".into(),
            message: "m".into(),
        }),
    ]
    .map(record)
    .into()
}

#[test]
fn every_kind_survives_the_way_through_a_file() {
    for record in every_kind() {
        let line = serde_json::to_string(&record).unwrap();
        assert!(line.starts_with(r#"{"schema":"egress-agent/event/v1","time":""#));
        assert_eq!(
            serde_json::from_str::<Record>(&line).unwrap(),
            record,
            "{line}"
        );
    }
}

#[test]
fn every_layer_and_reason_survives() {
    for &layer in Layer::ALL {
        for &reason in Reason::ALL {
            let body = Body::Denied(Denial {
                layer,
                reason,
                ..denial()
            });
            let line = serde_json::to_string(&record(body.clone())).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap().body, body);
        }
    }
}

#[test]
fn lines_of_another_world_are_refused() {
    let line = serde_json::to_string(&record(Body::Denied(denial()))).unwrap();
    for (from, to) in [
        ("event/v1", "event/v2"),
        ("\"denied\"", "\"granted\""),
        ("no-rule", "no-reason"),
        ("\"connect\"", "\"hook\""),
        ("2026-", "yesterday-"),
    ] {
        let other = line.replacen(from, to, 1);
        assert_ne!(other, line);
        assert!(serde_json::from_str::<Record>(&other).is_err(), "{other}");
    }
}
