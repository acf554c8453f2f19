//! What the reader of hellos takes, and that no bytes are too much for it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

extern crate std;

use std::{vec, vec::Vec};

use super::*;
use crate::sni::NameKey;

struct Slice<'a>(&'a [u8]);

impl Payload for Slice<'_> {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = usize::try_from(offset).ok()?;
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}

/// Two octets of length, then the bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a short field");
    [&len.to_be_bytes(), bytes].concat()
}

fn extension(kind: u32, body: &[u8]) -> Vec<u8> {
    let kind = u16::try_from(kind).expect("a kind");
    [kind.to_be_bytes().to_vec(), sized(body)].concat()
}

fn server_names(names: &[&[u8]]) -> Vec<u8> {
    let entries: Vec<u8> = names
        .iter()
        .flat_map(|name| [vec![0], sized(name)].concat())
        .collect();
    extension(SERVER_NAME, &sized(&entries))
}

fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0]);
    body.extend(sized(&[0x13, 1]));
    body.extend([1, 0]);
    if !extensions.is_empty() {
        body.extend(sized(&extensions.concat()));
    }
    [vec![CLIENT_HELLO, 0], sized(&body)].concat()
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [vec![kind, 3, 1], sized(body)].concat()
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    record(HANDSHAKE, &message(extensions))
}

fn of(name: &str) -> Vec<u8> {
    hello(&[server_names(&[name.as_bytes()])])
}

/// The reason it is refused for, and the name as it is looked up.
fn judged(bytes: &[u8]) -> (Reason, Vec<u8>) {
    let found = read(&Slice(bytes));
    assert!(!found.partial, "taken for a part of one");
    let mut key = NameKey {
        connector: 0,
        name: [0; NAME_ROOM],
    };
    let form = name(&Slice(bytes), found.name_at, found.name_len, &mut key);
    let name = key.name.iter().take(found.name_len as usize).rev();
    let reason = match found.fault {
        Reason::None => form,
        fault => fault,
    };
    (reason, name.copied().collect())
}

fn reason(bytes: &[u8]) -> Reason {
    judged(bytes).0
}

#[test]
fn a_name_comes_out_in_lower_case() {
    for name in ["api.example.com", "A_b-9.EXAMPLE.com", "localhost", "x.1a"] {
        let (reason, found) = judged(&of(name));
        assert_eq!(reason, Reason::None, "{name}");
        assert_eq!(found, name.to_ascii_lowercase().as_bytes());
    }
    let longest = [[b'a'; 63]; 3].join(&b'.');
    let longest = [&longest[..], b".", &[b'a'; 61]].concat();
    assert_eq!(longest.len(), 253);
    let (reason, found) = judged(&hello(&[server_names(&[&longest])]));
    assert_eq!((reason, found), (Reason::None, longest));
}

#[test]
fn names_that_are_none() {
    for name in [
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a\0",
        "\0a",
        "a/b",
        "é.example",
        "*.example",
        "a@b",
        "[a]",
        "a`b",
        "a{b",
        "a,b",
        "a;b",
    ] {
        assert_eq!(reason(&of(name)), Reason::SniMalformed, "{name:?}");
    }
    let long = [b'a'; 64];
    assert_eq!(
        reason(&hello(&[server_names(&[&long])])),
        Reason::SniMalformed
    );
    let long = [[b'a'; 63]; 4].join(&b'.');
    assert_eq!(
        reason(&hello(&[server_names(&[&long])])),
        Reason::SniMalformed
    );
    for name in [
        "203.0.113.7",
        "1",
        "0x7.1",
        "::1",
        "[::1]",
        "2001:db8::7",
        "a.b.42",
    ] {
        assert_eq!(reason(&of(name)), Reason::SniAddress, "{name:?}");
    }
}

#[test]
fn one_name_and_no_more() {
    assert_eq!(reason(&hello(&[])), Reason::SniMissing);
    assert_eq!(reason(&hello(&[extension(10, &[])])), Reason::SniMissing);
    assert_eq!(reason(&hello(&[server_names(&[])])), Reason::SniMissing);
    assert_eq!(reason(&hello(&[server_names(&[b""])])), Reason::SniMissing);
    let two = server_names(&[b"a.example", b"b.example"]);
    assert_eq!(reason(&hello(&[two])), Reason::SniRepeated);
    let one = server_names(&[b"a.example"]);
    let (fault, name) = judged(&hello(&[one.clone(), one.clone()]));
    assert_eq!(
        (fault, name.as_slice()),
        (Reason::SniRepeated, &b"a.example"[..])
    );
    let empty = extension(SERVER_NAME, &[]);
    assert_eq!(reason(&hello(&[empty])), Reason::SniMalformed);
    let kind = extension(SERVER_NAME, &sized(&[1, 0, 1, b'a']));
    assert_eq!(reason(&hello(&[kind])), Reason::SniMalformed);
}

#[test]
fn marks() {
    let name = server_names(&[b"a.example"]);
    let marks = |kind| read(&Slice(&hello(&[extension(kind, &[0]), name.clone()]))).marks;
    assert_eq!(marks(ENCRYPTED_HELLO), Hello::ENCRYPTED);
    assert_eq!(marks(ENCRYPTED_NAME), Hello::ENCRYPTED);
    assert_eq!(marks(EARLY_DATA), Hello::EARLY);
    assert_eq!(marks(EARLY_DATA + 1), 0);
}

#[test]
fn lengths_agree_or_it_is_refused() {
    let whole = of("a.example");
    let name = server_names(&[b"a.example"]);
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut turned = whole.clone();
            if turned[at] == value {
                continue;
            }
            turned[at] = value;
            let found = read(&Slice(&turned));
            // Random, ciphers, compression, version, and the name itself may be anything.
            let free = (1..=2).contains(&at)
                || (9..43).contains(&at)
                || (46..48).contains(&at)
                || at == 49
                || at >= whole.len() - 9;
            assert!(
                free || found.partial || !matches!(found.fault, Reason::None),
                "octet {at} as {value}"
            );
        }
    }
    let many = vec![extension(10, &[]); MAX_EXTENSIONS as usize - 1];
    let many = |more: usize| [many.clone(), vec![name.clone(); more]].concat();
    assert_eq!(reason(&hello(&many(1))), Reason::None);
    let beyond = [
        vec![extension(10, &[]); MAX_EXTENSIONS as usize],
        vec![name.clone()],
    ]
    .concat();
    assert_eq!(reason(&hello(&beyond)), Reason::SniMalformed);
    let two = message(&[name]).repeat(2);
    assert_eq!(reason(&record(HANDSHAKE, &two)), Reason::SniMalformed);
}

#[test]
fn what_is_no_hello_is_told_early() {
    assert_eq!(reason(b"G"), Reason::SniNotTls);
    assert_eq!(reason(b"\x16\x02\0\0\x10"), Reason::SniNotTls);
    assert_eq!(reason(&record(HANDSHAKE, &[])), Reason::SniMalformed);
    assert_eq!(reason(&record(HANDSHAKE, &[1])), Reason::SniRecords);
    assert_eq!(reason(&record(HANDSHAKE, &[2, 0, 0, 0])), Reason::SniNotTls);
    assert_eq!(
        reason(&record(HANDSHAKE, &[1, 0, 0, 9])),
        Reason::SniRecords
    );
    let whole = of("a.example");
    for end in 0..whole.len() {
        assert!(read(&Slice(&whole[..end])).partial, "{end} octets");
    }
    let behind = [whole.clone(), vec![0xff; 9]].concat();
    assert_eq!(read(&Slice(&behind)).len as usize, whole.len());
}

#[test]
fn behind_a_hello() {
    let next = |bytes: &[u8]| next(&Slice(bytes));
    assert_eq!(next(&of("a.example")), Next::Hello);
    assert_eq!(next(&record(CHANGE_CIPHER_SPEC, &[1])), Next::Skip(6));
    assert_eq!(next(&record(ALERT, &[1, 90])), Next::Skip(7));
    assert_eq!(next(&record(APPLICATION_DATA, &[0])), Next::Other);
    assert_eq!(next(&record(HANDSHAKE, &[16, 0, 0, 0])), Next::Other);
    assert_eq!(next(&record(HANDSHAKE, &[1, 0xff, 0, 0])), Next::Other);
    assert_eq!(next(&record(HANDSHAKE, &[1, 0, 0, 9])), Next::Hello);
    assert_eq!(next(&[HANDSHAKE, 3, 1, 0, 9]), Next::Partial);
    assert_eq!(next(&[HANDSHAKE, 3]), Next::Partial);
    for odd in [
        record(CHANGE_CIPHER_SPEC, &[1, 1]),
        record(ALERT, &[1]),
        record(HANDSHAKE, &[]),
        record(APPLICATION_DATA, &[]),
        record(24, &[1]),
        b"\x16\x02\0\0\x10".to_vec(),
    ] {
        assert!(matches!(next(&odd), Next::Refuse(_)), "{odd:?}");
    }
    assert_eq!(
        next(&record(HANDSHAKE, &[1])),
        Next::Refuse(Reason::SniRecords)
    );
}
