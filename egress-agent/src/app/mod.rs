//! One confined run, from its beginning to its end.

mod cautions;
mod fault;
mod proxy;
mod routes;
mod run;
mod start;
mod sweep;

pub use fault::RunError;
pub use run::{Run, run};
