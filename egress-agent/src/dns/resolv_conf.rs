//! What `/etc/resolv.conf` says, as resolv.conf(5) and glibc's `resolv/res_init.c` read it.
//! Pure.
//!
//! Search lists are not read: the connector's own library searches, and what it asks is a
//! whole name. `single-request`, `no-tld-query`, `no-aaaa`, `trust-ad` and the like concern
//! that library, too.

use std::{net::IpAddr, time::Duration};

use egress_common::abi::DNS_PORT;

use crate::policy::server::Server;

/// Servers that are read, as `MAXNS` has it; later ones are left out by every C library.
pub const MAX_SERVERS: usize = 3;

/// Servers in their order, and how to ask them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolvConf {
    /// Never empty: without any, the server is on this host, at 127.0.0.1.
    pub servers: Vec<Server>,
    /// How to ask.
    pub options: Options,
}

/// How servers are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// How long one server is waited for: 1 to 30 s.
    pub timeout: Duration,
    /// How often each is asked: 1 to 5.
    pub attempts: u32,
    /// Each question begins with the next server.
    pub rotate: bool,
    /// Over TCP alone.
    pub use_vc: bool,
    /// With the extension of RFC 6891.
    pub edns0: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            use_vc: false,
            edns0: false,
        }
    }
}

impl Default for ResolvConf {
    /// What an empty or missing file says.
    fn default() -> Self {
        Self::read(b"")
    }
}

impl ResolvConf {
    /// Reads the file. Lines that say nothing known are passed over, as everybody does.
    pub fn read(text: &[u8]) -> Self {
        let mut servers = Vec::new();
        let mut options = Options::default();
        for line in text.split(|&byte| byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line) else {
                continue;
            };
            // A keyword begins its line; a comment takes all of it.
            if line.starts_with([';', '#']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if servers.len() < MAX_SERVERS => {
                    servers.extend(words.next().and_then(server));
                }
                Some("options") => words.for_each(|word| options.take(word)),
                _ => {}
            }
        }
        if servers.is_empty() {
            servers.push(Server::from(std::net::SocketAddr::from((
                [127, 0, 0, 1],
                DNS_PORT,
            ))));
        }
        Self { servers, options }
    }
}

impl Options {
    fn take(&mut self, word: &str) {
        let (key, value) = word.split_once(':').unwrap_or((word, ""));
        // As atoi(3): what is no number is 0, and what is too large the largest.
        let number = || value.parse::<u32>().unwrap_or(0);
        match key {
            "timeout" => self.timeout = Duration::from_secs(number().clamp(1, 30).into()),
            "attempts" => self.attempts = number().clamp(1, 5),
            "rotate" => self.rotate = true,
            "use-vc" => self.use_vc = true,
            "edns0" => self.edns0 = true,
            _ => {}
        }
    }
}

/// An address, and for a link-local one the interface behind it.
fn server(text: &str) -> Option<Server> {
    let (address, scope) = match text.split_once('%') {
        Some((address, scope)) => (address, Some(scope)),
        None => (text, None),
    };
    let ip: IpAddr = address.parse().ok()?;
    // To an unspecified address the kernel sends on loopback.
    Server::new(ip, DNS_PORT, scope)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn servers(text: &str) -> Vec<String> {
        let read = ResolvConf::read(text.as_bytes());
        read.servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_in_their_order() {
        let text = "# a comment\n; another\nsearch corp.example\n\nnameserver 10.0.0.53\n\
                    nameserver\t2001:db8::53  # its comment\n  nameserver 10.0.0.54\r\n\
                    nameserver 10.0.0.55\nnameservers 10.0.0.56\n";
        assert_eq!(
            servers(text),
            ["10.0.0.53:53", "[2001:db8::53]:53", "10.0.0.54:53"]
        );
    }

    #[test]
    fn scoped_servers() {
        assert_eq!(servers("nameserver fe80::1%eth0\n"), ["[fe80::1%eth0]:53"]);
        assert_eq!(servers("nameserver fe80::1%3\n"), ["[fe80::1%3]:53"]);
    }

    #[test]
    fn without_a_server_it_is_this_host() {
        for text in ["", "nameserver\n", "nameserver dns.example\n", "\u{0}\n"] {
            assert_eq!(servers(text), ["127.0.0.1:53"], "{text:?}");
        }
        assert_eq!(ResolvConf::default(), ResolvConf::read(b"\xff\xfe"));
    }

    #[test]
    fn options() {
        let read = |text: &str| ResolvConf::read(text.as_bytes()).options;
        assert_eq!(read("options ndots:5 trust-ad\n"), Options::default());
        let all = read("options timeout:1 attempts:3\noptions rotate use-vc edns0\n");
        let expected = Options {
            timeout: Duration::from_secs(1),
            attempts: 3,
            rotate: true,
            use_vc: true,
            edns0: true,
        };
        assert_eq!(all, expected);
        let wild = read("options timeout:99999999999 attempts:x timeout:400 attempts:900\n");
        assert_eq!((wild.timeout.as_secs(), wild.attempts), (30, 5));
    }

    proptest! {
        #[test]
        fn whatever_is_read_there_is_a_server(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let read = ResolvConf::read(&text);
            prop_assert!((1..=MAX_SERVERS).contains(&read.servers.len()));
            prop_assert!(read.servers[0].socket_addr(0).port() == DNS_PORT);
        }
    }
}
