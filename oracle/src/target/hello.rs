//! A TLS ClientHello as the data plane sees it: the first bytes of a connection.

use egress_common::{
    hello::{self, Hello, Next, Payload},
    sni::{NAME_ROOM, NameKey},
    verdict::Reason,
};

/// The shared reader finds what a reading by nested lists finds: the same name or the same
/// fault; of a hello that is not whole it waits for the rest.
pub fn run(data: &[u8]) {
    let found = hello::read(&Slice(data));
    let expected = read(data);
    match &expected {
        Ok(Plain {
            name,
            marks,
            length,
        }) => {
            assert_eq!((found.fault, found.partial), (Reason::None, false));
            assert_eq!((found.marks, found.len as usize), (*marks, *length));
            let at = found.name_at as usize;
            assert_eq!(&data[at..at + found.name_len as usize], *name);
            named(data, &found, name);
            unfinished(data, *length);
        }
        Err(Stop::Unfinished) => assert!(found.partial, "{found:?}"),
        Err(Stop::Fault(fault)) => {
            assert_eq!((found.fault, found.partial), (*fault, false));
        }
    }
    followed(data);
}

/// The name in its normal form, back to front, or what keeps it from being one.
fn named(data: &[u8], found: &Hello, name: &[u8]) {
    let mut key = NameKey {
        connector: 7,
        name: [0; NAME_ROOM],
    };
    let fault = hello::name(&Slice(data), found.name_at, found.name_len, &mut key);
    assert_eq!(fault, form(name), "{}", name.escape_ascii());
    if fault == Reason::None {
        let lower = name.to_ascii_lowercase();
        let (_, expected) = NameKey::exact(7, &lower).expect("a name fits");
        assert_eq!(key, expected);
    }
}

/// No part of a hello is more than unfinished.
fn unfinished(data: &[u8], length: usize) {
    for cut in [0, 1, 4, 5, 8, 9, length / 2, length - 1] {
        let part = hello::read(&Slice(&data[..cut.min(length - 1)]));
        assert!(
            part.partial && part.fault == Reason::None,
            "{cut} of {length}"
        );
    }
}

/// What may stand behind a hello that was taken.
fn followed(data: &[u8]) {
    let found = hello::next(&Slice(data));
    let [kind, major, _, high, low, rest @ ..] = data else {
        assert_eq!(found, Next::Partial);
        return;
    };
    let length = usize::from(*high) * 256 + usize::from(*low);
    let expected = match (kind, length) {
        _ if *major != 3 || length == 0 || length > (1 << 14) + 256 => {
            Next::Refuse(Reason::SniNotTls)
        }
        (20, 1) => Next::Skip(6),
        (21, 2) => Next::Skip(7),
        (23, _) => Next::Other,
        (22, _) => match rest {
            [] => Next::Partial,
            [1, ..] if length < 4 => Next::Refuse(Reason::SniRecords),
            // Longer than a hello can be: encrypted, and a first byte by chance.
            [1, a, b, c, ..] if u32::from_be_bytes([0, *a, *b, *c]) > 1 << 18 => Next::Other,
            [1, _, _, _, ..] => Next::Hello,
            [1, ..] => Next::Partial,
            _ => Next::Other,
        },
        _ => Next::Refuse(Reason::SniNotTls),
    };
    assert_eq!(found, expected);
}

struct Slice<'a>(&'a [u8]);

impl Payload for Slice<'_> {
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let rest = self.0.get(offset as usize..)?;
        rest.first_chunk().copied()
    }
}

/// A hello by a reading of its own.
struct Plain<'a> {
    name: &'a [u8],
    marks: u32,
    length: usize,
}

enum Stop {
    Unfinished,
    Fault(Reason),
}

/// The rest of a list, of which each part stands behind its own length.
#[derive(Clone, Copy)]
struct List<'a>(&'a [u8]);

impl<'a> List<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, Stop> {
        let bytes = self.bytes(bytes)?;
        Ok(bytes
            .iter()
            .fold(0, |all, byte| all * 256 + usize::from(*byte)))
    }

    fn part(&mut self, length: usize) -> Result<Self, Stop> {
        let length = self.number(length)?;
        self.bytes(length).map(List)
    }

    fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

const MALFORMED: Stop = Stop::Fault(Reason::SniMalformed);
const NOT_TLS: Stop = Stop::Fault(Reason::SniNotTls);
const RECORDS: Stop = Stop::Fault(Reason::SniRecords);
const MISSING: Stop = Stop::Fault(Reason::SniMissing);
const REPEATED: Stop = Stop::Fault(Reason::SniRepeated);

fn read(data: &[u8]) -> Result<Plain<'_>, Stop> {
    match data {
        [] => return Err(Stop::Unfinished),
        [22, 3, _, _, _, ..] => {}
        [22, _, _, _, _, ..] => return Err(NOT_TLS),
        [22, ..] => return Err(Stop::Unfinished),
        _ => return Err(NOT_TLS),
    }
    let length = usize::from(data[3]) * 256 + usize::from(data[4]);
    if length == 0 || length > 1 << 14 {
        return Err(MALFORMED);
    }
    if length < 4 {
        return Err(RECORDS);
    }
    let Some([kind, a, b, c]) = data.get(5..9) else {
        return Err(Stop::Unfinished);
    };
    if *kind != 1 {
        return Err(NOT_TLS);
    }
    let message = usize::from(*a) * 65_536 + usize::from(*b) * 256 + usize::from(*c);
    match (message + 4).cmp(&length) {
        std::cmp::Ordering::Greater => return Err(RECORDS),
        std::cmp::Ordering::Less => return Err(MALFORMED),
        std::cmp::Ordering::Equal => {}
    }
    let body = data.get(9..5 + length).ok_or(Stop::Unfinished)?;
    let (name, marks) = body_of(List(body))?;
    Ok(Plain {
        name,
        marks,
        length: 5 + length,
    })
}

fn body_of(mut hello: List<'_>) -> Result<(&[u8], u32), Stop> {
    if hello.bytes(2)?[0] != 3 {
        return Err(MALFORMED);
    }
    hello.bytes(32)?;
    let session = hello.part(1)?;
    let ciphers = hello.part(2)?;
    let compression = hello.part(1)?;
    let even = ciphers.0.len() >= 2 && ciphers.0.len().is_multiple_of(2);
    if session.0.len() > 32 || !even || compression.is_empty() {
        return Err(MALFORMED);
    }
    if hello.is_empty() {
        return Err(MISSING);
    }
    let mut extensions = hello.part(2)?;
    if !hello.is_empty() {
        return Err(MALFORMED);
    }
    let (mut names, mut marks) = (Vec::new(), 0);
    for _ in 0..64 {
        if extensions.is_empty() {
            break;
        }
        let kind = extensions.number(2)?;
        let content = extensions.part(2)?;
        match kind {
            0 if !names.is_empty() => return Err(REPEATED),
            0 => names.push(server_name(content)?),
            42 => marks |= Hello::EARLY,
            0xfe0d | 0xffce => marks |= Hello::ENCRYPTED,
            _ => {}
        }
    }
    if !extensions.is_empty() {
        return Err(MALFORMED);
    }
    names.pop().map(|name| (name, marks)).ok_or(MISSING)
}

fn server_name(mut content: List<'_>) -> Result<&[u8], Stop> {
    let mut list = content.part(2)?;
    if !content.is_empty() {
        return Err(MALFORMED);
    }
    if list.is_empty() {
        return Err(MISSING);
    }
    let kind = list.number(1)?;
    let name = list.part(2)?;
    if kind != 0 {
        return Err(MALFORMED);
    }
    if !list.is_empty() {
        return Err(REPEATED);
    }
    match name.0.len() {
        0 => Err(MISSING),
        1..=253 => Ok(name.0),
        _ => Err(MALFORMED),
    }
}

/// What keeps octets from being a host name.
fn form(name: &[u8]) -> Reason {
    if name.contains(&b':') {
        return Reason::SniAddress;
    }
    let plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let mut labels = name.split(|octet| *octet == b'.');
    if !labels.all(|label| (1..=63).contains(&label.len()) && label.iter().all(plain)) {
        return Reason::SniMalformed;
    }
    let last = name.rsplit(|octet| *octet == b'.').next();
    if last.is_some_and(|last| last.iter().all(u8::is_ascii_digit)) {
        return Reason::SniAddress;
    }
    Reason::None
}
