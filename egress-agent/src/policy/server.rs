//! A name server as it is written. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
};

use egress_common::abi::DNS_PORT;

/// A name server.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Server {
    ip: IpAddr,
    port: u16,
    /// The interface that a link-local address is meant on, by name or number.
    scope: Option<String>,
}

impl Server {
    /// Reads `ip`, `ip:port`, `[ip]:port`, each with `%interface` behind a link-local address.
    /// `None`: it is none of these, or nobody can be asked there.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text
            .strip_prefix('[')
            .and_then(|rest| rest.rsplit_once("]:"))
        {
            Some((host, port)) => (host, port.parse().ok()?),
            None => match text.split_once(':') {
                Some((host, port)) if host.parse::<Ipv4Addr>().is_ok() => {
                    (host, port.parse().ok()?)
                }
                _ => (text, DNS_PORT),
            },
        };
        let (host, scope) = match host.split_once('%') {
            Some((host, scope)) => (host, Some(scope)),
            None => (host, None),
        };
        let ip: IpAddr = host.parse().ok()?;
        let usable = port != 0 && !ip.is_unspecified() && !ip.is_multicast();
        usable.then(|| Self::new(ip, port, scope)).flatten()
    }

    /// A server. `None`: only link-local addresses have a scope, and theirs is a word.
    pub fn new(ip: IpAddr, port: u16, scope: Option<&str>) -> Option<Self> {
        let word = |scope: &str| {
            // As long as the kernel's names of interfaces, `IFNAMSIZ`.
            (1..16).contains(&scope.len()) && scope.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let scoped = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        scope
            .is_none_or(|scope| scoped && word(scope))
            .then(|| Self {
                ip,
                port,
                scope: scope.map(str::to_owned),
            })
    }

    /// The interface that the address is meant on, by name or number.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The address, on the interface with this number (0: whichever).
    pub fn socket_addr(&self, interface: u32) -> SocketAddr {
        match self.ip {
            IpAddr::V4(v4) => SocketAddr::from((v4, self.port)),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, self.port, 0, interface).into(),
        }
    }
}

impl From<SocketAddr> for Server {
    fn from(addr: SocketAddr) -> Self {
        Self {
            ip: addr.ip(),
            port: addr.port(),
            scope: None,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "[{}%{scope}]:{}", self.ip, self.port),
            None => SocketAddr::new(self.ip, self.port).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_server() {
        for (text, shown) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
            ("fe80::1%eth0", "[fe80::1%eth0]:53"),
            ("[fe80::1%eth0]:5353", "[fe80::1%eth0]:5353"),
            ("fe80::1", "[fe80::1]:53"),
        ] {
            let read = Server::parse(text).map(|server| server.to_string());
            assert_eq!(read.as_deref(), Some(shown), "{text}");
        }
        for text in [
            "",
            "dns.example",
            "0.0.0.0",
            "::",
            "ff02::1",
            "192.0.2.53:0",
            "192.0.2.53:x",
            "192.0.2.53:65536",
            "192.0.2.53%eth0",
            "2001:db8::53%eth0",
            "fe80::1%",
            "fe80::1%a name",
            "fe80::1%an-interface-name-that-is-too-long",
            "[192.0.2.53",
        ] {
            assert_eq!(Server::parse(text), None, "{text}");
        }
    }
}
