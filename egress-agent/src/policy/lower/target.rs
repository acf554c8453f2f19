//! Destinations: host names, addresses, prefixes, unix sockets, and the short forms.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::policy::{
    fault::{Complaint, quote},
    model::{PortSpan, Protocols, Target},
    name::{HostPattern, Name, NameError},
};

use super::ports;

/// What a short form says.
#[derive(Clone, PartialEq, Debug)]
pub struct Short {
    /// Host or address.
    pub target: Target,
    /// The port.
    pub port: PortSpan,
    /// What stands behind the slash, if there is one.
    pub protocols: Option<Protocols>,
}

/// Reads `host:port`, `*.domain:port`, `address:port` or `[address]:port`, with `/tcp`,
/// `/udp` or `/any` behind it if need be.
pub fn short(text: &str) -> Result<Short, Complaint> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(url(text, scheme, rest));
    }
    if text.starts_with("unix:") || text.starts_with('/') || text.starts_with('@') {
        return Err(Complaint::new(
            format!("{} is no network destination", quote(text)),
            "write a unix socket as a mapping: “unix: /path/to/socket”",
        ));
    }
    let (dest, protocols) = match text.rsplit_once('/') {
        Some((dest, word)) => (dest, Some(protocol(text, word)?)),
        None => (text, None),
    };
    let (host_text, port) = split_port(dest)?;
    Ok(Short {
        target: host(host_text)?,
        port: ports::single(port)?,
        protocols,
    })
}

fn protocol(text: &str, word: &str) -> Result<Protocols, Complaint> {
    match word {
        "tcp" => Ok(Protocols::TCP),
        "udp" => Ok(Protocols::UDP),
        "any" => Ok(Protocols::ANY),
        _ if word.starts_with(|c: char| c.is_ascii_digit()) => Err(Complaint::new(
            format!("{} looks like an address prefix", quote(text)),
            "write a prefix as a mapping: “cidr: 10.20.0.0/16” with “ports: [443]”",
        )),
        _ => Err(Complaint::new(
            format!("{} is no protocol", quote(word)),
            "write “/tcp”, “/udp” or “/any” after the port, or nothing for TCP; a path of a web \
             address has no place in a rule",
        )),
    }
}

fn url(text: &str, scheme: &str, rest: &str) -> Complaint {
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let port = match scheme {
        "http" | "ws" => 80,
        _ => 443,
    };
    let fit = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    };
    Complaint::new(
        format!("{} is a web address", quote(text)),
        format!("write host and port only, such as {}", quote(&fit)),
    )
}

/// Splits the port off; the brackets of an IPv6 address stay with the address.
fn split_port(text: &str) -> Result<(&str, &str), Complaint> {
    if text.starts_with('[') {
        return text.rsplit_once("]:").map_or_else(
            || Err(no_port(text)),
            |(inner, port)| Ok((inner.trim_start_matches('['), port)),
        );
    }
    match text.rsplit_once(':') {
        None => Err(no_port(text)),
        Some((host, _)) if host.contains(':') => Err(Complaint::new(
            format!("{} does not tell address and port apart", quote(text)),
            "write an IPv6 address in brackets, such as “[2001:db8::1]:443”",
        )),
        Some(parts) => Ok(parts),
    }
}

fn no_port(text: &str) -> Complaint {
    let fit = text.trim_end_matches(':');
    Complaint::new(
        format!("{} has no port", quote(text)),
        format!(
            "write it with a port, such as {}",
            quote(&format!("{fit}:443"))
        ),
    )
}

/// Reads a host: a name, a wildcard, or an address, which becomes a full-length prefix.
pub fn host(text: &str) -> Result<Target, Complaint> {
    if text.is_empty() {
        return Err(Complaint::new(
            "the host is empty",
            "write a host name or an address",
        ));
    }
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(addr) = inner.parse::<IpAddr>() {
        return address(addr).map(Target::Cidr);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(url(text, scheme, rest));
    }
    if inner.contains(':') || inner.contains('%') {
        return Err(Complaint::new(
            format!("{} is neither a host name nor an address", quote(text)),
            "write the host alone, ports under “ports:”, and an IPv6 address without a zone",
        ));
    }
    if text.contains('/') {
        return Err(Complaint::new(
            format!("{} is no host name", quote(text)),
            "write the host alone; an address prefix goes under “cidr:”",
        ));
    }
    pattern(text).map(Target::Host)
}

fn pattern(text: &str) -> Result<HostPattern, Complaint> {
    let Some(parent) = text.strip_prefix("*.") else {
        if text.contains('*') {
            return Err(wildcard(text));
        }
        return name(text).map(HostPattern::Exact);
    };
    if parent.contains('*') {
        return Err(wildcard(text));
    }
    let parent = name(parent)?;
    if !parent.as_str().contains('.') {
        return Err(Complaint::new(
            format!("{} would permit a whole top-level domain", quote(text)),
            "name the domain below it, such as “*.example.org”",
        ));
    }
    Ok(HostPattern::Below(parent))
}

fn wildcard(text: &str) -> Complaint {
    Complaint::new(
        format!("{} is no usable wildcard", quote(text)),
        "write “*.” once, in front of a domain of two or more labels, such as “*.example.org”; \
         for every public host there is “internet: [443]” with “why:”",
    )
}

fn name(text: &str) -> Result<Name, Complaint> {
    if let Some(c) = text.chars().find(|c| c.is_control() || c.is_whitespace()) {
        return Err(Complaint::new(
            format!("the host {} contains {}", quote(text), spoken(c)),
            "write the name without blanks or control characters",
        ));
    }
    let name = Name::parse(text).map_err(|error| {
        let help = match error {
            NameError::Empty => "write a host name",
            NameError::TooLong => "write a name of at most 253 bytes",
            NameError::Label => "write labels of 1 to 63 bytes with one dot between them",
            NameError::Character => "write letters, digits, “-”, “_” and dots only",
            NameError::Idna => "write the name as a browser shows it, or its “xn--” form",
        };
        Complaint::new(format!("the host {} {error}", quote(text)), help)
    })?;
    let last = name.as_str().rsplit('.').next().unwrap_or_default();
    if is_number(last) {
        return Err(Complaint::new(
            format!("{} looks like an address but is none", quote(text)),
            "write four decimal numbers without leading zeros, such as “192.0.2.7”",
        ));
    }
    if last == "localhost" {
        return Err(Complaint::new(
            format!("{} never goes through DNS", quote(text)),
            "write the address the program uses: “127.0.0.1:port” or “[::1]:port”",
        ));
    }
    Ok(name)
}

/// Whether a label makes `getaddrinfo` (inet_aton) take a name for an IPv4 address.
fn is_number(label: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match label.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => digits(label),
    }
}

fn spoken(c: char) -> String {
    match c {
        '\0' => "a NUL byte".into(),
        ' ' => "a blank".into(),
        '\t' => "a tab".into(),
        '\n' | '\r' => "a line break".into(),
        _ => format!("the character U+{:04X}", u32::from(c)),
    }
}

/// The prefix of one address, IPv4-mapped ones as IPv4.
fn address(addr: IpAddr) -> Result<IpNet, Complaint> {
    if addr.is_unspecified() {
        return Err(Complaint::new(
            format!("{addr} means this host itself"),
            "write the loopback address the program uses, 127.0.0.1 or ::1",
        ));
    }
    Ok(IpNet::from(addr.to_canonical()))
}

/// Reads an address prefix; an address alone is a prefix of full length.
pub(super) fn cidr(text: &str) -> Result<IpNet, Complaint> {
    const HELP: &str = "write an address prefix such as “10.20.0.0/16” or “2001:db8::/32”";
    if let Ok(addr) = text.parse::<IpAddr>() {
        return address(addr);
    }
    let written: IpNet = text
        .parse()
        .map_err(|_| Complaint::new(format!("{} is no address prefix", quote(text)), HELP))?;
    let normal = unmapped(written.trunc());
    if written.trunc() != written {
        return Err(Complaint::new(
            format!("{} has bits set behind its prefix length", quote(text)),
            format!(
                "write “{normal}”, or “{}” for the address alone",
                written.addr()
            ),
        ));
    }
    if normal.prefix_len() == normal.max_prefix_len() {
        return address(normal.addr());
    }
    Ok(normal)
}

/// An IPv4-mapped prefix as the IPv4 prefix it is.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else {
        return net;
    };
    mapped(v6).map_or(net, IpNet::V4)
}

fn mapped(net: Ipv6Net) -> Option<Ipv4Net> {
    let v4 = net.addr().to_ipv4_mapped()?;
    Ipv4Net::new(v4, net.prefix_len().checked_sub(96)?).ok()
}

/// Reads the path of a unix socket, or `@` and an abstract name.
pub fn unix(text: &str) -> Result<String, Complaint> {
    /// `sun_path` in `include/uapi/linux/un.h`, less the NUL or the abstract marker.
    const MAX: usize = 107;
    let fail = |message: &str, help: &str| {
        Err(Complaint::new(
            format!("the unix socket {} {message}", quote(text)),
            help,
        ))
    };
    if text.chars().any(char::is_control) {
        return fail("contains a control character", "write the path without it");
    }
    if text.starts_with('~') {
        return fail("begins with “~”", "write “$HOME/…”, or the whole path");
    }
    if text.contains('$') {
        return fail(
            "has a variable in it",
            "a variable stands in front alone: “$SSH_AUTH_SOCK”, “$DBUS_SESSION_BUS_ADDRESS”, \
             “$XDG_RUNTIME_DIR/…”, “$HOME/…”; write the rest as it is",
        );
    }
    if text.contains(['*', '?', '[']) {
        return fail(
            "is a pattern, and none is matched: who can make a file could make one that fits",
            "write the whole path; for a socket that has another one in each session write the \
             variable that names it, such as “$SSH_AUTH_SOCK”",
        );
    }
    if text.len() > MAX + usize::from(text.starts_with('@')) {
        return fail(
            "is longer than 107 bytes",
            "no unix socket has so long a name",
        );
    }
    if let Some(name) = text.strip_prefix('@') {
        if name.is_empty() {
            return fail("has no name", "write “@” and the abstract name");
        }
        return Ok(text.to_owned());
    }
    if !text.starts_with('/') {
        return fail(
            "is no absolute path",
            "write the whole path from “/”, or “@name” for an abstract socket",
        );
    }
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !text.split('/').skip(1).all(plain) {
        return fail(
            "is no normal path",
            "write it without “//”, “.”, “..” and a slash at the end",
        );
    }
    Ok(text.to_owned())
}
