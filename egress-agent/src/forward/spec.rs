//! What agent and forwarder say to each other, one JSON line each.
//!
//! agent → forwarder: [`Spec`], then any number of [`Order`]s. forwarder → agent: [`Said::Ready`],
//! then [`Said::Learned`] for each [`Order::Learn`] in its order, and [`Said::Lost`].

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::confined::Place;

/// The hidden subcommand under which the binary calls itself.
pub const FORWARDER: &str = "__forward";

/// Everything the forwarder needs at its start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// Where it belongs.
    pub place: Place,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

/// What the agent says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// What an address stands for from now on.
    Learn {
        /// The address.
        address: Ipv4Addr,
        /// The name, in its normal form.
        name: String,
    },
    /// Where the proxy is from now on; tried in this order.
    Proxy(Vec<SocketAddr>),
}

/// What the forwarder says. The agent takes it for a claim, and shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// Confined and listening.
    Ready,
    /// It did not come to that.
    Failed(String),
    /// The next order to learn something was carried out.
    Learned,
    /// A connection came to nothing.
    Lost {
        /// Which address was called.
        address: Ipv4Addr,
        /// At which port.
        port: u16,
        /// Why.
        why: Why,
    },
}

/// Why a connection came to nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) enum Why {
    /// The proxy answered something else than 2xx.
    Status {
        /// The code.
        code: u16,
        /// What the proxy wrote behind it, printable and bounded.
        reason: String,
    },
    /// No address of the proxy is known.
    Nowhere,
    /// None of its addresses took the connection; what the last one said.
    Unreachable(String),
    /// It did not answer in time, or ended the connection.
    Silent,
    /// What it answered is no HTTP.
    Garbled,
}
