//! One confined run, from its beginning to its end.

mod cautions;
mod fault;
mod proxy;
mod run;
mod start;

pub use fault::RunError;
pub use run::{Run, run};
