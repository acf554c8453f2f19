//! The kernel that the tests run on.

use egress_agent::kernel::probe::{kernel_release, kernel_version};

/// What a test says that this kernel is too old for; `cargo xtask vm` counts by it.
const NOT_OFFERED: &str = "not offered here: ";

/// Whether this kernel is older.
pub fn is_before(since: (u32, u32)) -> bool {
    kernel_version(&kernel_release()).is_some_and(|found| found < since)
}

/// Whether this kernel is older than what a test is about. Then the test has nothing to show: it
/// says so and ends.
pub fn lacks(since: (u32, u32), what: &str) -> bool {
    let old = is_before(since);
    if old {
        println!(
            "{NOT_OFFERED}{what} (from Linux {}.{} on)",
            since.0, since.1
        );
    }
    old
}
