//! `DEST[:PORT][/PROTO]`, as a person writes it.

use std::{fmt, net::IpAddr};

use egress_common::abi::{TCP, UDP};

use crate::policy::{
    fault::{Complaint, quote},
    lower,
    model::Target,
    name::{HostPattern, Name},
};

/// A destination to explain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dest {
    /// Where.
    pub place: Place,
    /// Port; `None`: those that rules speak of.
    pub port: Option<u16>,
    /// IP protocol number; `None`: those that rules speak of.
    pub protocol: Option<u8>,
}

/// What a destination is named by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A host name.
    Name(Name),
    /// An address, in the form the data plane decides by.
    Addr(IpAddr),
    /// A unix socket.
    Unix(String),
}

impl Dest {
    /// Reads `name`, `name:port`, `address`, `address:port`, `[address]:port`, each with
    /// `/tcp` or `/udp` behind it if need be, or `unix:/path`, `/path` or `@name`.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.len() < text.len() || path.starts_with(['/', '@']) {
            return Ok(Self {
                place: Place::Unix(lower::unix(path)?),
                port: None,
                protocol: None,
            });
        }
        if text.contains("://") {
            return Err(Complaint::new(
                format!("{} is a web address", quote(text)),
                "write host and port only, such as “api.example.org:443”",
            ));
        }
        let (rest, protocol) = match text.rsplit_once('/') {
            None => (text, None),
            Some((rest, "tcp")) => (rest, Some(TCP)),
            Some((rest, "udp")) => (rest, Some(UDP)),
            Some((_, word)) => {
                return Err(Complaint::new(
                    format!("{} is no protocol", quote(word)),
                    "write “/tcp” or “/udp”, or nothing; name one address, not a prefix",
                ));
            }
        };
        let (host, port) = split(rest);
        let port = port.map(number).transpose()?;
        Ok(Self {
            place: place(host)?,
            port,
            protocol,
        })
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, Some(port)),
        _ => (text, None),
    }
}

pub(super) fn number(text: &str) -> Result<u16, Complaint> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| {
        Complaint::new(
            format!("{} is no port", quote(text)),
            "write a port from 1 to 65535, and an IPv6 address in brackets",
        )
    })
}

pub(super) fn place(host: &str) -> Result<Place, Complaint> {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(addr) = inner.parse::<IpAddr>() {
        return Ok(Place::Addr(crate::policy::model::canonical(addr)));
    }
    match lower::host(host)? {
        Target::Host(HostPattern::Exact(name)) => Ok(Place::Name(name)),
        _ => Err(Complaint::new(
            format!("{} is no single host", quote(host)),
            "name one host, such as “www.example.org”",
        )),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Addr(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            Self::Addr(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The name of an IP protocol number.
pub(super) const fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        TCP => "tcp",
        UDP => "udp",
        _ => "other",
    }
}
