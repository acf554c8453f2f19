//! What the harness and the embedded internet say to each other: one JSON value a line, a
//! request on the server's standard input, its reply on the standard output.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// First line to the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// Interface that leads to the host; packets that arrive there are looked at.
    pub interface: String,
    /// Addresses of the DNS servers, port 53, UDP and TCP.
    pub dns: Vec<IpAddr>,
    /// The zone.
    pub zone: Vec<Record>,
    /// TCP ports served on every address: TLS, HTTP and raw bytes are told apart by the first
    /// bytes.
    pub tcp: Vec<u16>,
    /// UDP addresses that echo.
    pub udp: Vec<SocketAddr>,
}

/// All the DNS records of one name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Lower case, without the final dot; `*.` in front covers every name below.
    pub name: String,
    /// Addresses.
    pub a: Vec<Ipv4Addr>,
    /// Addresses.
    pub aaaa: Vec<Ipv6Addr>,
    /// Alias; with it the addresses are those of the target.
    pub cname: Option<String>,
    /// Texts.
    pub txt: Vec<String>,
    /// Ports and hosts of a service (RFC 2782).
    pub srv: Vec<(u16, String)>,
    /// An HTTPS record (RFC 9460) with this address as a hint.
    pub https_hint: Option<Ipv4Addr>,
    /// Time to live of every record. Seconds.
    pub ttl: u32,
    /// How the server treats questions for the name.
    pub behaviour: Behaviour,
}

/// How the DNS server treats questions for a name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Behaviour {
    /// It answers.
    #[default]
    Normal,
    /// It answers after so many milliseconds.
    Slow(u64),
    /// Over UDP it only says that the answer is too long; over TCP it answers.
    Truncated,
    /// Each answer has only the next one of the addresses, in turn.
    Flip,
    /// Over UDP it answers as forgers do: under another number, to another question, for another
    /// name; each time with a stranger's address. Then it is silent.
    Lie,
    /// It never answers.
    Dead,
    /// It answers with this response code (RFC 1035 section 4.1.1): 2 failure, 3 no such name.
    Code(u8),
}

/// A question or an order. Each gets one [`Reply`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Where a token arrived.
    Token(String),
    /// How many packets arrived for an address, per protocol and port.
    Packets(IpAddr),
    /// Every question the DNS servers got.
    Queries,
    /// Every HTTP request.
    Requests,
    /// Every TCP connection to an address.
    Connections(IpAddr),
    /// Adds or replaces the records of a name.
    Set(Record),
    /// Forgets a name.
    Remove(String),
    /// Offers the repositories of a folder below `/git/` on every HTTP server.
    Repositories(PathBuf),
    /// Serves one more TCP port on every address.
    ListenTcp(u16),
    /// Serves a company's proxy, or changes what the one at that address answers.
    Proxy(Proxy),
    /// What was asked of proxies so far.
    Proxied,
    /// Echoes UDP on one more address.
    ListenUdp(SocketAddr),
    /// Connects from an address of the internet to the host and sends the text; what comes back
    /// is searched for tokens.
    Dial {
        /// Address of the internet that calls.
        from: IpAddr,
        /// Where to on the host.
        to: SocketAddr,
        /// What is sent.
        text: String,
    },
    /// Calls the host from an address of the internet, a dozen times at once, and hangs up within
    /// a second. What comes back counts as [`Request::Packets`].
    Knock {
        /// Address of the internet that calls.
        from: IpAddr,
        /// Where to on the host.
        to: SocketAddr,
    },
    /// Sends one UDP datagram from an address of the internet to the host.
    Poke {
        /// Sender.
        from: SocketAddr,
        /// Receiver on the host.
        to: SocketAddr,
        /// Payload.
        text: String,
    },
    /// Packets that arrived and could not be looked at; a test that says "nothing arrived" is
    /// worth nothing unless this is 0.
    Missed,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is done. The first reply carries the certificate of the authority, PEM.
    Ready(String),
    /// It is done.
    Done,
    /// [`Request::Token`]
    Sightings(Vec<Sighting>),
    /// [`Request::Packets`]
    Flows(Vec<FlowCount>),
    /// [`Request::Queries`]
    Queries(Vec<Query>),
    /// [`Request::Requests`]
    Requests(Vec<HttpRequest>),
    /// [`Request::Connections`]
    Connections(Vec<Connection>),
    /// [`Request::Missed`]
    Missed(u64),
    /// [`Request::Proxied`]
    Proxied(Vec<Proxied>),
    /// It could not be done.
    Failed(String),
}

/// A company's proxy. It finds every name of the zone, also those that the DNS servers deny.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Where it listens.
    pub at: SocketAddr,
    /// The `Proxy-Authorization` that it wants.
    pub wants: Option<String>,
    /// What it does with a request.
    pub answer: Answer,
}

/// What a proxy does with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It opens the way.
    Opens,
    /// It says this and ends the connection.
    Says(String),
    /// It opens the way after so many milliseconds.
    After(u64),
}

/// One request to a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxied {
    /// The request line.
    pub line: String,
    /// The `Proxy-Authorization` that came with it.
    pub authorization: Option<String>,
    /// Who asked.
    pub from: IpAddr,
}

/// One arrival of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// `packet`, `stream`, `tls`, `http` or `dns`.
    pub how: String,
    /// IP protocol number; 0 = not an IP packet.
    pub protocol: u8,
    /// Address it was sent to.
    pub to: IpAddr,
    /// Port it was sent to, of ICMP the type; 0 = it could not be read: a later fragment, a packet
    /// with IP options.
    pub port: u16,
}

/// Packets that arrived at one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; 0 = none.
    pub port: u16,
    /// Packets.
    pub packets: u64,
}

/// One question a DNS server got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The name as it was asked, without the final dot.
    pub name: String,
    /// `A`, `AAAA`, `TXT` …
    pub kind: String,
    /// The server that was asked.
    pub server: IpAddr,
    /// Over TCP.
    pub tcp: bool,
}

/// One HTTP request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// The `Host` header.
    pub host: String,
    /// Name in the TLS handshake; `None` without TLS or without a name.
    pub sni: Option<String>,
    /// Address and port it came to.
    pub to: SocketAddr,
    /// Method and path.
    pub line: String,
    /// Body, text.
    pub body: String,
    /// A token that only the answer to this request carries, under `"token"`.
    pub answered: String,
}

/// One TCP connection that a server accepted, and what arrived on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Address and port it came to.
    pub to: SocketAddr,
    /// Where it came from.
    pub from: SocketAddr,
    /// Bytes that arrived so far.
    pub received: u64,
    /// The first 20 KiB of them.
    pub first: Vec<u8>,
    /// Name in the TLS handshake, as the client wrote it.
    pub sni: Option<String>,
    /// `1.2` or `1.3`; empty: the TLS handshake did not come to its end.
    pub version: String,
    /// Application protocol (RFC 7301) that both sides agreed on; empty: none.
    pub alpn: String,
    /// The handshake resumed a session.
    pub resumed: bool,
    /// The server asked for a second hello (RFC 8446 section 4.1.4).
    pub retried: bool,
    /// Why there was no TLS session.
    pub fault: Option<String>,
}

impl Connection {
    /// Nothing has arrived yet.
    pub fn new(to: SocketAddr, from: SocketAddr) -> Self {
        let canonical =
            |place: SocketAddr| SocketAddr::new(place.ip().to_canonical(), place.port());
        Self {
            to: canonical(to),
            from: canonical(from),
            received: 0,
            first: Vec::new(),
            sni: None,
            version: String::new(),
            alpn: String::new(),
            resumed: false,
            retried: false,
            fault: None,
        }
    }
}
