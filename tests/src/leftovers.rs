//! What a run may leave on the machine, to see that it leaves nothing.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// Ending a cgroup takes the kernel a moment.
const SETTLE: Duration = Duration::from_secs(5);

/// Everything of the agent's that is there at a moment: cgroups, pins, lock files. Its event
/// logs are meant to stay and do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers(BTreeSet<PathBuf>);

impl Leftovers {
    /// What is there now.
    pub fn now() -> Result<Self> {
        let mut found = BTreeSet::new();
        let folders = [
            cgroup2()?.join("egress-agent"),
            "/sys/fs/bpf/egress-agent".into(),
            "/run/egress-agent/instances".into(),
        ];
        for folder in &folders {
            let is_cgroup = folder == &folders[0];
            let Ok(entries) = fs::read_dir(folder) else {
                continue;
            };
            for entry in entries.flatten() {
                if !is_cgroup || entry.path().is_dir() {
                    found.insert(entry.path());
                }
            }
        }
        Ok(Self(found))
    }

    /// Errors unless, within a moment, everything that is there was there before.
    pub fn ensure_nothing_new(&self) -> Result<()> {
        let end = Instant::now() + SETTLE;
        loop {
            let now = Self::now()?;
            let new: Vec<&PathBuf> = now.0.difference(&self.0).collect();
            if new.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "left behind: {new:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether there is anything of a connector that was not there before; others may run beside.
    pub fn anything_new_of(&self, connector: &str) -> Result<bool> {
        let now = Self::now()?;
        let mut new = now.0.difference(&self.0);
        let start = format!("{connector}-");
        Ok(new.any(|path| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(start.as_bytes())
        }))
    }

    /// Whether there is anything that was not there before.
    pub fn anything_new(&self) -> Result<bool> {
        Ok(!Self::now()?.0.is_subset(&self.0))
    }
}

/// Where the cgroup2 hierarchy is mounted.
pub fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let path = mount.and_then(|line| line.split(' ').nth(4));
    path.map(|path| Path::new(path).to_owned())
        .context("no cgroup2 is mounted")
}
