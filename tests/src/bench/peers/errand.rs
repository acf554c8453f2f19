//! What is done alike with every peer: errands, and the way to the server.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// How the server is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::bench) struct Way {
    /// Its address and port, where nothing stands between.
    pub(in crate::bench) to: SocketAddr,
    /// Its name, which a proxy is told and TLS asks for.
    pub(in crate::bench) name: String,
    /// What stands between.
    pub(in crate::bench) proxy: Proxy,
    /// Whose certificates are taken, PEM.
    pub(in crate::bench) authority: PathBuf,
}

/// Whether an HTTP proxy is asked for a tunnel (RFC 9110 section 9.3.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::bench) enum Proxy {
    /// No.
    None,
    /// This one.
    At(SocketAddr),
    /// The one that `HTTPS_PROXY` names where the errand is done.
    Environment,
    /// No, but the name is looked up: its address may stand for it.
    Unseen,
}

/// One errand; sizes are bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::bench) enum Errand {
    /// Until a connection to the server stands; closed by reset.
    Connect { count: u32 },
    /// One connection: small writes, each a segment of its own: a few, then the echo of all.
    Sends { count: u32, size: usize },
    /// One connection: so many bytes in writes of one size, until the server has read all. The
    /// kernel puts small ones together where they wait for the reader.
    Stream { bytes: u64, size: usize },
    /// One connection: request, then its echo.
    Exchange { count: u32, size: usize },
    /// Until a TLS session with the server stands; none is resumed.
    Handshakes { count: u32 },
    /// HTTPS requests with their answers, over one connection or each over a new one.
    Gets { count: u32, kept: bool },
    /// HTTPS requests with a body in JSON of about so many bytes, over one connection.
    Posts { count: u32, size: usize },
    /// One HTTPS request and its answer, of which one is so long.
    Moves { bytes: u64, up: bool },
}
