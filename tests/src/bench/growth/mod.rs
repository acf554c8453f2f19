//! What packets and connects cost when there is more: of connectors on the host, of grants, of
//! prefixes.
//!
//! By the kernel's own account, as [`super::cost`]; wall time could not tell.

mod entries;
mod measure;
mod planes;

pub(super) use measure::measure;
