//! Bytes of the ring → [`Decoded`], field by field and with every check. Pure.

use std::mem::{offset_of, size_of};

use egress_common::{
    abi::{MAX_CONNECTORS, MAX_RULES, UNIX_NAME_MAX},
    event::{Event, SniEvent},
    key::Addr,
    sni::{NAME_ROOM, NameKey},
    unix::{UnixEvent, UnixKey},
    verdict::{Action, Layer, Reason},
};

/// Why a record cannot be what the data plane of this version writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Another size than the record has.
    #[error(
        "the record has {0} bytes instead of {event}, {unix} or {sni}",
        event = size_of::<Event>(),
        unix = size_of::<UnixEvent>(),
        sni = size_of::<SniEvent>()
    )]
    Length(usize),
    /// A layer this version does not know.
    #[error("layer {0} is unknown")]
    Layer(u8),
    /// A reason this version does not know, or none.
    #[error("reason {0} is unknown or none")]
    Reason(u8),
    /// Neither denied nor audited.
    #[error("action {0} is neither deny nor audit")]
    Action(u8),
    /// A record of nothing.
    #[error("the record counts no denial")]
    Count,
    /// A connector id out of range.
    #[error("connector {0} is out of range")]
    Connector(u32),
    /// A rule slot out of range.
    #[error("rule {0} is out of range")]
    Rule(u32),
    /// Bytes that must be zero are not: the record has another layout.
    #[error("padding is not zero")]
    Padding,
    /// A unix socket's name that is longer than any or of no kind.
    #[error("the unix socket's name is none")]
    Name,
    /// A name in TLS that is longer than any.
    #[error("the name in TLS is too long")]
    Sni,
}

/// One record of the ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// What every denial says.
    pub event: Event,
    /// The path of a unix socket, or `@` and its abstract name; any bytes. `None`: the
    /// denial is of something else.
    pub unix: Option<Vec<u8>>,
    /// A connection that was refused for its name.
    pub sni: Option<Stranger>,
}

/// A connection that was refused for its name, or for having none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stranger {
    /// The name that was said, in lower case; any bytes. Empty: none could be read.
    pub name: Vec<u8>,
    /// The socket's cookie.
    pub cookie: u64,
    /// Its own address.
    pub source: Addr,
    /// Its own port.
    pub source_port: u16,
}

/// Reads one record. The address comes out in canonical form, or all zero where the hook
/// had none.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.len() == size_of::<UnixEvent>()
        && let Some((event, key)) = bytes.split_at_checked(offset_of!(UnixEvent, key))
    {
        return Ok(Decoded {
            event: checked(event)?,
            unix: Some(name(key).ok_or(DecodeError::Name)?),
            sni: None,
        });
    }
    if bytes.len() == size_of::<SniEvent>()
        && let Some((event, _)) = bytes.split_at_checked(size_of::<Event>())
    {
        return Ok(Decoded {
            event: checked(event)?,
            unix: None,
            sni: Some(stranger(bytes)?),
        });
    }
    checked(bytes).map(|event| Decoded {
        event,
        unix: None,
        sni: None,
    })
}

/// What a record about a name has beside the event. The name stands back to front.
fn stranger(bytes: &[u8]) -> Result<Stranger, DecodeError> {
    let length = DecodeError::Length(bytes.len());
    let len = u16::from_ne_bytes(field(bytes, offset_of!(SniEvent, name_len)).ok_or(length)?);
    if usize::from(len) >= NAME_ROOM {
        return Err(DecodeError::Sni);
    }
    if field(bytes, offset_of!(SniEvent, pad)) != Some([0; 4]) {
        return Err(DecodeError::Padding);
    }
    let name = bytes.get(offset_of!(SniEvent, name) + offset_of!(NameKey, name)..);
    let name = name.and_then(|name| name.get(..len.into())).ok_or(length)?;
    Ok(Stranger {
        name: name.iter().rev().copied().collect(),
        cookie: u64::from_ne_bytes(field(bytes, offset_of!(SniEvent, cookie)).ok_or(length)?),
        source: address(field(bytes, offset_of!(SniEvent, source)).ok_or(length)?),
        source_port: u16::from_ne_bytes(
            field(bytes, offset_of!(SniEvent, source_port)).ok_or(length)?,
        ),
    })
}

/// The name, as policies write it. Empty where the hook could not read it.
fn name(key: &[u8]) -> Option<Vec<u8>> {
    let kind = u16::from_ne_bytes(field(key, offset_of!(UnixKey, kind))?);
    let len = u16::from_ne_bytes(field(key, offset_of!(UnixKey, len))?).into();
    let name = key.get(offset_of!(UnixKey, name)..)?.get(..len)?;
    if len > UNIX_NAME_MAX {
        return None;
    }
    match kind {
        0 | UnixKey::PATH => Some(name.to_owned()),
        UnixKey::ABSTRACT => Some([b"@", name].concat()),
        _ => None,
    }
}

fn checked(bytes: &[u8]) -> Result<Event, DecodeError> {
    let event = fields(bytes).ok_or(DecodeError::Length(bytes.len()))?;
    if Layer::from_code(event.layer).is_none() {
        return Err(DecodeError::Layer(event.layer));
    }
    if matches!(Reason::from_code(event.reason), None | Some(Reason::None)) {
        return Err(DecodeError::Reason(event.reason));
    }
    if !matches!(
        Action::from_code(event.action),
        Some(Action::Deny | Action::Audit)
    ) {
        return Err(DecodeError::Action(event.action));
    }
    if event.count == 0 {
        return Err(DecodeError::Count);
    }
    if event.connector >= MAX_CONNECTORS {
        return Err(DecodeError::Connector(event.connector));
    }
    if event.rule >= MAX_RULES {
        return Err(DecodeError::Rule(event.rule));
    }
    if event.pad != 0 {
        return Err(DecodeError::Padding);
    }
    Ok(event)
}

fn fields(bytes: &[u8]) -> Option<Event> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    Some(Event {
        time_ns: u64::from_ne_bytes(field(bytes, offset_of!(Event, time_ns))?),
        addr: address(field(bytes, offset_of!(Event, addr))?),
        connector: u32::from_ne_bytes(field(bytes, offset_of!(Event, connector))?),
        pid: u32::from_ne_bytes(field(bytes, offset_of!(Event, pid))?),
        tid: u32::from_ne_bytes(field(bytes, offset_of!(Event, tid))?),
        uid: u32::from_ne_bytes(field(bytes, offset_of!(Event, uid))?),
        rule: u32::from_ne_bytes(field(bytes, offset_of!(Event, rule))?),
        count: u32::from_ne_bytes(field(bytes, offset_of!(Event, count))?),
        port: u16::from_ne_bytes(field(bytes, offset_of!(Event, port))?),
        protocol: u8::from_ne_bytes(field(bytes, offset_of!(Event, protocol))?),
        layer: u8::from_ne_bytes(field(bytes, offset_of!(Event, layer))?),
        reason: u8::from_ne_bytes(field(bytes, offset_of!(Event, reason))?),
        action: u8::from_ne_bytes(field(bytes, offset_of!(Event, action))?),
        family: u8::from_ne_bytes(field(bytes, offset_of!(Event, family))?),
        pad: u8::from_ne_bytes(field(bytes, offset_of!(Event, pad))?),
        comm: field(bytes, offset_of!(Event, comm))?,
    })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// All zero means that there is no address; the canonical form never is all zero.
fn address(octets: [u8; 16]) -> Addr {
    if octets == [0; 16] {
        return Addr { halves: [0, 0] };
    }
    Addr::from_octets(octets)
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        reason = "a test stops at its first fault"
    )]

    use proptest::prelude::*;

    use super::*;

    /// The bytes as the kernel writes them, by hand and independent of `offset_of!`.
    pub(crate) fn encode(event: &Event) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(event.time_ns.to_ne_bytes());
        bytes.extend(event.addr.halves[0].to_ne_bytes());
        bytes.extend(event.addr.halves[1].to_ne_bytes());
        for word in [
            event.connector,
            event.pid,
            event.tid,
            event.uid,
            event.rule,
            event.count,
        ] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(event.port.to_ne_bytes());
        bytes.extend([
            event.protocol,
            event.layer,
            event.reason,
            event.action,
            event.family,
            event.pad,
        ]);
        bytes.extend(event.comm);
        bytes
    }

    pub(crate) fn sample() -> Event {
        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"node");
        Event {
            time_ns: 1_000_000_007,
            addr: Addr::from_v4(0xcb00_7107),
            connector: 3,
            pid: 4242,
            tid: 4243,
            uid: 1000,
            rule: 0,
            count: 1,
            port: 443,
            protocol: 6,
            layer: Layer::Connect.code(),
            reason: Reason::NoRule.code(),
            action: Action::Deny.code(),
            family: 2,
            pad: 0,
            comm,
        }
    }

    fn broken(change: impl Fn(&mut Event)) -> DecodeError {
        let mut event = sample();
        change(&mut event);
        decode(&encode(&event)).unwrap_err()
    }

    #[test]
    fn every_check() {
        assert_eq!(decode(&encode(&sample())).unwrap().event, sample());
        assert_eq!(broken(|e| e.layer = 0), DecodeError::Layer(0));
        assert_eq!(broken(|e| e.layer = 200), DecodeError::Layer(200));
        assert_eq!(broken(|e| e.reason = 0), DecodeError::Reason(0));
        assert_eq!(broken(|e| e.reason = 255), DecodeError::Reason(255));
        for action in [Action::Allow, Action::Redirect] {
            let code = action.code();
            assert_eq!(broken(|e| e.action = code), DecodeError::Action(code));
        }
        assert_eq!(broken(|e| e.count = 0), DecodeError::Count);
        assert_eq!(
            broken(|e| e.connector = MAX_CONNECTORS),
            DecodeError::Connector(MAX_CONNECTORS)
        );
        assert_eq!(broken(|e| e.rule = MAX_RULES), DecodeError::Rule(MAX_RULES));
        assert_eq!(broken(|e| e.pad = 1), DecodeError::Padding);
        assert_eq!(decode(&[]), Err(DecodeError::Length(0)));
        assert_eq!(decode(&[0; 73]), Err(DecodeError::Length(73)));
    }

    #[test]
    fn addresses_come_out_canonical() {
        let mut event = sample();
        event.addr = Addr { halves: [0, 0] };
        assert_eq!(decode(&encode(&event)).unwrap().event.addr, event.addr);
        // ::ffff:0.0.0.0, which canonical code never writes.
        event.addr.halves = [0, 0x0000_ffff_0000_0000_u64.to_be()];
        assert!(decode(&encode(&event)).unwrap().event.addr.is_loopback());
    }

    /// The record of a unix socket, by hand as well.
    pub(crate) fn encode_unix(event: &Event, kind: u16, name: &[u8]) -> Vec<u8> {
        let mut bytes = encode(event);
        bytes.extend(event.connector.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(u16::try_from(name.len()).unwrap().to_ne_bytes());
        bytes.extend(name);
        bytes.resize(192, 0);
        bytes
    }

    #[test]
    fn unix_names() {
        let mut event = sample();
        event.layer = Layer::Unix.code();
        let read = |kind, name: &[u8]| decode(&encode_unix(&event, kind, name));
        let name = |kind, name: &[u8]| read(kind, name).unwrap().unix.unwrap();
        assert_eq!(name(1, b"/run/docker.sock"), b"/run/docker.sock");
        assert_eq!(name(2, b"a\0b"), b"@a\0b");
        assert_eq!(name(2, b""), b"@");
        assert_eq!(name(0, b""), b"");
        assert_eq!(name(1, &[b'a'; 108]).len(), 108);
        assert_eq!(read(1, &[b'a'; 109]), Err(DecodeError::Name));
        assert_eq!(read(3, b"a"), Err(DecodeError::Name));
        let mut bytes = encode_unix(&event, 1, b"/a");
        bytes[78..80].copy_from_slice(&u16::MAX.to_ne_bytes());
        assert_eq!(decode(&bytes), Err(DecodeError::Name));
    }

    /// The record of a refused name, by hand as well.
    pub(crate) fn encode_sni(event: &Event, name: &[u8]) -> Vec<u8> {
        let mut bytes = encode(event);
        bytes.extend(77_u64.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([0xff, 0xff, 10, 0, 0, 1]);
        bytes.extend(40_000_u16.to_ne_bytes());
        bytes.extend(u16::try_from(name.len()).unwrap().to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(name.iter().rev());
        bytes.resize(360, 0);
        bytes
    }

    #[test]
    fn names_in_tls() {
        let mut event = sample();
        event.layer = Layer::Sni.code();
        event.reason = Reason::SniStranger.code();
        let read = |name: &[u8]| decode(&encode_sni(&event, name)).map(|it| it.sni.unwrap());
        let stranger = read(b"giftshop.club").unwrap();
        assert_eq!(stranger.name, b"giftshop.club");
        assert_eq!((stranger.cookie, stranger.source_port), (77, 40_000));
        assert_eq!(stranger.source, Addr::from_v4(0x0a00_0001));
        assert_eq!(read(b"").unwrap().name, b"");
        assert_eq!(read(&[b'a'; 253]).unwrap().name.len(), 253);
        let mut bytes = encode_sni(&event, b"a");
        bytes[98..100].copy_from_slice(&254_u16.to_ne_bytes());
        assert_eq!(decode(&bytes), Err(DecodeError::Sni));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(decoded) = decode(&bytes) {
                prop_assert!(decoded.event.count >= 1);
                let size = match (decoded.unix, decoded.sni) {
                    (Some(_), _) => 192,
                    (_, Some(_)) => 360,
                    _ => 72,
                };
                prop_assert_eq!(bytes.len(), size);
            }
        }

        #[test]
        fn what_is_read_is_what_was_written(
            mut bytes in proptest::collection::vec(any::<u8>(), 72),
            layer in 0..Layer::ALL.len(), reason in 1..Reason::ALL.len(), audit: bool,
        ) {
            bytes[51] = Layer::ALL[layer].code();
            bytes[52] = Reason::ALL[reason].code();
            bytes[53] = if audit { Action::Audit.code() } else { Action::Deny.code() };
            bytes[55] = 0;
            for (at, limit) in [(24, MAX_CONNECTORS), (40, MAX_RULES)] {
                let word = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) % limit;
                bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            }
            bytes[44] |= 1;
            let event = decode(&bytes).unwrap().event;
            let mut expected = bytes.clone();
            let octets = event.addr.octets();
            if expected[8..24] != [0; 16] {
                prop_assert_eq!(event.addr, Addr::from_octets(expected[8..24].try_into().unwrap()));
            }
            expected[8..24].copy_from_slice(&octets);
            prop_assert_eq!(encode(&event), expected);
        }
    }
}
