//! What makes unix sockets judgeable by their path: a folder that only the connector sees,
//! and paths that it cannot lead elsewhere.
//!
//! The data plane compares the path that a program writes, byte by byte, and never sees what
//! it leads to. So two things must hold in the connector's mount namespace:
//!
//! - Below [`OWN_FOLDER`] lies what the connector made itself. It is a mount of its own that
//!   follows no symbolic link, so nothing below it is a way to a socket elsewhere; hard links
//!   and renames do not cross mounts.
//! - On the way to a permitted socket nothing can be exchanged by the connector. Where it may
//!   write to a folder on that way, the entry is bound to itself: a mount point can neither
//!   be renamed nor removed (`vfs_rename`, `vfs_unlink`: `EBUSY`).

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use egress_common::abi::OWN_FOLDER;
use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// As many symbolic links as the kernel follows (`MAXSYMLINKS`, `include/linux/namei.h`).
const MAX_LINKS: usize = 40;
/// A name that no connector has used yet, for the test of the mount.
const PROBE: &str = "probe";

/// A mount that could not be made or does not hold. The connector is not started.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The system refused.
    #[error("cannot {what}: {why}; the connector was not started")]
    Mount {
        /// What was tried.
        what: String,
        /// What the system said.
        why: String,
    },
    /// A rule's path could be led elsewhere.
    #[error(
        "the rule for the unix socket {socket} cannot hold: {entry} {why}; the connector was not started"
    )]
    Path {
        /// The rule's path.
        socket: String,
        /// The entry on the way that could be exchanged.
        entry: String,
        /// Why, and what to do.
        why: &'static str,
    },
}

/// Takes a mount namespace, out of which nothing mounted comes back. Needs CAP_SYS_ADMIN.
pub fn namespace() -> Result<(), OwnError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| failed("leave the mount namespace", error))?;
    change(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)
        .map_err(|error| failed("make the mounts private", error))
}

/// Mounts the connector's own folder and shows that it follows no symbolic link.
pub fn folder(uid: u32, gid: u32) -> Result<(), OwnError> {
    let at = Path::new(OWN_FOLDER.trim_end_matches('/'));
    if let Some(parent) = at.parent() {
        keep(parent, uid, parent)?;
    }
    let flags =
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW);
    let options = format!("mode=0700,uid={uid},gid={gid}");
    mount(
        Some("egress-agent"),
        at,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )
    .map_err(|error| failed(format!("mount {}", at.display()), error))?;
    // Kernels before 5.10 take the flag without a word.
    let link = at.join(PROBE);
    symlink("/", &link).map_err(|error| failed("test the own folder", error))?;
    let followed = fs::metadata(&link);
    fs::remove_file(&link).map_err(|error| failed("test the own folder", error))?;
    match followed {
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => Ok(()),
        _ => Err(failed(
            "keep symbolic links out of the own folder",
            "the mount follows them (Linux 5.10 does not)",
        )),
    }
}

/// Makes sure that the connector cannot lead `socket`, the absolute and normal path of a
/// rule, elsewhere. A socket that is not there yet may come later, where only root can make it.
pub fn keep(socket: &Path, uid: u32, rule: &Path) -> Result<(), OwnError> {
    let mut left: VecDeque<OsString> = names(socket);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let steady = is_steady(&at, uid).map_err(|error| failed(reading(&at), error))?;
        let entry = at.join(&name);
        let found = match fs::symlink_metadata(&entry) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound && steady => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(unsound(
                    rule,
                    &entry,
                    "is not there, and the connector could put something else in its place \
                     (start the socket's server first)",
                ));
            }
            Err(error) => return Err(failed(reading(&entry), error)),
        };
        if found.is_symlink() {
            if !steady {
                return Err(unsound(
                    rule,
                    &entry,
                    "is a symbolic link in a folder that the connector may write to (name the \
                     path it leads to)",
                ));
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(unsound(rule, &entry, "is a symbolic link that never ends"));
            }
            let target = fs::read_link(&entry).map_err(|error| failed(reading(&entry), error))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            let rest = std::mem::take(&mut left);
            left = names(&target).into_iter().chain(rest).collect();
            continue;
        }
        if !steady {
            bind(&entry).map_err(|error| failed(format!("hold {}", entry.display()), error))?;
        }
        at = entry;
    }
    Ok(())
}

/// Whether only root may change what a folder holds, and the connector is not root. An entry
/// in an access list counts: its upper bound stands in the group's bits (acl(5)).
fn is_steady(folder: &Path, uid: u32) -> io::Result<bool> {
    let found = fs::symlink_metadata(folder)?;
    Ok(uid != 0 && found.uid() == 0 && found.mode() & 0o022 == 0)
}

/// Binds an entry to itself, with what is mounted below it.
fn bind(entry: &Path) -> nix::Result<()> {
    change(Some(entry), entry, MsFlags::MS_BIND | MsFlags::MS_REC)
}

/// The parts of a path, less the root and `.`.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn change(from: Option<&Path>, to: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(from, to, None::<&str>, flags, None::<&str>)
}

fn reading(path: &Path) -> String {
    format!("look at {}", path.display())
}

fn unsound(socket: &Path, entry: &Path, why: &'static str) -> OwnError {
    OwnError::Path {
        socket: socket.display().to_string(),
        entry: entry.display().to_string(),
        why,
    }
}

fn failed(what: impl Into<String>, why: impl ToString) -> OwnError {
    OwnError::Mount {
        what: what.into(),
        why: why.to_string(),
    }
}
