//! What a connector may reach, from a file's text to the data plane's tables.
//!
//! One direction: [`load`] reads bounded text, [`tree`] makes values of it, [`schema`] gives
//! them their shape, [`lower`] their meaning ([`model`]), [`mod@compile`] the form the kernel
//! decides by. Only [`load`] touches files. Faults of every stage are collected and reported
//! together; [`locate`] finds where they stand.

pub mod change;
pub mod compile;
pub mod cover;
mod credentials;
pub mod explain;
pub mod fault;
pub mod judged;
pub mod load;
pub mod locate;
pub mod lower;
pub mod model;
pub mod name;
pub mod names;
pub mod open;
pub mod outside;
mod prefixes;
pub mod proxy;
mod ranges;
pub mod schema;
pub mod server;
pub mod services;
pub mod session;
pub mod slots;
pub mod special;
pub mod tables;
pub mod tree;
pub mod written;

pub use compile::{CompiledRule, Tables, compile};
pub use fault::{Fault, Faults};
pub use load::{Loaded, changeable_by, find, load_dir, load_file, load_traced, parse};
pub use lower::is_connector;
pub use model::Policy;

#[cfg(test)]
mod tests;
