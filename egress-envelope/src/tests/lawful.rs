//! Requests that pass: as libraries and people write them.

use super::world::{FORM, JSON, all_pass, post, raw};

#[test]
fn mail_in_json() {
    let rows = [
        ("plain", r#"{"To":"a@own.example"}"#),
        ("named in a call", r#"{"To":"called@shop.example"}"#),
        ("in other case", r#"{"To":"Called@Shop.Example"}"#),
        ("the operator's", r#"{"To":"operator@shop.example"}"#),
        ("with a name", r#"{"To":"Ann <a@own.example>"}"#),
        (
            "with a quoted name",
            r#"{"To":"\"Doe, Ann\" <a@own.example>"}"#,
        ),
        (
            "the address as a name",
            r#"{"To":"\"a@own.example\" <a@own.example>"}"#,
        ),
        (
            "with an encoded name",
            r#"{"To":"=?utf-8?q?J=C3=B6rg?= <a@own.example>"}"#,
        ),
        ("with umlauts", r#"{"To":"Jörg <a@own.example>"}"#),
        ("a list", r#"{"To":["a@own.example","b@own.example"]}"#),
        (
            "a list in a text",
            r#"{"To":"a@own.example, Bob <b@own.example>;"}"#,
        ),
        ("a quoted local part", r#"{"To":"\"ann\"@own.example"}"#),
        ("a tag", r#"{"To":"ann+x@own.example"}"#),
        ("nobody", r#"{"To":null,"Cc":"","Bcc":[]}"#),
        (
            "objects",
            r#"{"List":[{"Email":"a@own.example","Name":"Ann"}]}"#,
        ),
        (
            "one object",
            r#"{"List":{"Email":"a@own.example","Name":"Ann"}}"#,
        ),
        (
            "content",
            r#"{"To":"a@own.example","Subject":"to eve@evil.example","TextBody":"a\neve@evil.example"}"#,
        ),
        (
            "content below",
            r#"{"content":[{"type":"text/html","value":"<a href=mailto:eve@evil.example>"}]}"#,
        ),
        (
            "own header field",
            r#"{"Headers":[{"Name":"Reply-To","Value":"b@own.example"}]}"#,
        ),
        (
            "an answer to another mail",
            r#"{"Headers":[{"Name":"In-Reply-To","Value":"<CA+1@mail.evil.example>"},{"name":"references","value":"<a@evil.example> <b@evil.example>"}]}"#,
        ),
        (
            "the operator sends",
            r#"{"From":"Shop <operator@shop.example>"}"#,
        ),
        ("no addresses", r#"{"Tag":"@bob react@18.2.0 a@b"}"#),
        (
            "a link with a query",
            r#"{"Url":"https://x.example/?a=?b&c"}"#,
        ),
        ("metadata", r#"{"Metadata":{"order":"12","über":"x"}}"#),
        ("numbers", r#"{"TrackOpens":true,"n":1.5e3}"#),
        ("nothing", "{}"),
    ];
    all_pass(&rows.map(|(name, body)| (name, post("/email", JSON, body))));
    all_pass(&[(
        "a batch",
        post(
            "/batch",
            JSON,
            r#"[{"To":"a@own.example"},{"To":"called@shop.example","Subject":"x"}]"#,
        ),
    )]);
    for kind in [
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "Application/JSON",
        "application/json; charset=\"utf-8\"",
        "application/vnd.x+json",
    ] {
        all_pass(&[(kind, post("/email", kind, r#"{"To":"a@own.example"}"#))]);
    }
}

#[test]
fn heads() {
    let rows = [
        ("get", "GET /get/1", ""),
        ("a query", "GET /get/1?a=b&c[]=d&e=f%20g+h", ""),
        ("what node leaves as it is", "GET /get/1?a={b}|c^d`\\", ""),
        ("a bar in the path", "GET /get/a|b", ""),
        ("an escape", "GET /get/a%20b%25", ""),
        ("absolute", "GET HTTPS://A.example/get/1", ""),
        (
            "an address in the query",
            "GET /get/1?next=https://x.example/?y",
            "",
        ),
        ("path", "GET /to/a%40own.example", ""),
        ("query", "GET /to/a@own.example?cc=b@own.example&cc=", ""),
        ("a semicolon", "GET /get/1?a=b;c", ""),
        ("own key", "GET /get/1", "X-Token: own-token\r\n"),
        (
            "own bearer",
            "GET /get/1",
            "Authorization: Bearer own-token\r\n",
        ),
        ("own key in the query", "GET /get/1?key=own-token", ""),
        (
            "basic",
            "GET /get/1",
            "Authorization: Basic YXBpOm93bi10b2tlbg==\r\n",
        ),
        (
            "usual fields",
            "GET /get/1",
            "Accept: */*\r\nUser-Agent: x/1 (y; z)\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n",
        ),
        ("no length", "PUT /file", "Content-Length: 0\r\n"),
        ("blanks", "GET /get/1", "A:  b \t\r\nB:\r\n"),
    ];
    all_pass(&rows.map(|(name, line, fields)| (name, raw(line, fields, b""))));
    let chunked = |body: &str| {
        raw(
            "POST /email",
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
            body.as_bytes(),
        )
    };
    all_pass(&[
        ("chunks", chunked("1\r\n{\r\n01\r\n}\r\n0\r\n\r\n")),
        ("trailers", chunked("2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n")),
        (
            "an upload",
            raw(
                "PUT /file",
                "Content-Type: image/png\r\nContent-Length: 3\r\n",
                b"\x89PN",
            ),
        ),
        (
            "an empty line before",
            b"\r\nGET /get/1 HTTP/1.1\r\nHost: a.example:443\r\n\r\n".to_vec(),
        ),
        (
            "HTTP/1.0",
            b"GET /get/1 HTTP/1.0\r\nHost: a.example\r\n\r\n".to_vec(),
        ),
    ]);
}

#[test]
fn forms() {
    let rows = [
        (
            "plain",
            "to=a%40own.example&subject=Hello+you%21&text=a%0Ab",
        ),
        ("twice", "to=a@own.example&to=called@shop.example"),
        ("a list", "to[]=a@own.example&to[]=b@own.example"),
        ("with a name", "to=Ann+%3Ca%40own.example%3E"),
        ("nobody", "to=a@own.example&bcc="),
        ("content", "to=a@own.example&text=eve%40evil.example"),
        ("other keys", "o:tracking=yes&v:x=1&metadata[order]=12"),
        ("a flag", "to=a@own.example&flag"),
    ];
    all_pass(&rows.map(|(name, body)| (name, post("/form", FORM, body))));
    all_pass(&[
        ("form of two", post("/post", FORM, "channel=C1&text=x")),
        ("JSON of two", post("/post", JSON, r#"{"channel":"C1"}"#)),
        (
            "without a hash",
            post("/post", JSON, r##"{"channel":"#c1"}"##),
        ),
    ]);
}
