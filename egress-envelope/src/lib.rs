//! Reads and judges the requests of connectors, without a socket, a clock or a file.
#![forbid(unsafe_code)]

mod base64;
pub mod h1;
pub mod head;
mod json;
pub mod judge;
pub mod leaves;
pub mod ledger;
mod mail;
pub mod mcp;
pub mod messages;
pub mod origin;
pub mod service;
pub mod value;
mod verdict;
