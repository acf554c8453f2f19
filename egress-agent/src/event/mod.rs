//! The evidence: from the bytes of the ring to a line that a person or a program reads.
//!
//! `decode → enrich → stream → sink`. The counters of the kernel are exact and come beside
//! the records; [`tally`] compares the two, so that the stream can say how much it did not
//! show. The schema is documented in `docs/events.md`.

pub mod account;
pub mod call;
pub mod codes;
pub mod decode;
pub mod enrich;
pub mod escape;
pub mod facts;
pub mod model;
pub mod pump;
mod remedy;
pub mod sink;
pub mod stream;
pub mod tail;
pub mod tally;

pub use call::{CallRepeats, CallStats, RefusedCall};
pub use decode::{DecodeError, decode};
pub use enrich::{Enricher, Lookups, NameRefusal};
pub use model::{Body, Record};
pub use stream::Stream;
pub use tally::{Exact, Tally};

#[cfg(test)]
mod docs_tests;
