//! What a process inherits from whoever started it: limits, ignored and blocked signals, umask.
//!
//! The agent takes none of it for itself: a limit on the size of files would end it with a signal
//! (SIGXFSZ) and leave its connector running, deaf and unlogged. The connector gets it all back,
//! as a program that is started directly would have it.

use std::{fmt, fs, io};

use egress_sys::{ignore_signal, set_blocked_signals};
use nix::{
    libc::{
        RLIM_INFINITY, SIGALRM, SIGCHLD, SIGKILL, SIGPIPE, SIGPROF, SIGSTOP, SIGTTOU, SIGVTALRM,
        SIGXCPU, SIGXFSZ,
    },
    sys::{
        resource::{Resource, getrlimit, rlim_t, setrlimit},
        stat::{Mode, umask},
    },
};
use serde::{Deserialize, Serialize};

/// Limits that could end or hinder the agent (getrlimit(2)), each with what the shell calls it
/// and what the agent needs of it at least; 0 = it gets along with anything.
const LIMITS: [(Resource, &str, rlim_t); 11] = [
    (Resource::RLIMIT_FSIZE, "-f", 0),
    // Where it is used up the kernel ends the process, whatever it ignores.
    (Resource::RLIMIT_CPU, "-t", RLIM_INFINITY),
    (Resource::RLIMIT_AS, "-v", 512 << 20),
    (Resource::RLIMIT_DATA, "-d", 128 << 20),
    (Resource::RLIMIT_STACK, "-s", LEAST_STACK),
    (Resource::RLIMIT_NOFILE, "-n", 0),
    (Resource::RLIMIT_NPROC, "-u", 0),
    (Resource::RLIMIT_MEMLOCK, "-l", 0),
    (Resource::RLIMIT_SIGPENDING, "-i", 0),
    (Resource::RLIMIT_RTTIME, "-R", 0),
    // A dump would hold the caller's environment.
    (Resource::RLIMIT_CORE, "-c", 0),
];
/// The stack that the agent needs. Bytes.
const LEAST_STACK: rlim_t = 512 << 10;
/// As much stack as programs have by default, and not more: it is set aside for each thread.
const STACK: rlim_t = 8 << 20;
/// Signals that limits, timers (which outlive execve(2)) and terminals send, and that end or stop
/// who does not ignore them. Where a limit is reached the call fails instead, and is counted.
const OUTLIVED: [i32; 6] = [SIGXFSZ, SIGXCPU, SIGALRM, SIGVTALRM, SIGPROF, SIGTTOU];

/// What was inherited.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Inherited {
    /// Soft and hard limits, in the order of [`LIMITS`].
    limits: Vec<(rlim_t, rlim_t)>,
    /// Ignored signals; bit 0 is signal 1.
    ignored: u64,
    /// Blocked signals.
    blocked: u64,
    /// The umask.
    umask: u32,
}

/// A limit that the agent cannot live with and may not lift.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The limit.
    #[error(
        "the limit `ulimit {option}` is {value}, the agent needs {needs}, and this process may not lift it (CAP_SYS_RESOURCE): it would be ended and leave its connector without names and log; start it without that limit"
    )]
    Limit {
        /// The shell's name for it.
        option: &'static str,
        /// What it is.
        value: rlim_t,
        /// What it must be.
        needs: Needs,
    },
    /// The system refused.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        error: io::Error,
    },
}

/// The least value of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs(rlim_t);

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RLIM_INFINITY => f.write_str("none"),
            bytes => write!(f, "{bytes}"),
        }
    }
}

impl Inherited {
    /// Notes what this process has inherited, for somebody who is to have it as well.
    pub fn note() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let limits = LIMITS.map(|(resource, ..)| getrlimit(resource));
        let mask = umask(Mode::from_bits_truncate(0o022));
        umask(mask);
        Ok(Self {
            limits: limits.into_iter().collect::<nix::Result<_>>()?,
            ignored: signals(&status, "SigIgn:") & !bit(SIGPIPE),
            blocked: signals(&status, "SigBlk:"),
            umask: mask.bits(),
        })
    }

    /// What somebody claims to have inherited, as far as the kernel says so of process `pid`: no
    /// limit is wider than that process's own. `None`: it does not say so, or the claim has
    /// another form.
    pub fn within(mut self, pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
        if self.limits.len() != LIMITS.len() {
            return None;
        }
        for ((_, option, _), (soft, hard)) in LIMITS.iter().zip(&mut self.limits) {
            let widest = widest(&text, option)?;
            *hard = (*hard).min(widest);
            *soft = (*soft).min(*hard);
        }
        self.umask &= 0o777;
        Some(self)
    }

    /// Notes what this process has inherited and frees it of that. To be called before there is a
    /// second thread.
    pub fn lay_down() -> Result<Self, Unfit> {
        let status = fs::read_to_string("/proc/self/status")
            .map_err(|error| failed("read /proc/self/status", error))?;
        let mut limits = Vec::with_capacity(LIMITS.len());
        for (resource, option, least) in LIMITS {
            let limit = getrlimit(resource).map_err(|error| failed("read a limit", error))?;
            limits.push(limit);
            lift(resource, limit).map_err(|error| failed("lift a limit", error))?;
            let (value, _) = getrlimit(resource).map_err(|error| failed("read a limit", error))?;
            if value < least {
                return Err(Unfit::Limit {
                    option,
                    value,
                    needs: Needs(least),
                });
            }
        }
        set_blocked_signals(0).map_err(|error| failed("unblock signals", error))?;
        ignore_signal(SIGCHLD, false).map_err(|error| failed("wait for children", error))?;
        for signal in OUTLIVED {
            ignore_signal(signal, true).map_err(|error| failed("ignore a signal", error))?;
        }
        let before = umask(Mode::from_bits_truncate(0o022));
        Ok(Self {
            limits,
            // The runtime of the language ignores it before anything can be read.
            ignored: signals(&status, "SigIgn:") & !bit(SIGPIPE),
            blocked: signals(&status, "SigBlk:"),
            umask: before.bits(),
        })
    }

    /// Gives this process what was inherited; what it executes has it then. Lowering a limit
    /// takes no right.
    pub fn take_up(&self) -> io::Result<()> {
        umask(Mode::from_bits_truncate(self.umask));
        // All of them: starting a program sets some aside as well (glibc's posix_spawn(3)).
        for signal in (1..=64).filter(|signal| ![SIGKILL, SIGSTOP].contains(signal)) {
            ignore_signal(signal, self.ignored & bit(signal) != 0)?;
        }
        set_blocked_signals(self.blocked)?;
        for ((resource, _, _), &(soft, hard)) in LIMITS.iter().zip(&self.limits) {
            setrlimit(*resource, soft, hard)?;
        }
        Ok(())
    }
}

/// The most that a file of this process may hold; `None`: no limit.
pub fn file_limit() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_FSIZE).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// Does something that needs more stack than the caller may have left this process, and puts the
/// limit back, which [`Inherited`] has to find as it was.
pub fn with_stack<T>(work: impl FnOnce() -> T) -> Result<T, Unfit> {
    let unread = |error| failed("read a limit", error);
    let (soft, hard) = getrlimit(Resource::RLIMIT_STACK).map_err(unread)?;
    if soft >= LEAST_STACK {
        return Ok(work());
    }
    let resource = Resource::RLIMIT_STACK;
    lift(resource, (soft, hard)).map_err(|error| failed("lift a limit", error))?;
    let (value, _) = getrlimit(resource).map_err(unread)?;
    if value < LEAST_STACK {
        return Err(Unfit::Limit {
            option: "-s",
            value,
            needs: Needs(LEAST_STACK),
        });
    }
    let done = work();
    setrlimit(resource, soft, hard).map_err(|error| failed("put a limit back", error))?;
    Ok(done)
}

/// As far as this process may.
fn lift(resource: Resource, (soft, hard): (rlim_t, rlim_t)) -> nix::Result<()> {
    if resource == Resource::RLIMIT_CORE {
        return setrlimit(resource, 0, hard);
    }
    let wanted = match resource {
        Resource::RLIMIT_STACK => soft.max(STACK),
        // The kernel has a limit of its own (fs.nr_open).
        Resource::RLIMIT_NOFILE => hard,
        _ => RLIM_INFINITY,
    };
    if soft == wanted || setrlimit(resource, wanted, hard.max(wanted)).is_ok() {
        return Ok(());
    }
    setrlimit(resource, wanted.min(hard), hard)
}

/// The hard limit in /proc/PID/limits (proc_pid_limits(5)) of what the shell calls `option`.
fn widest(text: &str, option: &str) -> Option<rlim_t> {
    let name = match option {
        "-f" => "Max file size",
        "-t" => "Max cpu time",
        "-v" => "Max address space",
        "-d" => "Max data size",
        "-s" => "Max stack size",
        "-n" => "Max open files",
        "-u" => "Max processes",
        "-l" => "Max locked memory",
        "-i" => "Max pending signals",
        "-R" => "Max realtime timeout",
        "-c" => "Max core file size",
        _ => return None,
    };
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(RLIM_INFINITY),
        number => number.parse().ok(),
    }
}

/// A set of signals in /proc/PID/status (proc_pid_status(5)), in hexadecimal.
fn signals(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

fn bit(signal: i32) -> u64 {
    1_u64
        .checked_shl(signal.unsigned_abs().wrapping_sub(1))
        .unwrap_or(0)
}

fn failed(what: &'static str, error: impl Into<io::Error>) -> Unfit {
    Unfit::Io {
        what,
        error: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_signals_are_read() {
        let status = "SigBlk:\t0000000000000001\nSigIgn:\t8000000000001000\nSigCgt:\t0\n";
        assert_eq!(signals(status, "SigBlk:"), bit(1));
        assert_eq!(signals(status, "SigIgn:"), bit(SIGPIPE) | bit(64));
        assert_eq!(signals("", "SigIgn:"), 0);
    }

    #[test]
    fn nobody_has_more_than_the_kernel_says() -> io::Result<()> {
        let mut claim = Inherited::note()?;
        let own = claim.clone().within(std::process::id());
        assert_eq!(own.as_ref(), Some(&claim), "what is true stays");
        let (files, _) = (getrlimit(Resource::RLIMIT_NOFILE)?, 0);
        for limit in &mut claim.limits {
            *limit = (RLIM_INFINITY, RLIM_INFINITY);
        }
        let within = claim.clone().within(std::process::id());
        let at = LIMITS.iter().position(|(_, option, _)| *option == "-n");
        let got = within
            .zip(at)
            .and_then(|(it, at)| it.limits.get(at).copied());
        assert_eq!(got, Some((files.1, files.1)));
        claim.limits.pop();
        assert_eq!(claim.within(std::process::id()), None);
        Ok(())
    }
}
