//! The boot clock, which the data plane stamps its records with, and the wall clock.

use std::time::Duration;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`, clock_gettime(2)):
/// the clock of `bpf_ktime_get_boot_ns` and of every time in a shared record.
pub fn boot_ns() -> u64 {
    // The call fails only for a clock the kernel does not have; this one is older (2.6.39)
    // than any kernel the data plane loads on. Zero would make every grant look unexpired
    // in userland only; the kernel judges by its own clock.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(|time| nanoseconds(Duration::from(time)))
        .unwrap_or(0)
}

/// How far the wall clock is ahead of the boot clock.
///
/// The wall clock can be set; take a new sample every now and then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootToWall {
    offset_ns: i128,
}

impl BootToWall {
    /// Compares the two clocks now.
    pub fn sample() -> Self {
        let before = i128::from(boot_ns());
        let wall = Timestamp::now().as_nanosecond();
        let after = i128::from(boot_ns());
        Self {
            offset_ns: wall - (before + after) / 2,
        }
    }

    /// A fixed distance in nanoseconds, for replays and tests.
    pub const fn fixed(offset_ns: i128) -> Self {
        Self { offset_ns }
    }

    /// The wall-clock time of a boot-clock time in nanoseconds. A time that no calendar
    /// holds becomes the nearest one that does.
    pub fn at(&self, boot_ns: u64) -> Timestamp {
        let wall = i128::from(boot_ns) + self.offset_ns;
        Timestamp::from_nanosecond(wall).unwrap_or(if wall < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }
}

/// The wall-clock time of a boot-clock time in nanoseconds, by the clocks as they are now.
pub fn wall_time(boot_ns: u64) -> Timestamp {
    BootToWall::sample().at(boot_ns)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_clock_runs_forward() {
        let first = boot_ns();
        assert!(first > 0);
        assert!(boot_ns() >= first);
    }

    #[test]
    fn now_is_now() {
        let gap = Timestamp::now().duration_since(wall_time(boot_ns()));
        assert!(gap.abs() < jiff::SignedDuration::from_secs(1), "{gap:?}");
    }

    #[test]
    fn absurd_times_saturate() {
        assert_eq!(
            BootToWall::fixed(i128::from(i64::MAX) * 64).at(1),
            Timestamp::MAX
        );
        assert_eq!(
            BootToWall::fixed(i128::from(i64::MIN) * 64).at(1),
            Timestamp::MIN
        );
        assert_eq!(
            BootToWall::fixed(0).at(1_500_000_000).as_millisecond(),
            1_500
        );
    }
}
