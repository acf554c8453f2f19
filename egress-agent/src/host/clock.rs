//! The boot clock, which the data plane stamps its records with, and the wall clock.

use std::{io, os::fd::AsFd as _, time::Duration};

use jiff::Timestamp;
use nix::{
    sys::{
        time::TimeSpec,
        timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId, clock_gettime},
};
use tokio::io::unix::AsyncFd;

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

/// Sleeps by the boot clock, by which grants end: time in which the host is suspended counts.
/// Where the kernel gives no timer, by the clock that stops meanwhile. Needs a tokio runtime with
/// I/O and time.
pub async fn sleep(duration: Duration) {
    if by_timer(duration).await.is_err() {
        tokio::time::sleep(duration).await;
    }
}

async fn by_timer(duration: Duration) -> io::Result<()> {
    // Zero would switch a timer off.
    if duration.is_zero() {
        return Ok(());
    }
    let timer = timer(duration)?;
    #[expect(
        deprecated,
        reason = "the successor is unsafe for types that may swap their descriptor; \
                  an owned one never does"
    )]
    let ready = AsyncFd::new(timer.as_fd().try_clone_to_owned()?)?;
    ready.readable().await.map(drop)
}

/// One that ends once (timerfd_create(2)).
fn timer(duration: Duration) -> io::Result<TimerFd> {
    let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
    let timer = TimerFd::new(TimerClock::CLOCK_BOOTTIME, flags)?;
    let end = Expiration::OneShot(TimeSpec::from(duration));
    timer.set(end, TimerSetTimeFlags::empty())?;
    Ok(timer)
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

    /// That of `bpf_ktime_get_boot_ns`: 7 (proc_pid_fdinfo(5)).
    #[test]
    fn sleep_is_by_the_boot_clock() {
        use std::os::fd::AsRawFd as _;
        let timer = timer(Duration::from_secs(9)).unwrap_or_else(|error| unreachable!("{error}"));
        let info = format!("/proc/self/fdinfo/{}", timer.as_fd().as_raw_fd());
        let info = std::fs::read_to_string(info).unwrap_or_default();
        assert!(info.lines().any(|line| line == "clockid: 7"), "{info}");
    }

    #[tokio::test]
    async fn sleep_ends_in_time() {
        for duration in [Duration::ZERO, Duration::from_millis(30)] {
            let begin = boot_ns();
            sleep(duration).await;
            let slept = Duration::from_nanos(boot_ns() - begin);
            assert!(
                slept >= duration && slept < Duration::from_secs(5),
                "{slept:?}"
            );
        }
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
