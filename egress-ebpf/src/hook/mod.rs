//! One file per kind of hook.

pub mod connect;
pub mod packet;
pub mod recvmsg;
pub mod sendmsg;
pub mod socket;

/// The call or packet passes.
pub const PASS: i32 = 1;
/// The call fails with `EPERM`; a TCP packet vanishes.
pub const REFUSE: i32 = 0;
