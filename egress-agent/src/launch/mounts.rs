//! What a connector sees of processes and of the host's controls.
//!
//! Every connector has a `/proc` of its own PID namespace. One that runs as root has the host's
//! controls read-only: without capabilities user 0 still owns what root owns. It could write its
//! process id into another cgroup, unlink the data plane's pins, or set `core_pattern`. Undoing
//! that needs `mount(2)`, which takes a capability and passes no filter.

use std::{fs, path::Path};

use nix::mount::{MsFlags, mount};

use super::sealed;
use crate::host::mountinfo;

/// A mount that could not be made. The connector is not started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {why}; the connector was not started")]
pub struct MountError {
    what: String,
    why: String,
}

impl MountError {
    pub(super) fn new(what: String, why: impl ToString) -> Self {
        Self {
            what,
            why: why.to_string(),
        }
    }
}

/// File systems that are the kernel's controls.
const CONTROLS: &[&[u8]] = &[
    b"sysfs",
    b"cgroup",
    b"cgroup2",
    b"bpf",
    b"tracefs",
    b"debugfs",
    b"securityfs",
    b"configfs",
    b"efivarfs",
    b"pstore",
    b"selinuxfs",
    b"fusectl",
    b"binfmt_misc",
    // With everything below that changes the host: sys, sysrq-trigger, irq, bus, fs, scsi, …
    b"proc",
];

/// Mounts a `/proc` that shows the processes of this one's PID namespace, and none besides. Needs
/// CAP_SYS_ADMIN.
pub fn own_processes() -> Result<(), MountError> {
    let at = Path::new("/proc");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), at, Some("proc"), flags, None::<&str>)
        .map_err(|error| failed("mount a /proc of its own for the connector", error))
}

/// Makes the host's controls read-only in this process's own mount namespace. Needs CAP_SYS_ADMIN.
pub fn seal() -> Result<(), MountError> {
    let table =
        fs::read("/proc/self/mountinfo").map_err(|error| failed("read the mounts", error))?;
    for found in mountinfo::parse(&table) {
        if CONTROLS.contains(&found.fs_type) {
            read_only(&found.point)?;
        }
    }
    sealed::seal()?;
    Ok(())
}

/// Keeps what the mount forbids already; a remount would otherwise drop it or fail.
fn read_only(point: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_BIND
        | MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    match change(None, point, flags) {
        Ok(()) => Ok(()),
        // Hidden below another mount: nobody can reach it.
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EINVAL) if !is_mount_point(point) => {
            Ok(())
        }
        Err(error) => Err(failed(
            format!(
                "make {} read-only for a connector that runs as root",
                point.display()
            ),
            error,
        )),
    }
}

/// Whether a path leads to something that is mounted there: the parent is on another device.
fn is_mount_point(point: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
    match (device(point), device(&point.join(".."))) {
        (Ok(own), Ok(parent)) => own != parent,
        _ => false,
    }
}

pub(super) fn change(from: Option<&Path>, to: impl AsRef<Path>, flags: MsFlags) -> nix::Result<()> {
    mount(from, to.as_ref(), None::<&str>, flags, None::<&str>)
}

pub(super) fn failed(what: impl Into<String>, why: impl ToString) -> MountError {
    MountError::new(what.into(), why)
}
