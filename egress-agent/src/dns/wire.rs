//! DNS messages at the door: strict, bounded reading of a query and writing of an answer.
//! Pure.
//!
//! The grammar that is accepted is far narrower than RFC 1035: one question, no records but
//! one OPT, no compression. It is read by hand because the answer repeats the question's
//! exact bytes, and because whatever a general parser forgives here is a place to hide a
//! name; hickory-proto is the tests' oracle and reads the upstream's side.

use std::{fmt::Write as _, net::IpAddr};

use hickory_resolver::proto::rr::RecordType;

use crate::policy::name::Name;

/// Longest query that is read, over UDP and TCP. Bytes. A question takes at most 271
/// (RFC 1035 section 4.1); the rest is room for EDNS padding and cookies.
pub const MAX_QUERY: usize = 1232;
/// Longest answer over UDP: fits one packet of the smallest IPv6 path (DNS flag day 2020).
pub const MAX_UDP_ANSWER: usize = 1232;
/// Longest answer over UDP to a client without EDNS. RFC 1035 section 4.2.1.
pub const PLAIN_UDP_ANSWER: usize = 512;
/// Most addresses one answer carries; 32 AAAA records with the longest name fit
/// [`MAX_UDP_ANSWER`].
pub const MAX_ADDRESSES: usize = 32;

/// `A`. RFC 1035 section 3.2.2.
pub const A: u16 = 1;
/// `AAAA`. RFC 3596 section 2.1.
pub const AAAA: u16 = 28;

const OPT: u16 = 41;
/// The payload size the door itself announces; [`MAX_QUERY`] as OPT carries it.
const OWN_PAYLOAD: u16 = 1232;
const _: () = assert!(OWN_PAYLOAD as usize == MAX_QUERY);
const CLASS_IN: u16 = 1;
const HEADER: usize = 12;
const EDE_BLOCKED: u16 = 15;

/// Response codes. RFC 1035 section 4.1.1, RFC 6891 section 9.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Code {
    /// The name exists; perhaps without an address of the asked kind.
    NoError = 0,
    /// The query cannot be read.
    FormErr = 1,
    /// The answer could not be had.
    ServFail = 2,
    /// The upstream says the name does not exist.
    NxDomain = 3,
    /// Not a query.
    NotImp = 4,
    /// The policy does not permit the name.
    Refused = 5,
    /// EDNS of a version other than 0.
    BadVers = 16,
}

/// What an answer repeats from its query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Echo {
    id: u16,
    flags: u16,
    /// The question as it came, letter case included; empty where it could not be read.
    question: Vec<u8>,
    /// The client's EDNS payload size.
    payload: Option<u16>,
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

/// Writes an answer that repeats `echo`. Addresses are written under the asked name; they
/// are left out and TC is set where the answer would be longer than `limit`
/// ([`Echo::udp_limit`], or 65535 over TCP). At most [`MAX_ADDRESSES`] are written.
pub fn write(echo: &Echo, code: Code, addresses: &[IpAddr], ttl: u32, limit: usize) -> Vec<u8> {
    let addresses = addresses.get(..MAX_ADDRESSES).unwrap_or(addresses);
    let opt = opt_record(echo, code);
    let full =
        HEADER + echo.question.len() + opt.len() + addresses.iter().map(record_len).sum::<usize>();
    let (addresses, truncated) = if full > limit {
        (&[][..], true)
    } else {
        (addresses, false)
    };
    let mut out = Vec::with_capacity(full.min(limit));
    let count = u16::try_from(addresses.len()).unwrap_or(0);
    out.extend_from_slice(&echo.id.to_be_bytes());
    out.extend_from_slice(&echo.answer_flags(code, truncated).to_be_bytes());
    out.extend_from_slice(&u16::from(!echo.question.is_empty()).to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&u16::from(!opt.is_empty()).to_be_bytes());
    out.extend_from_slice(&echo.question);
    for address in addresses {
        write_address(&mut out, address, ttl);
    }
    out.extend_from_slice(&opt);
    out
}

/// The name of a record type: its mnemonic, or `TYPE65400` (RFC 3597 section 5).
pub fn kind_name(kind: u16) -> String {
    match RecordType::from(kind) {
        RecordType::Unknown(kind) => format!("TYPE{kind}"),
        known => known.to_string(),
    }
}

impl Echo {
    /// The longest answer the client takes over UDP. RFC 6891 section 6.2.3: a size below 512
    /// means 512.
    pub fn udp_limit(&self) -> usize {
        self.payload.map_or(PLAIN_UDP_ANSWER, |payload| {
            usize::from(payload).clamp(PLAIN_UDP_ANSWER, MAX_UDP_ANSWER)
        })
    }

    /// QR and RA set; opcode, RD and CD repeated.
    fn answer_flags(&self, code: Code, truncated: bool) -> u16 {
        0x8080 | self.flags & 0x7910 | u16::from(truncated) << 9 | code as u16 & 0xf
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
                self.shown.push('.');
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

/// Appends a label in the presentation form of RFC 4343 section 2.1, cut at [`MAX_SHOWN`].
fn show_label(shown: &mut String, label: &[u8]) {
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

/// RFC 6891 section 6.1.1: who sent OPT gets OPT. A refusal says so (RFC 8914 section 4.16).
fn opt_record(echo: &Echo, code: Code) -> Vec<u8> {
    if echo.payload.is_none() {
        return Vec::new();
    }
    let mut out = vec![0];
    out.extend_from_slice(&OPT.to_be_bytes());
    out.extend_from_slice(&OWN_PAYLOAD.to_be_bytes());
    out.extend_from_slice(&[code as u8 >> 4, 0, 0, 0]);
    if code == Code::Refused {
        out.extend_from_slice(&[0, 6, 0, 15, 0, 2]);
        out.extend_from_slice(&EDE_BLOCKED.to_be_bytes());
    } else {
        out.extend_from_slice(&[0, 0]);
    }
    out
}

fn record_len(address: &IpAddr) -> usize {
    12 + if address.is_ipv4() { 4 } else { 16 }
}

fn write_address(out: &mut Vec<u8>, address: &IpAddr, ttl: u32) {
    // A pointer to the question's name, which always stands right after the header.
    out.extend_from_slice(&[0xc0, 12]);
    let kind = if address.is_ipv4() { A } else { AAAA };
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    match address {
        IpAddr::V4(v4) => {
            out.extend_from_slice(&[0, 4]);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.extend_from_slice(&[0, 16]);
            out.extend_from_slice(&v6.octets());
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
