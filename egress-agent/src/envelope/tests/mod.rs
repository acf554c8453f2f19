//! The proxy over loopback.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at its first fault"
)]

mod answers;
mod clients;
mod requests;
mod world;
