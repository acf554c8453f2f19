//! One confined run, from its beginning to its end.

mod beside;
mod cautions;
mod envelope;
mod fault;
mod origin;
mod outside;
mod proxy;
mod routes;
mod run;
mod session;
mod start;
mod sweep;
mod violation;

pub use fault::RunError;
pub use run::{Run, run};
