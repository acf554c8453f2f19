//! What confinement costs, measured beside programs that do nothing and a filter like
//! systemd's, on the same traffic in the same run.
//!
//! A *lane* is a cgroup with a worker in it; the lanes differ only in what is attached. Each
//! round gives every lane the same job, in an order that changes from round to round, so that
//! what else goes on on the machine meets all of them alike.

mod agent;
mod beside;
mod burst;
mod chart;
mod cost;
mod denial;
mod document;
mod growth;
mod https;
mod job;
mod lane;
mod names;
mod number;
mod peers;
mod plan;
mod plane;
mod report;
mod scene;
mod server;
mod wall;
mod worker;

pub use plan::main;
