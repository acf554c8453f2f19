//! Reads and judges the requests of connectors, without a socket, a clock or a file.
#![forbid(unsafe_code)]

mod base64;
mod content;
mod credential;
mod document;
mod encoding;
mod form;
pub mod h1;
pub mod h2;
pub mod head;
mod json;
pub mod judge;
mod keys;
mod leak;
pub mod leaves;
pub mod ledger;
pub mod limit;
mod mail;
pub mod mcp;
pub mod messages;
mod mime;
mod multipart;
pub mod origin;
mod query;
mod reading;
mod rlp;
mod rpc;
pub mod secret;
pub mod service;
pub mod shape;
mod stray;
#[cfg(test)]
mod tests;
mod transaction;
pub mod value;
mod verdict;
mod views;
