//! What a hook answers to the kernel.

use egress_common::verdict::{Action, Verdict};

/// The call or packet passes.
pub const PASS: i32 = 1;
/// The call fails with `EPERM`; a TCP packet vanishes.
pub const REFUSE: i32 = 0;

/// The answer to a refusal, or to its report where the connector is only audited.
#[inline(always)]
pub fn answer(verdict: &Verdict) -> i32 {
    if matches!(verdict.action, Action::Audit) {
        PASS
    } else {
        REFUSE
    }
}
