//! What a first flight means, read the slow and plain way: the other opinion, against which the
//! data plane's reader is held. It shares no code with it.

/// What becomes of a first flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// One whole hello with this name, lower case.
    Named(String),
    /// It can never become one; why, in the words of the events.
    Refused(&'static str),
    /// It may become one when more comes.
    Unfinished,
}

type Read<T> = Result<T, &'static str>;

const NOT_TLS: &str = "sni-not-tls";
const MALFORMED: &str = "sni-malformed";
const RECORDS: &str = "sni-records";
const MISSING: &str = "sni-missing";
const REPEATED: &str = "sni-repeated";
const ADDRESS: &str = "sni-address";
const ENCRYPTED: &str = "sni-encrypted";
const EARLY: &str = "sni-early-data";
const STRANGER: &str = "sni-stranger";

/// Extensions that a hello may have.
const EXTENSIONS: usize = 64;
/// Octets of a record (RFC 8446 section 5.1).
const RECORD: usize = 1 << 14;

/// Judges everything that came so far.
pub fn judge(bytes: &[u8]) -> Judgement {
    let Some(&kind) = bytes.first() else {
        return Judgement::Unfinished;
    };
    if kind != 22 || bytes.get(1).is_some_and(|major| *major != 3) {
        return Judgement::Refused(NOT_TLS);
    }
    let [_, _, _, high, low, rest @ ..] = bytes else {
        return Judgement::Unfinished;
    };
    let length = usize::from(*high) << 8 | usize::from(*low);
    if length > RECORD {
        return Judgement::Refused(MALFORMED);
    }
    if length == 0 {
        return Judgement::Refused(MALFORMED);
    }
    // What the first octets already say of the message is said without the rest.
    let there = &rest[..length.min(rest.len())];
    if length < 4 {
        return Judgement::Refused(RECORDS);
    }
    if let [kind, a, b, c, ..] = there {
        let said = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if *kind != 1 {
            return Judgement::Refused(NOT_TLS);
        }
        if said != length - 4 {
            return Judgement::Refused(if said > length - 4 {
                RECORDS
            } else {
                MALFORMED
            });
        }
    }
    if rest.len() < length {
        return Judgement::Unfinished;
    }
    match message(there) {
        Ok(name) => match behind(&rest[length..]) {
            Judgement::Named(second) if second.is_empty() => Judgement::Named(name),
            // Two hellos: each has to be a declared one.
            Judgement::Named(second) if second == name => Judgement::Named(name),
            Judgement::Named(_) => Judgement::Refused(STRANGER),
            other => other,
        },
        Err(why) => Judgement::Refused(why),
    }
}

/// Octets of a hello at the front that has a name of which `declared` says yes, its record's head
/// included; 0 where there is none.
pub fn declared_length(bytes: &[u8], declared: fn(&str) -> bool) -> usize {
    let [_, _, _, high, low, ..] = bytes else {
        return 0;
    };
    let length = 5 + (usize::from(*high) << 8 | usize::from(*low));
    match bytes.get(..length).map(judge) {
        Some(Judgement::Named(name)) if declared(&name) => length,
        _ => 0,
    }
}

/// Judges what stands behind a hello: nothing or something encrypted is fine and has no name.
fn behind(bytes: &[u8]) -> Judgement {
    match bytes {
        [] => Judgement::Named(String::new()),
        [kind, major, _, high, low, rest @ ..] => {
            let length = usize::from(*high) << 8 | usize::from(*low);
            if *major != 3 || length == 0 || length > RECORD + 256 {
                return Judgement::Refused(NOT_TLS);
            }
            match (kind, length, rest) {
                (20, 1, _) | (21, 2, _) if rest.len() < length => Judgement::Unfinished,
                (20, 1, _) | (21, 2, _) => behind(&rest[length..]),
                (23, ..) => Judgement::Named(String::new()),
                (22, _, []) => Judgement::Unfinished,
                (22, _, [1, ..]) => judge(bytes),
                (22, ..) => Judgement::Named(String::new()),
                _ => Judgement::Refused(NOT_TLS),
            }
        }
        _ => Judgement::Unfinished,
    }
}

/// The name in a record's content.
fn message(record: &[u8]) -> Read<String> {
    let mut hello = Reader(record);
    hello.take(4)?;
    if hello.take(2)?[0] != 3 {
        return Err(MALFORMED);
    }
    hello.take(32)?;
    if hello.list(1)?.0.len() > 32 {
        return Err(MALFORMED);
    }
    let ciphers = hello.list(2)?.0.len();
    if ciphers < 2 || ciphers % 2 == 1 {
        return Err(MALFORMED);
    }
    if hello.list(1)?.0.is_empty() {
        return Err(MALFORMED);
    }
    if hello.0.is_empty() {
        return Err(MISSING);
    }
    let extensions = hello.list(2)?;
    if !hello.0.is_empty() {
        return Err(MALFORMED);
    }
    name_among(extensions)
}

fn name_among(mut extensions: Reader<'_>) -> Read<String> {
    let mut all = Vec::new();
    while !extensions.0.is_empty() {
        if all.len() == EXTENSIONS {
            return Err(MALFORMED);
        }
        let kind = extensions.number(2)?;
        all.push((kind, extensions.list(2)?));
    }
    let has = |wanted: &[usize]| all.iter().any(|(kind, _)| wanted.contains(kind));
    let (encrypted, early) = (has(&[0xfe0d, 0xffce]), has(&[42]));
    let mut names = all.into_iter().filter(|(kind, _)| *kind == 0);
    let (_, mut content) = names.next().ok_or(MISSING)?;
    if names.next().is_some() {
        return Err(REPEATED);
    }
    let mut list = content.list(2)?;
    if !content.0.is_empty() {
        return Err(MALFORMED);
    }
    if list.0.is_empty() {
        return Err(MISSING);
    }
    if list.number(1)? != 0 {
        return Err(MALFORMED);
    }
    let name = list.list(2)?.0;
    if !list.0.is_empty() {
        return Err(REPEATED);
    }
    let name = host(name)?;
    match (encrypted, early) {
        (true, _) => Err(ENCRYPTED),
        (_, true) => Err(EARLY),
        _ => Ok(name),
    }
}

/// A host name in the form of a policy's.
fn host(name: &[u8]) -> Read<String> {
    if name.is_empty() {
        return Err(MISSING);
    }
    if name.len() > 253 {
        return Err(MALFORMED);
    }
    if name.contains(&b':') {
        return Err(ADDRESS);
    }
    let text = std::str::from_utf8(name).map_err(|_| MALFORMED)?;
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if !text.chars().all(fits) {
        return Err(MALFORMED);
    }
    if text
        .split('.')
        .any(|label| label.is_empty() || label.len() > 63)
    {
        return Err(MALFORMED);
    }
    // Names have no numeric last label (RFC 3696 section 2); addresses have.
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.chars().all(|letter| letter.is_ascii_digit()) {
        return Err(ADDRESS);
    }
    Ok(text.to_ascii_lowercase())
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        if length > self.0.len() {
            return Err(MALFORMED);
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, octets: usize) -> Read<usize> {
        let octets = self.take(octets)?;
        Ok(octets
            .iter()
            .fold(0, |sum, octet| sum << 8 | usize::from(*octet)))
    }

    /// What stands behind its own length, so many octets.
    fn list(&mut self, octets: usize) -> Read<Reader<'a>> {
        let length = self.number(octets)?;
        self.take(length).map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::build::{ECH, Hello, ech};

    #[test]
    fn right_hellos_have_names() {
        let named = |name: &str| Judgement::Named(name.to_owned());
        assert_eq!(
            judge(&Hello::named("a.example").record()),
            named("a.example")
        );
        assert_eq!(
            judge(&Hello::named("A.Example").record()),
            named("a.example")
        );
        for (file, bytes) in crate::hello::mutate::seeds() {
            assert!(matches!(judge(bytes), Judgement::Named(_)), "{file}");
        }
    }

    #[test]
    fn wrong_ones_have_reasons() {
        let why = |bytes: &[u8]| match judge(bytes) {
            Judgement::Refused(why) => why,
            other => panic!("{other:?}"),
        };
        let hello = Hello::named("a.example");
        assert_eq!(why(&Hello::nameless().record()), MISSING);
        assert_eq!(why(&Hello::named("192.0.2.1").record()), ADDRESS);
        assert_eq!(why(&Hello::named("a.example.").record()), MALFORMED);
        assert_eq!(why(&hello.records(&[20])), RECORDS);
        assert_eq!(why(&hello.clone().with(0, vec![]).record()), REPEATED);
        assert_eq!(why(&hello.clone().with(ECH, ech("")).record()), ENCRYPTED);
        assert_eq!(why(b"GET / HTTP/1.1"), NOT_TLS);
        assert_eq!(judge(&hello.record()[..40]), Judgement::Unfinished);
        let twice = [hello.record(), Hello::named("b.example").record()].concat();
        assert_eq!(why(&twice), STRANGER);
    }
}
