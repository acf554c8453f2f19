//! One file per kind of hook.

pub mod answer;
pub mod connect;
pub mod ingress;
pub mod judge;
pub mod lsm;
pub mod name;
pub mod packet;
pub mod proxy;
pub mod recvmsg;
pub mod resolver;
pub mod sendmsg;
pub mod sni;
pub mod socket;
pub mod sockopt;
pub mod strict;
pub mod unix;

pub use answer::{PASS, REFUSE, answer};
