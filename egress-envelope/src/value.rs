//! Values that name somebody or something, by their kinds.

use serde::{Deserialize, Serialize};

/// What kind of value stands at a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A mail address, or a list of them.
    Mail,
    /// A telephone number.
    Phone,
    /// A web address.
    Url,
    /// An identifier, compared as it is.
    Id,
    /// A channel or chat, by id or name.
    Channel,
    /// An address on a block chain.
    Address,
}
