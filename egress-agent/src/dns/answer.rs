//! DNS answers of the door. Pure.

use std::net::IpAddr;

use super::wire::{A, AAAA, CLASS_IN, Echo, HEADER, MAX_QUERY, OPT};

/// Longest answer over UDP: fits one packet of the smallest IPv6 path (DNS flag day 2020).
pub const MAX_UDP_ANSWER: usize = 1232;
/// Longest answer over UDP to a client without EDNS. RFC 1035 section 4.2.1.
pub const PLAIN_UDP_ANSWER: usize = 512;
/// Most addresses one answer carries; over TCP they fit with the longest name.
pub const MAX_ADDRESSES: usize = 512;

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

/// Writes an answer that repeats `echo`. Addresses are written under the asked name, at most
/// [`MAX_ADDRESSES`]. Where the answer would be longer than `limit` ([`Echo::udp_limit`], or
/// 65535 over TCP), those that fit are written, and TC is set: who can asks again over TCP, and
/// who cannot (musl before 1.2.4) has some.
pub fn write(echo: &Echo, code: Code, addresses: &[IpAddr], ttl: u32, limit: usize) -> Vec<u8> {
    let all = addresses.get(..MAX_ADDRESSES).unwrap_or(addresses);
    let opt = opt_record(echo, code);
    let mut full = HEADER + echo.question.len() + opt.len();
    let fits = |address: &&IpAddr| {
        full += record_len(address);
        full <= limit
    };
    let addresses: Vec<&IpAddr> = all.iter().take_while(fits).collect();
    let truncated = addresses.len() < all.len();
    let mut out = Vec::with_capacity(limit.min(full));
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
