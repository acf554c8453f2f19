//! A lock on a cgroup that says its agent is alive.
//!
//! The lock is on a file of the cgroup itself, which is the same inode in every mount,
//! container and network namespace of this host, whatever those have below `/run`. The kernel
//! gives it back when the agent ends, however it ends. The file can be opened by nobody but the
//! host's root: a connector that runs as root has no capabilities, and sees cgroups read-only.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc::{self, c_int, c_short},
};

use super::cgroup::{Cgroup, CgroupError, gone, io_error};

/// A file that every cgroup but the root has since Linux 4.14, and that nothing else here uses.
const FILE: &str = "cgroup.max.descendants";
/// Nobody can lock what nobody can open: reading is what others could do by default.
const MODE: u32 = 0o200;

/// The lock; it ends with this value, or with its process. It is not inherited by a program
/// that this process starts, for the descriptor is closed then.
#[derive(Debug)]
pub struct Alive {
    _file: File,
}

/// Whether a cgroup could be taken.
#[derive(Debug)]
pub enum Claim {
    /// It is this process's now.
    Taken(Alive),
    /// A living process has it.
    Held,
    /// There is no such cgroup.
    Gone,
}

impl Cgroup {
    /// Takes the cgroup for this process.
    pub fn claim(&self) -> Result<Claim, CgroupError> {
        let path = self.file();
        let closed = fs::set_permissions(&path, Permissions::from_mode(MODE));
        let file = match closed.and_then(|()| OpenOptions::new().write(true).open(&path)) {
            Ok(file) => file,
            Err(error) if gone(&error) => return Ok(Claim::Gone),
            Err(error) => return Err(io_error("open", &path, error)),
        };
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole())) {
            // Whoever had it before may have removed the cgroup meanwhile.
            Ok(_) if !self.exists() => Ok(Claim::Gone),
            Ok(_) => Ok(Claim::Taken(Alive { _file: file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(Claim::Held),
            Err(error) => Err(io_error("lock", &path, error.into())),
        }
    }

    /// Whether a living process has taken the cgroup.
    pub fn is_claimed(&self) -> Result<bool, CgroupError> {
        let path = self.file();
        let file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if gone(&error) => return Ok(false),
            Err(error) => return Err(io_error("open", &path, error)),
        };
        let mut lock = whole();
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))
            .map_err(|error| io_error("look at the lock of", &path, io::Error::from(error)))?;
        Ok(lock.l_type != short(libc::F_UNLCK))
    }

    fn file(&self) -> PathBuf {
        self.path().join(FILE)
    }
}

/// A write lock on the whole file.
fn whole() -> libc::flock {
    libc::flock {
        l_type: short(libc::F_WRLCK),
        l_whence: short(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// The constants are small.
fn short(constant: c_int) -> c_short {
    c_short::try_from(constant).unwrap_or_default()
}
