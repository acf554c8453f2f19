//! The kernel that the tests run on.

use std::fs;

/// What a test says that this kernel is too old for; `cargo xtask vm` counts by it.
const NOT_OFFERED: &str = "not offered here: ";

/// Major and minor number of a kernel's release; `None` where it has none.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    number().zip(number())
}

/// Whether this kernel is older.
pub fn is_before(since: (u32, u32)) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    version(&release).is_some_and(|found| found < since)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_begin_with_two_numbers() {
        assert_eq!(version("6.1.0-50-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("7.2.13+deb14"), Some((7, 2)));
        assert_eq!(version("unknown"), None);
    }
}
