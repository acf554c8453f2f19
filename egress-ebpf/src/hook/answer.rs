//! What a hook answers to the kernel.

/// The call or packet passes.
pub const PASS: i32 = 1;
/// The call fails with `EPERM`; a TCP packet vanishes.
pub const REFUSE: i32 = 0;
