//! Another policy for a connector that runs.
//!
//! `begin` writes the first policy and takes the last one out, `watch` says when to look, `plane` carries a policy into the data plane, `flows` ◦ says
//! which running flows it ends, `helper` lets the process beside a connector in, `say` words the events, and `driver` goes from one to the
//! other.

pub mod begin;
pub mod driver;
pub mod fault;
pub mod flows;
pub mod helper;
pub mod own;
pub mod plane;
pub mod say;
pub mod watch;

pub use driver::{Reload, Start};
pub use own::Own;
pub use plane::Live;
