//! Starting a connector: no moment at which its code runs outside the boundary.
//!
//! The agent re-executes its own binary as a small launcher ([`child`]), which joins the
//! connector's cgroup before anything else, gives up every right, shows that the boundary
//! holds, and only then becomes the connector. [`spawn`] is the agent's side of that talk,
//! [`spec`] what they say to each other, [`stdio`] what the connector is given as its standard
//! input, output and error.

pub mod binds;
pub mod caller;
pub mod canary;
pub mod child;
pub mod devices;
pub mod env;
pub mod filter;
pub mod harden;
pub mod identity;
pub mod init;
pub mod layers;
pub mod mounts;
pub mod own;
pub mod pinned;
pub mod queues;
pub mod refusals;
pub mod scope;
pub mod sealed;
pub mod signals;
pub mod sockets;
pub mod spawn;
pub mod spec;
pub mod stdio;
pub mod trust;

pub use caller::Callers;
pub use signals::Signals;
pub use sockets::{Unenforceable, unix_sockets};
pub use spawn::{Given, LaunchError, Ready, Started, start};
pub use spec::{CANARY, Cwd, LAUNCHER, Spec, UnixSockets};
