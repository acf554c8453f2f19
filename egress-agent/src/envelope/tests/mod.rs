//! The proxy over loopback.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at its first fault"
)]

mod answers;
mod clients;
mod floods;
mod kept;
mod orders;
mod requests;
mod streams;
mod twos;
mod world;
