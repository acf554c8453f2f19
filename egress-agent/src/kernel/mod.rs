//! The only room that knows aya: loading, attaching, pinning, maps and the event ring.

pub mod attach;
mod btf;
pub mod called;
pub mod instance;
pub mod leftovers;
mod lived;
pub mod load;
pub mod lsm;
pub mod maps;
mod object;
mod packet;
pub mod pin;
pub mod probe;
pub mod proxy;
mod resolver;
pub mod ring;
pub mod routes;
pub mod unix;
mod verify;

pub use load::{Plane, PlaneError, Settings};
