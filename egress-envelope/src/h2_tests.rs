//! Tests of reading the heads of streams.
#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use super::*;

const HOST: Option<&str> = Some("api.mail.example");

fn read(
    method: &str,
    authority: Option<&str>,
    path: &str,
    fields: &[(&str, &str)],
    end: bool,
) -> Result<Head, Refusal> {
    let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
    from_pseudo(method, Some("https"), authority, path, fields, end)
}

fn why(result: Result<Head, Refusal>) -> String {
    result.unwrap_err().place.unwrap_or_default()
}

#[test]
fn a_proper_head_is_read() {
    let fields = [("content-type", "application/json"), ("te", "trailers")];
    let head = read("POST", HOST, "/email?a=b", &fields, false).unwrap();
    assert_eq!(head.version, Version::Http2);
    assert_eq!(head.authority.host, "api.mail.example");
    assert_eq!(
        (head.path.as_str(), head.query.as_deref()),
        ("/email", Some("a=b"))
    );
    assert_eq!(head.framing, Framing::Stream);
    assert_eq!(head.fields.len(), 2);
    let head = read("GET", HOST, "/server", &[], true).unwrap();
    assert_eq!(head.framing, Framing::None);
    let head = read("POST", HOST, "/", &[("content-length", "3")], false).unwrap();
    assert_eq!(head.framing, Framing::Length(3));
}

#[test]
fn one_authority_whoever_says_it() {
    let host = [("host", "API.mail.example")];
    for authority in [HOST, None] {
        let head = read("GET", authority, "/", &host, true).unwrap();
        assert_eq!(head.authority.host, "api.mail.example");
        assert!(head.fields.is_empty());
    }
    let other = read("GET", HOST, "/", &[("host", "evil.example")], true);
    assert_eq!(why(other), "an authority for another host than Host");
    let twice = [("host", "api.mail.example"), ("host", "api.mail.example")];
    assert_eq!(why(read("GET", HOST, "/", &twice, true)), "several Hosts");
    assert_eq!(why(read("GET", None, "/", &[], true)), "no authority");
    let user = read("GET", Some("a@api.mail.example"), "/", &[], true);
    assert_eq!(why(user), "a Host that is no name");
}

#[test]
fn what_belongs_to_http_1_is_refused() {
    for name in NOT_HERE {
        assert_eq!(why(read("GET", HOST, "/", &[(name, "x")], true)), name);
    }
    assert_eq!(why(read("GET", HOST, "/", &[("te", "gzip")], true)), "te");
}

#[test]
fn what_others_could_read_otherwise_is_refused() {
    let refused = |method: &str, path: &str, fields: &[(&str, &str)], end| {
        assert!(
            read(method, HOST, path, fields, end).is_err(),
            "{method} {path} {fields:?}"
        );
    };
    for path in [
        "",
        "email",
        "https://evil.example/",
        "//email",
        "/a/../email",
        "/%65mail",
        "/a%2f..%2fb",
        "/a%252e",
        "/a#b",
        "/a b",
        "/a\r\nx: y",
        "*",
    ] {
        refused("GET", path, &[], true);
    }
    for method in ["", "get", "GE T", "CONNECT", "TRACE", "GET\r\n"] {
        refused(method, "/", &[], true);
    }
    for (name, value) in [
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/other"),
        ("Content-Type", "a/b"),
        ("content_length", "3"),
        ("x y", "z"),
        ("", "z"),
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        ("content-length", "+3"),
        ("expect", "miracles"),
    ] {
        refused("POST", "/", &[(name, value)], false);
    }
    let twice = [("content-type", "a/b"), ("content-type", "a/c")];
    refused("POST", "/", &twice, false);
    refused("GET", "/", &[], false);
    refused("GET", "/", &[("content-length", "1")], false);
    refused("POST", "/", &[("content-length", "1")], true);
    let fields = vec![("x", "y"); MAX_FIELDS + 1];
    refused("GET", "/", &fields, true);
    let long = "y".repeat(MAX_HEAD);
    refused("GET", "/", &[("x", &long)], true);
}

#[test]
fn the_scheme_is_https() {
    for scheme in [None, Some("http"), Some("HTTPS"), Some("")] {
        let head = from_pseudo("GET", scheme, HOST, "/", std::iter::empty(), true);
        assert_eq!(why(head), "a scheme that is not https");
    }
}

#[test]
fn values_that_are_no_text_are_refused() {
    let fields = std::iter::once(("x", b"\xff".as_slice()));
    let head = from_pseudo("GET", Some("https"), HOST, "/", fields, true);
    assert_eq!(why(head), "a head that is not UTF-8");
}
