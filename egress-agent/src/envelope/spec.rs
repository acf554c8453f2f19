//! What agent and envelope proxy say to each other, one JSON line each.
//!
//! agent → proxy: [`Spec`], then, once that is answered, any number of [`Order`]s. proxy → agent:
//! [`Said::Ready`], then [`Said::Learned`] for each order that has something learned, in their
//! order, and the rest as it happens.

use std::net::{IpAddr, Ipv4Addr};

use egress_envelope::{
    judge::{Operation, Refusal},
    mcp::{Call, Id},
    secret::Own,
    shape::Baseline,
};
use serde::{Deserialize, Serialize};

use super::why::Why;
use crate::{dns::inspected::Rules, forward::confined::Place};

/// The hidden subcommand under which the binary calls itself.
pub const ENVELOPE: &str = "__envelope";

/// Everything the proxy needs at its start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// Where it belongs.
    pub place: Place,
    /// Whom the host and the caller trust; PEM. It opens no file itself.
    pub roots: String,
    /// How requests are judged, by name.
    pub rules: Rules,
    /// Texts of the operator's: values of the connector's environment, and its arguments.
    pub operator: Vec<String>,
    /// Values of the connector's environment that look like secrets.
    pub secrets: Vec<Own>,
    /// What operations have shown.
    pub baseline: Baseline,
    /// The version of the connector's package.
    pub version: String,
}

/// What the agent says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// What an address stands for from now on. Answered.
    Learn {
        /// The address.
        address: Ipv4Addr,
        /// The name, in its normal form.
        name: String,
    },
    /// Where a name really is from now on. Answered.
    Upstream {
        /// The name, in its normal form.
        name: String,
        /// Granted to the proxy.
        addresses: Vec<IpAddr>,
    },
    /// How requests are judged from now on, by name; a name without is closed.
    Rules(Rules),
    /// What operations have shown, as the operator has it now.
    Baseline(Baseline),
    /// The client named values.
    Called(Call),
    /// A call is over.
    Ended(Id),
    /// The client may have named values that are not known.
    Missed,
}

/// What the proxy says. The agent takes it for a claim, and shows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// Confined and listening.
    Ready {
        /// The authority that it speaks by.
        ca_pem: String,
    },
    /// It did not come to that.
    Failed(String),
    /// The next order that has something learned was carried out.
    Learned,
    /// A request was judged, and answered by the server or by the proxy.
    Operation {
        /// The name that was called.
        name: String,
        /// At which port.
        port: u16,
        /// What it was.
        operation: Operation,
        /// Why it was refused; empty: it was not.
        refusals: Vec<Refusal>,
        /// The answer's status; `None`: there was none.
        status: Option<u16>,
    },
    /// A connection came to nothing.
    Lost {
        /// The name that was called.
        name: String,
        /// At which port.
        port: u16,
        /// Why.
        why: Why,
    },
    /// So many lines could not be said.
    Missed(u64),
}
