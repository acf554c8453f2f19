//! What the fuzzer runs: each file takes any bytes and panics where two readings differ.

mod all;
pub mod answer;
pub mod decide;
pub mod event;
pub mod hello;
pub mod netlink;
pub mod policy;
pub mod proc;
pub mod query;
pub mod request;
pub mod unix;

pub use all::{ALL, Target};
