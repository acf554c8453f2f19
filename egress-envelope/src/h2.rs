//! Requests in HTTP/2 (RFC 9113), read as strictly as those in HTTP/1.1: whoever reads a request
//! behind a gateway that writes it in HTTP/1.1 has to read the same.

use crate::{
    h1::{MAX_FIELDS, MAX_HEAD, authority, field, once, plain_method, target_parts, two},
    head::{Framing, Head, Version},
    judge::Refusal,
};

/// Fields that belong to a connection in HTTP/1.1, and to nothing in HTTP/2 (RFC 9113 section
/// 8.2.2).
const NOT_HERE: [&str; 6] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// The head of a stream. `fields`: names in lower case and values as they came, without the pseudo
/// fields. `end_stream`: there is no body.
pub fn from_pseudo<'a>(
    method: &str,
    scheme: Option<&str>,
    authority_said: Option<&str>,
    path: &str,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    end_stream: bool,
) -> Result<Head, Refusal> {
    plain_method(method)?;
    if scheme != Some("https") && method != "CONNECT" {
        return Err(two("a scheme that is not https"));
    }
    let mut bytes = method.len().saturating_add(path.len());
    let mut read = Vec::new();
    for (name, value) in fields {
        bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
        if bytes > MAX_HEAD {
            return Err(two("a head that is too long"));
        }
        if read.len() >= MAX_FIELDS {
            return Err(two("too many fields"));
        }
        let value = std::str::from_utf8(value).map_err(|_| two("a head that is not UTF-8"))?;
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(two("a field's name"));
        }
        let read_field = field(name, value)?;
        let odd_te = read_field.0 == "te" && read_field.1 != "trailers";
        if NOT_HERE.contains(&name) || odd_te {
            return Err(two(name));
        }
        read.push(read_field);
    }
    once(&read)?;
    // With a scheme it is no path, as HTTP/1.1 has it.
    let (_, path, query) = match path.starts_with('/') || path == "*" || method == "CONNECT" {
        true => target_parts(method, path)?,
        false => return Err(two("a target that is no path")),
    };
    let mut hosts = read.iter().filter(|(name, _)| name == "host");
    let host = hosts.next().map(|(_, host)| authority(host)).transpose()?;
    if hosts.next().is_some() {
        return Err(two("several Hosts"));
    }
    let said = authority_said.map(authority).transpose()?;
    let whom = match (said, host) {
        (Some(said), Some(host)) if said != host => {
            return Err(two("an authority for another host than Host"));
        }
        (Some(whom), _) | (None, Some(whom)) => whom,
        (None, None) => return Err(two("no authority")),
    };
    let value = |name: &str| {
        let found = read.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    };
    let framing = framing(method, value("content-length"), end_stream)?;
    let expect_continue = match value("expect") {
        None => false,
        Some(expect) if expect.eq_ignore_ascii_case("100-continue") => true,
        Some(_) => return Err(two("an expectation that is not known")),
    };
    read.retain(|(name, _)| name != "host");
    Ok(Head {
        version: Version::Http2,
        method: method.to_owned(),
        authority: whom,
        path: path.to_owned(),
        query: query.map(str::to_owned),
        fields: read,
        framing,
        expect_continue,
        upgrade: None,
    })
}

/// RFC 9113 section 8.1.1: a length that is said is the length of all data.
fn framing(method: &str, length: Option<&str>, end_stream: bool) -> Result<Framing, Refusal> {
    let framing = match length {
        None if end_stream => return Ok(Framing::None),
        None => Framing::Stream,
        Some(length) => {
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            let length = length.parse().ok().filter(|_| digits);
            Framing::Length(length.ok_or_else(|| two("a length that is no number"))?)
        }
    };
    match framing {
        Framing::Length(1..) if end_stream => Err(two("a length without a body")),
        Framing::Length(0) => Ok(framing),
        _ if matches!(method, "GET" | "HEAD" | "TRACE") => Err(two("a body where none belongs")),
        _ => Ok(framing),
    }
}

#[cfg(test)]
#[path = "h2_tests.rs"]
mod tests;
