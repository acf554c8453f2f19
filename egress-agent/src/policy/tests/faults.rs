//! Every fault has its place, says what is wrong, and what to write instead.

use super::{faults, faults_of};

/// Asserts that a policy has exactly the faults that start so.
#[track_caller]
fn expect(rest: &str, expected: &[&str]) {
    let found = faults(rest);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (fault, expected) in found.iter().zip(expected) {
        assert!(fault.contains(expected), "{fault:?} lacks {expected:?}");
        assert!(fault.contains("; "), "no help: {fault}");
    }
}

#[test]
fn all_faults_of_a_file_come_together_with_their_places() {
    let text = r#"version: 2
connector: Post Mark
mod: enforce
allow:
  - api.postmarkapp.com
  - host: "*.com"
    ports: [443, 0, 70000, "9-3"]
    why: x
  - cidr: 10.20.0.1/16
    ports: [53]
  - host: a.example
    port: [443]
"#;
    let found = faults_of(text);
    let expected = [
        "p.yaml:1:10: version 2 is not known here; write “version: 1”",
        "p.yaml:2:12: “Post Mark” is no connector name; ",
        "p.yaml:3:1: unknown key “mod” in a policy; did you mean “mode:”?",
        "p.yaml:5:5: “api.postmarkapp.com” has no port; write it with a port, such as “api.postmarkapp.com:443”",
        "p.yaml:6:11: “*.com” would permit a whole top-level domain; ",
        "p.yaml:7:18: “0” is no port; ",
        "p.yaml:7:21: “70000” is no port; ",
        "p.yaml:7:28: the range “9-3” runs backwards; write \"3-9\"",
        "p.yaml:9:11: “10.20.0.1/16” has bits set behind its prefix length; write “10.20.0.0/16”",
        "p.yaml:10:12: port 53 always leads to the connector's own DNS door; remove it",
        "p.yaml:11:5: the rule has no “ports”; ",
        "p.yaml:12:5: unknown key “port” in a rule; did you mean “ports:”?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (fault, expected) in found.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault:?} is not {expected:?}");
    }
}

#[test]
fn missing_and_wrong_top_level() {
    assert_eq!(faults_of("mode: audit\n").len(), 2);
    assert_eq!(faults_of("version: \"1\"\nconnector: 7\n").len(), 2);
    expect("mode: strict\n", &["“mode” is “strict”"]);
    expect(
        "allow: api.example.org:443\n",
        &["“allow” is “api.example.org:443”"],
    );
    expect(
        "allow: [7, ~, [a]]\n",
        &["the number 7", "a rule is empty", "a list"],
    );
    expect(
        "require: [lms, unix, unix, 7, everything]\n",
        &[
            "p.yaml:3:11: “lms” is no layer; did you mean “lsm”?",
            "“unix” stands here twice",
            "a layer is the number 7",
            "“everything” is no layer; known here: connect, sendmsg,",
        ],
    );
    expect("require: lsm\n", &["write a list of layers"]);
    expect("tls: off\n", &["unknown key “tls”"]);
    expect(
        r#"allow:
  - {host: a.example, ports: [443], tls: maybe}
  - {host: b.example, ports: [443], tls: true}
  - {cidr: 10.0.0.0/8, ports: [443], tls: require}
  - {unix: /run/a, ech: allow}
  - {host: c.example, ports: [443], protocol: udp, tls: off}
  - {host: d.example, ports: [80], ech: allow}
  - {host: e.example, ports: [443], tls: off, ech: refuse}
  - {host: f.example, ports: [443], ech: yes}
deny:
  - {host: f.example, tls: require}
"#,
        &[
            "p.yaml:4:42: “tls” is “maybe”; write “tls: require” or “tls: off”",
            "“tls” is the truth value true",
            "p.yaml:6:38: “tls” belongs to “host” rules of “allow” only",
            "“ech” belongs to “host” rules of “allow” only",
            "QUIC is not looked into",
            "p.yaml:9:36: “ech” belongs to rules whose TLS is checked",
            "p.yaml:10:47: “ech” belongs to rules whose TLS is checked",
            "“ech” is “yes”",
            "p.yaml:13:23: “tls” belongs to “host” rules of “allow” only",
        ],
    );
    for name in ["", "-a", "a b", "A", "é", "a/b", &"a".repeat(65)] {
        let text = format!("version: 1\nconnector: \"{name}\"\n");
        assert_eq!(faults_of(&text).len(), 1, "{name:?}");
    }
}

#[test]
fn hosts_that_are_none() {
    let cases = [
        (r#""a\0b.example""#, "contains a NUL byte"),
        (r#""a b.example""#, "contains a blank"),
        (r#"" a.example""#, "contains a blank"),
        (r#""a.example\n""#, "contains a line break"),
        (r#""*""#, "no usable wildcard"),
        (r#""*.org""#, "whole top-level domain"),
        (r#""*.org.""#, "whole top-level domain"),
        (r#""a.*.example.org""#, "no usable wildcard"),
        (r#""*.*.example.org""#, "no usable wildcard"),
        (r#""*a.example.org""#, "no usable wildcard"),
        (r#""**.example.org""#, "no usable wildcard"),
        (r#""a..example""#, "label of no bytes"),
        (r#"".example""#, "label of no bytes"),
        (r#""a$.example""#, "has a character"),
        (r#""https://a.example/x""#, "web address"),
        (r#""a.example/x""#, "no host name"),
        (r#""a.example:443""#, "neither a host name nor an address"),
        (r#""fe80::1%eth0""#, "neither a host name nor an address"),
        (r#""127.1""#, "looks like an address"),
        (r#""010.0.0.1""#, "looks like an address"),
        (r#""0x7f.0.0.0x1""#, "looks like an address"),
        (r#""2130706433""#, "looks like an address"),
        (r#""１２７.0.1""#, "looks like an address"),
        (r#""*.10.0.0.1""#, "looks like an address"),
        (r#""localhost""#, "never goes through DNS"),
        (r#""a.localhost""#, "never goes through DNS"),
        (r#""0.0.0.0""#, "means this host itself"),
        (r#""::""#, "means this host itself"),
        (r#""""#, "the host is empty"),
        (r#""a℀.example""#, "not a valid internationalised name"),
    ];
    for (host, expected) in cases {
        let rest = format!("allow:\n  - host: {host}\n    ports: [443]\n");
        let found = faults(&rest);
        assert_eq!(found.len(), 1, "{host}: {found:#?}");
        for fault in found {
            assert!(fault.starts_with("p.yaml:4:11: "), "{fault}");
            assert!(fault.contains(expected), "{host}: {fault}");
        }
    }
}

#[test]
fn short_forms_that_are_none() {
    let cases = [
        ("a.example", "has no port"),
        ("a.example:", "is no port"),
        ("a.example:https", "is no port"),
        ("a.example:+443", "is no port"),
        ("a.example:0", "is no port"),
        ("a.example:65536", "is no port"),
        ("a.example:80-90", "short forms take one port"),
        ("a.example:443/sctp", "is no protocol"),
        ("a.example:443/", "is no protocol"),
        ("a.example:443/v1", "is no protocol"),
        ("10.0.0.0/8:443", "looks like an address prefix"),
        ("10.0.0.0/8", "looks like an address prefix"),
        ("2001:db8::1:443", "does not tell address and port apart"),
        ("[2001:db8::1]", "has no port"),
        ("https://a.example/path", "web address"),
        ("unix:/run/x.sock", "no network destination"),
        ("/run/x.sock", "no network destination"),
        (":443", "the host is empty"),
        ("a.example:53", "port 53 always leads"),
        ("8.8.8.8:53/udp", "port 53 always leads"),
    ];
    for (text, expected) in cases {
        let found = faults(&format!("allow: [\"{text}\"]\n"));
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(
            found.iter().all(|fault| fault.contains(expected)),
            "{found:?}"
        );
    }
}

#[test]
fn prefixes_that_are_none() {
    let cases = [
        ("10.0.0.0/33", "is no address prefix"),
        ("10.0.0/8", "is no address prefix"),
        ("example.org", "is no address prefix"),
        (
            "10.0.0.1/8",
            "write “10.0.0.0/8”, or “10.0.0.1” for the address alone",
        ),
        ("2001:db8::1/32", "write “2001:db8::/32”"),
        ("::ffff:10.0.0.1/104", "write “10.0.0.0/8”"),
        ("0.0.0.0/32", "means this host itself"),
        ("::", "means this host itself"),
    ];
    for (text, expected) in cases {
        let found = faults(&format!("allow: [{{cidr: \"{text}\", ports: [443]}}]\n"));
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(
            found.iter().all(|fault| fault.contains(expected)),
            "{found:?}"
        );
    }
}

#[test]
fn ports() {
    expect(
        "allow: [{host: a.example, ports: []}]\n",
        &["an empty list"],
    );
    expect(
        "allow: [{host: a.example, ports: 443}]\n",
        &["“ports” is the number 443"],
    );
    expect(
        "allow: [{host: a.example, ports: [443, 443]}]\n",
        &["port 443 overlaps port 443"],
    );
    expect(
        "allow: [{host: a.example, ports: [\"1-52\", \"40-50\"]}]\n",
        &["the range 40-50 overlaps the range 1-52"],
    );
    expect(
        "allow: [{host: a.example, ports: [4.5, true]}]\n",
        &["4.5", "true"],
    );
    expect(
        "allow: [{cidr: 10.0.0.0/8, ports: [\"1-65535\"]}]\n",
        &["leave it out of the range: \"1-52\", \"54-65535\""],
    );
    expect(
        "allow: [{host: a.example, ports: [\"1000-1256\"]}]\n",
        &["a host rule with 257 ports; at most 256 fit"],
    );
}

#[test]
fn rules_with_the_wrong_parts() {
    expect("allow: [{ports: [443]}]\n", &["no destination"]);
    expect(
        "allow: [{host: a.example, cidr: 10.0.0.0/8, ports: [1]}]\n",
        &["more than one destination"],
    );
    for rule in [
        "{host: a.example.com, ports: [1], lookups-per-minute: 60}",
        "{cidr: 10.0.0.0/8, ports: [1], lookups-per-minute: 60}",
    ] {
        expect(
            &format!("allow: [{rule}]\n"),
            &["“lookups-per-minute” belongs to rules of “allow” for “*.domain” only"],
        );
    }
    for number in ["0", "6001"] {
        let rule = "{host: '*.example.com', ports: [1], lookups-per-minute: ";
        let message = format!("{number} look-ups a minute");
        expect(&format!("allow: [{rule}{number}}}]\n"), &[message.as_str()]);
    }
    expect(
        "allow: [{cidr: 10.0.0.0/8, ports: [1], private: true}]\n",
        &["“private” belongs to “host” rules"],
    );
    expect(
        "allow: [{unix: /run/x, ports: [1], protocol: tcp}]\n",
        &["has no “ports”", "has no “protocol”"],
    );
    expect("deny: [{host: a.example, ports: [53]}]\n", &["port 53"]);
    for path in ["run/x", "/run//x", "/run/../x", "/run/", "/", "@", "/a\\nb"] {
        let found = faults(&format!("allow: [{{unix: \"{path}\"}}]\n"));
        assert_eq!(found.len(), 1, "{path}: {found:?}");
    }
}

#[test]
fn the_same_twice() {
    expect(
        "allow:\n  - a.example:443\n  - {host: A.example, ports: [443]}\n",
        &["p.yaml:5:5: this rule says the same as entry 1 of “allow”"],
    );
    expect(
        "allow:\n  - {id: x, host: a.example, ports: [443]}\ndeny:\n  - {id: x, cidr: 10.0.0.0/8}\n",
        &["p.yaml:6:5: the id “x” is that of entry 1 of “allow”"],
    );
    expect(
        "allow:\n  - {host: a.example, host: b.example, ports: [443]}\n",
        &["p.yaml:4:23: the key “host” appears twice"],
    );
    expect(
        "connector: y\n",
        &["p.yaml:3:1: the key “connector” appears twice"],
    );
}

#[test]
fn settings() {
    expect(
        "dns:\n  servers: [dns.example, 0.0.0.0, 192.0.2.1, 192.0.2.1]\n  ttl: {floor: 30, ceiling: 25h, grace: -1s, cap: 1s}\n",
        &[
            "“dns.example” is no DNS server",
            "“0.0.0.0” is no DNS server",
            "192.0.2.1:53 is listed twice",
            "“floor” is the number 30",
            "“25h” is no usable time",
            "“-1s” is no usable time",
            "unknown key “cap”",
        ],
    );
    expect(
        "dns: {ttl: {floor: 10m, ceiling: 1m}}\n",
        &["above the ceiling"],
    );
    expect(
        "run:\n  command: npx -y x\n  user: \"a b\"\n  env: {pass: [A=B, OK], set: {OK: a, N: 1}}\n  cwd: /\n",
        &[
            "“command” is “npx -y x”",
            "“a b” is no user",
            "“OK” is both passed and set",
            "“A=B” is no name of a variable",
            "the value is the number 1",
            "unknown key “cwd”",
        ],
    );
    expect("run: {command: []}\n", &["an empty list"]);
}

#[test]
fn too_many_ranges_under_one_prefix() {
    let list = |first: u32| {
        let ports: Vec<String> = (0..9).map(|n| (first + 2 * n).to_string()).collect();
        ports.join(", ")
    };
    let rest = format!(
        "allow:\n  - {{cidr: 10.0.0.0/8, ports: [{}]}}\n  - {{cidr: 10.1.0.0/16, ports: [{}]}}\n",
        list(1000),
        list(2000)
    );
    expect(
        &rest,
        &["p.yaml:5:5: 18 port ranges meet under 10.1.0.0/16; at most 16 fit"],
    );
}
