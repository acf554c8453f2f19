//! What a connector that runs as root must not change although root owns it: the policies and
//! the agent's program. Its pins, locks and events are out of its sight already.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

use super::mounts::MountError;
use crate::policy::load::SEALED;

/// Makes them read-only in this process's mount namespace. Every folder above becomes a mount
/// point, so that none can be renamed and put back with other content (rename(2), `EBUSY`).
pub(super) fn seal() -> Result<(), MountError> {
    let program =
        fs::read_link("/proc/self/exe").map_err(|error| failed("find", "itself", error))?;
    for path in [Path::new(SEALED), &program] {
        match fs::canonicalize(path) {
            Ok(path) => read_only(&path)?,
            // Nobody has configured anything, or the program was replaced by a newer one.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("find", path.display(), error)),
        }
    }
    Ok(())
}

fn read_only(path: &Path) -> Result<(), MountError> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.retain(|folder| *folder != Path::new("/"));
    for folder in above.into_iter().rev().chain([path]) {
        bind(folder, MsFlags::MS_REC)?;
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    bind(path, flags)
}

fn bind(path: &Path, flags: MsFlags) -> Result<(), MountError> {
    let none: Option<&PathBuf> = None;
    mount(Some(path), path, none, MsFlags::MS_BIND | flags, none)
        .map_err(|error| failed("make read-only", path.display(), error))
}

fn failed(what: &str, path: impl std::fmt::Display, why: impl ToString) -> MountError {
    MountError::new(format!("{what} {path}"), why)
}
