//! Hellos of real clients, changed: octets, lengths, extensions, names, records. The same number
//! always makes the same hello.

use super::build::{ECH, ESNI, HANDSHAKE, Hello, PADDING, SERVER_NAME, ech, record, server_name};

/// A name that the tests' policies declare.
pub const DECLARED: &str = "allowed.example";

/// What real clients sent, each with its file.
pub fn seeds() -> &'static [(&'static str, &'static [u8])] {
    macro_rules! seeds {
        ($($file:literal)*) => {
            &[$(($file, include_bytes!(concat!("../../corpus/hello/", $file)))),*]
        };
    }
    seeds!(
        "curl-http2" "curl-tls12" "gnutls" "go" "java" "node16" "node18" "node24" "openssl"
        "openssl-p521" "openssl-tls12" "python" "rustls" "wget"
    )
}

/// Names that differ from the declared one by little, or are none.
const NAMES: &[&[u8]] = &[
    b"allowed.example",
    b"ALLOWED.example",
    b"aLlOwEd.ExAmPlE",
    b"stranger.example",
    b"allowed.example.",
    b".allowed.example",
    b"allowed..example",
    b"allowed.example\0",
    b"allowed\0.example",
    b"allowed.exampl",
    b"llowed.example",
    b"xallowed.example",
    b"x.allowed.example",
    b"allowed.example.x",
    b"allowed_example",
    b"allowed.example ",
    b"allowed.ex\xc3\xa4mple",
    b"example",
    b"",
    b".",
    b"-",
    b"_",
    b"203.0.113.20",
    b"203.0.113.020",
    b"2001:db8:cb::20",
    b"::ffff:203.0.113.20",
    b"1.2.3",
    b"o1.ingest.sentry.io",
    b"a.b.c.ingest.sentry.io",
    b"O1.INGEST.SENTRY.IO",
    b"ingest.sentry.io",
    b".ingest.sentry.io",
    b"a..ingest.sentry.io",
    b"*.ingest.sentry.io",
    b"xingest.sentry.io",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.ingest.sentry.io",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.ingest.sentry.io",
];

/// Numbers that follow from one another (splitmix64).
pub struct Dice(u64);

impl Dice {
    /// From a beginning.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a limit; 0 where that is 0.
    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let rolled = self.roll().checked_rem(limit).unwrap_or_default();
        usize::try_from(rolled).unwrap_or_default()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn octet(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// One hello, or what was one.
pub fn mutant(dice: &mut Dice) -> Vec<u8> {
    let (_, seed) = dice.pick(seeds());
    let mut hello = read(seed);
    // Most have the declared name, so that what else is wrong decides.
    let name = if dice.one_in(3) {
        dice.pick(NAMES)
    } else {
        DECLARED.as_bytes()
    };
    hello = hello.instead(SERVER_NAME, &server_name(&[(0, name)]));
    for _ in 0..dice.below(3) {
        hello = change(hello, dice);
    }
    let mut bytes = if dice.one_in(20) {
        let length = hello.message().len();
        let cuts: Vec<usize> = (0..=dice.below(2)).map(|_| dice.below(length)).collect();
        hello.records(&cuts)
    } else {
        hello.record()
    };
    if dice.one_in(3) {
        for _ in 0..=dice.below(2) {
            disturb(&mut bytes, dice);
        }
    }
    bytes
}

/// Changes what a hello says, and keeps its lengths right.
fn change(mut hello: Hello, dice: &mut Dice) -> Hello {
    let count = hello.extensions.len();
    match dice.below(18) {
        0 => hello.extensions.rotate_left(dice.below(count.max(1))),
        1 if count > 0 => {
            hello.extensions.remove(dice.below(count));
        }
        2 if count > 0 => {
            let twin = hello.extensions[dice.below(count)].clone();
            hello.extensions.insert(dice.below(count), twin);
        }
        3 => hello = hello.first(ECH, ech("")),
        4 => hello = hello.with(ESNI, ech("")),
        5 => {
            let kind = u16::from_be_bytes([dice.octet(), dice.octet()]);
            let data = vec![dice.octet(); dice.below(40)];
            hello.extensions.insert(dice.below(count), (kind, data));
        }
        6 => {
            // About as many as are allowed.
            let wanted = 60 + dice.below(8);
            while hello.extensions.len() < wanted {
                hello = hello.with(0x7a7a, Vec::new());
            }
        }
        7 => {
            let length = dice.pick(&[400, 600, 1400, 1460, 4096, 9000, 16384, 16389]);
            hello = hello.padded(length);
        }
        8 => hello.session = vec![7; dice.pick(&[0, 1, 31, 32, 33, 255])],
        9 => hello.ciphers.truncate(dice.below(3)),
        10 => hello.ciphers.extend([0x0a0a; 40]),
        11 => hello.version = dice.pick(&[0x0300, 0x0301, 0x0304, 0x03ff, 0x0203, 0x0403]),
        12 => hello.record_version = dice.pick(&[0x0300, 0x0302, 0x03ff, 0x0203, 0xfefd]),
        13 => {
            let (one, other) = (dice.pick(NAMES), dice.pick(NAMES));
            let kinds = [dice.pick(&[0, 0, 1]), dice.pick(&[0, 0, 255])];
            let list = server_name(&[(kinds[0], one), (kinds[1], other)]);
            hello = hello.instead(SERVER_NAME, &list);
        }
        14 => {
            let list = server_name(&[(dice.pick(&[0, 1, 255]), dice.pick(NAMES))]);
            hello = hello.instead(SERVER_NAME, &list);
        }
        15 => {
            // A length of its own that is not that of what it holds.
            let mut list = server_name(&[(0, DECLARED.as_bytes())]);
            let place = dice.pick(&[0, 1, 2, 3, 4]);
            list[place] = list[place].wrapping_add(dice.pick(&[1, 255]));
            hello = hello.instead(SERVER_NAME, &list);
        }
        16 => {
            let mut list = server_name(&[(0, DECLARED.as_bytes())]);
            list.extend(vec![dice.octet(); 1 + dice.below(3)]);
            hello = hello.instead(SERVER_NAME, &list);
        }
        _ => hello = hello.with(PADDING, vec![0; dice.below(200)]),
    }
    hello
}

/// Changes octets, wherever they are; most of all in front.
fn disturb(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let length = bytes.len();
    let near = if dice.one_in(2) {
        length.min(60)
    } else {
        length
    };
    let place = dice.below(near);
    match dice.below(9) {
        0 => bytes[place] = dice.octet(),
        1 => bytes[place] ^= 1 << dice.below(8),
        2 => bytes[place] = bytes[place].wrapping_add(1),
        3 => bytes[place] = bytes[place].wrapping_sub(1),
        4 => bytes.insert(place, dice.octet()),
        5 => {
            bytes.remove(place);
        }
        6 => bytes.truncate(place + 1),
        7 => bytes.extend(vec![dice.octet(); 1 + dice.below(8)]),
        _ => {
            let front = record(dice.pick(&[20, 21, HANDSHAKE, 23]), &vec![1; dice.below(3)]);
            bytes.splice(0..0, front);
        }
    }
}

/// The fields of a right hello, trusting its lengths: of a seed.
fn read(record: &[u8]) -> Hello {
    let number = |place: usize| usize::from(record[place]) << 8 | usize::from(record[place + 1]);
    let version = |place: usize| u16::from_be_bytes([record[place], record[place + 1]]);
    let mut place = 5 + 4 + 2 + 32;
    let session = record[place + 1..place + 1 + usize::from(record[place])].to_vec();
    place += 1 + session.len();
    let pairs = record[place + 2..place + 2 + number(place)].chunks_exact(2);
    let ciphers: Vec<u16> = pairs
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    place += 2 + number(place);
    place += 1 + usize::from(record[place]);
    let end = place + 2 + number(place);
    place += 2;
    let mut extensions = Vec::new();
    while place < end {
        let length = number(place + 2);
        extensions.push((
            version(place),
            record[place + 4..place + 4 + length].to_vec(),
        ));
        place += 4 + length;
    }
    Hello {
        record_version: version(1),
        version: version(9),
        session,
        ciphers,
        extensions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::naive::{Judgement, judge};

    #[test]
    fn a_seed_is_read_and_written_back() {
        for (file, bytes) in seeds() {
            let hello = read(bytes);
            assert_eq!(judge(&hello.record()), judge(bytes), "{file}");
            assert_eq!(hello.record().len(), bytes.len(), "{file}");
        }
    }

    #[test]
    fn mutants_are_of_every_kind() {
        let mut dice = Dice::new(1);
        let all: Vec<Judgement> = (0..5000).map(|_| judge(&mutant(&mut dice))).collect();
        let count = |wanted: fn(&Judgement) -> bool| all.iter().filter(|one| wanted(one)).count();
        let named = count(|one| matches!(one, Judgement::Named(_)));
        let refused = count(|one| matches!(one, Judgement::Refused(_)));
        let unfinished = count(|one| *one == Judgement::Unfinished);
        assert!(
            named > 1000 && refused > 1000 && unfinished > 50,
            "{named} {refused} {unfinished}"
        );
        for why in [
            "sni-not-tls",
            "sni-malformed",
            "sni-records",
            "sni-missing",
            "sni-repeated",
            "sni-address",
            "sni-encrypted",
        ] {
            assert!(all.contains(&Judgement::Refused(why)), "none is {why}");
        }
    }
}
