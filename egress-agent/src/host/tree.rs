//! The hash of a file or a folder with everything below it, and whether root alone can change it.
//!
//! The way is gone on held descriptors, without links. A hash is over path, kind, mode, link and
//! bytes: SHA-256 of a list with one line each, in the order of the paths. What a user could change
//! afterwards is never hashed: neither files and folders of others, or that others may write to, nor
//! files that somebody has open for writing since before.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use ring::digest::{Context, SHA256};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat, fstat, open, openat, readlinkat, statat,
};

/// Things in one tree at most.
const MAX_ENTRIES: usize = 1_000_000;
/// Folders inside each other at most.
const MAX_DEPTH: usize = 64;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    /// One line for each thing: kind, mode, content, path.
    pub list: String,
    /// SHA-256 of the list, in hexadecimal.
    pub hash: String,
}

/// Why a path has no such hash.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The kernel said so.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        error: io::Error,
    },
    /// Others than root can change it.
    #[error(
        "{path} {how}; install what is pinned where root alone writes, for example below /opt",
        path = path.display()
    )]
    Changeable {
        /// Where.
        path: PathBuf,
        /// How.
        how: &'static str,
    },
    /// It leads where nothing is looked at.
    #[error("{path} {what}", path = path.display())]
    Odd {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
}

/// Hashes a file or folder by its absolute path, which may have no links in it. Links below it may
/// lead to places below `inside` alone.
pub fn hash(path: &Path, inside: &[PathBuf]) -> Result<Tree, TreeError> {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if !path.is_absolute() || !path.components().all(plain) || path == Path::new("/") {
        return Err(odd(path, "is no absolute path in its shortest form"));
    }
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = PathBuf::from("/");
    let mut here = open("/", folder, Mode::empty()).map_err(|error| failed(&at, error))?;
    above(&at, &here)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    for part in parent.components().skip(1) {
        at.push(part);
        here = openat(&here, part.as_os_str(), folder, Mode::empty())
            .map_err(|error| failed(&at, error))?;
        above(&at, &here)?;
    }
    let mut walk = Walk {
        inside,
        list: String::new(),
        entries: 0,
        buffer: vec![0; 256 << 10],
    };
    let name = path.file_name().unwrap_or_default();
    walk.thing(&here, name, path, Path::new(""), 0)?;
    Ok(Tree {
        hash: digest(&walk.list),
        list: walk.list,
    })
}

/// SHA-256 of a list, in hexadecimal.
pub fn digest(list: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(list.as_bytes());
    hex(context.finish().as_ref())
}

struct Walk<'a> {
    inside: &'a [PathBuf],
    list: String,
    entries: usize,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// One thing, and what is below it. `shown` is its path in the list.
    fn thing(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        shown: &Path,
        depth: usize,
    ) -> Result<(), TreeError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES || depth > MAX_DEPTH {
            return Err(odd(path, "is one of too many things, or too deep"));
        }
        let found =
            statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(path, error))?;
        own(path, &found, false)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => self.file(folder, name, path, shown, &found),
            FileType::Symlink => self.link(folder, name, path, shown, &found),
            FileType::Directory => self.folder(folder, name, path, shown, &found, depth),
            _ => Err(odd(path, "is neither a file nor a folder nor a link")),
        }
    }

    fn file(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        shown: &Path,
        found: &Stat,
    ) -> Result<(), TreeError> {
        let failed = |error: io::Error| failed(path, error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = openat(folder, name, flags, Mode::empty()).map_err(|it| failed(it.into()))?;
        let mut file = File::from(opened);
        same(path, found, &fstat(&file).map_err(|it| failed(it.into()))?)?;
        unserved(path, file.as_fd())?;
        if !egress_sys::has_no_writer(file.as_fd()).map_err(failed)? {
            let how = "is open for writing, so that it can be changed";
            return Err(TreeError::Changeable {
                path: path.to_owned(),
                how,
            });
        }
        let mut context = Context::new(&SHA256);
        loop {
            let read = file.read(&mut self.buffer).map_err(failed)?;
            let bytes = self.buffer.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            context.update(bytes);
        }
        let content = hex(context.finish().as_ref());
        self.line('f', found.st_mode, &content, shown);
        Ok(())
    }

    fn link(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        shown: &Path,
        found: &Stat,
    ) -> Result<(), TreeError> {
        let target = readlinkat(folder, name, Vec::new()).map_err(|error| failed(path, error))?;
        let target = OsStr::from_bytes(target.to_bytes());
        let leads = leads_to(path, Path::new(target));
        let known = leads.is_some_and(|to| self.inside.iter().any(|pin| to.starts_with(pin)));
        if !known {
            return Err(odd(
                path,
                "is a link that leads to what is not pinned; pin that, too",
            ));
        }
        self.line('l', found.st_mode, &escaped(target.as_bytes()), shown);
        Ok(())
    }

    fn folder(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        path: &Path,
        shown: &Path,
        found: &Stat,
        depth: usize,
    ) -> Result<(), TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = openat(folder, name, flags, Mode::empty()).map_err(|it| failed(path, it))?;
        same(path, found, &fstat(&here).map_err(|it| failed(path, it))?)?;
        unserved(path, here.as_fd())?;
        self.line('d', found.st_mode, "-", shown);
        let mut names: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(&here).map_err(|it| failed(path, it))? {
            let entry = entry.map_err(|it| failed(path, it))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        for name in names {
            self.thing(
                &here,
                &name,
                &path.join(&name),
                &shown.join(&name),
                depth + 1,
            )?;
        }
        Ok(())
    }

    fn line(&mut self, kind: char, mode: RawMode, content: &str, shown: &Path) {
        let mode = mode & 0o7777;
        let shown = escaped(shown.as_os_str().as_bytes());
        // Writing to a String cannot fail.
        writeln!(self.list, "{kind} {mode:04o} {content} {shown}").unwrap_or_default();
    }
}

/// Where a link leads, as far as that is certain: `..` counts at the beginning alone.
fn leads_to(link: &Path, target: &Path) -> Option<PathBuf> {
    let mut to = match target.is_absolute() {
        true => PathBuf::from("/"),
        false => link.parent()?.to_owned(),
    };
    let mut down = false;
    for part in target.components() {
        match part {
            Component::ParentDir if !down => {
                to.pop();
            }
            Component::Normal(name) => {
                down = true;
                to.push(name);
            }
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(to)
}

/// Whether root alone can change what a folder on the way leads to.
fn above(path: &Path, folder: &OwnedFd) -> Result<(), TreeError> {
    let found = fstat(folder).map_err(|error| failed(path, error))?;
    own(path, &found, true)?;
    unserved(path, folder.as_fd())
}

/// Whether root alone can change a thing: root owns it, and nobody else may write. A list for access
/// control shows in the mode's group bits, so those are nobody's, root's own group included.
fn own(path: &Path, found: &Stat, above: bool) -> Result<(), TreeError> {
    let link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
    // In a folder with the sticky bit nobody takes away what is root's; but everybody adds to it.
    let sticky = above && found.st_mode & 0o1000 != 0;
    let how = if found.st_uid != 0 {
        "belongs to another user than root"
    } else if !link && !sticky && found.st_mode & 0o002 != 0 {
        "can be changed by everybody"
    } else if !link && !sticky && found.st_mode & 0o020 != 0 {
        "can be changed by a group"
    } else {
        return Ok(());
    };
    Err(TreeError::Changeable {
        path: path.to_owned(),
        how,
    })
}

/// A file system that a program serves says today what it likes, and tomorrow something else.
fn unserved(path: &Path, there: BorrowedFd<'_>) -> Result<(), TreeError> {
    let system = fstatfs(there).map_err(|error| failed(path, io::Error::from(error)))?;
    if system.filesystem_type() == FUSE_SUPER_MAGIC {
        return Err(TreeError::Changeable {
            path: path.to_owned(),
            how: "is on a file system that a program serves (FUSE)",
        });
    }
    Ok(())
}

fn same(path: &Path, one: &Stat, other: &Stat) -> Result<(), TreeError> {
    if (one.st_dev, one.st_ino, one.st_mode) == (other.st_dev, other.st_ino, other.st_mode) {
        return Ok(());
    }
    Err(odd(path, "was replaced in this moment"))
}

/// Bytes that could be taken for others stand as `%XX`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'!'..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => write!(text, "%{byte:02X}").unwrap_or_default(),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

fn failed(path: &Path, error: impl Into<io::Error>) -> TreeError {
    TreeError::Io {
        path: path.to_owned(),
        error: error.into(),
    }
}

fn odd(path: &Path, what: &'static str) -> TreeError {
    TreeError::Odd {
        path: path.to_owned(),
        what,
    }
}

/// Things that differ between two lists: what became of each path.
pub fn differences(before: &str, after: &str) -> Vec<String> {
    fn read(list: &str) -> BTreeMap<&str, &str> {
        list.lines()
            .filter_map(|line| {
                let at = line.rfind(' ')?;
                Some((line.get(at + 1..)?, line.get(..at)?))
            })
            .collect()
    }
    let [old, new] = [read(before), read(after)];
    let mut found = Vec::new();
    for (path, what) in &new {
        match old.get(path) {
            None => found.push(format!("new: {path}")),
            Some(before) if before != what => found.push(format!("changed: {path}")),
            Some(_) => {}
        }
    }
    let gone = old.keys().filter(|path| !new.contains_key(*path));
    found.extend(gone.map(|path| format!("gone: {path}")));
    found
}
