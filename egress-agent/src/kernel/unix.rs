//! The programs for unix sockets.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use egress_common::abi::kfunc;
use egress_sys::Hook;

use super::{
    btf::Structures,
    load::PlaneError,
    object::{Code, Wanted},
    pin::PinFolder,
};

/// Programs by their name in the object, and their hooks.
const PROGRAMS: &[(&str, Hook)] = &[
    ("connect_unix", Hook::Connect),
    ("sendmsg_unix", Hook::Sendmsg),
];

/// Loaded programs that wait to be attached.
pub struct UnixPrograms {
    programs: Vec<Loaded>,
    /// Whether they can lead an address elsewhere.
    pub leads: bool,
}

/// Name, hook and handle.
pub(super) type Loaded = (&'static str, Hook, OwnedFd);

/// Why there are no programs for unix sockets.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    /// The kernel has no such hooks, or not for this user.
    #[error("this kernel has no hooks for unix sockets (they need Linux 6.7 and CAP_PERFMON): {0}")]
    Refused(String),
}

impl UnixPrograms {
    /// Takes what was loaded; all or nothing.
    pub(super) fn take(
        all: Vec<Result<Loaded, UnixError>>,
        leads: bool,
    ) -> Result<Self, UnixError> {
        let programs = all.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { programs, leads })
    }

    /// Attaches the programs at a cgroup and pins their links. After an error none of them
    /// stays attached, unless its pin could not be removed.
    pub(super) fn attach(&self, cgroup: &File, pins: &PinFolder) -> Result<(), PlaneError> {
        let mut pinned = Vec::new();
        for (name, hook, program) in &self.programs {
            let path = pins.link(name);
            let attached =
                egress_sys::attach(*hook, program.as_fd(), cgroup.as_fd()).and_then(|link| {
                    let file = CString::new(path.as_os_str().as_bytes())?;
                    egress_sys::pin(link.as_fd(), &file)
                });
            if let Err(error) = attached {
                for path in pinned {
                    // A pin that stays keeps refusing; the next start removes it.
                    let _stays_closed = std::fs::remove_file(path);
                }
                return Err(PlaneError::Pin {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                });
            }
            pinned.push(path);
        }
        Ok(())
    }
}

/// Numbers of the kernel's functions that the programs call, in the order of [`kfunc::ALL`].
pub(super) type Functions = [u32; kfunc::ALL.len()];

/// Looks them up among the kernel's types. `None`: it has not all of them, or does not show its
/// types.
pub(super) fn functions(structures: &Structures) -> Option<Functions> {
    let mut found = Functions::default();
    for (number, (_, name)) in found.iter_mut().zip(kfunc::ALL) {
        *number = structures.function(name)?;
    }
    Some(found)
}

/// The programs that are wanted of the object.
pub(super) fn wanted() -> impl Iterator<Item = Wanted> {
    PROGRAMS.iter().map(|(name, hook)| Wanted {
        name,
        hook: *hook,
        function: 0,
    })
}

/// Loads one. A program of another kind is not this room's, and refused.
pub(super) fn load(code: &Code) -> Result<Loaded, UnixError> {
    let program = code
        .load()
        .map_err(|why| UnixError::Refused(format!("{}: {why}", code.name())))?;
    Ok((code.name(), code.hook(), program))
}

impl From<UnixError> for io::Error {
    fn from(error: UnixError) -> Self {
        Self::other(error)
    }
}
