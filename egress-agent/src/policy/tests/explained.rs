//! What `explain` says of destinations.

use super::policy;
use crate::policy::{
    Policy,
    explain::{Dest, Explanation, explain},
};

const RULES: &str = r#"allow:
  - {host: api.example.org, ports: [443], why: the API}
  - "*.cdn.example.org:443"
  - {cidr: 0.0.0.0/0, ports: [8443], protocol: any}
  - {cidr: 169.254.169.254, ports: [80]}
  - unix: /run/db.sock
deny:
  - cidr: 10.0.0.0/8
  - host: bad.cdn.example.org
"#;

fn ask(policy: &Policy, dest: &str) -> Explanation {
    let dest = Dest::parse(dest).unwrap_or_else(|complaint| panic!("{complaint}"));
    explain(policy, &dest, None).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Asserts action, layer, reason and rule of the first answer.
#[track_caller]
fn says(dest: &str, expected: (&str, &str, &str, Option<&str>)) -> Explanation {
    let explanation = ask(&policy(RULES), dest);
    let answer = &explanation.answers[0];
    let rule = answer.rule.as_ref().map(|rule| rule.id.as_str());
    assert_eq!(
        (answer.action, answer.layer, answer.reason, rule),
        expected,
        "{dest}"
    );
    explanation
}

#[track_caller]
fn hints(explanation: &Explanation, expected: &str) {
    let found = explanation.hints.iter().any(|hint| hint.contains(expected));
    assert!(found, "{:?} lack {expected:?}", explanation.hints);
}

#[test]
fn names_below_a_wildcard_are_counted_and_bounded() {
    let cdn = Some("*.cdn.example.org:443/tcp");
    let counted = says("a.b.c.d.cdn.example.org", ("allow", "sni", "none", cdn));
    hints(
        &counted,
        "64 at once and 30 a minute at most (“lookups-per-minute”",
    );
    let long = says(
        "a.b.c.d.e.cdn.example.org",
        ("deny", "dns", "name-budget", cdn),
    );
    hints(&long, "at most 4 labels and 63 bytes");
}

#[test]
fn names() {
    let api = Some("api.example.org:443/tcp");
    says("api.example.org", ("allow", "sni", "none", api));
    says("API.example.org.:443/tcp", ("allow", "sni", "none", api));
    let near = says("api.example.org:80", ("deny", "connect", "no-rule", None));
    hints(&near, "is permitted on port 443/tcp");
    says(
        "api.example.org:443/udp",
        ("deny", "sendmsg", "no-rule", None),
    );
    let near = says("cdn.example.org", ("deny", "dns", "name-not-allowed", None));
    hints(
        &near,
        "permits names below cdn.example.org, not cdn.example.org itself",
    );
    let near = says(
        "www.api.example.org",
        ("deny", "dns", "name-not-allowed", None),
    );
    hints(&near, "permits api.example.org alone");
    let near = says("apl.example.org", ("deny", "dns", "name-not-allowed", None));
    hints(&near, "did you mean api.example.org");
    let cdn = Some("*.cdn.example.org:443/tcp");
    says("a.cdn.example.org", ("allow", "sni", "none", cdn));
    let denial = Some("deny:bad.cdn.example.org:1-65535/any");
    says("bad.cdn.example.org", ("deny", "dns", "deny-rule", denial));
}

#[test]
fn addresses() {
    let wide = Some("0.0.0.0/0:8443/any");
    says("192.0.2.9:8443", ("allow", "packet", "none", wide));
    says(
        "[::ffff:192.0.2.9]:8443/udp",
        ("allow", "packet", "none", wide),
    );
    says(
        "10.1.1.1:8443",
        (
            "deny",
            "connect",
            "deny-rule",
            Some("deny:10.0.0.0/8:1-65535/any"),
        ),
    );
    let near = says(
        "169.254.169.254:8443",
        ("deny", "connect", "link-local", None),
    );
    hints(&near, "too wide to take link-local and cloud metadata");
    let metadata = Some("169.254.169.254:80/tcp");
    says("169.254.169.254:80", ("allow", "packet", "none", metadata));
    let near = says("0.0.0.0:8443", ("deny", "connect", "loopback", None));
    hints(&near, "on which the connector itself listens");
    says("192.0.2.53:53/udp", ("redirect", "sendmsg", "none", None));
    says("[2001:db8::1]:8443", ("deny", "connect", "no-rule", None));
}

#[test]
fn unix_sockets() {
    says(
        "unix:/run/db.sock",
        ("allow", "unix", "none", Some("unix:/run/db.sock")),
    );
    says("/run/docker.sock", ("deny", "unix", "unix-path", None));
    let own = says("/run/egress-agent/x", ("allow", "unix", "none", None));
    assert!(own.hints.is_empty());
    says(
        "/run/egress-agent/x/..y",
        ("deny", "unix", "unix-path", None),
    );
    says("@x", ("deny", "unix", "unix-path", None));
    let absent = says("/var/run/nscd/socket", ("deny", "unix", "unix-path", None));
    hints(&absent, "programs find it absent");
}

#[test]
fn names_in_tls() {
    let policy = policy(
        r#"allow:
  - {host: api.example.org, ports: [443, 8443]}
  - {host: "*.cdn.example.org", ports: [443], why: pictures}
  - {host: plain.example.org, ports: [443], tls: off}
  - {host: other.example.org, ports: [8443]}
deny:
  - host: bad.cdn.example.org
"#,
    );
    let says = |dest: &str, name: &str, expected: (&str, &str, &str, Option<&str>)| {
        let dest = Dest::parse(dest).unwrap_or_else(|complaint| panic!("{complaint}"));
        let explanation = explain(&policy, &dest, Some(name)).unwrap_or_else(|f| panic!("{f}"));
        let answer = &explanation.answers[0];
        let rule = answer.rule.as_ref().map(|rule| rule.id.as_str());
        let found = (answer.action, answer.layer, answer.reason, rule);
        assert_eq!(found, expected, "{name:?}");
        explanation
    };
    let api = Some("api.example.org:443,8443/tcp");
    let cdn = Some("*.cdn.example.org:443/tcp");
    let plain = Some("plain.example.org:443/tcp");
    let host = "api.example.org:443";
    says(host, "api.example.org", ("allow", "sni", "none", api));
    says(host, "API.Example.ORG", ("allow", "sni", "none", api));
    says(host, "a.cdn.example.org", ("allow", "sni", "none", cdn));
    says(host, "plain.example.org", ("allow", "sni", "none", plain));
    let near = says(
        host,
        "apl.example.org",
        ("deny", "sni", "sni-stranger", None),
    );
    hints(&near, "did you mean api.example.org");
    let near = says(
        host,
        "other.example.org",
        ("deny", "sni", "sni-stranger", None),
    );
    hints(&near, "other.example.org may be said on port 8443");
    let denial = Some("deny:bad.cdn.example.org:1-65535/any");
    says(
        host,
        "bad.cdn.example.org",
        ("deny", "sni", "deny-rule", denial),
    );
    says(host, "", ("deny", "sni", "sni-missing", None));
    says(host, "192.0.2.7", ("deny", "sni", "sni-address", None));
    says(
        host,
        "api.example.org.",
        ("deny", "sni", "sni-malformed", None),
    );
    says(
        host,
        &"a".repeat(300),
        ("deny", "sni", "sni-malformed", None),
    );
    let other = says(
        "api.example.org:8443",
        "x.example",
        ("allow", "packet", "none", api),
    );
    hints(&other, "no name is asked for there");
    let off = says(
        "plain.example.org:443",
        "x.example",
        ("allow", "packet", "none", plain),
    );
    hints(&off, "no name is asked for there");
}

#[test]
fn audit_mode_says_that_nothing_is_blocked() {
    let explanation = ask(&policy("mode: audit\n"), "stranger.example");
    assert_eq!(explanation.answers[0].action, "audit");
    assert!(!explanation.answers[0].is_allowed());
    hints(&explanation, "audit mode");
    hints(&explanation, "permits nothing");
}

#[test]
fn destinations_that_are_none() {
    for text in [
        "",
        ":443",
        "a b",
        "*.example.org",
        "https://a.example/",
        "a.example:0",
        "a.example:x",
        "10.0.0.0/8",
        "[::1",
        "unix:",
        "unix:run/x",
        "a.example:1:2",
        "localhost:1",
        "a.example/sctp",
    ] {
        assert!(Dest::parse(text).is_err(), "{text:?}");
    }
}
