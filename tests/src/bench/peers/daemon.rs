//! A proxy that runs for as long as it is measured, and what process trees hold in memory.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, setsid},
};

use crate::bench::lane::first_of_sessions;

/// The slowest here takes two seconds.
const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(5);
/// `TCP_LISTEN`, `include/net/tcp_states.h`, as proc(5) net/tcp writes it.
const LISTENS: &str = "0A";

/// Ended when dropped.
pub(super) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it and waits until it listens; its output goes to a file.
    pub(super) fn start(mut command: Command, port: u16, log: &Path) -> Result<Self> {
        let output = File::create(log)?;
        // SAFETY: setsid(2) is async-signal-safe and takes no memory.
        unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut this = Self { child };
        first_of_sessions(this.pid())?;
        let end = Instant::now() + START;
        while !listens(this.pid(), port) {
            if let Some(status) = this.child.try_wait()? {
                bail!("it ended, {status}: {}", tail(log));
            }
            if Instant::now() > end {
                bail!("it does not listen: {}", tail(log));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(this)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        // They fail where it is gone already.
        let _asked = killpg(group, Signal::SIGTERM);
        let end = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        let _ended = killpg(group, Signal::SIGKILL);
        let _gone = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}

/// Whether a socket of this process's network namespace listens at a port.
fn listens(pid: u32, port: u16) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().unwrap_or_default();
            local.ends_with(&format!(":{port:04X}")) && fields.nth(1) == Some(LISTENS)
        })
    })
}

/// A process and all that came from it.
pub(in crate::bench) fn tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(pid) = all.get(next).copied() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        next += 1;
    }
    all
}

/// What a process adds to the memory in use: pages that it shares count in part (`Pss`, proc(5)
/// smaps_rollup). MiB.
pub(super) fn held(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Whether it is the worker, which every peer has.
pub(super) fn is_worker(pid: u32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0);
    let bench = words
        .next()
        .is_some_and(|program| program.ends_with(b"/bench"));
    bench && words.next() == Some(b"worker")
}
