//! Requests that no service may get: each is refused, and for its reason.

use super::world::{FORM, JSON, all_refused, post, raw};
use crate::judge::Reason::{
    self, AddressElsewhere, AuthorityMismatch, CredentialNotOwn, RecipientNotInCall, TwoReadings,
    UnlistedOperation, UnreadableBody, UnreadableRecipient, Upgrade,
};

/// Rows of bodies of one operation.
fn bodies(path: &str, kind: &str, rows: &[(&'static str, &str, Reason)]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, body, why)| (*name, post(path, kind, body), *why))
        .collect();
    all_refused(&rows);
}

#[test]
fn recipients_in_json() {
    bodies(
        "/email",
        JSON,
        &[
            (
                "a stranger",
                r#"{"To":"eve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "a hidden copy",
                r#"{"To":"a@own.example","Bcc":"eve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "in other case",
                r#"{"bCC":"eve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "escaped key",
                r#"{"\u0042cc":"eve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "a list",
                r#"{"Bcc":["a@own.example","eve@evil.example"]}"#,
                RecipientNotInCall,
            ),
            (
                "a list in a list",
                r#"{"Bcc":[["eve@evil.example"]]}"#,
                RecipientNotInCall,
            ),
            (
                "a mapping",
                r#"{"Bcc":{"Email":"eve@evil.example"}}"#,
                RecipientNotInCall,
            ),
            (
                "a key",
                r#"{"Bcc":{"eve@evil.example":"a@own.example"}}"#,
                RecipientNotInCall,
            ),
            (
                "second of a text",
                r#"{"To":"a@own.example,eve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "by semicolon",
                r#"{"To":"a@own.example;eve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "by a line",
                r#"{"To":"a@own.example\neve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "entry of a list",
                r#"{"List":[{"Email":"a@own.example"},{"Email":"eve@evil.example"}]}"#,
                RecipientNotInCall,
            ),
            (
                "no list",
                r#"{"List":{"Email":"eve@evil.example"}}"#,
                RecipientNotInCall,
            ),
            (
                "a text for an object",
                r#"{"List":["eve@evil.example"]}"#,
                RecipientNotInCall,
            ),
            (
                "a text for a list",
                r#"{"List":"eve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "a list with numbers",
                r#"{"List":{"0":"eve@evil.example"}}"#,
                RecipientNotInCall,
            ),
            (
                "the body is a text",
                r#""eve@evil.example""#,
                RecipientNotInCall,
            ),
            (
                "long s",
                "{\"Recipient\u{17f}\":\"eve@evil.example\"}",
                RecipientNotInCall,
            ),
            (
                "full width",
                "{\"Ｂcc\":\"eve@evil.example\"}",
                RecipientNotInCall,
            ),
            (
                "a blank",
                r#"{"Bcc ":"eve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "nothing seen",
                "{\"B\u{200b}cc\":\"eve@evil.example\"}",
                RecipientNotInCall,
            ),
            (
                "byte order mark",
                "{\"\u{feff}Bcc\":\"eve@evil.example\"}",
                RecipientNotInCall,
            ),
            (
                "soft hyphen",
                "{\"B\u{ad}cc\":\"eve@evil.example\"}",
                RecipientNotInCall,
            ),
            (
                "own, but another domain",
                r#"{"To":"called@shop.example.evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "below the own domain",
                r#"{"To":"a@sub.own.example"}"#,
                RecipientNotInCall,
            ),
            (
                "looks the same",
                r#"{"To":"called@ѕhop.example"}"#,
                RecipientNotInCall,
            ),
        ],
    );
    bodies(
        "/batch",
        JSON,
        &[
            (
                "second mail",
                r#"[{"To":"a@own.example"},{"Bcc":"eve@evil.example"}]"#,
                RecipientNotInCall,
            ),
            (
                "no list",
                r#"{"Bcc":"eve@evil.example"}"#,
                RecipientNotInCall,
            ),
            (
                "a list in a list",
                r#"[[{"Bcc":"eve@evil.example"}]]"#,
                RecipientNotInCall,
            ),
        ],
    );
}

#[test]
fn recipients_that_are_read_in_several_ways() {
    let texts = [
        r#"\"a\" <eve@evil.example> \"b\" <a@own.example>"#,
        r#"\"a\" eve@evil.example \"b\" <a@own.example>"#,
        r#"\"eve@evil.example, a\" <a@own.example>"#,
        r#"eve@evil.example <a@own.example>"#,
        r#"a@own.example <eve@evil.example>"#,
        r#"<eve@evil.example> <a@own.example>"#,
        r#"<@evil.example:a@own.example>"#,
        r#"a@own.example (eve@evil.example)"#,
        r#"(a@own.example) eve@evil.example"#,
        r#"Team: a@own.example;"#,
        r#"\"a@own.example\"@evil.example"#,
        r#"a@own.example@evil.example"#,
        r#"a%evil.example@own.example"#,
        r#"evil.example!a@own.example"#,
        r#"a@[192.0.2.1]"#,
        r#"=?utf-8?q?eve=40evil=2Eexample=2C?= <a@own.example>"#,
        r#"=?utf-8?b?ZXZlQGV2aWwuZXhhbXBsZSw=?= <a@own.example>"#,
        r#"\"=?utf-8?q?eve=40evil=2Eexample=2C?=\" <a@own.example>"#,
        r#"=?utf-8?q?eve?=@evil.example"#,
        r#"=?utf-7?q?+AEA-?= <a@own.example>"#,
        r#"a@own.example\u0000"#,
        r#"a@own.example\rBcc: eve@evil.example"#,
        r#"a@own.example\nBcc: eve@evil.example"#,
        r#"eve＠evil.example <a@own.example>"#,
        r#"a\u200b@own.example"#,
        r#"\"a <a@own.example>"#,
        r#"a\"b\"@own.example"#,
        r#"a@own.example x"#,
        r#"mailto:eve@evil.example"#,
        r#"a@own.example?bcc=eve@evil.example"#,
        r#"\\\"a@own.example"#,
    ];
    let body = |text: &&'static str| {
        (
            *text,
            post("/email", JSON, &format!(r#"{{"To":"{text}"}}"#)),
            UnreadableRecipient,
        )
    };
    all_refused(&texts.iter().map(body).collect::<Vec<_>>());
}

#[test]
fn json_that_is_read_in_several_ways() {
    bodies(
        "/email",
        JSON,
        &[
            (
                "twice",
                r#"{"To":"a@own.example","To":"b@own.example"}"#,
                UnreadableBody,
            ),
            (
                "twice in other case",
                r#"{"To":"a@own.example","to":"b@own.example"}"#,
                UnreadableBody,
            ),
            (
                "twice for Go",
                "{\"Recipients\":\"\",\"recipient\u{17f}\":\"\"}",
                UnreadableBody,
            ),
            (
                "twice, escaped",
                r#"{"To":"","\u0054o":""}"#,
                UnreadableBody,
            ),
            (
                "NUL in a key",
                r#"{"Bcc\u0000":"a@own.example"}"#,
                UnreadableBody,
            ),
            (
                "a line in a key",
                r#"{"Bcc\n":"a@own.example"}"#,
                UnreadableBody,
            ),
            (
                "two documents",
                r#"{"To":"a@own.example"}{}"#,
                UnreadableBody,
            ),
            ("a byte order mark", "\u{feff}{}", UnreadableBody),
            ("a comma too many", "[1,]", UnreadableBody),
            ("a comment", "{/*x*/}", UnreadableBody),
            (
                "quotes of another kind",
                "{'To':'a@own.example'}",
                UnreadableBody,
            ),
            ("half a pair", r#"{"To":"\ud800"}"#, UnreadableBody),
            ("no number", "{\"x\":NaN}", UnreadableBody),
            (
                "a lone control character",
                "{\"x\":\"\u{1}\"}",
                UnreadableBody,
            ),
        ],
    );
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    bodies("/email", JSON, &[("deep", &deep, UnreadableBody)]);
    for kind in [
        "text/plain",
        FORM,
        "application/x-www-form-urlencoded, a/b+json",
        "application/json, text/plain",
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; boundary=x",
        "application/json; x",
        "application/jsonp",
        "text/html+json",
        "json",
        "application/json/x",
        "multipart/form-data; boundary=x",
        "\"application/json\"",
    ] {
        bodies(
            "/email",
            kind,
            &[("type", r#"{"x":"&Bcc=a@own.example&"}"#, UnreadableBody)],
        );
    }
    all_refused(&[
        (
            "no type",
            raw("POST /email", "Content-Length: 2\r\n", b"{}"),
            UnreadableBody,
        ),
        (
            "two types",
            raw(
                "POST /email",
                "Content-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n",
                b"{}",
            ),
            TwoReadings,
        ),
        (
            "an unknown coding",
            raw(
                "POST /email",
                "Content-Type: application/json\r\nContent-Encoding: br\r\nContent-Length: 2\r\n",
                b"{}",
            ),
            UnreadableBody,
        ),
        (
            "not UTF-8",
            raw(
                "POST /email",
                "Content-Type: application/json\r\nContent-Length: 9\r\n",
                b"{\"x\":\"\xff\"}",
            ),
            UnreadableBody,
        ),
        (
            "UTF-16",
            raw(
                "POST /email",
                "Content-Type: application/json\r\nContent-Length: 4\r\n",
                b"{\0}\0",
            ),
            UnreadableBody,
        ),
    ]);
}

#[test]
fn addresses_where_no_recipient_stands() {
    bodies(
        "/email",
        JSON,
        &[
            (
                "header fields",
                r#"{"Headers":[{"Name":"Bcc","Value":"eve@evil.example"}]}"#,
                AddressElsewhere,
            ),
            (
                "an address where another mail is named",
                r#"{"Headers":[{"Name":"In-Reply-To","Value":"eve@evil.example"}]}"#,
                AddressElsewhere,
            ),
            (
                "a field behind the name of a mail",
                r#"{"Headers":[{"Name":"References","Value":"<a@b.example>\r\nBcc: <eve@evil.example>"}]}"#,
                AddressElsewhere,
            ),
            (
                "two addresses in the name of a mail",
                r#"{"Headers":[{"Name":"References","Value":"<a@b.example>,<eve@evil.example>"}]}"#,
                AddressElsewhere,
            ),
            (
                "another field with the name of a mail",
                r#"{"Headers":[{"Name":"X-References","Value":"<eve@evil.example>"}]}"#,
                AddressElsewhere,
            ),
            (
                "a mapping of them",
                r#"{"Headers":{"Bcc":"eve@evil.example"}}"#,
                AddressElsewhere,
            ),
            (
                "a key that is not known",
                r#"{"Blindcopy":"eve@evil.example"}"#,
                AddressElsewhere,
            ),
            (
                "a key itself",
                r#"{"x":{"eve@evil.example":1}}"#,
                AddressElsewhere,
            ),
            (
                "a model",
                r#"{"TemplateModel":{"to":["Eve <eve@evil.example>"]}}"#,
                AddressElsewhere,
            ),
            (
                "in the middle",
                r#"{"Tag":"x;bcc=eve@evil.example;y"}"#,
                AddressElsewhere,
            ),
            (
                "encoded word",
                r#"{"Tag":"=?utf-8?q?eve=40evil=2Eexample?="}"#,
                AddressElsewhere,
            ),
            (
                "escaped",
                r#"{"Tag":"eve%40evil.example"}"#,
                AddressElsewhere,
            ),
            (
                "entity",
                r#"{"Tag":"eve&#64;evil.example"}"#,
                AddressElsewhere,
            ),
            (
                "full width",
                r#"{"Tag":"eve＠evil.example"}"#,
                AddressElsewhere,
            ),
            (
                "a literal",
                r#"{"Tag":"eve@[192.0.2.1]"}"#,
                AddressElsewhere,
            ),
            (
                "quoted local part",
                r#"{"Tag":"\"eve\"@evil.example"}"#,
                AddressElsewhere,
            ),
            (
                "international",
                r#"{"Tag":"eve@böse.example"}"#,
                AddressElsewhere,
            ),
            (
                "replies",
                r#"{"ReplyTo":"eve@evil.example"}"#,
                AddressElsewhere,
            ),
            (
                "the sender",
                r#"{"From":"eve@evil.example"}"#,
                AddressElsewhere,
            ),
            (
                "a subject with a field",
                r#"{"Subject":"x\r\nBcc: eve@evil.example"}"#,
                TwoReadings,
            ),
            (
                "value of no content",
                r#"{"x":{"value":"eve@evil.example"}}"#,
                AddressElsewhere,
            ),
        ],
    );
}

#[test]
fn paths_and_queries() {
    let rows = [
        (
            "stranger in the path",
            "GET /to/eve%40evil.example",
            RecipientNotInCall,
        ),
        (
            "stranger in the query",
            "GET /to/a@own.example?cc=eve%40evil.example",
            RecipientNotInCall,
        ),
        (
            "a list",
            "GET /to/a@own.example?cc[]=eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "with a number",
            "GET /to/a@own.example?cc[0]=eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "in capitals",
            "GET /to/a@own.example?CC=eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "escaped",
            "GET /to/a@own.example?c%63=eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "escaped brackets",
            "GET /to/a@own.example?cc%5B%5D=eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "second",
            "GET /to/a@own.example?cc=a@own.example&cc=eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "semicolon",
            "GET /to/a@own.example?x=1;cc=eve@evil.example",
            TwoReadings,
        ),
        (
            "NUL in a key",
            "GET /to/a@own.example?cc%00=eve@evil.example",
            TwoReadings,
        ),
        ("other method", "GET /get/1?_method=DELETE", TwoReadings),
        (
            "other method, escaped",
            "GET /get/1?%5fmethod=DELETE",
            TwoReadings,
        ),
        ("Google's", "GET /get/1?$httpMethod=DELETE", TwoReadings),
        (
            "header in the query",
            "GET /get/1?X-HTTP-Method-Override=DELETE",
            TwoReadings,
        ),
        ("slash", "GET /get/..%2fadmin", TwoReadings),
        ("slash in capitals", "GET /get/x%2Fadmin", TwoReadings),
        ("backslash", "GET /get/..%5cadmin", TwoReadings),
        ("raw backslash", "GET /get/..\\admin", TwoReadings),
        (
            "escaped twice",
            "GET /get/%252e%252e%252fadmin",
            TwoReadings,
        ),
        ("dots", "GET /get/../admin", TwoReadings),
        ("escaped dots", "GET /get/%2e%2e/admin", TwoReadings),
        ("dots with parameters", "GET /get/..;/admin", TwoReadings),
        ("empty segment", "GET //get/1", TwoReadings),
        ("needless escape", "GET /%67et/1", TwoReadings),
        ("NUL", "GET /get/1%00", TwoReadings),
        ("line", "GET /get/1%0d%0ax", TwoReadings),
        ("no escape", "GET /get/1%zz", TwoReadings),
        ("half an escape", "GET /get/1%4", TwoReadings),
        ("fragment", "GET /get/1#x", TwoReadings),
        ("no path", "GET get/1", TwoReadings),
        ("other host", "GET https://b.example/get/1", TwoReadings),
        ("other scheme", "GET http://a.example/get/1", TwoReadings),
        ("user", "GET https://x@a.example/get/1", TwoReadings),
        (
            "a dot behind the host",
            "GET https://a.example./get/1",
            TwoReadings,
        ),
        ("method in small letters", "get /get/1", TwoReadings),
        ("unlisted method", "DELETE /get/1", UnlistedOperation),
        ("unlisted path", "GET /other", UnlistedOperation),
        ("in capitals", "GET /Get/1", UnlistedOperation),
        ("deeper", "GET /get/1/2", UnlistedOperation),
        ("trace", "TRACE /get/1", TwoReadings),
        ("tunnel", "CONNECT a.example:443", Upgrade),
    ];
    all_refused(&rows.map(|(name, line, why)| (name, raw(line, "", b""), why)));
    for query in [
        "Bcc=a@own.example",
        "bcc[]=x",
        "List[0][Email]=a@own.example",
        "x=1;Bcc=x",
        "B%63c=x",
        "Bcc.x=1",
        "List",
        "ＢCC=x",
    ] {
        all_refused(&[(
            "query beside a body",
            post(
                &format!("/email?{}", query.replace("Ｂ", "%EF%BC%A2")),
                JSON,
                "{}",
            ),
            TwoReadings,
        )]);
    }
}

#[test]
fn heads() {
    let rows = [
        ("two hosts", "Host: b.example\r\n", TwoReadings),
        (
            "underlined host",
            "Ho_st: b.example\r\nContent_Length: 5\r\n",
            TwoReadings,
        ),
        (
            "length and chunks",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            TwoReadings,
        ),
        (
            "two lengths",
            "Content-Length: 0\r\nContent-Length: 0\r\n",
            TwoReadings,
        ),
        ("list of lengths", "Content-Length: 0, 0\r\n", TwoReadings),
        ("a sign", "Content-Length: +0\r\n", TwoReadings),
        ("hexadecimal", "Content-Length: 0x0\r\n", TwoReadings),
        ("empty length", "Content-Length:\r\n", TwoReadings),
        (
            "too long",
            "Content-Length: 99999999999999999999\r\n",
            TwoReadings,
        ),
        ("folded", "A: b\r\n c\r\n", TwoReadings),
        (
            "blank before the colon",
            "Content-Length : 0\r\n",
            TwoReadings,
        ),
        ("bare line feed", "A: b\nHost: b.example\r\n", TwoReadings),
        ("bare carriage return", "A: b\rc\r\n", TwoReadings),
        ("NUL", "A: b\0c\r\n", TwoReadings),
        ("no colon", "A\r\n", TwoReadings),
        ("no name", ": b\r\n", TwoReadings),
        (
            "coding",
            "Transfer-Encoding: gzip, chunked\r\n",
            TwoReadings,
        ),
        (
            "coding with a blank",
            "Transfer-Encoding: \u{b}chunked\r\n",
            TwoReadings,
        ),
        (
            "coding twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            TwoReadings,
        ),
        ("body of GET", "Transfer-Encoding: chunked\r\n", TwoReadings),
        (
            "other method",
            "X-HTTP-Method-Override: DELETE\r\n",
            TwoReadings,
        ),
        ("other path", "X-Original-URL: /admin\r\n", TwoReadings),
        ("other host", "X-Forwarded-Host: b.example\r\n", TwoReadings),
        ("taken away", "Connection: x-token\r\n", TwoReadings),
        ("expectation", "Expect: more\r\n", TwoReadings),
        (
            "upgrade",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
            Upgrade,
        ),
        (
            "a stranger's key",
            "X-Token: strangers\r\n",
            CredentialNotOwn,
        ),
        (
            "a second key",
            "X-Token: own-token\r\nX-Token: strangers\r\n",
            CredentialNotOwn,
        ),
        (
            "bearer",
            "Authorization: Bearer strangers\r\n",
            CredentialNotOwn,
        ),
        (
            "basic",
            "Authorization: Basic c3RyYW5nZXI6a2V5\r\n",
            CredentialNotOwn,
        ),
        (
            "own and more",
            "Authorization: Bearer own-token strangers\r\n",
            CredentialNotOwn,
        ),
    ];
    all_refused(&rows.map(|(name, fields, why)| (name, raw("GET /get/1", fields, b""), why)));
    all_refused(&[
        ("key in the query", raw("GET /get/1?key=strangers", "", b""), CredentialNotOwn),
        ("no host", b"GET /get/1 HTTP/1.1\r\n\r\n".to_vec(), TwoReadings),
        ("empty host", b"GET /get/1 HTTP/1.1\r\nHost: \r\n\r\n".to_vec(), TwoReadings),
        ("other host", b"GET /get/1 HTTP/1.1\r\nHost: b.example\r\n\r\n".to_vec(), AuthorityMismatch),
        ("other port", b"GET /get/1 HTTP/1.1\r\nHost: a.example:8443\r\n\r\n".to_vec(), AuthorityMismatch),
        ("two blanks", b"GET  /get/1 HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec(), TwoReadings),
        ("other version", b"GET /get/1 HTTP/2.0\r\nHost: a.example\r\n\r\n".to_vec(), TwoReadings),
        ("no version", b"GET /get/1\r\nHost: a.example\r\n\r\n".to_vec(), TwoReadings),
        ("chunks in HTTP/1.0", b"POST /email HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), TwoReadings),
    ]);
    let chunked = |body: &str| {
        raw(
            "POST /email",
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
            body.as_bytes(),
        )
    };
    let rows = [
        ("extension", "2;x\r\n{}\r\n0\r\n\r\n"),
        ("sign", "+2\r\n{}\r\n0\r\n\r\n"),
        ("prefix", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("blank", "2 \r\n{}\r\n0\r\n\r\n"),
        ("longer", "2\r\n{}}\r\n0\r\n\r\n"),
        ("overflow", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
        ("empty", "\r\n{}\r\n0\r\n\r\n"),
        ("hidden field", "2\r\n{}\r\n0\r\nContent_Length: 3\r\n\r\n"),
        ("minus", "-2\r\n{}\r\n0\r\n\r\n"),
    ];
    all_refused(&rows.map(|(name, body)| (name, chunked(body), TwoReadings)));
}

#[test]
fn forms() {
    bodies(
        "/form",
        FORM,
        &[
            ("a stranger", "to=eve%40evil.example", RecipientNotInCall),
            (
                "second",
                "to=a@own.example&to=eve@evil.example",
                RecipientNotInCall,
            ),
            ("in capitals", "BCC=eve@evil.example", RecipientNotInCall),
            ("escaped key", "b%63c=eve@evil.example", RecipientNotInCall),
            ("a list", "bcc[]=eve@evil.example", RecipientNotInCall),
            (
                "escaped brackets",
                "bcc%5B0%5D=eve@evil.example",
                RecipientNotInCall,
            ),
            (
                "a mapping",
                "bcc[email]=eve@evil.example",
                RecipientNotInCall,
            ),
            ("a dot", "bcc.0=eve@evil.example", RecipientNotInCall),
            (
                "a blank before",
                "+bcc=eve@evil.example",
                RecipientNotInCall,
            ),
            (
                "nothing seen",
                "b%E2%80%8Bcc=eve@evil.example",
                RecipientNotInCall,
            ),
            (
                "plus for a blank",
                "to=Eve+<eve@evil.example>",
                RecipientNotInCall,
            ),
            (
                "semicolon",
                "to=a@own.example;bcc=eve@evil.example",
                UnreadableBody,
            ),
            ("no escape", "to=a@own.example%zz", UnreadableBody),
            ("half an escape", "to=a@own.example%4", UnreadableBody),
            ("not UTF-8", "to=a@own.example%ff", UnreadableBody),
            ("NUL in a key", "to%00x=a@own.example", UnreadableBody),
            ("NUL in a value", "to=a@own.example%00", UnreadableRecipient),
            (
                "a line",
                "to=a@own.example&\r\nbcc=a@own.example",
                UnreadableBody,
            ),
            ("brackets", "to[=a@own.example", UnreadableBody),
            ("brackets behind", "to[x]y=a@own.example", UnreadableBody),
            ("other method", "_method=DELETE", UnreadableBody),
            ("other charset", "_charset_=utf-7", UnreadableBody),
            ("no key", "=eve@evil.example", UnreadableBody),
            (
                "key that is not known",
                "blindcopy=eve@evil.example",
                AddressElsewhere,
            ),
            ("address as a key", "eve%40evil.example", AddressElsewhere),
            (
                "JSON in a field",
                "h:x={%22Bcc%22:%22eve@evil.example%22}",
                AddressElsewhere,
            ),
            ("raw UTF-8", "to=ä@own.example", UnreadableBody),
        ],
    );
    bodies(
        "/post",
        FORM,
        &[("form of two", "channel=C2", RecipientNotInCall)],
    );
    bodies(
        "/post",
        JSON,
        &[("JSON of two", r#"{"channel":"C2"}"#, RecipientNotInCall)],
    );
    bodies(
        "/post",
        "text/plain",
        &[("neither", r#"{"channel":"C1"}"#, UnreadableBody)],
    );
    bodies(
        "/post",
        FORM,
        &[(
            "JSON as a form",
            r#"{"channel":"C1"}&channel=C2"#,
            RecipientNotInCall,
        )],
    );
}
