//! Folders of the agent's own in places where others may have been first.
//!
//! A bpf file system is mounted with mode 1777 unless somebody says otherwise: every user can
//! make a folder there under the name that the agent is going to use. Such a folder is taken
//! over; it keeps nobody from starting.

use std::{
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::{Mode, fchmod, fstat, fstatat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, getegid, geteuid, unlinkat},
};

/// Somebody may put something in the way once more while it is taken out of it.
const TRIES: usize = 8;
/// Writable by the group and by others.
const BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Opens a folder below `parent`, made with the mode where it is missing, and of this process's
/// user in any case: one that belongs to somebody else, or that others can write to, changes its
/// owner and mode. Whatever else has the name is removed. Fails where others could move the
/// folder away afterwards.
pub fn folder(parent: &Path, name: &str, mode: u32) -> io::Result<OwnedFd> {
    let above = open(parent, flags(), Mode::empty())?;
    let facts = File::from(above.try_clone()?).metadata()?;
    let by_others = facts.mode() & BY_OTHERS != 0 && facts.mode() & STICKY == 0;
    if by_others || !is_own(facts.uid()) {
        let why = format!(
            "{} belongs to user {} with mode {:o}, so others could take the agent's folder in it \
             away (chown root, chmod +t)",
            parent.display(),
            facts.uid(),
            facts.permissions().mode() & 0o7777
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    below(&above, name, mode)
}

/// The same below an open folder that nobody else can write to.
pub fn below(above: &OwnedFd, name: &str, mode: u32) -> io::Result<OwnedFd> {
    let bits = Mode::from_bits_truncate(mode);
    for _ in 0..TRIES {
        let made = match mkdirat(above, name, bits) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let dir = match openat(above, name, flags() | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => continue,
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                match unlinkat(above, name, UnlinkatFlags::NoRemoveDir) {
                    Ok(()) | Err(Errno::ENOENT | Errno::EISDIR) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        let facts = fstat(&dir)?;
        if !is_own(facts.st_uid) {
            // The owner first: who was it until now could change the mode back.
            fchown(&dir, Some(own_uid()), Some(own_gid()))?;
        }
        if made || !is_own(facts.st_uid) || facts.st_mode & BY_OTHERS != 0 {
            // The umask had its say in mkdir.
            fchmod(&dir, bits)?;
        }
        // Until it had another owner, the one before could put another in its place.
        match fstatat(above, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there) if (there.st_dev, there.st_ino) == (facts.st_dev, facts.st_ino) => {
                return Ok(dir);
            }
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other(format!(
        "somebody puts something else in the place of {name} again and again"
    )))
}

fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

/// Root's folders are as good as one's own.
fn is_own(uid: u32) -> bool {
    uid == 0 || uid == own_uid().as_raw()
}

fn own_uid() -> Uid {
    geteuid()
}

fn own_gid() -> Gid {
    getegid()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use std::{
        fs::{self, Permissions},
        os::unix::fs::{chown, symlink},
    };

    use super::*;

    const STRANGER: u32 = 65534;

    fn facts(path: &Path) -> (u32, u32) {
        let facts = fs::symlink_metadata(path).unwrap();
        (facts.uid(), facts.mode() & 0o7777)
    }

    #[test]
    fn what_others_put_there_keeps_nobody_out() {
        if !geteuid().is_root() {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), Permissions::from_mode(0o1777)).unwrap();
        let path = base.path().join("agent");
        let by_stranger = |make: &dyn Fn()| {
            make();
            std::os::unix::fs::lchown(&path, Some(STRANGER), Some(STRANGER)).unwrap();
        };
        let kinds: [&dyn Fn(); 4] = [
            &|| fs::create_dir(&path).unwrap(),
            &|| fs::write(&path, "").unwrap(),
            &|| symlink("/etc", &path).unwrap(),
            &|| symlink("nowhere", &path).unwrap(),
        ];
        for make in kinds {
            by_stranger(make);
            folder(base.path(), "agent", 0o700).unwrap();
            assert_eq!(facts(&path), (0, 0o700));
            fs::remove_dir(&path).unwrap();
        }
        // One's own that is open to all.
        folder(base.path(), "agent", 0o755).unwrap();
        assert_eq!(facts(&path), (0, 0o755));
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        folder(base.path(), "agent", 0o755).unwrap();
        assert_eq!(facts(&path), (0, 0o755));
        // A narrower mode is somebody's wish.
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        folder(base.path(), "agent", 0o755).unwrap();
        assert_eq!(facts(&path), (0, 0o700));
    }

    #[test]
    fn what_others_could_move_away_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(folder(base.path(), "agent", 0o700).is_err());
        fs::set_permissions(base.path(), Permissions::from_mode(0o755)).unwrap();
        chown(base.path(), Some(STRANGER), None).unwrap();
        assert!(folder(base.path(), "agent", 0o700).is_err());
        chown(base.path(), Some(0), None).unwrap();
        assert!(folder(base.path(), "agent", 0o700).is_ok());
    }
}
