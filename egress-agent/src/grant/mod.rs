//! What is allowed now: the ledger of grants and the keeper that owns it.

pub mod keeper;
pub mod ledger;

pub use keeper::{Keeper, KeeperError, Table, TableError};
pub use ledger::Lease;
