//! The house rules as checks: `cargo xtask tidy`.

mod check;
mod document;
mod policy;
mod promise;
mod room;
mod source;
mod token;

pub(crate) use check::run;
