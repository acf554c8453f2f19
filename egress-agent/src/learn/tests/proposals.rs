//! Lines as `run` writes them → what is proposed.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    event::Record,
    learn::{
        compare::{records, with_policy},
        insert::insert,
        observed::Observed,
        propose::{Apart, Proposal, To, propose},
        render::{entries, remarks},
    },
    policy,
};

/// One run's lines, an hour after the last one's.
fn run(at: usize, mode: &str, wants: &[Value]) -> Vec<Value> {
    let time = |minute: usize| format!("2026-03-04T{at:02}:{minute:02}:00.000000000Z");
    let instance = format!("i{at}");
    let mut lines = vec![json!({
        "schema": "egress-agent/event/v1", "time": time(0), "kind": "started", "connector": "c",
        "instance": instance, "mode": mode, "policy": "/p", "rules": 0, "pid": 1, "uid": 1000 + at,
        "command": ["node"],
    })];
    for (want, minute) in wants.iter().zip(1..) {
        let mut line = json!({
            "schema": "egress-agent/event/v1", "time": time(minute), "kind": "would-deny",
            "connector": "c", "instance": instance, "layer": "connect", "protocol": "tcp",
            "destination": {"ip": "203.0.113.7", "port": 443, "name": null}, "reason": "no-rule",
            "rule": null, "count": 2, "lost": 0, "family": "inet",
            "process": {"pid": 7, "uid": 1000, "comm": "node", "exe": "/usr/bin/node",
                        "cmdline": [], "parents": []},
        });
        for (key, value) in want.as_object().unwrap() {
            line[key] = value.clone();
        }
        lines.push(line);
    }
    lines.push(json!({
        "schema": "egress-agent/event/v1", "time": time(59), "kind": "stopped", "connector": "c",
        "instance": instance, "exit": {"code": 0, "signal": null}, "duration_ms": 1,
        "allowed": [{"rule": "used.example:443/tcp", "connections": 1, "packets": 3, "bytes": 99}],
        "denied": {}, "not_shown": {}, "lost": 0, "unwritten": 0,
    }));
    lines
}

fn name(name: &str) -> Value {
    json!({"destination": {"ip": "203.0.113.7", "port": 443, "name": name}})
}

fn observed(runs: &[Vec<Value>]) -> Observed {
    let mut observed = Observed::default();
    for line in runs.iter().flatten() {
        let record: Record = serde_json::from_value(line.clone()).unwrap();
        observed.take(&record);
    }
    observed.settle();
    observed
}

fn hosts(proposal: &Proposal) -> Vec<String> {
    let host = |to: &To| match to {
        To::Host(name) => name.clone(),
        other => format!("{other:?}"),
    };
    proposal.rules.iter().map(|rule| host(&rule.to)).collect()
}

#[test]
fn what_every_run_reached_becomes_a_rule_and_the_rest_a_comment() {
    let usual = [
        name("API.example.org."),
        json!({"layer": "dns", "protocol": "udp", "reason": "name-not-allowed",
               "destination": {"ip": null, "port": null, "name": "api.example.org", "query": "A"}}),
        name("o1.ingest.sentry.io"),
        name("registry.npmjs.org"),
        json!({"destination": {"ip": "198.51.100.9", "port": 8443, "name": null}}),
        json!({"destination": {"ip": "169.254.169.254", "port": 80, "name": null}, "reason": "link-local"}),
        json!({"destination": {"ip": "203.0.113.7", "port": 443, "name": "api.example.org"}, "protocol": "udp"}),
        json!({"layer": "unix", "protocol": "stream", "reason": "unix-path",
               "destination": {"ip": null, "port": null, "name": null, "path": "/run/postgresql/.s.PGSQL.5432"}}),
        json!({"layer": "unix", "protocol": "stream", "reason": "unix-path",
               "destination": {"ip": null, "port": null, "name": null, "path": "/run/docker.sock"}}),
        json!({"layer": "socket", "protocol": "icmp", "reason": "socket-type",
               "destination": {"ip": null, "port": null, "name": null}}),
        json!({"layer": "dns", "protocol": "udp", "reason": "name-not-allowed",
               "destination": {"ip": null, "port": null, "name": "only-asked.example", "query": "A"}}),
    ];
    let mut third = usual.to_vec();
    third.push(name("once.example.net"));
    let observed = observed(&[
        run(1, "audit", &usual),
        run(2, "audit", &usual),
        run(3, "audit", &third),
    ]);
    let proposal = propose(&observed, None);
    assert_eq!(
        hosts(&proposal),
        ["api.example.org", "Unix(\"/run/postgresql/.s.PGSQL.5432\")"]
    );
    let apart: Vec<Apart> = proposal.apart.iter().map(|(why, _)| *why).collect();
    assert_eq!(
        apart,
        [
            Apart::OneOff,
            Apart::Telemetry,
            Apart::Registry,
            Apart::Inside,
            Apart::Nameless,
            Apart::Quic,
            Apart::ActsOutside
        ],
    );
    assert_eq!(proposal.asked.len(), 1);
    assert_eq!(proposal.never.len(), 1);

    let text = "version: 1\nconnector: c # c\nmode: audit\nallow: []\n";
    let made = insert(
        text,
        &entries(&proposal, &observed),
        &remarks(&proposal, &observed, text),
    )
    .unwrap();
    let first = "  # 3 of 3 runs, 3 users; 2026-03-04T01:01:00Z to 2026-03-04T03:01:00Z; 6 times, by node 6\n  \
                 - host: api.example.org\n    ports: [443]\n";
    assert!(made.contains(first), "{made}");
    assert!(
        made.contains("  # - { host: once.example.net, ports: [443] }\n"),
        "{made}"
    );
    // Nothing is left to add, and nothing is said twice.
    let policy = policy::parse(Path::new("c.yaml"), &made).unwrap();
    let again = propose(&observed, Some(&policy));
    assert!(again.rules.is_empty());
    assert_eq!(remarks(&again, &observed, &made), [""; 0]);
}

#[test]
fn wildcards_are_only_mentioned() {
    let wants: Vec<Value> = [
        "a.s.example.co.uk",
        "b.s.example.co.uk",
        "c.s.example.co.uk",
        "x.github.io",
        "y.github.io",
        "z.github.io",
    ]
    .into_iter()
    .map(name)
    .collect();
    let observed = observed(&[run(1, "audit", &wants)]);
    let proposal = propose(&observed, None);
    assert_eq!(proposal.rules.len(), 6);
    let wildcards: Vec<&str> = proposal
        .wildcards
        .iter()
        .map(|it| it.domain.as_str())
        .collect();
    assert_eq!(wildcards, ["s.example.co.uk"]);
    let lines = remarks(&proposal, &observed, "");
    assert_eq!(
        lines.first().map(String::as_str),
        Some("in place of a.s.example.co.uk, b.s.example.co.uk, c.s.example.co.uk:")
    );
}

/// Names, paths and programs are the connector's own words.
#[test]
fn hostile_words_make_no_rule_of_their_own() {
    let mut evil = name("a.example");
    evil["process"] = json!({"pid": 7, "uid": 1000, "comm": "x\n- evil.example:443", "exe": null, "cmdline": [], "parents": []});
    let path = json!({"layer": "unix", "protocol": "stream", "reason": "unix-path",
        "destination": {"ip": null, "port": null, "name": null, "path": "/run/x\", ports: [1] }\n- evil.example:443"}});
    let odd = [
        evil,
        path,
        name("evil.example:443\n- b"),
        name("*.example"),
        name("localhost"),
    ];
    let observed = observed(&[run(1, "audit", &odd)]);
    let proposal = propose(&observed, None);
    assert_eq!(hosts(&proposal), ["a.example"]);
    let text = "version: 1\nconnector: c\n";
    let made = insert(
        text,
        &entries(&proposal, &observed),
        &remarks(&proposal, &observed, text),
    )
    .unwrap();
    let policy = policy::parse(Path::new("c.yaml"), &made).unwrap();
    assert_eq!(policy.allow.len(), 1, "{made}");
}

#[test]
fn declared_is_held_against_observed() {
    let text = "version: 1\nconnector: c\nallow:\n- used.example:443\n- unused.example:443\n- '*.wide.example:443'\n\
                - a.example:443\ndeny:\n- host: denied.example\n";
    let policy = policy::parse(Path::new("c.yaml"), text).unwrap();
    let wants = [
        name("a.example"),
        name("x.wide.example"),
        name("denied.example"),
    ];
    let quiet = with_policy(&observed(&[run(1, "enforce", &wants)]), &policy);
    assert!(!quiet.has_news(), "{quiet:?}");
    assert_eq!(
        quiet.unused,
        [
            "unused.example:443/tcp",
            "*.wide.example:443/tcp",
            "a.example:443/tcp"
        ]
    );
    assert_eq!(quiet.wide, ["*.wide.example:443/tcp"]);
    let news = with_policy(
        &observed(&[run(1, "enforce", &[name("new.example")])]),
        &policy,
    );
    assert!(news.has_news());
    assert_eq!(news.wished().count(), 1);
}

/// A package that was clean in one version and sends mail elsewhere in the next.
#[test]
fn one_record_beside_another_names_the_one_thing_that_changed() {
    let usual = [name("api.example"), name("b.example")];
    let mut more = usual.to_vec();
    more.push(name("giftshop.example"));
    let before = observed(&[run(1, "audit", &usual), run(2, "audit", &usual)]);
    let after = observed(&[run(3, "audit", &more)]);
    let between = records(&before, &after);
    let new: Vec<_> = between.new.into_iter().collect();
    assert_eq!(
        new,
        [("names", ["giftshop.example:443/tcp".to_owned()].into())]
    );
    assert!(between.gone.is_empty());
    assert_eq!(
        records(&before, &before.clone()),
        crate::learn::compare::Between::default()
    );
}
