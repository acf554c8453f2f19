//! The ClientHello on the wire: one reader for the data plane, `explain`, the tests and the
//! fuzzer. Pure.
//!
//! It takes exactly one form: one TLS record that holds one whole ClientHello (RFC 8446
//! sections 4.1.2 and 5.1, RFC 5246 section 7.4.1.2), every length in it agreeing with the one
//! around it, at most one `server_name` with one name (RFC 6066 section 3). What another reader
//! could understand in another way is refused, for then it could read another name.

use core::hint::black_box;

use crate::{
    sni::{NAME_ROOM, NameKey},
    verdict::Reason,
};

/// Most extensions of a hello. Clients send about twenty.
pub const MAX_EXTENSIONS: u32 = 64;
/// Most bytes of a record's fragment (RFC 8446 section 5.1).
pub const MAX_FRAGMENT: u32 = 1 << 14;
/// More than any ClientHello can have: all its parts at their longest are 131,396 bytes, which
/// is what OpenSSL takes.
const MAX_MESSAGE: u32 = 1 << 18;
/// Most octets of a name.
const MAX_NAME: u32 = 253;
const _: () = assert!(MAX_NAME as usize + 1 == NAME_ROOM);
/// Most octets of a label (RFC 1035 section 2.3.4).
const MAX_LABEL: u32 = 63;

/// Bytes of a record's header.
const RECORD: u32 = 5;
/// Bytes of a handshake message's header.
const MESSAGE: u32 = 4;
/// Version and random of a hello.
const FIXED: u32 = 2 + 32;

/// Content types of records (RFC 8446 section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// `client_hello` (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;

/// `server_name` (RFC 6066 section 3).
const SERVER_NAME: u32 = 0;
/// `early_data` (RFC 8446 section 4.2.10).
const EARLY_DATA: u32 = 42;
/// `encrypted_client_hello` (RFC 9849 section 5).
const ENCRYPTED_HELLO: u32 = 0xfe0d;
/// `encrypted_server_name` of its early drafts (draft-ietf-tls-esni-02).
const ENCRYPTED_NAME: u32 = 0xffce;

/// The bytes that are read.
pub trait Payload {
    /// N bytes from an offset on; `None` where they are not all there.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// One octet; 0 where there is none.
    #[inline(always)]
    fn octet(&self, offset: u32) -> u8 {
        let [octet] = self.load(offset).unwrap_or([0]);
        octet
    }
}

/// What the next bytes of a stream are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The beginning of a ClientHello.
    Hello,
    /// A record of so many bytes that says nothing and behind which a hello may follow.
    Skip(u32),
    /// Something after which no ClientHello in the clear can follow.
    Other,
    /// Too few bytes to tell.
    Partial,
    /// Nothing that belongs there.
    Refuse(Reason),
}

/// A ClientHello that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// What is wrong with it; [`Reason::None`] = nothing.
    pub fault: Reason,
    /// More bytes are needed to tell.
    pub partial: bool,
    /// [`Hello::ENCRYPTED`] and [`Hello::EARLY`].
    pub marks: u32,
    /// Bytes of its record, header included.
    pub len: u32,
    /// Where the name begins.
    pub name_at: u32,
    /// Octets of the name; 0 = there is none.
    pub name_len: u32,
}

impl Hello {
    /// It carries an encrypted one.
    pub const ENCRYPTED: u32 = 1;
    /// It offers early data.
    pub const EARLY: u32 = 2;

    const EMPTY: Self = Self {
        fault: Reason::None,
        partial: false,
        marks: 0,
        len: 0,
        name_at: 0,
        name_len: 0,
    };

    /// Something that is no hello, for this reason.
    #[inline(always)]
    pub const fn faulty(fault: Reason) -> Self {
        Self::EMPTY.fault(fault)
    }

    #[inline(always)]
    const fn partial() -> Self {
        Self {
            partial: true,
            ..Self::EMPTY
        }
    }

    #[inline(always)]
    const fn fault(self, fault: Reason) -> Self {
        Self { fault, ..self }
    }
}

/// Looks at what follows a ClientHello that was taken.
///
/// A server that asks for another one (HelloRetryRequest, RFC 8446 section 4.1.4) takes the
/// second in the clear, too, and change_cipher_spec records in front of it (appendix D.4) and
/// some alerts are passed over. Where an encrypted record follows instead, it is all said: none
/// can follow early data, for hellos that offer it are refused.
#[inline(always)]
pub fn next<P: Payload>(payload: &P) -> Next {
    let Some([kind, major, _, high, low]) = payload.load::<5>(0) else {
        return Next::Partial;
    };
    let len = u32::from(u16::from_be_bytes([high, low]));
    if major != 3 || len == 0 || len > MAX_FRAGMENT + 256 {
        // Servers pass over empty records, and so one could stand in front of a hello.
        return Next::Refuse(Reason::SniNotTls);
    }
    match kind {
        CHANGE_CIPHER_SPEC if len == 1 => Next::Skip(RECORD + 1),
        ALERT if len == 2 => Next::Skip(RECORD + 2),
        // Encrypted, or an error to whoever waits for a hello.
        APPLICATION_DATA => Next::Other,
        HANDSHAKE => handshake(payload, len),
        _ => Next::Refuse(Reason::SniNotTls),
    }
}

/// A handshake record behind a hello. In TLS 1.2 it may be encrypted after change_cipher_spec, and
/// then begins with anything: a first byte and a length as a hello could have them are by
/// chance once in 16,000 times.
#[inline(always)]
fn handshake<P: Payload>(payload: &P, len: u32) -> Next {
    let Some([kind]) = payload.load::<1>(RECORD) else {
        return Next::Partial;
    };
    if kind != CLIENT_HELLO {
        return Next::Other;
    }
    if len < MESSAGE {
        return Next::Refuse(Reason::SniRecords);
    }
    let Some([a, b, c]) = payload.load::<3>(RECORD + 1) else {
        return Next::Partial;
    };
    if u32::from_be_bytes([0, a, b, c]) > MAX_MESSAGE {
        return Next::Other;
    }
    Next::Hello
}

/// Reads a ClientHello at the beginning of the bytes. What follows it is not looked at.
#[inline(always)]
pub fn read<P: Payload>(payload: &P) -> Hello {
    // What cannot become a hello is refused with its first byte.
    let Some([kind]) = payload.load::<1>(0) else {
        return Hello::partial();
    };
    if kind != HANDSHAKE {
        return Hello::faulty(Reason::SniNotTls);
    }
    let Some([major, _, high, low]) = payload.load::<4>(1) else {
        return Hello::partial();
    };
    let body = u32::from(u16::from_be_bytes([high, low]));
    if major != 3 {
        return Hello::faulty(Reason::SniNotTls);
    }
    if body == 0 || body > MAX_FRAGMENT {
        return Hello::faulty(Reason::SniMalformed);
    }
    if body < MESSAGE {
        return Hello::faulty(Reason::SniRecords);
    }
    let Some([kind, a, b, c]) = payload.load::<4>(RECORD) else {
        return Hello::partial();
    };
    if kind != CLIENT_HELLO {
        return Hello::faulty(Reason::SniNotTls);
    }
    let message = u32::from_be_bytes([0, a, b, c]) + MESSAGE;
    if message > body {
        return Hello::faulty(Reason::SniRecords);
    }
    if message < body {
        return Hello::faulty(Reason::SniMalformed);
    }
    let hello = Hello {
        len: RECORD + body,
        ..Hello::EMPTY
    };
    if payload.load::<1>(hello.len - 1).is_none() {
        return Hello::partial();
    }
    match extensions_at(payload, hello.len) {
        Ok(at) => extensions(payload, at, hello),
        Err(fault) => hello.fault(fault),
    }
}

/// Where the extensions begin, behind their length.
#[inline(always)]
fn extensions_at<P: Payload>(payload: &P, end: u32) -> Result<u32, Reason> {
    let mut at = RECORD + MESSAGE;
    // Servers differ in what they make of another version than that of TLS.
    let [major] = inside(payload, at, end)?;
    if major != 3 {
        return Err(Reason::SniMalformed);
    }
    at += FIXED;
    let [session] = inside(payload, at, end)?;
    if session > 32 {
        return Err(Reason::SniMalformed);
    }
    at += 1 + u32::from(session);
    let ciphers = u32::from(u16::from_be_bytes(inside(payload, at, end)?));
    if ciphers < 2 || ciphers % 2 != 0 {
        return Err(Reason::SniMalformed);
    }
    at += 2 + ciphers;
    let [compression] = inside(payload, at, end)?;
    if compression == 0 {
        return Err(Reason::SniMalformed);
    }
    at += 1 + u32::from(compression);
    if at == end {
        return Err(Reason::SniMissing);
    }
    let all = u32::from(u16::from_be_bytes(inside(payload, at, end)?));
    if at + 2 + all != end {
        return Err(Reason::SniMalformed);
    }
    Ok(at + 2)
}

#[inline(always)]
fn extensions<P: Payload>(payload: &P, mut at: u32, mut hello: Hello) -> Hello {
    let end = hello.len;
    // A constant number of turns, left early: what the verifier of 5.10 can follow.
    for _ in 0..MAX_EXTENSIONS {
        if at == end {
            break;
        }
        let Ok([a, b, c, d]) = inside(payload, at, end) else {
            return hello.fault(Reason::SniMalformed);
        };
        let len = u32::from(u16::from_be_bytes([c, d]));
        at += 4;
        if at + len > end {
            return hello.fault(Reason::SniMalformed);
        }
        let kind = u32::from(u16::from_be_bytes([a, b]));
        hello.marks |= is(kind, ENCRYPTED_HELLO) | is(kind, ENCRYPTED_NAME);
        hello.marks |= is(kind, EARLY_DATA) << 1;
        if kind == SERVER_NAME {
            if hello.name_len != 0 {
                return hello.fault(Reason::SniRepeated);
            }
            match server_name(payload, at, len) {
                Ok(name_len) => {
                    hello.name_at = at + 5;
                    hello.name_len = name_len;
                }
                Err(fault) => return hello.fault(fault),
            }
        }
        at += len;
    }
    if at != end {
        return hello.fault(Reason::SniMalformed);
    }
    if hello.name_len == 0 {
        return hello.fault(Reason::SniMissing);
    }
    hello
}

/// The octets of the one name in a `server_name` extension, five bytes behind its beginning.
#[inline(always)]
fn server_name<P: Payload>(payload: &P, at: u32, len: u32) -> Result<u32, Reason> {
    if len < 2 {
        return Err(Reason::SniMalformed);
    }
    let list = u32::from(u16::from_be_bytes(inside(payload, at, at + len)?));
    if list + 2 != len {
        return Err(Reason::SniMalformed);
    }
    if list == 0 {
        return Err(Reason::SniMissing);
    }
    let [kind, high, low] = inside(payload, at + 2, at + len)?;
    let name = u32::from(u16::from_be_bytes([high, low]));
    if kind != 0 || name + 3 > list {
        return Err(Reason::SniMalformed);
    }
    if name + 3 < list {
        return Err(Reason::SniRepeated);
    }
    if name == 0 {
        return Err(Reason::SniMissing);
    }
    if name > MAX_NAME {
        return Err(Reason::SniMalformed);
    }
    Ok(name)
}

/// Copies the name of a hello ([`Hello::name_at`], [`Hello::name_len`]) into a key that is all zero, back to front and in lower case, and
/// judges its form: letters, digits, hyphens and underscores in labels of 1 to 63, no address.
///
/// Without branches, each of which the verifier would follow for every octet.
#[inline(always)]
pub fn name<P: Payload>(payload: &P, at: u32, len: u32, key: &mut NameKey) -> Reason {
    let (mut bad, mut colon, mut label) = (0, 0, 0);
    // Of the last label, which comes first here: no name of the public DNS has a numeric one
    // (RFC 3696 section 2), and every IPv4 literal has.
    let (mut last, mut numeric) = (1, 1);
    for (to, index) in key.name.iter_mut().zip(0..MAX_NAME) {
        if index >= len {
            break;
        }
        // What cannot be read is in no name, either.
        let octet = u32::from(payload.octet(at + (len - 1 - index)));
        let upper = within(octet, b'A', b'Z');
        let digit = within(octet, b'0', b'9');
        let letter = within(octet | 0x20, b'a', b'z');
        let dot = is(octet, u32::from(b'.'));
        let other = is(octet, u32::from(b'-')) | is(octet, u32::from(b'_'));
        let [lower, ..] = (octet | upper << 5).to_le_bytes();
        *to = lower;
        colon |= is(octet, u32::from(b':'));
        bad |= 1 ^ (letter | digit | other | dot);
        // A label of none ends here, or one that is too long goes on.
        bad |= dot & less(label, 1);
        label = (label + 1) & dot.wrapping_sub(1);
        bad |= less(MAX_LABEL, label);
        last &= 1 ^ dot;
        numeric &= digit | (1 ^ last);
    }
    bad |= less(label, 1);
    if colon | (numeric & (1 ^ bad)) != 0 {
        Reason::SniAddress
    } else if bad != 0 {
        Reason::SniMalformed
    } else {
        Reason::None
    }
}

/// 1 where two small numbers are the same, else 0.
#[inline(always)]
fn is(a: u32, b: u32) -> u32 {
    sign((a ^ b).wrapping_sub(1))
}

/// 1 where one small number is less than another, else 0.
#[inline(always)]
fn less(a: u32, b: u32) -> u32 {
    sign(a.wrapping_sub(b))
}

/// 1 where an octet is one of a range, else 0.
#[inline(always)]
fn within(octet: u32, first: u8, last: u8) -> u32 {
    1 ^ (less(octet, first as u32) | less(last as u32, octet))
}

/// 1 for a difference below zero, else 0. What is known of it is hidden before and after, lest
/// the compiler make a branch of its sign.
#[inline(always)]
fn sign(difference: u32) -> u32 {
    black_box(black_box(difference) >> 31)
}

/// N bytes that lie in front of `end`.
#[inline(always)]
fn inside<P: Payload, const N: usize>(payload: &P, at: u32, end: u32) -> Result<[u8; N], Reason> {
    if at + size::<N>() > end {
        return Err(Reason::SniMalformed);
    }
    payload.load(at).ok_or(Reason::SniMalformed)
}

/// A number of bytes as offsets are counted.
#[expect(clippy::cast_possible_truncation, reason = "a handful of bytes")]
const fn size<const N: usize>() -> u32 {
    N as u32
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
