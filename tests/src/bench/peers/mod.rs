//! What others would be picked instead, doing the same work on the same endpoints.
//!
//! Each peer is set up as its own manual says, with the same one name or address permitted, and
//! measured only once it was seen to refuse another. What it cannot do is "not offered"; what
//! cannot be started on this host is "not here", with the reason. Rule sets that every packet
//! of the host passes are in force during the turns of their own lane alone.

mod case;
pub(super) mod client;
mod daemon;
pub(super) mod errand;
mod firewall;
mod httpjail;
mod measure;
mod mitm;
mod ours;
mod peer;
mod squid;
mod srt;
mod table;

pub(super) use daemon::tree;
pub(super) use measure::measure;
