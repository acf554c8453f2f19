//! A company's proxy: where it is, who may use it, and which names do not go through it. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use egress_common::{
    abi::{RULE_FIRST, TCP},
    decide::{Flow, decide},
    grant::Connector,
    key::Addr,
    verdict::{Action, Layer},
};

use super::{
    compile::compile,
    credentials::Credentials,
    fault::{Complaint, quote},
    model::{Policy, Rule, Target, canonical},
    name::Name,
    tables::Memory,
};

/// Longest URL that is read. Bytes.
const MAX_URL: usize = 4_096;
/// Names that a list of direct ones may have.
pub const MAX_DIRECT: usize = 512;
/// The variables in which a caller names a proxy for HTTPS, in the order of curl(1).
pub const VARIABLES: [&str; 2] = ["https_proxy", "HTTPS_PROXY"];
/// The variables in which a caller names what does not go through it.
pub const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];
const HELP: &str = "write “proxy: http://HOST:PORT”, or “proxy: off” for none";

/// What a policy says of a proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// Nothing: the proxy of the caller's environment, if there is one.
    #[default]
    Caller,
    /// There is none, whatever the caller's environment says.
    Off,
    /// This one.
    Through(Box<Proxy>),
}

/// A proxy that takes `CONNECT` (RFC 9110 section 9.3.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proxy {
    /// Where it is.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Who uses it.
    pub credentials: Option<Credentials>,
    /// Names that do not go through it.
    pub direct: Vec<Direct>,
    /// Who named it.
    pub source: Source,
}

/// Where a proxy is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// A name, which the agent resolves.
    Name(Name),
    /// An address.
    Address(IpAddr),
}

/// Who named a proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The policy.
    Policy,
    /// A variable of the caller's environment.
    Variable(&'static str),
}

/// Which names do not go through the proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Direct {
    /// All.
    All,
    /// This one, and those below it.
    Domain(Name),
    /// Those below this one.
    Below(Name),
}

impl Proxy {
    /// Reads the URL of a proxy.
    pub fn parse(url: &str, source: Source) -> Result<Self, Complaint> {
        // Without the credentials that may be in it, a message can be shown to anybody.
        let complain = |what: String, help: &str| Err(Complaint::new(what, help));
        if url.len() > MAX_URL || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return complain(
                "the proxy's URL is too long or has blanks in it".into(),
                HELP,
            );
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => {
                return complain(
                    "a proxy that is spoken to in TLS (https://) is not supported".into(),
                    "most such proxies have a plain port, too: write “http://HOST:PORT”",
                );
            }
            other if other.starts_with("socks") => {
                return complain(
                    format!("{} is a SOCKS proxy, which is not supported", quote(other)),
                    "write the URL of a proxy that takes CONNECT, “http://HOST:PORT”",
                );
            }
            other => {
                return complain(format!("{} is no kind of proxy", quote(other)), HELP);
            }
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return complain("the proxy's URL has a path".into(), HELP);
        }
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((written, place)) => (Some(Credentials::parse(written)?), place),
            None => (None, authority),
        };
        let (host, port) = place_of(place)?;
        Ok(Self {
            host,
            port,
            credentials,
            direct: Vec::new(),
            source,
        })
    }

    /// Whether a name goes through it.
    pub fn takes(&self, name: &Name) -> bool {
        !self.direct.iter().any(|direct| direct.covers(name))
    }
}

/// The proxy of a caller's environment, and what does not go through it.
pub fn of_caller<'a>(
    variable: impl Fn(&str) -> Option<&'a str>,
) -> Option<Result<Proxy, Complaint>> {
    let (name, url) = VARIABLES.iter().find_map(|name| {
        let url = variable(name).filter(|url| !url.is_empty())?;
        Some((*name, url))
    })?;
    let exceptions = EXCEPTIONS.iter().find_map(|name| variable(name));
    Some(Proxy::parse(url, Source::Variable(name)).map(|mut proxy| {
        proxy.direct = exceptions.map(exceptions_of).unwrap_or_default();
        proxy
    }))
}

/// What `NO_PROXY` means, where curl, Python and Go agree: names, each with those below it, apart
/// by commas or blanks; `*` is every name. Addresses say nothing of names, a port is not looked at.
fn exceptions_of(text: &str) -> Vec<Direct> {
    let words = text.split([',', ' ']).map(str::trim);
    let words = words.filter(|word| !word.is_empty());
    words.take(MAX_DIRECT).filter_map(exception).collect()
}

fn exception(word: &str) -> Option<Direct> {
    if word == "*" {
        return Some(Direct::All);
    }
    let word = word.split_once(':').map_or(word, |(name, _port)| name);
    let bare = word.strip_prefix("*.").or_else(|| word.strip_prefix('.'));
    match Name::parse(bare.unwrap_or(word)) {
        Ok(_) if bare.unwrap_or(word).parse::<Ipv4Addr>().is_ok() => None,
        Ok(name) => Some(Direct::Domain(name)),
        Err(_) => None,
    }
}

impl Direct {
    /// Reads an entry of a policy's list: a name, or `*.` and the name that it lies below.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let bad = |error| {
            Complaint::new(
                format!("{} {error}", quote(text)),
                "write a name, such as “wiki.corp.example”, or “*.corp.example” for those below one",
            )
        };
        match text.strip_prefix("*.") {
            Some(parent) => Name::parse(parent).map(Self::Below).map_err(bad),
            None => Name::parse(text).map(Self::Domain).map_err(bad),
        }
    }

    /// Whether it speaks of a name.
    pub fn covers(&self, name: &Name) -> bool {
        let below = |parent: &Name| {
            let rest = name.as_str().strip_suffix(parent.as_str());
            rest.is_some_and(|rest| rest.ends_with('.'))
        };
        match self {
            Self::All => true,
            Self::Domain(own) => own == name || below(own),
            Self::Below(parent) => below(parent),
        }
    }
}

/// Without credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "http://[{address}]:{}", self.port),
            host => write!(f, "http://{host}:{}", self.port),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("from the policy"),
            Self::Variable(name) => write!(f, "from {name}"),
        }
    }
}

/// How a policy lets its connector reach its proxy directly, and so anything: by a rule about the
/// proxy's name, or about one of its addresses.
pub fn way_round(policy: &Policy, addresses: &[IpAddr]) -> Option<String> {
    let proxy = policy.through()?;
    let named = policy.allow.iter().find(|rule| leads_to(rule, proxy));
    let named = named.map(|rule| rule.id.clone());
    let mut addresses = addresses.iter();
    let rule =
        named.or_else(|| addresses.find_map(|&address| rule_to(policy, address, proxy.port)))?;
    Some(format!(
        "rule {rule} leads to the proxy {proxy} itself, and by it anywhere; remove it: what the \
         other rules permit goes through the proxy by itself"
    ))
}

/// Whether a rule speaks of the proxy.
pub fn leads_to(rule: &Rule, proxy: &Proxy) -> bool {
    let there = match (&rule.target, &proxy.host) {
        (Target::Host(pattern), Host::Name(name)) => pattern.covers(name),
        (Target::Cidr(net), Host::Address(address)) => net.contains(&canonical(*address)),
        _ => false,
    };
    there && rule.takes(proxy.port, TCP)
}

/// The rule by which a policy's prefixes let its connector reach an address of the proxy directly.
pub fn rule_to(policy: &Policy, address: IpAddr, port: u16) -> Option<String> {
    const ID: u32 = 1;
    // One that does not fit is refused elsewhere.
    let tables = compile(policy, ID, RULE_FIRST).ok()?;
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let addr = Addr::from_octets(octets);
    let connector = Connector {
        door_v6: addr,
        door_v4: 0,
        door_port: 0,
        mode: Connector::ENFORCE,
        unix: 0,
        flags: 0,
    };
    let mut memory = Memory::default();
    memory.install(&tables, connector);
    let flow = Flow {
        addr,
        port,
        protocol: TCP,
        ..Flow::nowhere(ID, Layer::Packet)
    };
    let verdict = decide(&flow, &memory);
    let rule = tables.rule(verdict.rule);
    (verdict.action == Action::Allow).then(|| rule.map(|it| it.id.clone()).unwrap_or_default())
}

fn place_of(place: &str) -> Result<(Host, u16), Complaint> {
    let bad = || {
        Complaint::new(
            format!("{} does not say where the proxy is", quote(place)),
            "write host and port, such as “http://proxy.corp.example:3128”",
        )
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once("]:").ok_or_else(bad)?;
            let address = address.parse().map_err(|_| bad())?;
            (Host::Address(IpAddr::V6(address)), port)
        }
        None => {
            let (host, port) = place.rsplit_once(':').ok_or_else(bad)?;
            let host = match host.parse::<Ipv4Addr>() {
                Ok(address) => Host::Address(address.into()),
                Err(_) => Host::Name(Name::parse(host).map_err(|_| bad())?),
            };
            (host, port)
        }
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port != 0 && usable(&host) => Ok((host, port)),
        _ => Err(bad()),
    }
}

fn usable(host: &Host) -> bool {
    match host {
        Host::Name(_) => true,
        Host::Address(address) => !address.is_unspecified() && !address.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Proxy, String> {
        Proxy::parse(url, Source::Policy).map_err(|complaint| complaint.to_string())
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap_or_else(|error| unreachable!("{text} {error}"))
    }

    #[test]
    fn urls_as_people_have_them() {
        for (url, shown) in [
            (
                "http://proxy.corp.example:3128",
                "http://proxy.corp.example:3128",
            ),
            (
                "HTTP://Proxy.Corp.Example:3128/",
                "http://proxy.corp.example:3128",
            ),
            ("proxy:8080", "http://proxy:8080"),
            ("http://u:p@10.0.0.5:80", "http://10.0.0.5:80"),
            ("http://u:p%40@[2001:db8::5]:80", "http://[2001:db8::5]:80"),
        ] {
            assert_eq!(read(url).map(|it| it.to_string()), Ok(shown.to_owned()));
        }
    }

    #[test]
    fn what_is_no_such_proxy_is_refused_and_its_password_not_shown() {
        for (url, said) in [
            ("socks5h://u:secret@proxy:1080", "SOCKS"),
            ("https://u:secret@proxy:443", "TLS"),
            ("ftp://u:secret@proxy:21", "no kind"),
            ("http://u:secret@proxy", "where"),
            ("http://u:secret@proxy:0", "where"),
            ("http://u:secret@proxy:99999", "where"),
            ("http://u:secret@:80", "where"),
            ("http://u:secret@proxy:80/path", "path"),
            ("http://u:secret%4@proxy:80", "credentials"),
            ("http://u:secret%0d%0aX:%20y@proxy:80", "credentials"),
            ("http://u%3a:secret@proxy:80", "credentials"),
            ("http://u:secret@pro xy:80", "blanks"),
            ("http://u:secret@0.0.0.0:80", "where"),
        ] {
            let error = read(url).map(|it| it.to_string()).err().unwrap_or_default();
            assert!(error.contains(said), "{url}: {error}");
            assert!(!error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn exceptions_mean_what_other_programs_take_them_for() {
        let direct = exceptions_of(
            "localhost, .corp.example,*.dev.example intra.example:8443,10.0.0.0/8,127.0.0.1,[::1]",
        );
        let covered = |text: &str| direct.iter().any(|it| it.covers(&name(text)));
        for text in [
            "localhost",
            "corp.example",
            "a.corp.example",
            "x.dev.example",
            "intra.example",
        ] {
            assert!(covered(text), "{text}");
        }
        for text in ["acorp.example", "example", "api.example"] {
            assert!(!covered(text), "{text}");
        }
        assert_eq!(exceptions_of("*"), [Direct::All]);
        assert_eq!(exceptions_of(""), []);
        assert_eq!(exceptions_of("127.0.0.1"), []);
    }

    #[test]
    fn the_callers_variables_are_read_in_curls_order() {
        let both = |name: &str| match name {
            "https_proxy" => Some("http://lower:1"),
            "HTTPS_PROXY" => Some("http://upper:2"),
            "NO_PROXY" => Some("a.example"),
            _ => None,
        };
        let found = of_caller(both).and_then(Result::ok);
        let shown = found.map(|it| (it.to_string(), it.source.to_string(), it.direct.len()));
        assert_eq!(
            shown,
            Some(("http://lower:1".into(), "from https_proxy".into(), 1))
        );
        assert!(of_caller(|_| None).is_none());
        assert!(of_caller(|_| Some("")).is_none());
    }
}
