//! Exit codes, as `run` documents them.

use std::process::ExitStatus;

/// The agent failed; the connector was not started, or not unenforced.
pub const AGENT_FAILED: u8 = 125;
/// The connector's program cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// There is no such program.
pub const NOT_FOUND: u8 = 127;
/// The command line was not understood.
pub const USAGE: u8 = 2;
/// A policy has faults.
pub const FAULTS: u8 = 1;

/// A connector's exit code: its own, or 128 and the signal that ended it, as shells say it.
pub fn of_child(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(AGENT_FAILED),
        (None, Some(signal)) => of_signal(signal),
        (None, None) => AGENT_FAILED,
    }
}

/// The exit code of a process that a signal ended.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(signal.saturating_add(128)).unwrap_or(AGENT_FAILED)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

    #[test]
    fn codes_and_signals() {
        assert_eq!(super::of_child(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(super::of_child(ExitStatus::from_raw(9)), 137);
    }
}
