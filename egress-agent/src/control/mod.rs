//! How people and programs speak to the daemon: over a unix socket, whose every connection is the
//! user's that the kernel names.
//!
//! [`protocol`] says what is said; it owns no socket. [`server`] is the daemon's side, [`client`]
//! the other one.

pub mod client;
pub mod peer;
pub mod protocol;
pub mod server;

pub use client::Client;
pub use peer::Peer;
pub use protocol::{Answer, Exec, Request};
