//! What a connector that runs as root sees of the host's controls: read-only, and no disks.
//!
//! Without capabilities user 0 still owns what root owns. It could write its process id into
//! another cgroup, unlink the data plane's pins, set `core_pattern`, or write to a disk. So
//! its launcher takes a mount namespace of its own in which those are read-only or not there.
//! Undoing that needs `mount(2)`, which takes a capability and passes no filter.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

use super::sealed;
use crate::host::mountinfo;

/// A mount that could not be made. The connector is not started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} for a connector that runs as root: {why}; the connector was not started")]
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
];
/// Controls inside proc(5).
const PROC: &[&str] = &[
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
];
/// Devices that programs need, by their names below /dev.
const DEVICES: &[&str] = &[
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm",
];
/// Links that programs expect below /dev.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Changes this process's own mount namespace into one in which root owns nothing that leads
/// out. Needs CAP_SYS_ADMIN.
pub fn seal() -> Result<(), MountError> {
    few_devices()?;
    let table =
        fs::read("/proc/self/mountinfo").map_err(|error| failed("read the mounts", error))?;
    for found in mountinfo::parse(&table) {
        if CONTROLS.contains(&found.fs_type) {
            read_only(&found.point)?;
        }
    }
    sealed::seal()?;
    for path in PROC.iter().map(Path::new).filter(|path| path.exists()) {
        change(Some(path), path, MsFlags::MS_BIND | MsFlags::MS_REC)
            .map_err(|error| failed(format!("bind {}", path.display()), error))?;
        read_only(path)?;
    }
    Ok(())
}

/// A /dev with the harmless devices alone.
fn few_devices() -> Result<(), MountError> {
    let staging = Path::new("/dev/shm");
    let kept = DEVICES
        .iter()
        .map(|name| Path::new("/dev").join(name))
        .filter(|path| path.exists());
    let kept: Vec<PathBuf> = kept.collect();
    // Built on a tmpfs beside, then moved over /dev: the originals must be visible meanwhile.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let at = if staging.is_dir() {
        staging
    } else {
        Path::new("/tmp")
    };
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        flags,
        Some("mode=0755,size=64k"),
    )
    .map_err(|error| failed("mount a small /dev", error))?;
    for path in &kept {
        let Some(name) = path.file_name() else {
            continue;
        };
        let target = at.join(name);
        if path == staging {
            fs::create_dir(&target).map_err(|error| failed("make /dev/shm", error))?;
            mount(
                Some("tmpfs"),
                &target,
                Some("tmpfs"),
                flags,
                Some("mode=1777"),
            )
            .map_err(|error| failed("mount /dev/shm", error))?;
            continue;
        }
        let made = if path.is_dir() {
            fs::create_dir(&target)
        } else {
            File::create(&target).map(drop)
        };
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed(format!("make {}", target.display()), error));
            }
            _ => {}
        }
        change(Some(path), &target, MsFlags::MS_BIND)
            .map_err(|error| failed(format!("bind {}", path.display()), error))?;
    }
    for (name, target) in LINKS {
        symlink(target, at.join(name)).map_err(|error| failed("make the links of /dev", error))?;
    }
    change(Some(at), Path::new("/dev"), MsFlags::MS_MOVE)
        .map_err(|error| failed("put the small /dev in place", error))
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
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EINVAL) if !point.exists() => Ok(()),
        Err(error) => Err(failed(format!("make {} read-only", point.display()), error)),
    }
}

fn change(from: Option<&Path>, to: impl AsRef<Path>, flags: MsFlags) -> nix::Result<()> {
    mount(from, to.as_ref(), None::<&str>, flags, None::<&str>)
}

fn failed(what: impl Into<String>, why: impl ToString) -> MountError {
    MountError {
        what: what.into(),
        why: why.to_string(),
    }
}
