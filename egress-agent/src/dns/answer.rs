//! DNS answers of the door. Pure.

use std::net::IpAddr;

use super::wire::{A, AAAA, CLASS_IN, Echo, HEADER, MAX_QUERY, OPT, SRV};
use crate::policy::name::Name;

/// Longest answer over UDP: fits one packet of the smallest IPv6 path (DNS flag day 2020).
pub const MAX_UDP_ANSWER: usize = 1232;
/// Longest answer over UDP to a client without EDNS. RFC 1035 section 4.2.1.
pub const PLAIN_UDP_ANSWER: usize = 512;
/// Most addresses one answer carries; over TCP they fit with the longest name.
pub const MAX_ADDRESSES: usize = 512;

/// What an answer says of the asked name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// `A` or `AAAA`.
    Address(IpAddr),
    /// `SRV` (RFC 2782).
    Service {
        /// Lower ones first.
        priority: u16,
        /// Among equal ones, how often.
        weight: u16,
        /// Port.
        port: u16,
        /// Host.
        target: Name,
    },
}

/// The payload size the door itself announces; [`MAX_QUERY`] as OPT carries it.
const OWN_PAYLOAD: u16 = 1232;
const _: () = assert!(OWN_PAYLOAD as usize == MAX_QUERY);
const EDE_BLOCKED: u16 = 15;
const EDE_FILTERED: u16 = 17;

/// How an answer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// The name exists; perhaps without an address of the asked kind.
    NoError,
    /// The query cannot be read.
    FormErr,
    /// The answer could not be had.
    ServFail,
    /// The upstream says the name does not exist.
    NxDomain,
    /// Not a query.
    NotImp,
    /// The policy does not permit the name.
    Refused,
    /// The policy permits the name, and none of its addresses of the asked kind.
    Withheld,
    /// EDNS of a version other than 0.
    BadVers,
}

impl Code {
    /// The code that a client gets. RFC 1035 section 4.1.1, RFC 6891 section 9.
    ///
    /// A name that no rule permits does not exist for the connector. NXDOMAIN alone lets every
    /// resolver library go on to the next name of a search list, at once: musl stops at an
    /// empty answer and takes nothing but codes 0 and 3 for an answer (`src/network/
    /// lookup_name.c`, `res_msend.c`), glibc stops at REFUSED (`resolv/res_query.c`), and both
    /// ask again after SERVFAIL. There is no SOA, so nobody keeps the answer (RFC 2308
    /// section 5), nor takes it for one about the names below.
    ///
    /// Where only the addresses of one kind are withheld, the name exists: musl takes NXDOMAIN
    /// for either kind as an answer about both.
    pub const fn number(self) -> u8 {
        match self {
            Self::NoError | Self::Withheld => 0,
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NxDomain | Self::Refused => 3,
            Self::NotImp => 4,
            Self::BadVers => 16,
        }
    }

    /// What is told beside it. RFC 8914 sections 4.16 and 4.18.
    const fn extended(self) -> Option<u16> {
        match self {
            Self::Refused => Some(EDE_BLOCKED),
            Self::Withheld => Some(EDE_FILTERED),
            _ => None,
        }
    }
}

/// Writes an answer that repeats `echo`. Records are written under the asked name, at most
/// [`MAX_ADDRESSES`]. Where the answer would be longer than `limit` ([`Echo::udp_limit`], or
/// 65535 over TCP), those that fit are written, and TC is set: who can asks again over TCP, and
/// who cannot (musl before 1.2.4) has some.
pub fn write(echo: &Echo, code: Code, records: &[Record], ttl: u32, limit: usize) -> Vec<u8> {
    let all = records.get(..MAX_ADDRESSES).unwrap_or(records);
    let opt = opt_record(echo, code);
    let mut full = HEADER + echo.question.len() + opt.len();
    let fits = |record: &&Record| {
        full += HEAD + record.len();
        full <= limit
    };
    let records: Vec<&Record> = all.iter().take_while(fits).collect();
    let truncated = records.len() < all.len();
    let mut out = Vec::with_capacity(limit.min(full));
    let count = u16::try_from(records.len()).unwrap_or(0);
    out.extend_from_slice(&echo.id.to_be_bytes());
    out.extend_from_slice(&echo.answer_flags(code, truncated).to_be_bytes());
    out.extend_from_slice(&u16::from(!echo.question.is_empty()).to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&u16::from(!opt.is_empty()).to_be_bytes());
    out.extend_from_slice(&echo.question);
    for record in records {
        record.write(&mut out, ttl);
    }
    out.extend_from_slice(&opt);
    out
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
        let code = u16::from(code.number() & 0xf);
        0x8080 | self.flags & 0x7910 | u16::from(truncated) << 9 | code
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
    out.extend_from_slice(&[code.number() >> 4, 0, 0, 0]);
    match code.extended() {
        Some(info) => {
            out.extend_from_slice(&[0, 6, 0, 15, 0, 2]);
            out.extend_from_slice(&info.to_be_bytes());
        }
        None => out.extend_from_slice(&[0, 0]),
    }
    out
}

/// Bytes of a record before its data, the name written as a pointer. RFC 1035 section 4.1.3.
const HEAD: usize = 12;

impl Record {
    /// Bytes of the data.
    fn len(&self) -> usize {
        match self {
            Self::Address(IpAddr::V4(_)) => 4,
            Self::Address(IpAddr::V6(_)) => 16,
            // A label's length in the place of each dot, one in front, and the root.
            Self::Service { target, .. } => 6 + target.as_str().len() + 2,
        }
    }

    fn write(&self, out: &mut Vec<u8>, ttl: u32) {
        // A pointer to the question's name, which always stands right after the header.
        out.extend_from_slice(&[0xc0, 12]);
        let kind = match self {
            Self::Address(IpAddr::V4(_)) => A,
            Self::Address(IpAddr::V6(_)) => AAAA,
            Self::Service { .. } => SRV,
        };
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out.extend_from_slice(&ttl.to_be_bytes());
        let length = u16::try_from(self.len()).unwrap_or(0);
        out.extend_from_slice(&length.to_be_bytes());
        match self {
            Self::Address(IpAddr::V4(v4)) => out.extend_from_slice(&v4.octets()),
            Self::Address(IpAddr::V6(v6)) => out.extend_from_slice(&v6.octets()),
            Self::Service {
                priority,
                weight,
                port,
                target,
            } => {
                for number in [priority, weight, port] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
                // Never compressed (RFC 2782).
                for label in target.as_str().split('.') {
                    // At most 63 bytes: it is a name.
                    out.push(u8::try_from(label.len()).unwrap_or(0));
                    out.extend_from_slice(label.as_bytes());
                }
                out.push(0);
            }
        }
    }
}
