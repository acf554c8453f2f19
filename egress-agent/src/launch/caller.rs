//! Who started the agent, and when that is gone.
//!
//! A client that is killed closes its pipes, and a server that does not look at them would go on
//! for good. So the agent watches its parent, and, where that only passes a program on (sudo, a
//! shell, npx), the parent's parent, up to the first that does not. `PR_SET_PDEATHSIG` would
//! not do: it tells of the end of the thread that started the agent, and of the parent alone.

use std::{future::poll_fn, io, os::fd::OwnedFd, task::Poll};

use nix::unistd::getppid;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;

use crate::host::process::{Stat, ignores_hangup};

/// What starts other programs and waits for them, by the name that the kernel shows.
const PASSING_ON: &[&str] = &[
    "sudo", "doas", "su", "runuser", "setpriv", "sh", "dash", "bash", "zsh", "ksh", "fish", "ash",
    "busybox", "env", "timeout", "nice", "ionice", "stdbuf", "setsid", "nsenter", "npx", "npm",
    "npm exec", "uvx", "uv", "pnpm", "bunx",
];
/// As many as a start has in the worst of cases.
const MAX_CALLERS: usize = 16;

/// The processes on whose behalf the agent runs.
pub struct Callers(Vec<(String, AsyncFd<OwnedFd>)>);

impl Callers {
    /// Looks for them; nobody, where the agent was started to outlive its caller (nohup(1)) or by
    /// the system itself. Must be called inside a tokio runtime, before SIGHUP is listened to.
    pub fn find() -> io::Result<Self> {
        let mut callers = Vec::new();
        let mut pid = getppid().as_raw().cast_unsigned();
        if ignores_hangup() {
            return Ok(Self(callers));
        }
        // Process 1 ends with everything, and 0 is outside this PID namespace.
        while pid > 1 && callers.len() < MAX_CALLERS {
            let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
                break;
            };
            let before = Stat::read(pid);
            let descriptor = match pidfd_open(process, PidfdFlags::empty()) {
                Ok(descriptor) => descriptor,
                Err(rustix::io::Errno::SRCH) => break,
                Err(error) => return Err(error.into()),
            };
            let (Some(before), Some(stat)) = (before, Stat::read(pid)) else {
                break;
            };
            // The number was another's when it was looked at first.
            if before.start_ticks != stat.start_ticks {
                break;
            }
            let passes_on = PASSING_ON
                .iter()
                .any(|name| stat.comm == *name || stat.comm.starts_with(&format!("{name} ")));
            callers.push((stat.comm, watched(descriptor)?));
            if !passes_on {
                break;
            }
            pid = stat.ppid;
        }
        Ok(Self(callers))
    }

    /// Waits until one of them is gone; answers its name. Never ends where nobody is watched.
    pub async fn gone(&self) -> &str {
        poll_fn(|context| {
            for (name, process) in &self.0 {
                // Readable once the process has ended (pidfd_open(2)).
                if process.poll_read_ready(context).is_ready() {
                    return Poll::Ready(name.as_str());
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[expect(
    deprecated,
    reason = "what it warns of are types that do not own their descriptor; this one does"
)]
fn watched(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(process)
}
