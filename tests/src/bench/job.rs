//! What a worker is asked to do, one JSON value a line.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::peers::errand::{Errand, Way};

/// One job; sizes are bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// TCP: socket, connect, close by reset.
    Connect { to: SocketAddr, count: u32 },
    /// One TCP connection: small writes, each a segment of its own; behind a TLS ClientHello
    /// where there is a name for it.
    Stream {
        to: SocketAddr,
        count: u32,
        size: usize,
        name: Option<String>,
    },
    /// One TCP connection: so many bytes as fast as they go.
    Bulk { to: SocketAddr, bytes: u64 },
    /// One TCP connection: request, then its echo.
    Exchange {
        to: SocketAddr,
        count: u32,
        size: usize,
    },
    /// UDP, on one socket, with `sendto()` or connected.
    Datagrams {
        to: SocketAddr,
        count: u32,
        size: usize,
        connected: bool,
    },
    /// A DNS server: the IPv4 address of a name, each time from a new socket.
    Ask {
        server: SocketAddr,
        name: String,
        count: u32,
    },
    /// Connects that are refused, one after each pause; to the same address, from port
    /// `first` on.
    Denied {
        ip: IpAddr,
        first: u16,
        count: u16,
        pause: Duration,
    },
    /// Connects that are refused, each to another destination of [`burst_target`].
    Burst { count: u32 },
    /// What is done alike whatever stands between here and the server.
    Errand { way: Way, errand: Errand },
}

/// What came of a job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Done {
    /// The whole job without its preparation. Nanoseconds.
    pub(super) total: u64,
    /// `Ask`: duration of each question. `Denied`: boot clock before each connect. `Burst`:
    /// only the longest. Nanoseconds.
    pub(super) each: Vec<u64>,
}

/// The answer to a job.
pub(super) type Answer = Result<Done, String>;

/// The n-th destination of a burst; none repeats below 250 × 64,000.
pub(super) fn burst_target(n: u32) -> (Ipv4Addr, u16) {
    let host = (n % 250 + 1) as u8;
    (
        Ipv4Addr::new(198, 51, 100, host),
        1024 + (n / 250 % 64_000) as u16,
    )
}
