//! The agent's library; `main.rs` is only its door.

#![forbid(unsafe_code)]

pub mod app;
pub mod cli;
pub mod control;
pub mod dns;
pub mod envelope;
pub mod event;
pub mod exit;
pub mod forward;
pub mod grant;
pub mod host;
pub mod instance;
pub mod kernel;
pub mod launch;
pub mod learn;
pub mod policy;
pub mod reload;
pub mod scan;
pub mod wrap;
