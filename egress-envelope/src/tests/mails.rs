//! Whole mails (RFC 5322) as bodies and in fields of JSON: which are read, and which are not.

use super::world::{JSON, all_pass, all_refused, post, raw};
use crate::judge::Reason::{
    self, AddressElsewhere, RecipientNotInCall, UnreadableBody, UnreadableRecipient,
};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// In base64 with padding.
fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for index in 0..4_usize {
            let six = (bits >> (18 - 6 * index)) & 63;
            let c = ALPHABET.get(six as usize).copied().unwrap_or_default();
            out.push(if index > chunk.len() {
                '='
            } else {
                char::from(c)
            });
        }
    }
    out
}

/// In base64url without padding.
fn base64url(bytes: &[u8]) -> String {
    base64(bytes)
        .replace('+', "-")
        .replace('/', "_")
        .replace('=', "")
}

fn body(mail: &[u8]) -> Vec<u8> {
    let length = mail.len();
    let fields = format!("Content-Type: message/rfc822\r\nContent-Length: {length}\r\n");
    raw("POST /mail", &fields, mail)
}

fn field(mail: &[u8]) -> Vec<u8> {
    post("/raw", JSON, &format!(r#"{{"raw":"{}"}}"#, base64url(mail)))
}

/// The rows as bodies, and in a field.
fn refused(rows: &[(&str, Vec<u8>, Reason)]) {
    for how in [body, field] {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, mail, why)| (*name, how(mail), *why))
            .collect();
        all_refused(&rows);
    }
}

/// A mail of these fields.
fn mail(fields: &str) -> Vec<u8> {
    format!("{fields}\r\nSubject: x\r\n\r\nhello\r\n").into_bytes()
}

#[test]
fn what_libraries_write_is_read() {
    let rows = [
        ("plain", mail("To: a@own.example")),
        ("named in a call", mail("To: Called <called@shop.example>")),
        ("a list", mail("To: a@own.example, Bob <b@own.example>\r\nCc: c@own.example")),
        ("folded", mail("To: a@own.example,\r\n b@own.example,\r\n\tc@own.example")),
        ("folded behind the colon", mail("To:\r\n a@own.example")),
        ("in small letters", mail("to: a@own.example\r\nbcc:b@own.example")),
        ("a quoted name", mail("To: \"Doe, Ann\" <a@own.example>")),
        ("an encoded name", mail("To: =?utf-8?q?J=C3=B6rg?= <a@own.example>")),
        ("a long encoded name", mail("To: =?utf-8?b?SsO2cmc=?=\r\n =?utf-8?b?IMOWLg==?= <a@own.example>")),
        ("nobody", mail("To: undisclosed-recipients:;\r\nBcc: a@own.example")),
        ("empty", mail("To: a@own.example\r\nCc:\r\nBcc: ")),
        ("sent on", mail("To: a@own.example\r\nResent-To: called@shop.example\r\nResent-To: b@own.example")),
        ("the operator sends", mail("From: Shop <operator@shop.example>\r\nTo: a@own.example")),
        ("the user sends", mail("From: me\r\nTo: a@own.example")),
        (
            "an answer",
            mail("To: a@own.example\r\nMessage-ID: <1.2@mail.evil.example>\r\nIn-Reply-To: <CA+x=y@mail.evil.example>\r\nReferences: <a@evil.example>\r\n <b@evil.example>"),
        ),
        ("an answer by its number", mail("To: a@own.example\r\nIn-Reply-To: 18f3c0")),
        (
            "usual fields",
            mail("To: a@own.example\r\nMIME-Version: 1.0\r\nDate: Sat, 28 Nov 2026 11:00:00 +0000\r\nContent-Type: multipart/mixed; boundary=\"===1==\"\r\nX-Mailer: x/1 (y)"),
        ),
        ("a subject", b"To: a@own.example\r\nSubject: to eve@evil.example\r\n\r\n".to_vec()),
        ("an encoded subject", b"To: a@own.example\r\nSubject: =?utf-8?q?J=C3=B6rg_?=\r\n =?utf-8?q?eve=40evil.example?=\r\n\r\n".to_vec()),
        ("letters of other languages", mail("To: J\u{f6}rg <a@own.example>\r\nX-Note: \u{c4}rger, \u{c5}ngstr\u{f6}m \u{2026}")),
        ("an open subject", "To: a@own.example\r\nSubject: Gr\u{fc}\u{df}e an eve@evil.example\r\n\r\n".into()),
        ("a question", b"To: a@own.example\r\nSubject: a =? b\r\n\r\n".to_vec()),
        ("content", b"To: a@own.example\r\n\r\nBcc: eve@evil.example\r\n\r\n\xff\0\nx\ry".to_vec()),
        ("line feeds", b"To: a@own.example\nSubject: x\n\nBcc: eve@evil.example\n".to_vec()),
        ("without a body", b"To: a@own.example\r\n\r\n".to_vec()),
    ];
    for how in [body, field] {
        all_pass(&rows.each_ref().map(|(name, mail)| (*name, how(mail))));
    }
    let own = mail("To: a@own.example");
    all_pass(&[
        (
            "with padding",
            post("/raw", JSON, &format!(r#"{{"raw":"{}"}}"#, base64(&own))),
        ),
        ("nothing", post("/raw", JSON, "{}")),
        ("null", post("/raw", JSON, r#"{"raw":null,"threadId":"1"}"#)),
    ]);
}

#[test]
fn strangers_in_mails() {
    let own = "To: a@own.example\r\n";
    let rows = [
        ("to", "To: eve@evil.example", RecipientNotInCall),
        ("cc", "Cc: eve@evil.example", RecipientNotInCall),
        (
            "bcc",
            "To: a@own.example\r\nBcc: eve@evil.example",
            RecipientNotInCall,
        ),
        ("in capitals", "BCC: eve@evil.example", RecipientNotInCall),
        ("no blank", "bcc:eve@evil.example", RecipientNotInCall),
        (
            "the second of a list",
            "To: a@own.example, eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "folded",
            "To: a@own.example,\r\n eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "folded behind the colon",
            "Bcc:\r\n\teve@evil.example",
            RecipientNotInCall,
        ),
        (
            "a semicolon",
            "To: a@own.example; eve@evil.example",
            RecipientNotInCall,
        ),
        ("sent on", "Resent-To: eve@evil.example", RecipientNotInCall),
        (
            "sent on, copied",
            "Resent-Cc: eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "sent on, hidden",
            "Resent-Bcc: eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "sent on twice",
            "Resent-To: a@own.example\r\nResent-To: eve@evil.example",
            RecipientNotInCall,
        ),
        (
            "apparently",
            "Apparently-To: eve@evil.example",
            RecipientNotInCall,
        ),
        ("quoted", "To: \"eve\"@evil.example", RecipientNotInCall),
        (
            "international",
            "To: eve@b\u{f6}se.example",
            RecipientNotInCall,
        ),
        (
            "a name with an address",
            "To: eve@evil.example <a@own.example>",
            UnreadableRecipient,
        ),
        (
            "a quoted name",
            "To: \"eve@evil.example, a\" <a@own.example>",
            UnreadableRecipient,
        ),
        (
            "a group",
            "To: Team: eve@evil.example;",
            UnreadableRecipient,
        ),
        (
            "a group of own",
            "To: Team: a@own.example;",
            UnreadableRecipient,
        ),
        (
            "nobody and somebody",
            "To: undisclosed-recipients: eve@evil.example;",
            UnreadableRecipient,
        ),
        (
            "nobody twice",
            "To: undisclosed-recipients:; eve@evil.example",
            UnreadableRecipient,
        ),
        (
            "a comment",
            "To: a@own.example (eve@evil.example)",
            UnreadableRecipient,
        ),
        (
            "a comment before",
            "To: (a@own.example) eve@evil.example",
            UnreadableRecipient,
        ),
        (
            "a comment within",
            "To: eve(x)@evil.example",
            UnreadableRecipient,
        ),
        (
            "a route",
            "To: <@evil.example:a@own.example>",
            UnreadableRecipient,
        ),
        (
            "two in brackets",
            "To: <eve@evil.example> <a@own.example>",
            UnreadableRecipient,
        ),
        ("a literal", "To: eve@[192.0.2.1]", UnreadableRecipient),
        (
            "an encoded word",
            "To: =?utf-8?q?eve=40evil=2Eexample=2C?= <a@own.example>",
            UnreadableRecipient,
        ),
        (
            "encoded in two",
            "To: =?utf-8?q?eve?= =?utf-8?q?=40evil.example=2C?= <a@own.example>",
            UnreadableRecipient,
        ),
        (
            "an encoded address",
            "To: =?utf-8?q?eve?=@evil.example",
            UnreadableRecipient,
        ),
        (
            "all of it encoded",
            "To: =?utf-8?b?ZXZlQGV2aWwuZXhhbXBsZQ==?=",
            UnreadableRecipient,
        ),
        (
            "an escaped quote",
            "To: \"a\\\" <eve@evil.example>\" <a@own.example>",
            UnreadableRecipient,
        ),
        ("replies", "Reply-To: eve@evil.example", AddressElsewhere),
        ("the sender", "From: eve@evil.example", AddressElsewhere),
        (
            "another sender",
            "Sender: eve@evil.example",
            AddressElsewhere,
        ),
        (
            "receipts",
            "Disposition-Notification-To: eve@evil.example",
            AddressElsewhere,
        ),
        (
            "returns",
            "Return-Path: <eve@evil.example>",
            AddressElsewhere,
        ),
        ("errors", "Errors-To: eve@evil.example", AddressElsewhere),
        (
            "unsubscribing",
            "List-Unsubscribe: <mailto:eve@evil.example>",
            AddressElsewhere,
        ),
        (
            "of a service",
            "X-MC-BccAddress: eve@evil.example",
            AddressElsewhere,
        ),
        (
            "JSON of a service",
            "X-SMTPAPI: {\"to\": [\"eve@evil.example\"]}",
            AddressElsewhere,
        ),
        (
            "underlined",
            "Resent_Bcc: eve@evil.example",
            AddressElsewhere,
        ),
        (
            "an encoded word elsewhere",
            "X-To: =?utf-8?q?eve=40evil.example?=",
            AddressElsewhere,
        ),
        (
            "two words elsewhere",
            "X-To: =?utf-8?q?eve?=\r\n =?utf-8?q?=40evil.example?=",
            AddressElsewhere,
        ),
        (
            "as a mail's name",
            "In-Reply-To: eve@evil.example",
            AddressElsewhere,
        ),
        (
            "beside a mail's name",
            "References: <a@own.example> eve@evil.example",
            AddressElsewhere,
        ),
        (
            "content elsewhere",
            "Text: eve@evil.example",
            AddressElsewhere,
        ),
    ];
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, fields, why)| (*name, mail(fields), *why))
        .collect();
    refused(&rows);
    refused(&[
        (
            "line feeds",
            format!("{own}Bcc: eve@evil.example\r\n\r\n")
                .replace('\r', "")
                .into_bytes(),
            RecipientNotInCall,
        ),
        (
            "at the end",
            format!("Subject: x\r\n{own}Bcc: eve@evil.example\r\n\r\n").into_bytes(),
            RecipientNotInCall,
        ),
    ]);
}

#[test]
fn mails_that_are_read_in_several_ways() {
    let with =
        |fields: &str| format!("To: a@own.example\r\n{fields}\r\n\r\nhello\r\n").into_bytes();
    let rows = [
        ("two To", with("To: b@own.example")),
        ("two To, in other case", with("TO: b@own.example")),
        (
            "two Bcc",
            with("Bcc: b@own.example\r\nX: y\r\nbcc: b@own.example"),
        ),
        ("two subjects", with("Subject: x\r\nSubject: y")),
        (
            "two senders",
            with("From: a@own.example\r\nFrom: b@own.example"),
        ),
        (
            "two types",
            with("Content-Type: text/plain\r\nContent-Type: text/html"),
        ),
        ("a bare line feed", with("X: y\nBcc: b@own.example")),
        ("a bare return", with("X: y\rBcc: b@own.example")),
        ("a return before it", with("X: y\r\r\nBcc: b@own.example")),
        ("NUL", with("X: y\0")),
        ("a vertical tab", with("X: y\x0bBcc: b@own.example")),
        ("a form feed", with("X: y\x0cBcc: b@own.example")),
        ("a separator", with("X: y\x1eBcc: b@own.example")),
        ("delete", with("X: y\x7f")),
        (
            "a letter that ends a line",
            with("X: \u{c5}Bcc: b@own.example"),
        ),
        ("a line separator", with("X: y\u{2028}Bcc: b@own.example")),
        ("8 bits in a name", with("B\u{200b}cc: b@own.example")),
        ("next line", with("X: y\u{85}Bcc: b@own.example")),
        ("no colon", with("Bcc")),
        ("of a mailbox", with("From eve@evil.example Sat Nov 28")),
        ("a blank before the colon", with("Bcc : b@own.example")),
        ("a tab before the colon", with("Bcc\t: b@own.example")),
        ("no name", with(": b@own.example")),
        (
            "a folded blank line",
            with("X: y\r\n \r\nBcc: b@own.example"),
        ),
        ("a folded tab", with("X: y\r\n\t\r\n b@own.example")),
        ("a long line", with(&format!("X: {}", "y".repeat(996)))),
        (
            "a line in an encoded word",
            with("X: =?utf-8?q?y=0D=0ABcc=3A_b=40own.example?="),
        ),
        (
            "a line in the subject",
            with("Subject: =?utf-8?b?eA0KQmNjOiBl?="),
        ),
        ("NUL in an encoded word", with("Subject: =?utf-8?q?=00?=")),
        ("a charset", with("Subject: =?utf-7?q?+AEA-?=")),
        ("no proper encoded word", with("Subject: =?utf-8?x?y?=")),
        ("for the service", with("X-SES-CONFIGURATION-SET: x")),
        (
            "for the service, in small letters",
            with("x-ses-source-arn: x"),
        ),
        ("many fields", with("X: y\r\n".repeat(501).trim_end())),
        ("a fold first", b" x\r\nTo: a@own.example\r\n\r\n".to_vec()),
        (
            "an empty line first",
            b"\r\nTo: a@own.example\r\n\r\n".to_vec(),
        ),
        ("nothing", b"\r\n".to_vec()),
        ("no line", b"To: a@own.example".to_vec()),
        ("no empty line", b"To: a@own.example\r\n".to_vec()),
        ("half an empty line", b"To: a@own.example\r\n\r".to_vec()),
        (
            "an empty line of another kind",
            b"To: a@own.example\r\n\nBcc: b@own.example\r\n\r\n".to_vec(),
        ),
        (
            "line feeds, and a return",
            b"To: a@own.example\nX: y\rBcc: b@own.example\n\nx\n".to_vec(),
        ),
        (
            "line feeds, and another end",
            b"To: a@own.example\n\nx\r\nBcc: b@own.example\r\n\r\n".to_vec(),
        ),
        (
            "a byte order mark",
            b"\xef\xbb\xbfTo: a@own.example\r\n\r\n".to_vec(),
        ),
        ("UTF-16", b"T\0o\0:\0\r\0\n\0\r\0\n\0".to_vec()),
    ];
    refused(&rows.map(|(name, mail)| (name, mail, UnreadableBody)));
    let long = with(format!("X: {}\r\n", "y".repeat(900)).repeat(72).trim_end());
    all_refused(&[("a long head", body(&long), UnreadableBody)]);
    let own = mail("To: a@own.example");
    let (url, plain) = (
        base64url(&own),
        base64(&mail("To: a@own.example\r\nX: ~~~???")),
    );
    let texts = [
        ("blanks", format!("{} {}", &url, "")),
        ("lines", format!("{url}\\r\\n")),
        ("in the middle", url.replacen('J', "J\\n", 1) + "\\n"),
        (
            "both alphabets",
            format!("{}-_", plain.trim_end_matches('=')),
        ),
        ("padding in the middle", format!("{url}=={url}")),
        (
            "half the padding",
            format!("{}=", base64url(&mail("To: a@own.example\r\nX: y"))),
        ),
        ("another character", format!("{url}*")),
        ("no base64", "To: a@own.example\\r\\n\\r\\n".to_owned()),
        ("twice", base64url(url.as_bytes())),
        ("a blank", " ".to_owned()),
    ];
    for (name, text) in texts {
        let body = format!(r#"{{"raw":"{text}"}}"#);
        all_refused(&[(name, post("/raw", JSON, &body), UnreadableBody)]);
    }
    let stranger = base64url(&mail("Bcc: eve@evil.example"));
    for (name, body, why) in [
        (
            "in a list",
            format!(r#"{{"raw":["{url}","{stranger}"]}}"#),
            RecipientNotInCall,
        ),
        (
            "in other case",
            format!(r#"{{"RAW":"{stranger}"}}"#),
            RecipientNotInCall,
        ),
        (
            "in an object",
            format!(r#"{{"raw":{{"data":"{stranger}"}}}}"#),
            RecipientNotInCall,
        ),
        (
            "beside it",
            format!(r#"{{"raw":"{url}","to":"eve@evil.example"}}"#),
            AddressElsewhere,
        ),
        ("a number", r#"{"raw":12}"#.to_owned(), UnreadableBody),
        (
            "twice",
            format!(r#"{{"raw":"{url}","Raw":"{stranger}"}}"#),
            UnreadableBody,
        ),
    ] {
        all_refused(&[(name, post("/raw", JSON, &body), why)]);
    }
}

#[test]
fn a_mail_in_the_other_alphabet() {
    // A server that skips what is not in its alphabet reads other bytes from there on.
    let mail = b"To: a@own.example\r\nX: ?>?>?>?>\r\n\r\n";
    let of = |path, text: &str| post(path, JSON, &format!(r#"{{"raw":"{text}"}}"#));
    let (plain, url) = (base64(mail), base64url(mail));
    assert!(plain.contains(['+', '/']) && url.contains(['-', '_']));
    all_pass(&[
        ("plain", of("/plain", &plain)),
        ("for addresses", of("/url", &url)),
        ("either", of("/raw", &plain)),
        ("or", of("/raw", &url)),
    ]);
    all_refused(&[
        ("for addresses", of("/plain", &url), UnreadableBody),
        ("plain", of("/url", &plain), UnreadableBody),
    ]);
}
