//! Tests of the room: from lines of the stream to a policy.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test stops at its first fault"
)]

mod proposals;
