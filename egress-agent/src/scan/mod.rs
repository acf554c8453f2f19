//! What the MCP clients of this host are configured to start, and what is open there.
//!
//! [`find`] reads files as their users, [`form`] makes trees of them, [`server`] finds the
//! servers in a tree, [`program`] and [`pinned`] understand their command lines, [`judge`]
//! says what is to be mended, [`report`] shows it. Only [`find`] and [`guard`] touch files.

pub mod client;
pub mod find;
pub mod finding;
pub mod form;
pub mod guard;
pub mod judge;
pub mod known;
pub mod node;
pub mod pinned;
pub mod program;
pub mod report;
pub mod secret;
pub mod server;
pub mod shell;
pub mod wallet;

#[cfg(test)]
mod tests;
