//! What accepted policies mean.

use std::{net::IpAddr, time::Duration};

use egress_common::abi::{TCP, UDP};

use super::policy;
use crate::policy::{
    model::{DnsSettings, Mode, PortSpan, Target},
    name::{HostPattern, Name},
};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap_or_else(|error| panic!("{text} {error}"))
}

#[test]
fn the_design_example_is_understood() {
    let policy = policy(
        r#"mode: enforce
allow:
  - api.postmarkapp.com:443
  - host: "*.ingest.sentry.io"
    ports: [443]
    why: error reports
  - cidr: 10.20.0.0/16
    ports: [5432, "6432-6440"]
    protocol: tcp
  - unix: /run/postgresql/.s.PGSQL.5432
run:
  command: [npx, -y, "reports-mcp@1.0.0"]
  user: connector
  env: { pass: [POSTMARK_SERVER_TOKEN], set: { NODE_ENV: production } }
"#,
    );
    assert_eq!(policy.mode, Mode::Enforce);
    let ids: Vec<&str> = policy.allow.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "api.postmarkapp.com:443/tcp",
            "*.ingest.sentry.io:443/tcp",
            "10.20.0.0/16:5432,6432-6440/tcp",
            "unix:/run/postgresql/.s.PGSQL.5432",
        ]
    );
    assert_eq!(policy.allow[1].why.as_deref(), Some("error reports"));
    let run = policy.run.unwrap_or_default();
    assert_eq!(run.command.len(), 3);
    assert_eq!(run.user.as_deref(), Some("connector"));
    let env = run.env.unwrap_or_default();
    assert_eq!(env.pass, ["POSTMARK_SERVER_TOKEN"]);
    assert_eq!(env.set["NODE_ENV"], "production");
}

#[test]
fn no_allow_and_an_empty_allow_mean_nothing() {
    for rest in ["", "allow:\n", "allow: []\n", "allow: ~\n"] {
        let policy = policy(rest);
        assert!(policy.allow.is_empty(), "{rest:?}");
        assert_eq!(policy.mode, Mode::Enforce);
        assert_eq!(policy.dns, DnsSettings::default());
    }
}

#[test]
fn short_forms() {
    let policy = policy(
        r#"allow:
  - API.Example.org.:443
  - "*.example.org:8443"
  - 10.0.0.1:443
  - "[2001:db8::1]:443"
  - "[::ffff:192.0.2.7]:443"
  - ntp.example.org:123/udp
  - quic.example.org:443/any
  - bücher.example:443
"#,
    );
    let ids: Vec<&str> = policy.allow.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "api.example.org:443/tcp",
            "*.example.org:8443/tcp",
            "10.0.0.1:443/tcp",
            "[2001:db8::1]:443/tcp",
            "192.0.2.7:443/tcp",
            "ntp.example.org:123/udp",
            "quic.example.org:443/any",
            "xn--bcher-kva.example:443/tcp",
        ]
    );
    assert!(matches!(&policy.allow[2].target, Target::Cidr(net) if net.prefix_len() == 32));
    assert!(matches!(&policy.allow[3].target, Target::Cidr(net) if net.prefix_len() == 128));
    assert!(policy.allow[6].protocols.tcp && policy.allow[6].protocols.udp);
}

#[test]
fn spellings_of_one_meaning_have_one_id() {
    let ids = |rest: &str| policy(rest).allow[0].id.clone();
    let short = ids("allow: [api.example.org:443]\n");
    let long = ids("allow: [{host: API.example.org., ports: [\"443\"], protocol: tcp}]\n");
    assert_eq!(short, long);
    assert_eq!(
        ids("allow: [{cidr: \"::ffff:10.0.0.0/104\", ports: [2, 1, \"3-4\"]}]\n"),
        "10.0.0.0/8:1-4/tcp"
    );
}

#[test]
fn ports_are_sorted_and_joined() {
    let policy = policy("allow: [{host: a.example, ports: [9, \"3-4\", 5, 8443]}]\n");
    let span = |first, last| PortSpan { first, last };
    assert_eq!(
        policy.allow[0].ports,
        [span(3, 5), span(9, 9), span(8443, 8443)]
    );
}

#[test]
fn dns_settings() {
    let policy = policy(
        "dns:\n  servers: [192.0.2.53, \"[2001:db8::53]:5353\"]\n  ttl: {floor: 0s, ceiling: 5m, grace: 1h}\n",
    );
    let servers: Vec<String> = policy.dns.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:5353"]);
    assert_eq!(policy.dns.ttl_floor, Duration::ZERO);
    assert_eq!(policy.dns.ttl_ceiling, Duration::from_secs(300));
    assert_eq!(policy.dns.grace, Duration::from_secs(3600));
}

#[test]
fn a_wildcard_covers_below_and_never_the_apex() {
    let policy = policy("allow: [\"*.example.org:443\"]\n");
    let covered = |text: &str| policy.rules_for(&name(text)).count();
    assert_eq!(covered("a.example.org"), 1);
    assert_eq!(covered("a.b.example.org"), 1);
    assert_eq!(covered("example.org"), 0);
    assert_eq!(covered("badexample.org"), 0);
    assert_eq!(
        policy.allow[0].target,
        Target::Host(HostPattern::Below(name("example.org")))
    );
}

#[test]
fn deny_beats_allow_for_names() {
    let policy = policy(
        r#"allow:
  - host: "*.example.org"
    ports: [80, 443]
    tls: off
deny:
  - host: secret.example.org
  - host: "*.half.example.org"
    ports: [80]
"#,
    );
    assert_eq!(policy.rules_for(&name("www.example.org")).count(), 1);
    assert_eq!(policy.rules_for(&name("secret.example.org")).count(), 0);
    let half = name("a.half.example.org");
    assert_eq!(policy.rules_for(&half).count(), 1);
    assert!(policy.name_denied(&half, 80, TCP).is_some());
    assert!(policy.name_denied(&half, 443, TCP).is_none());
    let secret = name("secret.example.org");
    assert!(policy.name_denied(&secret, 443, TCP).is_some());
    assert!(
        policy.name_denied(&secret, 443, UDP).is_some(),
        "deny means any protocol"
    );
}

#[test]
fn deny_beats_allow_for_addresses() {
    let policy = policy(
        "allow: [{host: a.example, ports: [443]}]\ndeny: [{cidr: 10.0.0.0/8}, {cidr: \"127.0.0.1\", ports: [80]}]\n",
    );
    let denied = |addr: &str, protocol, port| {
        let addr: IpAddr = addr.parse().unwrap_or_else(|_| panic!("{addr}"));
        policy.address_denied(addr, protocol, port).is_some()
    };
    assert!(denied("10.1.2.3", TCP, 443));
    assert!(denied("10.1.2.3", UDP, 1));
    assert!(denied("::ffff:10.1.2.3", TCP, 443));
    assert!(!denied("11.1.2.3", TCP, 443));
    assert!(
        denied("0.0.0.0", TCP, 80),
        "Linux takes 0.0.0.0 for 127.0.0.1"
    );
    assert!(!denied("127.0.0.1", TCP, 81));
}

#[test]
fn aliases_are_followed() {
    let policy = policy(
        "allow:\n  - {host: a.example, ports: &web [80, 8080]}\n  - {host: b.example, ports: *web}\n",
    );
    assert_eq!(policy.allow[0].ports, policy.allow[1].ports);
}
