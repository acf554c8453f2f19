//! A request of a connector, as the proxy reads it before it goes on.

use std::{io::Read as _, sync::LazyLock};

use egress_envelope::{
    h1,
    head::{Framing, Head},
    judge::{Inspect, Next},
    ledger::Ledger,
};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

/// A mail address at this domain may be a recipient, and this account.
const OWN: &str = "own.example";
const ACCOUNT: &str = "3535353535353535353535353535353535353535";

/// Every kind of body, at a path of its own.
static INSPECT: LazyLock<Inspect> = LazyLock::new(|| {
    let fields = ["/to", "/cc", "/bcc"];
    let operation = |body: &str, mail: &[&str]| {
        json!({ "id": body, "method": "POST", "path": format!("/{body}"), "body": body,
                "recipients": { "mail": mail } })
    };
    let call = |id: &str, method: &str| {
        json!({ "id": id, "method": "POST", "path": "/call", "body": "json-rpc", "rpc": method,
                "recipients": { "address": ["transaction /params/0"] } })
    };
    let table = json!({
        "service": { "service": "x", "hosts": [], "operations": [
            operation("json", &["/to", "/cc", "/bcc", "mime /raw"]), operation("form", &fields),
            operation("multipart", &fields), operation("mime", &["mime"]),
            call("signed", "eth_sendRawTransaction"), call("unsigned", "eth_sendTransaction"),
        ]},
        "recipients": "from-call", "listed": [format!("*@{OWN}"), format!("0x{ACCOUNT}")],
        "unlisted": "refuse", "mode": "enforce", "limits": { "body": 65536 },
    });
    serde_json::from_value(table).expect("a table")
});

/// Of what passes, a naive server finds nobody but those who may be a recipient. What is sent on is
/// read again as what it was.
pub fn run(data: &[u8]) {
    let Ok(Some((head, used))) = h1::head(data) else {
        return;
    };
    let mut again = Vec::new();
    h1::write_head(&head, &mut again);
    let (read, length) = h1::head(&again)
        .expect("it is a head")
        .expect("it is whole");
    assert_eq!(
        (&read.method, &read.path, &read.query),
        (&head.method, &head.path, &head.query)
    );
    assert_eq!((read.framing, length), (head.framing, again.len()));
    let mut body = &data[used..];
    if let Framing::Length(length) = head.framing {
        let Some(own) = usize::try_from(length)
            .ok()
            .and_then(|length| body.get(..length))
        else {
            return;
        };
        body = own;
    }
    let most = match INSPECT.head(&head, "a.example", 443) {
        Next::Body { most } => most,
        Next::Pass | Next::Refuse(_) => return,
    };
    if body.len() > most {
        return;
    }
    let judged = INSPECT.body(&head, body, &Ledger::new());
    if !judged.refusals.is_empty() {
        return;
    }
    for found in naive(&head, body) {
        assert!(is_own(&found), "{found:?} passed");
    }
}

/// Whether every address of a text is at the own domain. International ones are another reader's.
fn is_own(text: &str) -> bool {
    text.split('@').skip(1).all(|after| {
        let end = after.find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '.'));
        let domain = after[..end.unwrap_or(after.len())].trim_end_matches('.');
        !domain.is_ascii() || domain.eq_ignore_ascii_case(OWN)
    })
}

/// What a server that means well takes for recipients: it knows one way to read each kind, and takes
/// what it can.
fn naive(head: &Head, body: &[u8]) -> Vec<String> {
    let coded = head
        .values("content-encoding")
        .any(|it| it.contains("gzip"));
    let mut inflated = Vec::new();
    if coded
        && MultiGzDecoder::new(body)
            .read_to_end(&mut inflated)
            .is_err()
    {
        return Vec::new();
    }
    let body = if coded { &inflated } else { body };
    let text = String::from_utf8_lossy(body);
    match head.path.as_str() {
        "/json" => {
            let value: Value = serde_json::from_str(&text).unwrap_or_default();
            let mut found = Vec::new();
            for (key, value) in value.as_object().into_iter().flatten() {
                match key.to_lowercase().as_str() {
                    "to" | "cc" | "bcc" => found.push(value.to_string()),
                    "raw" => found.extend(
                        value
                            .as_str()
                            .map(base64)
                            .map(|it| mail(&it))
                            .unwrap_or_default(),
                    ),
                    _ => {}
                }
            }
            found
        }
        "/form" => {
            let pairs = text
                .split(['&', ';'])
                .filter_map(|pair| pair.split_once('='));
            let own = pairs.filter(|(key, _)| is_field(&unescaped(key)));
            own.map(|(_, value)| unescaped(value)).collect()
        }
        "/multipart" => parts(head, &text),
        "/mime" => mail(body),
        "/call" => {
            paid(&serde_json::from_str(&text).unwrap_or_default());
            Vec::new()
        }
        _ => Vec::new(),
    }
}

fn is_field(key: &str) -> bool {
    let key = key.split('[').next().unwrap_or_default();
    matches!(key.trim().to_lowercase().as_str(), "to" | "cc" | "bcc")
}

fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let two = after.get(..2).filter(|_| *byte == b'%');
        let two = two.and_then(|two| std::str::from_utf8(two).ok());
        match two.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(hex) => {
                out.push(hex);
                rest = &after[2..];
            }
            None => out.push(if *byte == b'+' { b' ' } else { *byte }),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Parts are whatever stands between lines with the boundary.
fn parts(head: &Head, text: &str) -> Vec<String> {
    let kind = head
        .values("content-type")
        .next()
        .unwrap_or_default()
        .to_owned();
    let Some((_, boundary)) = kind.split_once("boundary=") else {
        return Vec::new();
    };
    let boundary = boundary
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .trim_matches('"');
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let delimiter = format!("\n--{boundary}");
    let mut found = Vec::new();
    for part in format!("\n{text}").split(&delimiter).skip(1) {
        let (fields, value) = part.split_once("\n\n").unwrap_or((part, ""));
        let Some((_, name)) = fields.split_once("name=") else {
            continue;
        };
        let name = match name.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => name.split([';', '\n']).next(),
        };
        if name.is_some_and(is_field) {
            found.push(value.to_owned());
        }
    }
    found
}

/// The recipients of a mail, whatever ends its lines.
fn mail(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes)
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let head = text.split("\n\n").next().unwrap_or_default();
    let unfolded = head.replace("\n ", " ").replace("\n\t", " ");
    let fields = unfolded.split('\n').filter_map(|line| line.split_once(':'));
    let own = fields.filter(|(name, _)| is_field(name.trim().trim_start_matches("Resent-")));
    own.map(|(_, value)| value.to_owned()).collect()
}

fn base64(text: &str) -> Vec<u8> {
    let (mut bits, mut held, mut out) = (0_u32, 0_u32, Vec::new());
    for c in text.chars() {
        let six = match c {
            'A'..='Z' => c as u32 - 65,
            'a'..='z' => c as u32 - 71,
            '0'..='9' => c as u32 + 4,
            '+' | '-' => 62,
            '/' | '_' => 63,
            _ => continue,
        };
        held = (held << 6 | six) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    out
}

/// Of a call that passed, the own account is the one that is paid.
fn paid(document: &Value) {
    let calls = match document {
        Value::Array(calls) => calls.clone(),
        call => vec![call.clone()],
    };
    for call in calls {
        match call["params"][0].clone() {
            Value::String(raw) => {
                let raw = raw.to_lowercase();
                assert!(raw.contains(&format!("94{ACCOUNT}")), "{raw} passed");
            }
            Value::Object(fields) => {
                let to = fields.get("to").and_then(Value::as_str).unwrap_or_default();
                assert!(to.to_lowercase().ends_with(ACCOUNT), "{to:?} passed");
            }
            _ => panic!("{call} passed"),
        }
    }
}
