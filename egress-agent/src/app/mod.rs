//! One confined run, and the daemon that has many of them.

mod beside;
mod cautions;
mod daemon;
mod envelope;
mod exec;
mod fault;
mod hosted;
mod origin;
mod orphans;
mod outside;
mod policies;
mod proxy;
mod registry;
mod routes;
mod run;
mod serve;
mod session;
mod start;
mod sweep;
mod violation;

pub use daemon::{Config, daemon};
pub use fault::RunError;
pub use run::{Run, run};
