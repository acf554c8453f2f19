//! Reads and judges the requests of connectors, without a socket, a clock or a file.
#![forbid(unsafe_code)]

pub mod h1;
pub mod head;
mod json;
pub mod judge;
pub mod leaves;
pub mod ledger;
pub mod mcp;
pub mod messages;
pub mod origin;
pub mod service;
pub mod value;
mod verdict;
