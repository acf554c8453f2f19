//! The command line: one file per subcommand.

pub mod check;
pub mod command;
pub mod control;
pub mod daemon;
pub mod diff;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod explain;
pub mod learn;
mod learned;
pub mod pin;
mod policies;
pub mod run;
pub mod scan;
pub mod shape;
pub mod thaw;
pub mod wrap;

pub(crate) use command::fail;
pub use command::main;
