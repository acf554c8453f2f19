//! Groups of processes as a service manager makes them for its units.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::fs::{XattrFlags, setxattr};

use crate::leftovers::cgroup2;

/// A control group below the root of cgroup2, removed when dropped.
pub struct Unit(PathBuf);

impl Unit {
    /// One of this process's, with a name of its own.
    pub fn new(name: &str) -> Result<Self> {
        let folder = cgroup2()?.join(format!("{name}-{}.service", std::process::id()));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }

    /// As `Delegate=yes` does (systemd.resource-control(5)).
    pub fn delegated(self) -> Result<Self> {
        setxattr(&self.0, "trusted.delegate", b"1", XattrFlags::empty())?;
        Ok(self)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Puts what follows into it, for a shell.
    pub fn line(&self) -> String {
        line(&self.0)
    }
}

/// Puts what follows into a group, for a shell.
pub fn line(folder: &Path) -> String {
    format!("echo $$ >{}/cgroup.procs; exec \"$@\"", folder.display())
}

impl Drop for Unit {
    fn drop(&mut self) {
        // It stays only where something still runs in it; then the test has failed already.
        let _ = fs::remove_dir(&self.0);
    }
}
