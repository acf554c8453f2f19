//! A data plane with the connectors in it: what they have in common, and what each of them holds.
//!
//! A plain run has a data plane of its own; a daemon has one for all connectors. Either way rule
//! numbers, connector ids and room in the kernel's tables are given out here, grants are kept by
//! one keeper, and one thread reads the events. Nothing here knows a policy or starts a process.

pub mod data_plane;
mod room;

pub use data_plane::{DataPlane, DataPlaneError, Place};
pub use room::{Full, Need};
