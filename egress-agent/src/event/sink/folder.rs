//! The folder of event files, made and opened so that nobody else can lead it astray.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat, renameat},
    sys::stat::{Mode, fchmod, fstat},
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};

use crate::host::owned;

/// Where the files of all instances are.
pub const EVENTS: &str = "/run/egress-agent/events";

/// Why a file of events cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The system refused.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Somebody else could change what is in the folder.
    #[error(
        "{path} belongs to user {uid} with mode {mode:o}, so others could replace event files; \
         make it yours and writable by you alone (chown, chmod go-w), or remove it"
    )]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a name for a file.
    #[error("{0:?} cannot be part of an event file's name; use letters, digits, - and _")]
    Name(String),
}

impl SinkError {
    pub(super) fn io(what: &'static str, path: &Path, error: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            error: error.into(),
        }
    }
}

/// An open folder that only this user (or root) can write to.
#[derive(Debug)]
pub struct Folder {
    dir: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// [`EVENTS`], made where it is missing: `/run/egress-agent` with mode 0755 and the
    /// folder in it with mode 0750.
    pub fn events() -> Result<Self, SinkError> {
        let path = Path::new("/run/egress-agent");
        let dir = owned::folder(Path::new("/run"), "egress-agent", 0o755)
            .map_err(|error| SinkError::io("make", path, error))?;
        Self::checked(dir, path.to_owned())?.below("events", 0o750)
    }

    /// An existing folder.
    pub fn open(path: &Path) -> Result<Self, SinkError> {
        let dir = open(path, folder_flags(), Mode::empty())
            .map_err(|error| SinkError::io("open", path, error))?;
        Self::checked(dir, path.to_owned())
    }

    /// A folder in this one, made with the mode where it is missing, taken over where it is
    /// somebody else's.
    pub fn below(&self, name: &str, mode: u32) -> Result<Self, SinkError> {
        let path = self.path.join(name);
        let dir = owned::below(&self.dir, name, mode)
            .map_err(|error| SinkError::io("make", &path, error))?;
        Self::checked(dir, path)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file that is not there yet, mode 0640, for appending.
    pub(super) fn create(&self, name: &str) -> Result<File, SinkError> {
        let mode = Mode::from_bits_truncate(0o640);
        let flags = OFlag::O_WRONLY
            | OFlag::O_APPEND
            | OFlag::O_CREAT
            | OFlag::O_EXCL
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, name, flags, mode)
            .map_err(|error| SinkError::io("create", &self.path.join(name), error))?;
        fchmod(&file, mode)
            .map_err(|error| SinkError::io("set the mode of", &self.path.join(name), error))?;
        Ok(File::from(file))
    }

    /// Opens a file that is there, for reading.
    pub(super) fn read(&self, name: &str) -> Result<File, SinkError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        openat(&self.dir, name, flags, Mode::empty())
            .map(File::from)
            .map_err(|error| SinkError::io("open", &self.path.join(name), error))
    }

    /// Renames a file; one of the new name is replaced. One that somebody removed is no
    /// error.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), SinkError> {
        match renameat(self.dir.as_fd(), from, self.dir.as_fd(), to) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(SinkError::io("rename", &self.path.join(from), error)),
        }
    }

    /// Removes a file; one that is not there is no error.
    pub(super) fn remove(&self, name: &str) -> Result<(), SinkError> {
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(SinkError::io("remove", &self.path.join(name), error)),
        }
    }

    fn checked(dir: OwnedFd, path: PathBuf) -> Result<Self, SinkError> {
        let facts = fstat(&dir).map_err(|error| SinkError::io("look at", &path, error))?;
        let own = facts.st_uid == geteuid().as_raw() || facts.st_uid == 0;
        if !own || facts.st_mode & 0o022 != 0 {
            return Err(SinkError::Unsafe {
                path,
                uid: facts.st_uid,
                mode: facts.st_mode & 0o7777,
            });
        }
        Ok(Self { dir, path })
    }
}

fn folder_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn made_with_the_promised_modes() {
        let base = tempfile::tempdir().unwrap();
        let base = Folder::open(base.path()).unwrap();
        let events = base
            .below("agent", 0o755)
            .unwrap()
            .below("events", 0o750)
            .unwrap();
        assert_eq!(mode(&base.path().join("agent")), 0o755);
        assert_eq!(mode(events.path()), 0o750);
        events.create("x.jsonl").unwrap();
        assert_eq!(mode(&events.path().join("x.jsonl")), 0o640);
        assert!(events.create("x.jsonl").is_err());
        base.below("agent", 0o755).unwrap();
    }

    #[test]
    fn links_and_foreign_hands_lead_nowhere() {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::open(base.path()).unwrap();
        symlink("/tmp", base.path().join("link")).unwrap();
        folder.below("link", 0o755).unwrap();
        assert!(!base.path().join("link").is_symlink());
        symlink("/etc/passwd", base.path().join("file")).unwrap();
        assert!(folder.create("file").is_err());
        assert!(folder.read("file").is_err());
        folder.below("open", 0o755).unwrap();
        std::fs::set_permissions(base.path().join("open"), PermissionsExt::from_mode(0o777))
            .unwrap();
        assert!(matches!(
            Folder::open(&base.path().join("open")),
            Err(SinkError::Unsafe { .. })
        ));
        folder.below("open", 0o755).unwrap();
        assert_eq!(mode(&base.path().join("open")), 0o755);
    }
}
