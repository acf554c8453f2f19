//! DNS queries at the door: strict, bounded reading. Pure.
//!
//! The grammar that is accepted is far narrower than RFC 1035: one question, no records but
//! one OPT, no compression. It is read by hand because the answer repeats the question's
//! exact bytes, and because whatever a general parser forgives here is a place to hide a
//! name; hickory-proto is the tests' oracle and reads the upstream's side.

use std::fmt::Write as _;

use hickory_proto::rr::RecordType;

use super::answer::Code;
use crate::policy::name::Name;

/// Longest query that is read, over UDP and TCP. Bytes. A question takes at most 271
/// (RFC 1035 section 4.1); the rest is room for EDNS padding and cookies.
pub const MAX_QUERY: usize = 1232;
/// `A`. RFC 1035 section 3.2.2.
pub const A: u16 = 1;
/// `AAAA`. RFC 3596 section 2.1.
pub const AAAA: u16 = 28;

/// `MX` and `TXT`. RFC 1035 section 3.2.2.
pub(super) const MX: u16 = 15;
pub(super) const TXT: u16 = 16;
/// `SRV`. RFC 2782.
pub const SRV: u16 = 33;
/// `SVCB` and `HTTPS`. RFC 9460 section 14.1.
pub(super) const SVCB: u16 = 64;
pub(super) const HTTPS: u16 = 65;
/// `OPT`. RFC 6891 section 6.1.1.
pub(super) const OPT: u16 = 41;
/// `IN`. RFC 1035 section 3.2.4.
pub(super) const CLASS_IN: u16 = 1;
/// Bytes of a header. RFC 1035 section 4.1.1.
pub(super) const HEADER: usize = 12;

/// What an answer repeats from its query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Echo {
    pub(super) id: u16,
    pub(super) flags: u16,
    /// The question as it came, letter case included; empty where it could not be read.
    pub(super) question: Vec<u8>,
    /// The client's EDNS payload size.
    pub(super) payload: Option<u16>,
}

/// A query that can be decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// What the answer repeats.
    pub echo: Echo,
    /// The name asked for, normalised.
    pub name: Name,
    /// QTYPE.
    pub kind: u16,
}

/// A message that is no query the door takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// What to answer; `None`: nothing, because an answer could start a loop or there is no
    /// id to answer to.
    pub reply: Option<(Echo, Code)>,
    /// What is wrong.
    pub fault: Fault,
    /// The name as far as it could be read, printable and at most [`MAX_SHOWN`] bytes.
    pub shown: String,
    /// QTYPE, if it could be read.
    pub kind: Option<u16>,
}

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Fewer bytes than a header.
    #[error("is shorter than a header")]
    Short,
    /// Over [`MAX_QUERY`].
    #[error("is longer than a query may be")]
    Long,
    /// An answer, not a query.
    #[error("is an answer")]
    Answer,
    /// Another operation than QUERY.
    #[error("asks for an operation other than QUERY")]
    Opcode,
    /// Truncation flag or response code set in a query.
    #[error("has flags that queries do not have")]
    Flags,
    /// Not exactly one question, or records where a query has none.
    #[error("has other sections than one question and one OPT")]
    Sections,
    /// A label cut off, a compression pointer, or over 255 bytes.
    #[error("has a name that ends nowhere")]
    Labels,
    /// The name is no host name.
    #[error("asks for a name that is no host name")]
    Name,
    /// Another class than IN.
    #[error("asks for a class other than IN")]
    Class,
    /// The additional record is no OPT record of RFC 6891.
    #[error("has a broken OPT record")]
    Opt,
    /// EDNS of a version other than 0.
    #[error("has EDNS of an unknown version")]
    Version,
    /// Bytes after the end.
    #[error("has bytes after its end")]
    Trailing,
}

/// Longest name in a report. Bytes.
pub const MAX_SHOWN: usize = 255;

/// Reads a query. Total: every input is a query or a description of what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Query, Malformed> {
    let mut partial = Partial::default();
    partial
        .read(bytes)
        .map_err(|fault| partial.malformed(fault))
}

/// The name of a record type: its mnemonic, or `TYPE65400` (RFC 3597 section 5).
pub fn kind_name(kind: u16) -> String {
    match RecordType::from(kind) {
        RecordType::Unknown(kind) => format!("TYPE{kind}"),
        known => known.to_string(),
    }
}

/// What has been read so far; an error is described from it.
#[derive(Default)]
struct Partial {
    id: Option<u16>,
    flags: u16,
    question: Vec<u8>,
    shown: String,
    kind: Option<u16>,
    payload: Option<u16>,
}

impl Partial {
    fn read(&mut self, bytes: &[u8]) -> Result<Query, Fault> {
        let mut rest = bytes;
        self.header(&mut rest)?;
        if bytes.len() > MAX_QUERY {
            return Err(Fault::Long);
        }
        let additional = self.sections(&mut rest)?;
        let text = self.question(&mut rest)?;
        if additional {
            self.opt(&mut rest)?;
        }
        if !rest.is_empty() {
            return Err(Fault::Trailing);
        }
        let name = text
            .and_then(|text| Name::from_ascii(&text).ok())
            .ok_or(Fault::Name)?;
        Ok(Query {
            echo: self.echo().ok_or(Fault::Short)?,
            name,
            kind: self.kind.ok_or(Fault::Short)?,
        })
    }

    fn header(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let id = take_u16(rest).ok_or(Fault::Short)?;
        self.flags = take_u16(rest).ok_or(Fault::Short)?;
        if rest.len() < HEADER - 4 {
            return Err(Fault::Short);
        }
        if self.flags & 0x8000 != 0 {
            return Err(Fault::Answer);
        }
        self.id = Some(id);
        if self.flags & 0x7800 != 0 {
            return Err(Fault::Opcode);
        }
        if self.flags & 0x020f != 0 {
            return Err(Fault::Flags);
        }
        Ok(())
    }

    /// Whether an additional record follows.
    fn sections(&self, rest: &mut &[u8]) -> Result<bool, Fault> {
        let mut next = || take_u16(rest).ok_or(Fault::Short);
        match (next()?, next()?, next()?, next()?) {
            (1, 0, 0, additional @ 0..=1) => Ok(additional == 1),
            _ => Err(Fault::Sections),
        }
    }

    /// The labels joined by dots; `None` where a label has a dot of its own, which joined
    /// would read as another name.
    fn question(&mut self, rest: &mut &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let start = *rest;
        let mut text = Vec::with_capacity(64);
        let mut plain = true;
        loop {
            let length = usize::from(*take(rest, 1).and_then(<[u8]>::first).ok_or(Fault::Labels)?);
            if length == 0 {
                break;
            }
            // 64 and more is a compression pointer or an extended label: in a question there
            // is nothing before it to point to.
            if length > 63 || text.len() + length + 2 > 254 {
                return Err(Fault::Labels);
            }
            let label = take(rest, length).ok_or(Fault::Labels)?;
            plain &= !label.contains(&b'.');
            if !text.is_empty() {
                text.push(b'.');
            }
            text.extend_from_slice(label);
            show_label(&mut self.shown, label);
        }
        let kind = take_u16(rest).ok_or(Fault::Labels)?;
        let class = take_u16(rest).ok_or(Fault::Labels)?;
        self.kind = Some(kind);
        let length = start.len() - rest.len();
        self.question = start.get(..length).unwrap_or_default().to_vec();
        if class != CLASS_IN {
            return Err(Fault::Class);
        }
        Ok(plain.then_some(text))
    }

    /// RFC 6891 section 6.1.2. The options are stepped over and go nowhere.
    fn opt(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        if take(rest, 1) != Some(&[0]) || take_u16(rest) != Some(OPT) {
            return Err(Fault::Opt);
        }
        let payload = take_u16(rest).ok_or(Fault::Opt)?;
        let version = take(rest, 4)
            .and_then(|ttl| ttl.get(1).copied())
            .ok_or(Fault::Opt)?;
        let length = take_u16(rest).ok_or(Fault::Opt)?;
        let mut options = take(rest, usize::from(length)).ok_or(Fault::Opt)?;
        while !options.is_empty() {
            take_u16(&mut options).ok_or(Fault::Opt)?;
            let length = take_u16(&mut options).ok_or(Fault::Opt)?;
            take(&mut options, usize::from(length)).ok_or(Fault::Opt)?;
        }
        self.payload = Some(payload);
        if version != 0 {
            return Err(Fault::Version);
        }
        Ok(())
    }

    fn echo(&self) -> Option<Echo> {
        Some(Echo {
            id: self.id?,
            flags: self.flags,
            question: self.question.clone(),
            payload: self.payload,
        })
    }

    fn malformed(&self, fault: Fault) -> Malformed {
        let code = match fault {
            Fault::Opcode => Code::NotImp,
            Fault::Version => Code::BadVers,
            Fault::Name | Fault::Class => Code::Refused,
            _ => Code::FormErr,
        };
        Malformed {
            reply: self.echo().map(|echo| (echo, code)),
            fault,
            shown: self.shown.clone(),
            kind: self.kind,
        }
    }
}

/// Appends a label, with a dot between it and the one before, in the presentation form of
/// RFC 4343 section 2.1, cut at [`MAX_SHOWN`].
fn show_label(shown: &mut String, label: &[u8]) {
    if !shown.is_empty() && shown.len() < MAX_SHOWN {
        shown.push('.');
    }
    for &byte in label {
        if shown.len() + 4 > MAX_SHOWN {
            return;
        }
        match byte {
            b'.' | b'\\' => {
                shown.push('\\');
                shown.push(char::from(byte));
            }
            0x21..=0x7e => shown.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(shown, "\\{byte:03}")),
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let bytes: [u8; 2] = take(rest, 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that panics has failed, which is what it is for"
    )]

    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use hickory_proto::{
        op::{Edns, Message, MessageType, OpCode, Query as WireQuery, ResponseCode},
        rr::{DNSClass, Name as WireName, RData},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::dns::answer::*;

    fn query(name: &str, kind: u16, payload: Option<u16>) -> Vec<u8> {
        let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let labels = name.split('.').filter(|label| !label.is_empty());
        let name = WireName::from_labels(labels.map(str::as_bytes)).unwrap();
        message.add_query(WireQuery::query(name, RecordType::from(kind)));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn fault(bytes: &[u8]) -> Fault {
        read(bytes).unwrap_err().fault
    }

    /// `api.example.com A` with one thing changed.
    fn altered(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = query("api.example.com.", A, None);
        change(&mut bytes);
        bytes
    }

    #[test]
    fn headers_are_strict() {
        assert_eq!(fault(&altered(|b| b[2] |= 0x80)), Fault::Answer);
        assert!(
            read(&altered(|b| b[2] |= 0x80))
                .unwrap_err()
                .reply
                .is_none()
        );
        assert_eq!(fault(&altered(|b| b[2] |= 0x28)), Fault::Opcode);
        assert_eq!(fault(&altered(|b| b[2] |= 0x02)), Fault::Flags);
        assert_eq!(fault(&altered(|b| b[3] |= 0x03)), Fault::Flags);
        for count in [5, 7, 9, 11] {
            assert_eq!(
                fault(&altered(|b| b[count] = 2)),
                Fault::Sections,
                "{count}"
            );
        }
        assert_eq!(fault(&altered(|b| b[5] = 0)), Fault::Sections);
        assert_eq!(fault(&[0; 11]), Fault::Short);
        assert_eq!(fault(&[]), Fault::Short);
        assert_eq!(fault(&altered(|b| b.resize(MAX_QUERY + 1, 0))), Fault::Long);
        // AD and CD are set by resolvers that validate.
        assert!(read(&altered(|b| b[3] |= 0x30)).is_ok());
    }

    #[test]
    fn names_are_strict() {
        assert_eq!(fault(&altered(|b| b[14] = b'.')), Fault::Name);
        assert_eq!(fault(&altered(|b| b[14] = 0)), Fault::Name);
        assert_eq!(fault(&altered(|b| b[14] = b' ')), Fault::Name);
        assert_eq!(fault(&altered(|b| b[14] = 0xc3)), Fault::Name);
        // A pointer to itself, to the header, and beyond the end.
        for target in [12, 0, 200] {
            let looped = altered(|b| b[12..14].copy_from_slice(&[0xc0, target]));
            assert_eq!(fault(&looped), Fault::Labels);
        }
        assert_eq!(fault(&altered(|b| b[12] = 64)), Fault::Labels);
        assert_eq!(fault(&altered(|b| b[12] = 63)), Fault::Labels);
        assert_eq!(fault(&query(".", A, None)), Fault::Name);
        let class = altered(|b| *b.last_mut().unwrap() = 3);
        assert_eq!(fault(&class), Fault::Class);
        assert_eq!(fault(&altered(|b| b.push(0))), Fault::Trailing);
        let shown = read(&altered(|b| b[14] = 0)).unwrap_err().shown;
        assert_eq!(shown, "a\\000i.example.com");
    }

    #[test]
    fn what_is_shown_is_bounded_whatever_its_labels_are() {
        let mut bytes = query("a.", A, None)[..12].to_vec();
        bytes.push(63);
        bytes.extend([0; 63]);
        for _ in 0..90 {
            bytes.extend([1, b'x']);
        }
        bytes.extend([0, 0, 1, 0, 1]);
        let shown = read(&bytes).unwrap_err().shown;
        assert!(shown.len() <= MAX_SHOWN && shown.starts_with("\\000"));
    }

    #[test]
    fn the_longest_name_fits_and_no_longer_one() {
        let labels = |last: usize| {
            let mut bytes = query("a.", A, None)[..12].to_vec();
            for length in [63, 63, 63, last] {
                bytes.push(u8::try_from(length).unwrap());
                bytes.extend(vec![b'a'; length]);
            }
            bytes.extend([0, 0, 1, 0, 1]);
            bytes
        };
        assert_eq!(read(&labels(61)).unwrap().name.as_str().len(), 253);
        assert_eq!(fault(&labels(62)), Fault::Labels);
        let echo = read(&labels(61)).unwrap().echo;
        let many = vec![Record::Address(Ipv6Addr::LOCALHOST.into()); MAX_ADDRESSES];
        let answer = write(&echo, Code::NoError, &many, 1, usize::from(u16::MAX));
        let count = u16::from_be_bytes([answer[6], answer[7]]);
        assert_eq!(usize::from(count), MAX_ADDRESSES);
    }

    #[test]
    fn opt_is_strict() {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = query("api.example.com.", A, Some(4096));
            change(&mut bytes);
            bytes
        };
        let at = query("api.example.com.", A, None).len();
        assert_eq!(
            read(&with(&|_| {})).unwrap().echo.udp_limit(),
            MAX_UDP_ANSWER
        );
        assert_eq!(fault(&with(&|b| b[at] = 1)), Fault::Opt);
        assert_eq!(fault(&with(&|b| b[at + 2] = 250)), Fault::Opt);
        assert_eq!(fault(&with(&|b| b[at + 6] = 1)), Fault::Version);
        assert_eq!(fault(&with(&|b| b[at + 10] = 4)), Fault::Opt);
        let option = with(&|b| {
            b[at + 10] = 6;
            b.extend([0, 10, 0, 2, 1, 2]);
        });
        assert!(read(&option).is_ok());
        let broken = with(&|b| {
            b[at + 10] = 6;
            b.extend([0, 10, 0, 9, 1, 2]);
        });
        assert_eq!(fault(&broken), Fault::Opt);
        let (echo, code) = read(&with(&|b| b[at + 6] = 1)).unwrap_err().reply.unwrap();
        let answer = Message::from_vec(&write(&echo, code, &[], 0, 512)).unwrap();
        // 16 has two names, which the reader cannot tell apart.
        assert_eq!(u16::from(answer.metadata.response_code), 16);
    }

    #[test]
    fn a_service_is_written_as_hickory_reads_it() {
        let asked = "_mongodb._tcp.cluster.example";
        let echo = read(&query(asked, SRV, None)).unwrap().echo;
        let record = |target: &str| Record::Service {
            priority: 1,
            weight: 65535,
            port: 27017,
            target: Name::parse(target).unwrap(),
        };
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        let records = [record("shard-00.store.example"), record(&longest)];
        let bytes = write(&echo, Code::NoError, &records, 60, 65535);
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.answers.len(), 2);
        for (read, written) in answer
            .answers
            .iter()
            .zip(["shard-00.store.example", &longest])
        {
            let RData::SRV(srv) = &read.data else {
                unreachable!("{read:?}")
            };
            assert_eq!((srv.priority, srv.weight, srv.port), (1, 65535, 27017));
            assert_eq!(srv.target.to_ascii(), format!("{written}."));
            assert_eq!(read.name.to_ascii(), format!("{asked}."));
        }
        // What does not fit is left out whole.
        let cut = write(&echo, Code::NoError, &records, 60, 512);
        let cut = Message::from_vec(&cut).unwrap();
        assert!(cut.answers.len() == 2 || cut.metadata.truncation);
        let cut = Message::from_vec(&write(&echo, Code::NoError, &records, 60, bytes.len() - 1));
        let cut = cut.unwrap();
        assert!(cut.answers.len() == 1 && cut.metadata.truncation);
    }

    #[test]
    fn small_payloads_count_as_512() {
        for (payload, limit) in [
            (None, 512),
            (Some(0), 512),
            (Some(900), 900),
            (Some(65535), 1232),
        ] {
            let bytes = query("api.example.com.", A, payload);
            assert_eq!(read(&bytes).unwrap().echo.udp_limit(), limit);
        }
    }

    #[test]
    fn a_refusal_says_that_policy_blocked_it() {
        let echo = read(&query("api.example.com.", A, Some(1232)))
            .unwrap()
            .echo;
        let bytes = write(&echo, Code::Refused, &[], 0, 512);
        assert!(bytes.ends_with(&[0, 6, 0, 15, 0, 2, 0, 15]));
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
    }

    #[test]
    fn a_plain_client_is_told_the_same() {
        let echo = read(&query("api.example.com.", A, None)).unwrap().echo;
        let answer = Message::from_vec(&write(&echo, Code::Refused, &[], 0, 512)).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(answer.answers.is_empty() && answer.authorities.is_empty());
    }

    #[test]
    fn a_name_whose_addresses_are_withheld_exists() {
        let echo = read(&query("api.example.com.", A, Some(1232)))
            .unwrap()
            .echo;
        let bytes = write(&echo, Code::Withheld, &[], 0, 512);
        assert!(bytes.ends_with(&[0, 6, 0, 15, 0, 2, 0, 17]));
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    }

    #[test]
    fn kinds_have_names() {
        assert_eq!(kind_name(1), "A");
        assert_eq!(kind_name(65), "HTTPS");
        assert_eq!(kind_name(65400), "TYPE65400");
    }

    fn any_name() -> impl Strategy<Value = String> {
        prop::collection::vec("[A-Za-z0-9_-]{1,20}", 1..6).prop_map(|labels| labels.join(".") + ".")
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_hickory_wrote(
            name in any_name(), kind: u16, payload in prop::option::of(any::<u16>())
        ) {
            let bytes = query(&name, kind, payload);
            let read = read(&bytes).unwrap();
            prop_assert_eq!(read.name.as_str(), name.trim_end_matches('.').to_lowercase());
            prop_assert_eq!(read.kind, kind);
            for cut in 0..bytes.len() {
                prop_assert!(super::read(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn what_is_written_is_what_hickory_reads(
            name in any_name(),
            v4 in prop::collection::vec(any::<u32>(), 0..20),
            v6 in prop::collection::vec(any::<u128>(), 0..20),
            ttl in 0..=i32::MAX.unsigned_abs(),
            payload in prop::option::of(any::<u16>()),
        ) {
            let asked = query(&name, A, payload);
            let echo = read(&asked).unwrap().echo;
            let mut addresses: Vec<IpAddr> = v4.into_iter().map(|v4| Ipv4Addr::from(v4).into()).collect();
            addresses.extend(v6.into_iter().map(|v6| IpAddr::from(Ipv6Addr::from(v6))));
            addresses.truncate(MAX_ADDRESSES);
            let records: Vec<Record> = addresses.iter().copied().map(Record::Address).collect();
            let limit = echo.udp_limit();
            let bytes = write(&echo, Code::NoError, &records, ttl, limit);
            prop_assert!(bytes.len() <= limit);
            let question = asked.len() - if payload.is_some() { 11 } else { 0 };
            prop_assert_eq!(&bytes[12..question], &asked[12..question]);
            let answer = Message::from_vec(&bytes).unwrap();
            prop_assert_eq!(answer.id, 0xbeef);
            prop_assert_eq!(answer.queries[0].query_class(), DNSClass::IN);
            let told: Vec<IpAddr> = answer.answers.iter().filter_map(|record| match &record.data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                _ => None,
            }).collect();
            prop_assert!(answer.answers.iter().all(|record| record.ttl == ttl));
            if answer.metadata.truncation {
                prop_assert!(told.len() < addresses.len() && addresses.starts_with(&told));
            } else {
                prop_assert_eq!(told, addresses);
            }
        }

        #[test]
        fn no_bytes_panic_and_none_hide_a_name(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
            check(&bytes);
        }

        #[test]
        fn no_damage_hides_a_name(
            name in any_name(),
            payload in prop::option::of(any::<u16>()),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            tail in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut bytes = query(&name, A, payload);
            for (index, byte) in damage {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes.extend(tail);
            check(&bytes);
        }
    }

    /// Whatever is taken as a query is one to hickory as well, with the same name; whatever
    /// is answered repeats the id and can be read.
    fn check(bytes: &[u8]) {
        match read(bytes) {
            Ok(query) => {
                let oracle = Message::from_vec(bytes).unwrap();
                let labels: Vec<&[u8]> = oracle.queries[0].name().iter().collect();
                let name = labels.join(&b'.').to_ascii_lowercase();
                assert_eq!(name, query.name.as_str().as_bytes());
                assert_eq!(u16::from(oracle.queries[0].query_type()), query.kind);
            }
            Err(malformed) => {
                assert!(malformed.shown.len() <= MAX_SHOWN && malformed.shown.is_ascii());
                if let Some((echo, code)) = malformed.reply {
                    let answer = write(&echo, code, &[], 0, PLAIN_UDP_ANSWER);
                    assert_eq!(answer[..2], bytes[..2]);
                    assert!(answer[2] & 0x80 != 0 && answer.len() <= PLAIN_UDP_ANSWER);
                }
            }
        }
    }
}
