//! What agent and envelope proxy say to each other, one JSON line each.

use egress_envelope::judge::{Operation, Refusal};
use serde::{Deserialize, Serialize};

use super::why::Why;

/// What the proxy says. The agent takes it for a claim, and shows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum Said {
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
