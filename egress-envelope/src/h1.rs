//! Requests in HTTP/1.1 (RFC 9112), read strictly: what two servers could read in two ways is
//! refused. What is sent on is written from what was read.

use crate::{
    head::{self, Authority, Framing, Head, Version},
    judge::{Reason, Refusal},
};

/// Longest head. Bytes.
pub const MAX_HEAD: usize = 64 << 10;
/// Most fields.
pub(crate) const MAX_FIELDS: usize = 200;
/// Longest line of a chunk's size, and of all trailers. Bytes.
const MAX_TRAILERS: usize = 8 << 10;

/// Fields that say the same when they stand twice, or two things.
const ONCE: [&str; 8] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "transfer-encoding",
    "upgrade",
];
/// Fields by which some servers take a request for another one.
const OVERRIDES: [&str; 21] = [
    "forwarded",
    // CGI programs take it for their own proxy (CVE-2016-5385).
    "proxy",
    "x-envoy-original-path",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-http-path-override",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-uri",
    "x-rewrite-url",
];
/// What `Connection` may list; other names would take fields away that were judged.
const OPTIONS: [&str; 5] = ["close", "http2-settings", "keep-alive", "te", "upgrade"];

pub(crate) fn two(what: &str) -> Refusal {
    Refusal {
        reason: Reason::TwoReadings,
        place: Some(what.to_owned()),
        value: None,
    }
}

/// Reads a head. `None`: more is needed. Answers how many bytes it took, too.
pub fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
    // An empty line may come before it (RFC 9112 section 2.2).
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let all = bytes.get(start..).unwrap_or_default();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n");
    let whole = all.get(..end.unwrap_or(all.len())).unwrap_or_default();
    if whole.len() > MAX_HEAD {
        return Err(two("a head that is too long"));
    }
    let Some(end) = end else {
        return Ok(None);
    };
    let text = std::str::from_utf8(whole).map_err(|_| two("a head that is not UTF-8"))?;
    let mut lines = text.split("\r\n");
    let (method, target, version) = request_line(lines.next().unwrap_or_default())?;
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = halves(line)?;
        fields.push(field(name, value)?);
        if fields.len() > MAX_FIELDS {
            return Err(two("too many fields"));
        }
    }
    once(&fields)?;
    let (absolute, path, query) = target_parts(method, target)?;
    let mut hosts = fields.iter().filter(|(name, _)| name == "host");
    let host = match (hosts.next(), hosts.next()) {
        (Some((_, host)), None) => authority(host)?,
        (None, _) => return Err(two("no Host")),
        (Some(_), Some(_)) => return Err(two("several Hosts")),
    };
    if absolute.is_some_and(|absolute| absolute != host) {
        return Err(two("a target for another host than Host"));
    }
    let value = |name: &str| {
        let found = fields.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.clone())
    };
    let framing = framing(
        method,
        version,
        value("content-length"),
        value("transfer-encoding"),
    )?;
    let expect_continue = match value("expect") {
        None => false,
        Some(expect) if expect.eq_ignore_ascii_case("100-continue") => version == Version::Http11,
        Some(_) => return Err(two("an expectation that is not known")),
    };
    let options = value("connection").unwrap_or_default().to_ascii_lowercase();
    let mut options = options
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty());
    if !options.all(|option| OPTIONS.contains(&option)) {
        return Err(two("a field that Connection takes away"));
    }
    let upgrade = value("upgrade");
    fields.retain(|(name, _)| name != "host");
    let head = Head {
        version,
        method: method.to_owned(),
        authority: host,
        path: path.to_owned(),
        query: query.map(str::to_owned),
        fields,
        framing,
        expect_continue,
        upgrade,
    };
    Ok(Some((head, start.saturating_add(end).saturating_add(4))))
}

/// `GET /path HTTP/1.1`, with one blank between each.
fn request_line(line: &str) -> Result<(&str, &str, Version), Refusal> {
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(two("a first line that is no request"));
    };
    plain_method(method)?;
    let version = match version {
        "HTTP/1.1" => Version::Http11,
        "HTTP/1.0" => Version::Http10,
        _ => return Err(two("a version that is not HTTP/1")),
    };
    Ok((method, target, version))
}

/// A method that every server reads as it is written, and that gives nothing away.
pub(crate) fn plain_method(method: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
    if method.is_empty() || !method.bytes().all(plain) {
        return Err(two("a method that is not in capitals"));
    }
    if matches!(method, "TRACE" | "TRACK") {
        return Err(two("a method that gives back what it was sent"));
    }
    Ok(())
}

/// Name and value of a field's line.
fn halves(line: &str) -> Result<(&str, &str), Refusal> {
    line.split_once(':')
        .ok_or_else(|| two("a field without a colon"))
}

/// A name in lower case, and its value without blanks around it.
pub(crate) fn field(name: &str, value: &str) -> Result<(String, String), Refusal> {
    // Blanks before the colon or the name are refused with that, and so is a folded line.
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(two("a field's name"));
    }
    if value
        .bytes()
        .any(|byte| byte.is_ascii_control() && byte != b'\t')
    {
        return Err(two("control characters in a field"));
    }
    let name = name.to_ascii_lowercase();
    let dashed = head::dashed(&name);
    let matters = dashed == "host" || ONCE.contains(&dashed.as_str());
    if OVERRIDES.contains(&dashed.as_str()) || (matters && dashed != name) {
        return Err(two(&name));
    }
    Ok((name, value.trim_matches([' ', '\t']).to_owned()))
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(crate) fn once(fields: &[(String, String)]) -> Result<(), Refusal> {
    for name in ONCE {
        if fields.iter().filter(|(own, _)| own == name).count() > 1 {
            return Err(two(name));
        }
    }
    Ok(())
}

/// The authority of the absolute form, the path and the query.
pub(crate) fn target_parts<'a>(
    method: &str,
    target: &'a str,
) -> Result<(Option<Authority>, &'a str, Option<&'a str>), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal {
            reason: Reason::Upgrade,
            place: None,
            value: Some("CONNECT".to_owned()),
        });
    }
    // What browsers and node leave as it is stays: more in queries than in paths.
    let (before, after) = target.split_once('?').unwrap_or((target, ""));
    let odd = |byte: u8| !byte.is_ascii_graphic() || b"\"#<>".contains(&byte);
    let odder = |byte: u8| odd(byte) || b"\\^`{}".contains(&byte);
    if before.bytes().any(odder) || after.bytes().any(odd) {
        return Err(two("a target with characters that do not belong there"));
    }
    let (absolute, rest) = match before.split_once("://").and(target.split_once("://")) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, rest) = rest.split_at(end);
            (Some(authority(host)?), rest)
        }
        _ => (None, target),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = if path.is_empty() && absolute.is_some() {
        "/"
    } else {
        path
    };
    if !(path.starts_with('/') || (path == "*" && method == "OPTIONS" && query.is_none())) {
        return Err(two("a target that is no path"));
    }
    plain_path(path)?;
    Ok((absolute, path, query))
}

/// A path that every server takes for the same: without segments that are taken away, and without
/// escapes of what needs none (RFC 3986 section 6.2.2).
fn plain_path(path: &str) -> Result<(), Refusal> {
    // What an escaped slash parts is judged with the table; here, that no way leads up.
    let slashes = path.replace("%2f", "/").replace("%2F", "/");
    let mut segments = slashes.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let bare = segment.split(';').next().unwrap_or_default();
        if bare == "." || bare == ".." || (bare.is_empty() && segments.peek().is_some()) {
            return Err(two("a path with segments that are taken away"));
        }
    }
    let mut parts = path.split('%');
    parts.next();
    for escape in parts {
        let byte = escape
            .get(..2)
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        let Some(byte) = byte.filter(|_| !escape.starts_with('+')) else {
            return Err(two("an escape in the path that is none"));
        };
        let needless = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        // Servers that read escapes first see other segments, and those that read twice others again.
        let after = escape.get(2..).unwrap_or_default().as_bytes();
        let twice = byte == b'%'
            && after
                .iter()
                .take(2)
                .filter(|it| it.is_ascii_hexdigit())
                .count()
                == 2;
        if needless || twice || byte.is_ascii_control() || byte == b'\\' {
            return Err(two("an escape in the path"));
        }
    }
    Ok(())
}

/// `host` or `host:port`; no user, no address in brackets: what is inspected has a name.
pub(crate) fn authority(text: &str) -> Result<Authority, Refusal> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || !host.bytes().all(named) {
        return Err(two("a Host that is no name"));
    }
    let port = match port {
        None => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port.parse().map_err(|_| two("a port that is none"))?)
        }
        Some(_) => return Err(two("a port that is none")),
    };
    let host = host.to_ascii_lowercase();
    Ok(Authority { host, port })
}

/// RFC 9112 section 6.
fn framing(
    method: &str,
    version: Version,
    length: Option<String>,
    coding: Option<String>,
) -> Result<Framing, Refusal> {
    let framing = match (length, coding) {
        (None, None) => return Ok(Framing::None),
        (Some(_), Some(_)) => return Err(two("a length and chunks")),
        (Some(length), None) => {
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            let length = length.parse().ok().filter(|_| digits);
            Framing::Length(length.ok_or_else(|| two("a length that is no number"))?)
        }
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        (None, Some(_)) => return Err(two("a transfer encoding that is not known")),
    };
    if framing == Framing::Chunked && version == Version::Http10 {
        return Err(two("chunks in HTTP/1.0"));
    }
    if matches!(method, "GET" | "HEAD" | "TRACE") && framing != Framing::Length(0) {
        return Err(two("a body where none belongs"));
    }
    Ok(framing)
}

/// Writes a head as it was judged, in HTTP/1.1. What belongs to one connection is the caller's: of
/// `fields`, those that say where the body ends are left out, and `framing` says it.
pub fn write_head(head: &Head, out: &mut Vec<u8>) {
    let mut line = |parts: &[&str]| {
        parts.iter().for_each(|part| out.extend(part.as_bytes()));
        out.extend(b"\r\n");
    };
    match &head.query {
        Some(query) => line(&[&head.method, " ", &head.path, "?", query, " HTTP/1.1"]),
        None => line(&[&head.method, " ", &head.path, " HTTP/1.1"]),
    }
    match head.authority.port {
        Some(port) => line(&["host: ", &head.authority.host, ":", &port.to_string()]),
        None => line(&["host: ", &head.authority.host]),
    }
    for (name, value) in &head.fields {
        if !matches!(
            name.as_str(),
            "host" | "content-length" | "transfer-encoding"
        ) {
            line(&[name, ": ", value]);
        }
    }
    match head.framing {
        Framing::Length(length) => line(&["content-length: ", &length.to_string()]),
        Framing::Chunked | Framing::Stream => line(&["transfer-encoding: chunked"]),
        Framing::None => {}
    }
    line(&[]);
}

/// A body in chunks (RFC 9112 section 7.1), without extensions.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers(usize),
}

/// What comes next in the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chunk {
    /// More is needed.
    More,
    /// So many bytes at its beginning were read and hold no data.
    Skip(usize),
    /// So many bytes at its beginning are data.
    Data(usize),
    /// So many bytes at its beginning are the end. Trailers are read and dropped.
    End(usize),
}

impl Chunks {
    /// At the beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on. The input's beginning is what was not used before.
    pub fn next(&mut self, input: &[u8]) -> Result<Chunk, Refusal> {
        if let State::Data(left) = &mut self.state {
            let len = input
                .len()
                .min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left = left.saturating_sub(u64::try_from(len).unwrap_or(u64::MAX));
            if *left == 0 {
                self.state = State::DataEnd;
            }
            return Ok(if len == 0 {
                Chunk::More
            } else {
                Chunk::Data(len)
            });
        }
        let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
            return match input.len() > MAX_TRAILERS {
                true => Err(two("a chunk's line that is too long")),
                false => Ok(Chunk::More),
            };
        };
        let line = input.get(..end).unwrap_or_default();
        let used = end.saturating_add(2);
        match &mut self.state {
            State::Size => {
                let digits = !line.is_empty() && line.len() <= 15;
                let digits = digits && line.iter().all(u8::is_ascii_hexdigit);
                let size = std::str::from_utf8(line).ok().filter(|_| digits);
                let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
                self.state = match size.ok_or_else(|| two("a chunk's size"))? {
                    0 => State::Trailers(0),
                    size => State::Data(size),
                };
            }
            State::DataEnd if line.is_empty() => self.state = State::Size,
            State::DataEnd | State::Data(_) => return Err(two("a chunk that is longer")),
            State::Trailers(_) if line.is_empty() => return Ok(Chunk::End(used)),
            State::Trailers(bytes) => {
                *bytes = bytes.saturating_add(used);
                if *bytes > MAX_TRAILERS {
                    return Err(two("too many trailers"));
                }
                let (name, value) =
                    halves(std::str::from_utf8(line).map_err(|_| two("a trailer"))?)?;
                field(name, value)?;
            }
        }
        Ok(Chunk::Skip(used))
    }
}
