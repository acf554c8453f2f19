//! Who can change a file: by itself, or by any folder or link on its way.
//!
//! The way is gone step by step on descriptors, so that what is checked is what is read. Whether a
//! user may write is what the kernel answers for that user: modes, groups, access control lists
//! and security modules count as they do for the user's own programs.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use egress_sys::{as_user, may_write};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat, readlinkat},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat},
        statfs::{FUSE_SUPER_MAGIC, PROC_SUPER_MAGIC, fstatfs},
    },
    unistd::{Gid, Group},
};

use super::User;

/// Links on the way (`MAXSYMLINKS`, include/linux/namei.h).
const LINKS: usize = 40;
const STICKY: u32 = 0o1000;

/// A file, opened for reading, and everything that led to it.
#[derive(Debug)]
pub struct Way {
    file: File,
    facts: FileStat,
    folders: Vec<Folder>,
    path: PathBuf,
}

/// A folder in which an entry was looked up.
#[derive(Debug)]
struct Folder {
    fd: OwnedFd,
    facts: FileStat,
    /// Owner of the entry: in a folder with the sticky bit, who may take it away.
    entry: u32,
    path: PathBuf,
}

/// Why somebody else's words would be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changeable {
    /// The file, or the folder on its way.
    pub path: PathBuf,
    /// What the user has to do with it: "owns", "may write to".
    pub how: &'static str,
}

impl fmt::Display for Changeable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.how, self.path.display())
    }
}

impl Way {
    /// Goes to a regular file and opens it for reading.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut folders = Vec::new();
        let start = if path.is_absolute() {
            PathBuf::from("/")
        } else {
            // A working directory that was removed has no path; it is a folder all the same.
            std::env::current_dir().unwrap_or_default()
        };
        let mut left: VecDeque<OsString> = parts(&start).chain(parts(path)).collect();
        let mut here = folder_at(if start.is_absolute() { "/" } else { "." })?;
        let mut shown = PathBuf::from(if start.is_absolute() { "/" } else { "" });
        let mut links = 0_usize;
        while let Some(name) = left.pop_front() {
            let entry = openat(&here, name.as_os_str(), look(), Mode::empty())?;
            let facts = fstat(&entry)?;
            let kind = SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT;
            let above = folder(here.try_clone()?, facts.st_uid, shown.clone())?;
            if kind == SFlag::S_IFLNK {
                if fstatfs(&above.fd)?.filesystem_type() == PROC_SUPER_MAGIC {
                    // Such a link is no text: it leads to what a process has open.
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "it leads through a link of /proc",
                    ));
                }
                links += 1;
                if links > LINKS {
                    return Err(Errno::ELOOP.into());
                }
                let target = PathBuf::from(readlinkat(&entry, "")?);
                if target.is_absolute() {
                    here = folder_at("/")?;
                    shown = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(part);
                }
                folders.push(above);
                continue;
            }
            step(&mut shown, &name);
            if left.is_empty() {
                if kind != SFlag::S_IFREG {
                    return Err(irregular());
                }
                let file = File::from(openat(&above.fd, name.as_os_str(), read(), Mode::empty())?);
                let opened = fstat(&file)?;
                if (opened.st_dev, opened.st_ino) != (facts.st_dev, facts.st_ino) {
                    return Err(io::Error::other("it was replaced in this moment"));
                }
                folders.push(above);
                return Ok(Self {
                    file,
                    facts: opened,
                    folders,
                    path: shown,
                });
            }
            folders.push(above);
            here = entry;
        }
        Err(irregular())
    }

    /// The opened file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where it is, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder it is in, and its name there.
    pub fn folder(&self) -> Option<(BorrowedFd<'_>, &OsStr)> {
        let last = self.folders.last()?;
        Some((last.fd.as_fd(), self.path.file_name()?))
    }

    /// The user who owns the file.
    pub fn owner(&self) -> u32 {
        self.facts.st_uid
    }

    /// When the file's bytes were last changed, in seconds since 1970.
    pub fn changed(&self) -> i64 {
        self.facts.st_mtime
    }

    /// What others than its user and root could change about what is read here, by owners and
    /// modes alone (a list for access control shows in the mode's group bits): the first thing
    /// on the way, and how. The user's private group, with nobody else in it, is no other.
    pub fn open_to_others(&self, owner: &User) -> Option<Changeable> {
        let others = |facts: &FileStat| {
            if !is_own(facts.st_uid, owner) {
                Some("another user owns")
            } else if facts.st_mode & 0o002 != 0 {
                Some("everybody may write to")
            } else if facts.st_mode & 0o020 != 0 && !is_private(facts.st_gid, owner) {
                Some("a group of others may write to")
            } else {
                None
            }
        };
        let in_folder = |folder: &Folder| {
            if folder.facts.st_mode & STICKY != 0 && is_own(folder.facts.st_uid, owner) {
                return (!is_own(folder.entry, owner)).then_some("another user owns an entry of");
            }
            others(&folder.facts)
        };
        let found = |path: &Path, how| Changeable {
            path: path.to_owned(),
            how,
        };
        let folder = self
            .folders
            .iter()
            .find_map(|folder| in_folder(folder).map(|how| found(&folder.path, how)));
        folder.or_else(|| others(&self.facts).map(|how| found(&self.path, how)))
    }

    /// What a user could change about what is read here: the first thing on the way. A user who
    /// is root owns everything that root owns, without any capability.
    pub fn changeable_by(&self, user: &User) -> io::Result<Option<Changeable>> {
        let found = |path: &Path, how| Changeable {
            path: path.to_owned(),
            how,
        };
        let look = || -> io::Result<Option<Changeable>> {
            for folder in &self.folders {
                if folder.facts.st_uid == user.uid {
                    return Ok(Some(found(&folder.path, "owns")));
                }
                if is_fuse(&folder.fd)? {
                    return Ok(Some(found(&folder.path, "may serve (FUSE)")));
                }
                let sticky = folder.facts.st_mode & STICKY != 0;
                if (!sticky || folder.entry == user.uid)
                    && writable(&folder.fd, &folder.facts, user)?
                {
                    return Ok(Some(found(&folder.path, "may write to")));
                }
            }
            if self.facts.st_uid == user.uid {
                return Ok(Some(found(&self.path, "owns")));
            }
            if is_fuse(&self.file)? {
                return Ok(Some(found(&self.path, "may serve (FUSE)")));
            }
            let writable = writable(&self.file, &self.facts, user)?;
            Ok(writable.then(|| found(&self.path, "may write to")))
        };
        as_user(user.uid, user.gid, &user.groups, look)?
    }
}

fn is_own(uid: u32, owner: &User) -> bool {
    uid == 0 || uid == owner.uid
}

/// Root's group, or the one that was made with the user and has nobody else in it.
fn is_private(gid: u32, owner: &User) -> bool {
    if gid == 0 {
        return true;
    }
    if gid != owner.gid {
        return false;
    }
    let Ok(Some(group)) = Group::from_gid(Gid::from_raw(gid)) else {
        return false;
    };
    Some(&group.name) == owner.name.as_ref() && group.mem.iter().all(|member| *member == group.name)
}

/// Whether the user of this thread may write, as the kernel says. A mount that is read-only says
/// nothing about others of the same file system; then the mode counts.
fn writable(fd: impl AsFd, facts: &FileStat, user: &User) -> io::Result<bool> {
    match may_write(fd.as_fd()) {
        Err(error) if error.raw_os_error() == Some(Errno::EROFS as i32) => {
            let group = facts.st_gid == user.gid || user.groups.contains(&facts.st_gid);
            Ok(facts.st_mode & 0o002 != 0 || group && facts.st_mode & 0o020 != 0)
        }
        answer => answer,
    }
}

/// A program of the user can serve such a file system, and say of every file that it is root's.
fn is_fuse(fd: impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(fd)?.filesystem_type() == FUSE_SUPER_MAGIC)
}

fn folder(fd: OwnedFd, entry: u32, path: PathBuf) -> io::Result<Folder> {
    Ok(Folder {
        facts: fstat(&fd)?,
        fd,
        entry,
        path,
    })
}

fn folder_at(path: &str) -> nix::Result<OwnedFd> {
    open(path, look() | OFlag::O_DIRECTORY, Mode::empty())
}

fn look() -> OFlag {
    OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// A FIFO must not hold us up, a device must not do anything.
fn read() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
}

/// Names on a path, with `..` and without `.`.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    let named = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(named)
}

fn step(shown: &mut PathBuf, name: &OsStr) {
    if name.as_bytes() == b".." {
        shown.pop();
    } else {
        shown.push(name);
    }
}

fn irregular() -> io::Error {
    io::Error::new(io::ErrorKind::IsADirectory, "not a regular file")
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
