//! Bodies that were made smaller: which are read, and which are not.
#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use std::io::Write;

use flate2::{Compression, GzBuilder, write};

use super::world::{FORM, JSON, all_pass, all_refused, raw};
use crate::judge::Reason::{AddressElsewhere, RecipientNotInCall, TwoReadings, UnreadableBody};

fn gzip(body: &[u8]) -> Vec<u8> {
    named(GzBuilder::new(), body)
}

fn named(builder: GzBuilder, body: &[u8]) -> Vec<u8> {
    let mut writer = builder.write(Vec::new(), Compression::default());
    writer.write_all(body).unwrap();
    writer.finish().unwrap()
}

fn zlib(body: &[u8], level: u32) -> Vec<u8> {
    let mut writer = write::ZlibEncoder::new(Vec::new(), Compression::new(level));
    writer.write_all(body).unwrap();
    writer.finish().unwrap()
}

fn bare(body: &[u8]) -> Vec<u8> {
    let mut writer = write::DeflateEncoder::new(Vec::new(), Compression::default());
    writer.write_all(body).unwrap();
    writer.finish().unwrap()
}

/// A whole stream with its frame that is the beginning of a stream for who knows no frame: 0x78 is a
/// stored block there, with the length 0xf801 and its inverse 0x07fe.
fn two_streams(body: &[u8]) -> Vec<u8> {
    let mut text = body.to_vec();
    text.resize(0x07fe, b' ');
    let mut out = vec![0x78, 0x01, 0xf8, 0xfe, 0x07, 0x01, 0xf8];
    out.extend(&text);
    out.extend([0x01, 0x00, 0x00, 0xff, 0xff]);
    let sum = text.iter().fold((1_u32, 0_u32), |(one, two), byte| {
        let one = (one + u32::from(*byte)) % 65521;
        (one, (one + two) % 65521)
    });
    out.extend(((sum.1 << 16) | sum.0).to_be_bytes());
    out
}

fn sent(path: &str, kind: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let fields = format!(
        "Content-Type: {kind}\r\nContent-Encoding: {coding}\r\nContent-Length: {length}\r\n"
    );
    raw(&format!("POST {path}"), &fields, body)
}

const OWN: &[u8] = br#"{"To":"a@own.example"}"#;
const EVE: &[u8] = br#"{"To":"a@own.example","Bcc":"eve@evil.example"}"#;

#[test]
fn what_is_whole_is_read() {
    let mail = |coding: &str, body: &[u8]| sent("/email", JSON, coding, body);
    let mut long = OWN.to_vec();
    long.resize(65536, b' ');
    all_pass(&[
        ("gzip", mail("gzip", &gzip(OWN))),
        ("in capitals", mail("GZIP", &gzip(OWN))),
        ("its old name", mail("x-gzip", &gzip(OWN))),
        (
            "with a name",
            mail("gzip", &named(GzBuilder::new().filename("a.json"), OWN)),
        ),
        ("deflate", mail("deflate", &zlib(OWN, 6))),
        ("stored", mail("deflate", &zlib(OWN, 0))),
        ("identity", mail("identity", OWN)),
        ("as long as a body may be", mail("gzip", &gzip(&long))),
        (
            "a call",
            sent(
                "/rpc",
                JSON,
                "gzip",
                &gzip(br#"{"jsonrpc":"2.0","method":"balance"}"#),
            ),
        ),
        (
            "a form as it is",
            sent("/form", FORM, "identity", b"to=a@own.example"),
        ),
        ("what is not read", {
            raw(
                "PUT /file",
                "Content-Encoding: br\r\nContent-Length: 2\r\n",
                b"\x0b\x80",
            )
        }),
    ]);
}

#[test]
fn what_is_read_is_judged() {
    let mail = |coding: &str, body: &[u8]| sent("/email", JSON, coding, body);
    all_refused(&[
        ("gzip", mail("gzip", &gzip(EVE)), RecipientNotInCall),
        (
            "deflate",
            mail("deflate", &zlib(EVE, 6)),
            RecipientNotInCall,
        ),
        ("identity", mail("identity", EVE), RecipientNotInCall),
        (
            "elsewhere",
            mail("gzip", &gzip(br#"{"Tag":"eve@evil.example"}"#)),
            AddressElsewhere,
        ),
    ]);
}

#[test]
fn what_is_none_or_another_one() {
    let whole = gzip(OWN);
    let framed = zlib(OWN, 6);
    let cut = |body: &[u8], by: usize| {
        body.iter()
            .take(body.len() - by)
            .copied()
            .collect::<Vec<u8>>()
    };
    let with = |at: usize, bit: u8| {
        let mut body = whole.clone();
        *body.get_mut(at).unwrap() ^= bit;
        body
    };
    let rows: Vec<(&str, &str, Vec<u8>)> = vec![
        ("two members", "gzip", [whole.clone(), gzip(EVE)].concat()),
        (
            "an empty second member",
            "gzip",
            [whole.clone(), gzip(b"")].concat(),
        ),
        (
            "something behind",
            "gzip",
            [whole.clone(), b"x".to_vec()].concat(),
        ),
        (
            "zeros behind",
            "gzip",
            [whole.clone(), vec![0; 512]].concat(),
        ),
        (
            "something before",
            "gzip",
            [b"x".to_vec(), whole.clone()].concat(),
        ),
        ("cut in the sum", "gzip", cut(&whole, 1)),
        ("without a sum", "gzip", cut(&whole, 8)),
        ("cut in the middle", "gzip", cut(&whole, 12)),
        ("a wrong sum", "gzip", with(whole.len() - 8, 1)),
        ("a wrong length", "gzip", with(whole.len() - 1, 1)),
        ("other magic", "gzip", with(0, 1)),
        ("another method", "gzip", with(2, 1)),
        ("a reserved flag", "gzip", with(3, 0x80)),
        ("a checked header", "gzip", with(3, 2)),
        (
            "an extra field",
            "gzip",
            named(GzBuilder::new().extra(b"ab".to_vec()), OWN),
        ),
        (
            "a comment",
            "gzip",
            named(GzBuilder::new().comment("x"), OWN),
        ),
        ("JSON itself", "gzip", OWN.to_vec()),
        ("a frame", "gzip", framed.clone()),
        ("within itself", "gzip", gzip(&whole)),
        ("no frame", "deflate", bare(OWN)),
        ("another one's", "deflate", whole.clone()),
        ("JSON itself", "deflate", OWN.to_vec()),
        ("cut", "deflate", cut(&framed, 1)),
        (
            "something behind",
            "deflate",
            [framed.clone(), b"x".to_vec()].concat(),
        ),
        ("two", "deflate", [framed.clone(), framed.clone()].concat()),
        ("a frame or none", "deflate", two_streams(OWN)),
        ("a bomb", "gzip", gzip(&vec![b' '; 65537])),
        ("a great bomb", "gzip", gzip(&vec![b' '; 30 << 20])),
        ("a framed bomb", "deflate", zlib(&vec![b' '; 30 << 20], 9)),
        ("twice", "gzip, gzip", gzip(&whole)),
        ("a list", "gzip, identity", whole.clone()),
        ("a list of one", "gzip,", whole.clone()),
        ("with a parameter", "gzip;q=1", whole.clone()),
        ("empty", "", OWN.to_vec()),
        ("chunked", "chunked", OWN.to_vec()),
        ("brotli", "br", OWN.to_vec()),
        ("zstd", "zstd", OWN.to_vec()),
        ("compress", "compress", OWN.to_vec()),
        ("of AWS", "aws-chunked", OWN.to_vec()),
        ("unknown", "rot13", OWN.to_vec()),
    ];
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(name, coding, body)| (name, sent("/email", JSON, coding, &body), UnreadableBody))
        .collect();
    all_refused(&rows);
    let field = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let twice = format!("{field}Content-Encoding: gzip\r\nContent-Length: 2\r\n");
    all_refused(&[
        ("two fields", raw("POST /email", &twice, b"{}"), TwoReadings),
        // A server without encodings reads these bytes as they are.
        (
            "a form",
            sent("/form", FORM, "gzip", &gzip(b"to=a@own.example")),
            UnreadableBody,
        ),
        (
            "a mail",
            sent(
                "/mail",
                "message/rfc822",
                "gzip",
                &gzip(b"To: a@own.example\r\n\r\n"),
            ),
            UnreadableBody,
        ),
        (
            "parts",
            sent(
                "/parts",
                "multipart/form-data; boundary=x",
                "gzip",
                &gzip(b"--x--\r\n"),
            ),
            UnreadableBody,
        ),
    ]);
}
