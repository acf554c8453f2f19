//! Bodies of parts (multipart/form-data): which are read, and which are not.

use super::world::{all_pass, all_refused, raw};
use crate::judge::Reason::{
    self, AddressElsewhere, RecipientNotInCall, TwoReadings, UnreadableBody, UnreadableRecipient,
};

const KIND: &str = "multipart/form-data; boundary=--X1";

fn sent(kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let fields = format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n");
    raw("POST /parts", &fields, body)
}

/// A body of these parts, each with its head and its content.
fn body(parts: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (head, text) in parts {
        body.push_str(&format!("----X1\r\n{head}\r\n\r\n{text}\r\n"));
    }
    body + "----X1--\r\n"
}

fn of(parts: &[(&str, &str)]) -> Vec<u8> {
    sent(KIND, body(parts).as_bytes())
}

const TO: &str = r#"Content-Disposition: form-data; name="to""#;
const X: &str = r#"Content-Disposition: form-data; name="x""#;

#[test]
fn what_libraries_write_is_read() {
    let to = |text: &'static str| of(&[(TO, text)]);
    let headed = |head: &'static str| of(&[(head, "a@own.example")]);
    all_pass(&[
        ("one", to("a@own.example")),
        ("named in a call", to("Called <called@shop.example>")),
        ("twice", of(&[(TO, "a@own.example"), (TO, "b@own.example")])),
        ("none", sent(KIND, b"----X1--\r\n")),
        (
            "without a last line end",
            sent(KIND, body(&[(TO, "a@own.example")]).trim_end().as_bytes()),
        ),
        ("nobody", to("")),
        (
            "in small letters",
            headed("content-disposition: form-data; name=\"to\""),
        ),
        (
            "without quotes",
            headed("Content-Disposition: form-data; name=to"),
        ),
        (
            "without a blank",
            headed("Content-Disposition:form-data;name=\"to\""),
        ),
        (
            "with a type",
            headed(
                "Content-Disposition: form-data; name=\"to\"\r\nContent-Type: text/plain; charset=UTF-8",
            ),
        ),
        (
            "with a length",
            headed("Content-Disposition: form-data; name=\"to\"\r\nContent-Length: 13"),
        ),
        (
            "content",
            of(&[
                (
                    r#"Content-Disposition: form-data; name="subject""#,
                    "eve@evil.example",
                ),
                (
                    r#"Content-Disposition: form-data; name="text""#,
                    "write to\r\neve@evil.example\nor not--",
                ),
                (
                    r#"Content-Disposition: form-data; name="html""#,
                    "<a href='mailto:eve@evil.example'>ü</a>",
                ),
            ]),
        ),
        (
            "options",
            of(&[
                (
                    r#"Content-Disposition: form-data; name="o:tracking""#,
                    "yes",
                ),
                (
                    r#"Content-Disposition: form-data; name="v:order[id]""#,
                    "12",
                ),
                (
                    r#"Content-Disposition: form-data; name="recipient-variables""#,
                    r#"{"a@own.example": {"n": 1}}"#,
                ),
            ]),
        ),
        (
            "a file",
            of(&[(
                "Content-Disposition: form-data; name=\"attachment\"; filename=\"a b.txt\"\r\nContent-Type: text/plain; charset=iso-8859-1",
                "eve@evil.example",
            )]),
        ),
        (
            "a mail as a file",
            of(&[(
                "Content-Disposition: form-data; name=\"attachment\"; filename=\"über.eml\"\r\nContent-Type: message/rfc822",
                "To: eve@evil.example\r\n\r\n",
            )]),
        ),
        (
            "no file",
            of(&[(
                "Content-Disposition: form-data; name=\"attachment\"; filename=\"\"\r\nContent-Type: application/octet-stream",
                "",
            )]),
        ),
        ("empty lines", of(&[(X, "\r\n\r\n")])),
        ("dashes", of(&[(X, "--\r\n--X\r\n---X1\r\n")])),
    ]);
    let binary = [
        b"----X1\r\nContent-Disposition: form-data; name=\"attachment\"; filename=\"a.png\"\r\n\r\n"
            .as_slice(),
        b"\x89PNG\r\n\x1a\n\0\xff\r",
        b"\r\n----X1--\r\n",
    ];
    all_pass(&[("bytes", sent(KIND, &binary.concat()))]);
    for kind in [
        "multipart/form-data; boundary=\"--X1\"",
        "Multipart/Form-Data;BOUNDARY=--X1",
        "multipart/form-data; charset=utf-8; boundary=--X1",
    ] {
        all_pass(&[(kind, sent(kind, body(&[(TO, "a@own.example")]).as_bytes()))]);
    }
}

#[test]
fn strangers_in_parts() {
    let named = |head: &'static str| of(&[(TO, "a@own.example"), (head, "eve@evil.example")]);
    all_refused(&[
        (
            "a stranger",
            of(&[(TO, "eve@evil.example")]),
            RecipientNotInCall,
        ),
        (
            "the second",
            of(&[(TO, "a@own.example"), (TO, "eve@evil.example")]),
            RecipientNotInCall,
        ),
        (
            "a list",
            of(&[(TO, "a@own.example, eve@evil.example")]),
            RecipientNotInCall,
        ),
        (
            "a list by lines",
            of(&[(TO, "a@own.example\r\neve@evil.example")]),
            RecipientNotInCall,
        ),
        (
            "in two ways",
            of(&[(TO, "eve@evil.example <a@own.example>")]),
            UnreadableRecipient,
        ),
        ("NUL", of(&[(TO, "a@own.example\0")]), UnreadableRecipient),
        (
            "hidden copy",
            named(r#"Content-Disposition: form-data; name="bcc""#),
            RecipientNotInCall,
        ),
        (
            "in capitals",
            named(r#"Content-Disposition: form-data; name="BCC""#),
            RecipientNotInCall,
        ),
        (
            "no quotes",
            named(r#"Content-Disposition: form-data; name=bcc"#),
            RecipientNotInCall,
        ),
        (
            "brackets",
            named(r#"Content-Disposition: form-data; name="bcc[]""#),
            RecipientNotInCall,
        ),
        (
            "a dot",
            named(r#"Content-Disposition: form-data; name="bcc.0""#),
            RecipientNotInCall,
        ),
        (
            "a blank",
            named(r#"Content-Disposition: form-data; name=" bcc""#),
            RecipientNotInCall,
        ),
        (
            "full width",
            named("Content-Disposition: form-data; name=\"ｂcc\""),
            RecipientNotInCall,
        ),
        (
            "an empty file name",
            named("Content-Disposition: form-data; name=\"bcc\"; filename=\"\""),
            RecipientNotInCall,
        ),
        (
            "elsewhere",
            named(r#"Content-Disposition: form-data; name="h:X-Bcc""#),
            AddressElsewhere,
        ),
        (
            "elsewhere, as no file",
            named("Content-Disposition: form-data; name=\"x\"; filename=\"\""),
            AddressElsewhere,
        ),
        (
            "as a name",
            of(&[(
                r#"Content-Disposition: form-data; name="eve@evil.example""#,
                "",
            )]),
            AddressElsewhere,
        ),
        (
            "as a file's name",
            of(&[(
                r#"Content-Disposition: form-data; name="x"; filename="eve@evil.example""#,
                "",
            )]),
            AddressElsewhere,
        ),
        (
            "batch variables",
            of(&[(
                r#"Content-Disposition: form-data; name="recipient-variables""#,
                r#"{"eve@evil.example": {}}"#,
            )]),
            AddressElsewhere,
        ),
        (
            "a subject with a field",
            of(&[(
                r#"Content-Disposition: form-data; name="subject""#,
                "x\r\nBcc: eve@evil.example",
            )]),
            TwoReadings,
        ),
    ]);
}

#[test]
fn parts_that_are_read_in_several_ways() {
    let heads = [
        (
            "two names",
            r#"Content-Disposition: form-data; name="x"; name="bcc""#,
        ),
        (
            "another name",
            r#"Content-Disposition: form-data; name="x"; name*=utf-8''bcc"#,
        ),
        (
            "only another name",
            r#"Content-Disposition: form-data; name*=utf-8''bcc"#,
        ),
        (
            "numbered",
            r#"Content-Disposition: form-data; name*0="b"; name*1="cc""#,
        ),
        ("escaped", r#"Content-Disposition: form-data; name="\bcc""#),
        (
            "an escaped quote",
            r#"Content-Disposition: form-data; name="x\"; name="bcc""#,
        ),
        ("percent", r#"Content-Disposition: form-data; name="%62cc""#),
        (
            "an encoded word",
            r#"Content-Disposition: form-data; name="=?utf-8?q?bcc?=""#,
        ),
        (
            "a semicolon",
            r#"Content-Disposition: form-data; name="x; name=bcc""#,
        ),
        (
            "an open quote",
            r#"Content-Disposition: form-data; name="x"#,
        ),
        (
            "other quotes",
            "Content-Disposition: form-data; name='x'; name='bcc'",
        ),
        (
            "behind the quote",
            r#"Content-Disposition: form-data; name="x"bcc"#,
        ),
        (
            "a blank before",
            r#"Content-Disposition : form-data; name="x""#,
        ),
        (
            "a blank before =",
            r#"Content-Disposition: form-data; name ="x""#,
        ),
        (
            "a file first",
            r#"Content-Disposition: form-data; filename="bcc"; name="x""#,
        ),
        (
            "a name in a file's",
            r#"Content-Disposition: form-data; name="x"; filename="a; name=bcc""#,
        ),
        (
            "an escape in a file's",
            r#"Content-Disposition: form-data; name="x"; filename="a\"; name=bcc""#,
        ),
        (
            "another file name",
            r#"Content-Disposition: form-data; name="x"; filename="a"; filename*=utf-8''b"#,
        ),
        (
            "a parameter",
            r#"Content-Disposition: form-data; name="x"; size=1"#,
        ),
        ("no name", "Content-Disposition: form-data"),
        (
            "an empty name",
            r#"Content-Disposition: form-data; name="""#,
        ),
        (
            "another disposition",
            r#"Content-Disposition: attachment; name="x""#,
        ),
        ("nothing", "Content-Type: text/plain"),
        (
            "two dispositions",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"bcc\"",
        ),
        ("folded", "Content-Disposition: form-data;\r\n name=\"x\""),
        (
            "a bare line feed",
            "Content-Disposition: form-data; name=\"x\"\nX: y",
        ),
        (
            "a bare return",
            "Content-Disposition: form-data; name=\"x\"\rX: y",
        ),
        ("NUL", "Content-Disposition: form-data; name=\"x\0\""),
        (
            "NUL in a file's name",
            "Content-Disposition: form-data; name=\"x\"; filename=\"a\0b\"",
        ),
        ("a tab", "Content-Disposition:\tform-data; name=\"x\""),
        (
            "no colon",
            "Content-Disposition: form-data; name=\"x\"\r\nbcc",
        ),
        (
            "another field",
            "Content-Disposition: form-data; name=\"x\"\r\nX-Name: bcc",
        ),
        (
            "base64",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Transfer-Encoding: base64",
        ),
        (
            "quoted-printable",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Transfer-Encoding: quoted-printable",
        ),
        (
            "gzip",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Encoding: gzip",
        ),
        (
            "a length",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Length: 1",
        ),
        (
            "a charset",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Type: text/plain; charset=utf-7",
        ),
        (
            "utf-16",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Type: text/plain;charset=\"utf-16\"",
        ),
        (
            "two types",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Type: text/plain\r\nContent-Type: text/plain",
        ),
        (
            "parts",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Type: multipart/mixed; boundary=Y",
        ),
        (
            "parts in a file",
            "Content-Disposition: form-data; name=\"x\"; filename=\"y\"\r\nContent-Type: multipart/mixed; boundary=Y",
        ),
        (
            "no type",
            "Content-Disposition: form-data; name=\"x\"\r\nContent-Type: text",
        ),
        (
            "the method",
            r#"Content-Disposition: form-data; name="_method""#,
        ),
        (
            "the charset",
            r#"Content-Disposition: form-data; name="_charset_""#,
        ),
        ("brackets", r#"Content-Disposition: form-data; name="x[""#),
    ];
    let own = |(name, head)| (name, of(&[(head, "a@own.example")]), UnreadableBody);
    all_refused(&heads.map(own));
    all_refused(&[(
        "a recipient as a file",
        of(&[(
            "Content-Disposition: form-data; name=\"bcc\"; filename=\"x\"",
            "eve@evil.example",
        )]),
        UnreadableBody,
    )]);
}

#[test]
fn boundaries_that_are_read_in_several_ways() {
    let to = "Content-Disposition: form-data; name=\"to\"\r\n\r\na@own.example";
    let bcc = "Content-Disposition: form-data; name=\"bcc\"\r\n\r\neve@evil.example";
    let rows = [
        ("before", format!("x\r\n----X1\r\n{to}\r\n----X1--\r\n")),
        (
            "a line before",
            format!("\r\n----X1\r\n{to}\r\n----X1--\r\n"),
        ),
        ("behind", format!("----X1\r\n{to}\r\n----X1--\r\nx")),
        (
            "two lines behind",
            format!("----X1\r\n{to}\r\n----X1--\r\n\r\n"),
        ),
        (
            "parts behind",
            format!("----X1\r\n{to}\r\n----X1--\r\n----X1\r\n{bcc}\r\n----X1--\r\n"),
        ),
        ("no end", format!("----X1\r\n{to}\r\n")),
        ("no end of the end", format!("----X1\r\n{to}\r\n----X1")),
        ("half an end", format!("----X1\r\n{to}\r\n----X1-")),
        (
            "a line feed",
            format!("----X1\r\n{to}\n----X1\r\n{bcc}\r\n----X1--\r\n"),
        ),
        (
            "a return",
            format!("----X1\r\n{to}\r----X1\r\n{bcc}\r\n----X1--\r\n"),
        ),
        (
            "line feeds alone",
            format!("----X1\n{to}\n----X1--\n").replace('\r', ""),
        ),
        (
            "a blank behind it",
            format!("----X1\r\n{to}\r\n----X1 \r\n{bcc}\r\n----X1--\r\n"),
        ),
        (
            "a tab behind it",
            format!("----X1\r\n{to}\r\n----X1\t\r\n{bcc}\r\n----X1--\r\n"),
        ),
        (
            "more behind it",
            format!("----X1\r\n{to}\r\n----X12\r\n{bcc}\r\n----X1--\r\n"),
        ),
        (
            "in the middle of a line",
            format!("----X1\r\n{to} ----X1\r\n{bcc}\r\n----X1--\r\n"),
        ),
        (
            "in other letters",
            format!("----X1\r\n{to}\r\n----x1\r\n{bcc}\r\n----X1--\r\n"),
        ),
        (
            "in quotes",
            format!("----X1\r\n{to}\r\n--\"--X1\"\r\n{bcc}\r\n--\"--X1\"--\r\n----X1--\r\n"),
        ),
        (
            "in a head",
            format!("----X1\r\n----X1\r\n{bcc}\r\n\r\n{to}\r\n----X1--\r\n"),
        ),
        ("an empty part", "----X1\r\n----X1--\r\n".to_owned()),
        ("a part of a line", "----X1\r\n\r\n----X1--\r\n".to_owned()),
        (
            "only a head",
            "----X1\r\nContent-Disposition: form-data; name=\"x\"\r\n----X1--\r\n".to_owned(),
        ),
        ("another boundary", format!("--Y\r\n{to}\r\n--Y--\r\n")),
        ("nothing of it", "to=a@own.example".to_owned()),
        (
            "a long head",
            format!(
                "----X1\r\nContent-Type: text/{}\r\n{to}\r\n----X1--\r\n",
                "x".repeat(5000)
            ),
        ),
        (
            "many parts",
            format!("----X1\r\n{to}\r\n")
                .repeat(1001)
                .replace("a@own.example", "")
                + "----X1--\r\n",
        ),
    ];
    let rows: Vec<(&str, Vec<u8>, Reason)> = rows
        .iter()
        .map(|(name, body)| (*name, sent(KIND, body.as_bytes()), UnreadableBody))
        .collect();
    all_refused(&rows);
    let good = body(&[(TO, "a@own.example")]);
    for kind in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=--X1; boundary=--X2",
        "multipart/form-data; boundary=--X1; BOUNDARY=--X1",
        "multipart/form-data; boundary*=utf-8''--X1",
        "multipart/form-data; boundary*0=--X; boundary*1=1",
        "multipart/form-data; boundary=--X1,--X2",
        "multipart/form-data; boundary=\"--X1;x\"",
        "multipart/form-data; boundary=\"--X1 \"",
        "multipart/form-data; boundary=\"--X\\1\"",
        "multipart/form-data; boundary='--X1'; x",
        "multipart/form-data; boundary=\"--X1",
        "multipart/form-data; boundary=--X1; charset=utf-16",
        "multipart/form-data, multipart/form-data; boundary=--X1",
        "multipart/mixed; boundary=--X1",
        "multipart/related; boundary=--X1",
        "multipart/form-data; boundary=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ] {
        all_refused(&[(kind, sent(kind, good.as_bytes()), UnreadableBody)]);
    }
    // Each body has the boundary that is said, and servers that cut it off look for another one.
    for boundary in [
        "--X1,--X2",
        "--X1:2",
        "--X1?2",
        "(X1)",
        "--X1 2",
        "--X1;2",
        "--X\\1",
    ] {
        let own = good.replace("----X1", &format!("--{boundary}"));
        let kind = format!("multipart/form-data; boundary=\"{boundary}\"");
        all_refused(&[("a boundary", sent(&kind, own.as_bytes()), UnreadableBody)]);
    }
    let mut bytes = body(&[(TO, "a@own.example")]).into_bytes();
    bytes
        .iter_mut()
        .filter(|byte| **byte == b'@')
        .for_each(|byte| *byte = 0xff);
    all_refused(&[("not UTF-8", sent(KIND, &bytes), UnreadableBody)]);
}
