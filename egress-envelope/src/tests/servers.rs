//! Requests that servers of one make read otherwise than those of another: each is refused.

use super::world::{FORM, JSON, all_refused, inspect, ledger, post, raw};
use crate::{
    h1,
    judge::{
        Reason::{
            AddressElsewhere, CredentialNotOwn, RecipientNotInCall, TwoReadings, UnreadableBody,
        },
        Unlisted,
    },
};

#[test]
fn names_of_fields() {
    let rows = [
        // CGI, WSGI, Rack and PHP hand both on as HTTP_X_TOKEN.
        ("an underline", "X_Token: strangers\r\n", CredentialNotOwn),
        (
            "an underline beside the own",
            "X-Token: own-token\r\nX_Token: strangers\r\n",
            CredentialNotOwn,
        ),
        // Apache before 2.4 hands every other character on as an underline.
        ("a dot", "X.Token: strangers\r\n", CredentialNotOwn),
        ("a star", "X*Token: strangers\r\n", CredentialNotOwn),
        (
            "a dot in another method",
            "X-HTTP-Method.Override: DELETE\r\n",
            TwoReadings,
        ),
        ("a dot in a length", "Content.Length: 5\r\n", TwoReadings),
        ("for CGI", "Proxy: http://evil.example/\r\n", TwoReadings),
        ("a prefix", "X-Forwarded-Prefix: /admin\r\n", TwoReadings),
        ("another path", "X-Forwarded-Uri: /admin\r\n", TwoReadings),
        (
            "another method",
            "X-Forwarded-Method: DELETE\r\n",
            TwoReadings,
        ),
        (
            "a server",
            "X-Forwarded-Server: evil.example\r\n",
            TwoReadings,
        ),
        (
            "Envoy's path",
            "X-Envoy-Original-Path: /admin\r\n",
            TwoReadings,
        ),
        ("nginx's path", "X-Original-URI: /admin\r\n", TwoReadings),
        (
            "another host",
            "X-HTTP-Host-Override: evil.example\r\n",
            TwoReadings,
        ),
    ];
    all_refused(&rows.map(|(name, fields, why)| (name, raw("GET /get/1", fields, b""), why)));
}

#[test]
fn what_authenticates() {
    let basic = |text: &str| format!("Authorization: Basic {text}\r\n");
    let rows = [
        // Stripe takes the key from the first half, whatever the second one is.
        (
            "strangers:own-token",
            basic("c3RyYW5nZXJzOm93bi10b2tlbg=="),
        ),
        // GitHub takes it from either.
        (
            "own-token:strangers",
            basic("b3duLXRva2VuOnN0cmFuZ2Vycw=="),
        ),
        (
            "strangers:x-oauth-basic",
            basic("c3RyYW5nZXJzOngtb2F1dGgtYmFzaWM="),
        ),
        ("x-access-token:", basic("eC1hY2Nlc3MtdG9rZW46")),
        (
            "a key twice",
            "Authorization: AWS4-HMAC-SHA256 Credential=own-token/x, SignedHeaders=host, Credential=strangers/x\r\n"
                .to_owned(),
        ),
        ("digest", "Authorization: Digest username=own-token\r\n".to_owned()),
        ("two", "Authorization: Bearer own-token, Bearer strangers\r\n".to_owned()),
    ];
    all_refused(
        &rows.map(|(name, fields)| (name, raw("GET /get/1", &fields, b""), CredentialNotOwn)),
    );
    for (query, why) in [
        ("key=strangers", CredentialNotOwn),
        ("KEY=strangers", CredentialNotOwn),
        ("key[]=strangers", CredentialNotOwn),
        ("key[0]=own-token&key[1]=strangers", CredentialNotOwn),
        ("k%65y=strangers", CredentialNotOwn),
        ("key=own-token&key=strangers", CredentialNotOwn),
        // Python before 3.10 and Rack before 3 take `;` for `&`.
        ("x=1;key=strangers", TwoReadings),
        ("x;key=strangers", TwoReadings),
        // Rack reads `key`.
        ("[key=strangers", TwoReadings),
        ("key]=strangers", TwoReadings),
        // ASP.NET reads `key`.
        ("%u006bey=strangers", TwoReadings),
        ("%U006Bey=strangers", TwoReadings),
        ("%c1%abey=strangers", TwoReadings),
        ("k%2565y=strangers", TwoReadings),
    ] {
        let rows = [("query", raw(&format!("GET /get/1?{query}"), "", b""), why)];
        all_refused(&rows);
    }
}

#[test]
fn keys_of_queries_and_bodies() {
    let rows = [
        ("Rack, before", "GET /to/a@own.example?[cc=eve@evil.example"),
        ("Rack, behind", "GET /to/a@own.example?cc]=eve@evil.example"),
        (
            "Rack, nested",
            "GET /to/a@own.example?[[cc]]=eve@evil.example",
        ),
        ("ASP.NET", "GET /to/a@own.example?%u0063c=eve@evil.example"),
        ("a prototype", "GET /get/1?__proto__[cc]=eve@evil.example"),
        (
            "Google's fields",
            "GET /get/1?$httpHeaders=X-Token:strangers",
        ),
        (
            "Google's fields, escaped",
            "GET /get/1?%24httpHeaders=X-Token%3Astrangers",
        ),
        // A server that reads escapes first sees two segments.
        ("a slash in the middle", "GET /get/1%2f2"),
        ("up", "GET /tail/a%2f..%2f..%2fget"),
        ("up, in part", "GET /tail/a/..%2Fb"),
        ("nothing between", "GET /tail/a%2f%2fb"),
        ("a slash before the tail", "GET /own%2fx/tail/a"),
        ("a slash that makes the tail longer", "GET /a%2ftail/tail/b"),
    ];
    all_refused(&rows.map(|(name, line)| (name, raw(line, "", b""), TwoReadings)));
    all_refused(&[
        (
            "a prototype in JSON",
            post(
                "/post",
                JSON,
                r#"{"channel":"C1","__proto__":{"channel":"C2"}}"#,
            ),
            UnreadableBody,
        ),
        (
            "a prototype in a form",
            post("/post", FORM, "channel=C1&__proto__[channel]=C2"),
            UnreadableBody,
        ),
        (
            "ASP.NET, in a form",
            post("/form", FORM, "b%u0063c=eve@evil.example"),
            UnreadableBody,
        ),
        (
            "a float",
            post("/post", JSON, r#"{"channel":1e3}"#),
            RecipientNotInCall,
        ),
        (
            "1.0",
            post("/post", JSON, r#"{"channel":1000.0}"#),
            RecipientNotInCall,
        ),
        (
            "a zero before",
            post("/post", JSON, r#"{"channel":"01000"}"#),
            RecipientNotInCall,
        ),
        (
            "a sign before",
            post("/post", JSON, r#"{"channel":"+1000"}"#),
            RecipientNotInCall,
        ),
        (
            "too big to be read exactly",
            post("/post", JSON, r#"{"channel":18446744073709551617}"#),
            RecipientNotInCall,
        ),
        (
            "nothing seen",
            post("/post", JSON, "{\"channel\":\"C1\u{200b}\"}"),
            RecipientNotInCall,
        ),
        (
            "a list in a text",
            post("/post", FORM, "channel=C1,C2"),
            RecipientNotInCall,
        ),
    ]);
}

#[test]
fn addresses_that_go_on() {
    let texts = [
        // Domains in which characters are taken away or mapped (UTS 46 section 4).
        "called@shop.example\u{3002}evil.example",
        "called@shop.example\u{ff0e}evil.example",
        "called@shop.example\u{ff61}evil.example",
        "called@shop.example\u{200d}.evil.example",
        "called@shop.example\u{ad}.evil.example",
        "called@shop.example\u{fe0f}.evil.example",
        "called@shop.example\u{301}.evil.example",
        // Python's parseaddr and others take blanks and comments away (RFC 5322 section 4.4).
        "called@shop.example .evil.example",
        "called@shop.example. evil.example",
        "called@shop.example. com",
        "called@shop.example (x).evil.example",
        "called@shop.example\\t. evil.example",
        "called@shop.example (x) (y) .evil.example",
        // A route.
        "<@evil.example:called@shop.example>",
        // Lenient servers take numbers without brackets.
        "eve@192.0.2.1",
        // Texts that are read once more: JSON, links, HTML.
        r#"{\"bcc\":\"eve\\u0040evil.example\"}"#,
        r#"eve\\x40evil.example"#,
        "eve%2540evil.example",
        "eve&#064;evil.example",
        "eve&#0000064evil.example",
        "eve&#X0040;evil.example",
        "eve&commat evil.example",
    ];
    let row = |text: &&'static str| {
        let body = format!(r#"{{"Headers":[{{"Name":"Bcc","Value":"{text}"}}]}}"#);
        (*text, post("/email", JSON, &body), AddressElsewhere)
    };
    all_refused(&texts.iter().map(row).collect::<Vec<_>>());
    // Python ends a header's line at each of these.
    let ends = [
        "\\u000b", "\\u000c", "\\u001c", "\\u0085", "\\u2028", "\\u2029",
    ];
    for end in ends {
        for key in ["Subject", "ContentID", "In-Reply-To"] {
            let body = format!(r#"{{"{key}":"x{end}Bcc: eve@evil.example"}}"#);
            all_refused(&[(end, post("/email", JSON, &body), TwoReadings)]);
        }
    }
}

#[test]
fn what_authenticates_where_no_table_lists_the_operation() {
    let mut inspect = inspect();
    inspect.unlisted = Unlisted::Report;
    for (line, fields, refused) in [
        ("GET /other", "X-Token: own-token\r\n", false),
        ("GET /other?key=own-token", "", false),
        ("GET /other", "", false),
        ("GET /other", "X-Token: strangers\r\n", true),
        ("GET /other", "X_Token: strangers\r\n", true),
        ("GET /other?key=strangers", "", true),
        ("GET /other?x=1;key=strangers", "", true),
    ] {
        let read = h1::head(&raw(line, fields, b"")).ok().flatten();
        let judged = read.map(|(head, _)| inspect.body(&head, b"", &ledger()).refusals);
        let is_refused = judged.as_ref().map(|refusals| !refusals.is_empty());
        assert_eq!(is_refused, Some(refused), "{line} {fields} {judged:?}");
    }
}
