//! Exact counters, kept per CPU and summed by the agent.

use crate::verdict::Reason;

/// What passed under one rule. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuleStat {
    /// Connections approved by a connect hook.
    pub connections: u64,
    /// Packets sent.
    pub packets: u64,
    /// Bytes sent, IP headers included.
    pub bytes: u64,
}

/// Reasons a connector has room for in the denial counters; a power of two.
pub const REASON_SLOTS: u32 = 64;

/// Index of a connector's counter for a reason.
#[inline(always)]
pub const fn denial_slot(connector: u32, reason: Reason) -> u32 {
    connector * REASON_SLOTS + (reason.code() as u32 & (REASON_SLOTS - 1))
}
