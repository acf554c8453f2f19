//! Puts a new text in the place of a file: in one step, and only while it is what was read.
//!
//! A file is written with the rights of its owner (see [`as_owner`]), so that a link or folder of
//! somebody's leads root to nothing that this user could not write. The new file is made in the
//! same folder, gets mode, group and attributes of the old one, and changes places with it. What
//! then lies aside has to be what was read; otherwise they change back.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use egress_sys::as_user;
use nix::unistd::geteuid;
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RenameFlags, XattrFlags, fchmod, fchown, fgetxattr, flistxattr,
    fsetxattr, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::{
    host::{User, trust::Way},
    scan::find::MAX_BYTES,
};

/// A file that was read, held open.
#[derive(Debug)]
pub struct Held {
    way: Way,
    bytes: Vec<u8>,
    meta: std::fs::Metadata,
}

impl Held {
    /// Reads a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut way = Way::open(path)?;
        let file = way.file();
        let meta = file.metadata()?;
        let mut bytes = Vec::new();
        (&mut *file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(io::Error::other("it is larger than 32 MiB"));
        }
        Ok(Self { way, bytes, meta })
    }

    /// What is in it.
    pub fn text(&self) -> io::Result<&str> {
        std::str::from_utf8(&self.bytes).map_err(|_| io::Error::other("it is not UTF-8"))
    }

    /// Who could change what is read here, besides its owner and root.
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Puts a text in its place.
    pub fn replace(mut self, text: &str) -> io::Result<()> {
        if self.meta.nlink() > 1 {
            return Err(io::Error::other(format!(
                "it has {} names (hard links), which would be parted; leave it one",
                self.meta.nlink()
            )));
        }
        let (folder, name) = self.way.folder().ok_or(Errno::NOENT)?;
        let (folder, name) = (folder.try_clone_to_owned()?, name.to_owned());
        let mut made = Made::new(folder.as_fd(), text.as_bytes(), 0o600)?;
        dress(&made.file, self.way.file(), &self.meta)?;
        made.file.sync_all()?;
        match renameat_with(&folder, &made.name, &folder, &name, RenameFlags::EXCHANGE) {
            Ok(()) => {
                if let Err(error) = self.unchanged(folder.as_fd(), OsStr::new(&made.name)) {
                    made.give_back(&name)?;
                    return Err(error);
                }
            }
            // A file system that cannot exchange (network, FUSE).
            Err(Errno::INVAL | Errno::NOSYS) => {
                self.unchanged(folder.as_fd(), &name)?;
                renameat(&folder, &made.name, &folder, &name)?;
            }
            Err(error) => return Err(error.into()),
        }
        drop(made);
        sync(folder.as_fd())
    }

    /// Whether a name still leads to the file that was read, with the same bytes in it.
    fn unchanged(&mut self, folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let there = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let file = self.way.file();
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        (&mut *file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        let same = (there.st_dev, there.st_ino) == (self.meta.dev(), self.meta.ino());
        if same && bytes == self.bytes {
            return Ok(());
        }
        Err(io::Error::other(
            "it was changed meanwhile, and is left as it is; try again",
        ))
    }
}

/// Makes a file that must not be there yet; `false`: it is.
pub fn create(path: &Path, text: &str) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let folder = File::open(parent)?;
    let name = path.file_name().unwrap_or_default();
    let made = Made::new(folder.as_fd(), text.as_bytes(), 0o644)?;
    made.file.sync_all()?;
    match renameat_with(&folder, &made.name, &folder, name, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(false),
        // A file system that knows no such rename: a further name is never put over another.
        Err(Errno::INVAL | Errno::NOSYS) => {
            match rustix::fs::linkat(&folder, &made.name, &folder, name, AtFlags::empty()) {
                Err(Errno::EXIST) => return Ok(false),
                linked => linked?,
            }
        }
        Err(error) => return Err(error.into()),
    }
    sync(folder.as_fd())?;
    Ok(true)
}

/// Does something with a file as the user it belongs to: as root with that user's rights.
pub fn as_owner<T: Send>(user: &User, job: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    if geteuid().is_root() && !user.is_root() {
        return as_user(user.uid, user.gid, &user.groups, job)?;
    }
    job()
}

/// A new file beside the old one; what lies there under its name at the end is removed.
struct Made<'a> {
    folder: BorrowedFd<'a>,
    name: String,
    file: File,
    keep: bool,
}

impl<'a> Made<'a> {
    fn new(folder: BorrowedFd<'a>, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for attempt in 0..64_u32 {
            let name = format!(".egress-agent-{}-{attempt}", std::process::id());
            match openat(folder, &name, flags, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) => {}
                made => {
                    let file = File::from(made?);
                    let mut made = Self {
                        folder,
                        name,
                        file,
                        keep: false,
                    };
                    made.file.write_all(bytes)?;
                    return Ok(made);
                }
            }
        }
        Err(io::Error::other(
            "its folder is full of files that were left there",
        ))
    }
}

impl Made<'_> {
    /// Puts what lies aside back in its place. Where somebody has put a newer file there meanwhile,
    /// that one stays: what comes out has to be what was put in last. Until that is certain nothing
    /// is removed.
    fn give_back(&mut self, name: &OsStr) -> io::Result<()> {
        self.keep = true;
        let aside = |made: &Self| -> io::Result<u64> {
            Ok(statat(made.folder, &made.name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino)
        };
        let mut placed = self.file.metadata()?.ino();
        for _ in 0..1_000 {
            let next = aside(self)?;
            renameat_with(
                self.folder,
                &self.name,
                self.folder,
                name,
                RenameFlags::EXCHANGE,
            )?;
            if aside(self)? == placed {
                self.keep = false;
                return Ok(());
            }
            placed = next;
        }
        Err(io::Error::other(format!(
            "it is written all the while; a version of it was kept beside it as {}",
            self.name
        )))
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // After a rename without exchange there is nothing under this name any more.
        unlinkat(self.folder, &self.name, AtFlags::empty()).unwrap_or_default();
    }
}

/// Mode, group and attributes of the old file. The owner is the one who writes.
fn dress(new: &File, old: &File, meta: &std::fs::Metadata) -> io::Result<()> {
    let own = new.metadata()?;
    if own.uid() != meta.uid() {
        return Err(io::Error::other(
            "it belongs to another user, and would be yours afterwards; call as its owner or as root",
        ));
    }
    if own.gid() != meta.gid() {
        fchown(new, None, Some(Gid::from_raw(meta.gid()))).map_err(|error| {
            let why = io::Error::from(error);
            io::Error::other(format!("its group cannot be kept: {why}"))
        })?;
    }
    fchmod(new, Mode::from_raw_mode(meta.mode() & 0o7777))?;
    let mut names = vec![0; 64 << 10];
    let length = match flistxattr(old, &mut names) {
        Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    for name in names
        .get(..length)
        .unwrap_or_default()
        .split(|&byte| byte == 0)
    {
        // Labels of security modules are the kernel's to give.
        if !(name.starts_with(b"user.") || name == b"system.posix_acl_access") {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = fgetxattr(old, name, &mut value)?;
        let value = value.get(..length).unwrap_or_default();
        fsetxattr(new, name, value, XattrFlags::empty())?;
    }
    Ok(())
}

fn sync(folder: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    File::from(openat(folder, ".", flags, Mode::empty())?).sync_all()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use std::{
        fs,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries.map(|it| name(it).into_string().unwrap()).collect()
    }

    #[test]
    fn what_changed_meanwhile_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        type Change = fn(&Path);
        let changes: [(&str, Change); 4] = [
            ("theirs", |path| fs::write(path, "theirs").unwrap()),
            ("mine", |path| {
                // Another file with the same bytes.
                fs::remove_file(path).unwrap();
                fs::write(path, "mine").unwrap();
            }),
            ("moved", |path| {
                fs::write(path.with_extension("x"), "moved").unwrap();
                fs::rename(path.with_extension("x"), path).unwrap();
            }),
            ("minE", |path| {
                let times = fs::metadata(path).unwrap().modified().unwrap();
                fs::write(path, "minE").unwrap();
                File::options()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_modified(times)
                    .unwrap();
            }),
        ];
        for (expected, change) in changes {
            fs::write(&path, "mine").unwrap();
            let held = Held::open(&path).unwrap();
            change(&path);
            assert!(held.replace("new").is_err(), "{expected}");
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert_eq!(names(folder.path()), ["c"], "{expected}");
        }
        fs::write(&path, "mine").unwrap();
        Held::open(&path).unwrap().replace("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(folder.path()), ["c"]);
    }

    /// A client that writes all the while loses nothing that it wrote.
    #[test]
    fn a_writer_beside_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        fs::write(&path, "0").unwrap();
        let ended = AtomicBool::new(false);
        let written = Mutex::new(0_u32);
        let [mut replaced, mut refused] = [0, 0];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let next = folder.path().join("next");
                while !ended.load(Ordering::Relaxed) {
                    let mut written = written.lock().unwrap();
                    fs::write(&next, (*written + 1).to_string()).unwrap();
                    fs::rename(&next, &path).unwrap();
                    *written += 1;
                    drop(written);
                    std::thread::sleep(Duration::from_micros(20));
                }
            });
            for _ in 0..200 {
                let Ok(held) = Held::open(&path) else {
                    continue;
                };
                let new = format!("{}+", held.text().unwrap().trim_end_matches('+'));
                match held.replace(&new) {
                    Ok(()) => replaced += 1,
                    Err(_) => refused += 1,
                }
                let written = written.lock().unwrap();
                let there = fs::read_to_string(&path).unwrap();
                let last = there.trim_end_matches('+').to_owned();
                if last != written.to_string() {
                    ended.store(true, Ordering::Relaxed);
                }
                assert_eq!(last, written.to_string(), "a write was lost");
            }
            ended.store(true, Ordering::Relaxed);
        });
        assert!(refused > 0, "{replaced} {refused}");
    }

    #[test]
    fn a_file_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c.yaml");
        assert!(create(&path, "one").unwrap());
        assert!(!create(&path, "two").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(names(path.parent().unwrap()), ["c.yaml"]);
    }
}
