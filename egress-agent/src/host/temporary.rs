//! The temporary folder that a connector and its caller share.
//!
//! A server hands files to its client by their paths: pictures, reports, exports. So what it
//! leaves in its temporary folder has to be there for the client, under the same path, while it
//! runs and afterwards. The same folder is where programs bind their own unix sockets, and those
//! nobody outside may call.
//!
//! ```text
//! TMPDIR/egress-XXXXXX        root's, 0700: nobody comes this way while the connector lives
//!   in/                       root's: what is mounted over the folder above, for everybody
//!     tmp/                    the connector's own; its path outside and inside is .../tmp
//! ```
//!
//! Outside, `in` is mounted over the folder as a *view*: read-only, and with ids of which no
//! group is mapped. The owner reads there as ever, and may write to nothing, a socket included:
//! connect(2) asks for the right to write, and the kernel refuses that for files with an id that
//! is not mapped (`inode_permission`, `fs/namei.c`). So nobody calls in, and nobody puts a socket
//! of others into the folder. The launcher takes the view away in the connector's own mount
//! namespace and binds the folder itself there.
//!
//! At the end the view goes, and `tmp` moves up: its path stays what it was.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::{
            DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use egress_sys::mount as sys;
use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use serde::{Deserialize, Serialize};

/// Where it is written down what has to be ended, a file for each instance.
const RECORDS: &str = "/run/egress-agent/temporary";
/// Where temporary files go that nobody named a place for.
const USUAL: &str = "/tmp";
/// The part that is mounted for everybody, and in it the connector's.
const SHARED: &str = "in";
const OWN: &str = "tmp";
/// Names that are tried before it is given up.
const ATTEMPTS: u32 = 16;

/// The hidden subcommand under which the binary calls itself to make a user namespace.
pub const KEEPER: &str = "__ids";

/// The folder of one instance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Temporary {
    /// The folder that is root's.
    top: PathBuf,
    /// Device and inode of it, or of what is mounted there in memory.
    device: u64,
    inode: u64,
    /// It is held in memory, because the file system below cannot map ids.
    pub memory: bool,
    uid: u32,
    gid: u32,
}

/// Whose folder it becomes.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: &'a [u32],
}

impl Temporary {
    /// Makes the folder of an instance, in the one that the caller's `TMPDIR` names, or in /tmp
    /// where that is no folder of its user's. Nothing is left of it after an error.
    pub fn make(instance: &str, wish: Option<&Path>, owner: Owner<'_>) -> io::Result<Self> {
        let base = base(wish, owner)?;
        let ids = ids(owner)?;
        let top = new_folder(&base)?;
        let record = record(instance);
        let this = Self {
            device: 0,
            inode: 0,
            top,
            // Root could change the folder below through another mount of its file system.
            memory: owner.uid == 0,
            uid: owner.uid,
            gid: owner.gid,
        };
        let made = this.filled(&ids, &record).or_else(|error| {
            let retry = !this.memory && error.raw_os_error() == Some(libc::EINVAL);
            this.undo(&record)?;
            if !retry {
                return Err(error);
            }
            let again = Self {
                memory: true,
                top: new_folder(&base)?,
                ..this.clone()
            };
            again
                .filled(&ids, &record)
                .or_else(|error| again.undo(&record).and(Err(error)))
        })?;
        Ok(made)
    }

    /// Its path, outside and inside.
    pub fn path(&self) -> PathBuf {
        self.top.join(OWN)
    }

    /// In the connector's own mount namespace: takes the view away, and puts the folder itself in
    /// its place and, so that no symbolic link is followed, at `own`.
    pub fn enter(&self, own: &Path) -> io::Result<()> {
        umount2(&self.top, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        let top = self.open()?;
        let at = through(&top);
        let bind = |from: &Path, to: &Path| {
            let flags = MsFlags::MS_BIND;
            mount(Some(from), to, None::<&str>, flags, None::<&str>)
        };
        DirBuilder::new().mode(0o700).create(own)?;
        bind(&at.join(SHARED).join(OWN), own)?;
        let flags = MsFlags::MS_BIND
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW);
        mount(None::<&str>, own, None::<&str>, flags, None::<&str>)?;
        bind(&at.join(SHARED), &at)?;
        Ok(())
    }

    /// The folder that is root's, once nothing is mounted over it. Somebody who may rename what
    /// is in the caller's folder could have put another in its place.
    fn open(&self) -> io::Result<File> {
        let top = folder(&self.top)?;
        let found = top.metadata()?;
        if (found.dev(), found.ino()) != (self.device, self.inode) || found.uid() != 0 {
            return Err(io::Error::other(format!(
                "{} is not the folder that was made",
                self.top.display()
            )));
        }
        Ok(top)
    }

    fn filled(&self, ids: &File, record: &Path) -> io::Result<Self> {
        if self.memory {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            mount(
                Some("egress-agent"),
                &self.top,
                Some("tmpfs"),
                flags,
                Some("mode=0700"),
            )?;
        }
        let top = folder(&self.top)?;
        let found = top.metadata()?;
        let this = Self {
            device: found.dev(),
            inode: found.ino(),
            ..self.clone()
        };
        // Before there is anything to end.
        this.write(record)?;
        let shared = through(&top).join(SHARED);
        fs::create_dir(&shared)?;
        // Whatever the caller's umask is.
        fs::set_permissions(&shared, Permissions::from_mode(0o755))?;
        let own = shared.join(OWN);
        DirBuilder::new().mode(0o700).create(&own)?;
        fchown(
            &folder(&own).and_then(readable)?,
            Some(self.uid),
            Some(self.gid),
        )?;
        let tree = sys::copy(folder(&shared)?.as_fd())?;
        sys::restrict(tree.as_fd(), ids.as_fd())?;
        sys::place(tree.as_fd(), top.as_fd())?;
        Ok(this)
    }

    /// After an error while it was made.
    fn undo(&self, record: &Path) -> io::Result<()> {
        let record_gone = remove(record);
        if self.memory {
            let _not_mounted_yet = umount2(&self.top, MntFlags::MNT_DETACH);
        } else {
            let shared = self.top.join(SHARED);
            let _not_made_yet = fs::remove_dir(shared.join(OWN));
            let _not_made_yet = fs::remove_dir(shared);
        }
        fs::remove_dir(&self.top).and(record_gone)
    }

    fn write(&self, record: &Path) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(RECORDS)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(record)?;
        file.write_all(&serde_json::to_vec(self)?)
    }

    /// Takes the view away and leaves the files, under the path that they had.
    fn finish(&self) -> io::Result<()> {
        match umount2(&self.top, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Never mounted here, or in another mount namespace, which is gone.
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        if self.memory {
            match umount2(&self.top, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
            return absent(fs::remove_dir(&self.top));
        }
        let top = match self.open() {
            Ok(top) => top,
            // The caller has moved or removed it: then it is the caller's.
            Err(_) => return Ok(()),
        };
        let at = through(&top);
        let shared = at.join(SHARED);
        match fs::remove_dir(shared.join(OWN)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => {
                fs::rename(shared.join(OWN), at.join(OWN))?;
                absent(fs::remove_dir(shared))?;
                fchown(readable(top)?, Some(self.uid), Some(self.gid))
            }
            other => {
                absent(other)?;
                absent(fs::remove_dir(shared))?;
                absent(fs::remove_dir(&self.top))
            }
        }
    }
}

/// Ends the folder of an instance, if it has one. It is over with the processes, not before.
pub fn end(instance: &str) -> io::Result<()> {
    let path = record(instance);
    let mut text = Vec::new();
    match File::open(&path) {
        Ok(mut file) => file.read_to_end(&mut text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // A record that was not written whole is of a folder in which nothing was made.
    if let Ok(temporary) = serde_json::from_slice::<Temporary>(&text) {
        temporary.finish()?;
    }
    remove(&path)
}

/// Names of the instances that have one, alive or not.
pub fn recorded() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(RECORDS) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    Ok(names
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// What the hidden subcommand does: a user namespace, kept until standard input ends.
pub fn keep_ids() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER)?;
    let mut out = io::stdout();
    out.write_all(b"made\n")?;
    out.flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A user namespace in which every user is itself, and of all groups only one that the connector
/// is not in. Ids cannot be mapped without any group.
fn ids(owner: Owner<'_>) -> io::Result<File> {
    let mut keeper = Command::new("/proc/self/exe")
        .arg(KEEPER)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let made = mapped(&mut keeper, owner);
    drop(keeper.stdin.take());
    keeper.wait()?;
    made
}

fn mapped(keeper: &mut std::process::Child, owner: Owner<'_>) -> io::Result<File> {
    let mut said = [0; 5];
    keeper
        .stdout
        .as_mut()
        .ok_or(ErrorKind::BrokenPipe)?
        .read_exact(&mut said)
        .map_err(|error| io::Error::new(error.kind(), "no user namespace can be made"))?;
    let at = Path::new("/proc").join(keeper.id().to_string());
    let users: String = extents("/proc/self/uid_map")?
        .into_iter()
        .map(|(first, count)| format!("{first} {first} {count}\n"))
        .collect();
    fs::write(at.join("uid_map"), users)?;
    let groups = extents("/proc/self/gid_map")?;
    let strange = groups
        .iter()
        .rev()
        .flat_map(|(first, count)| (*first..first.saturating_add(*count)).rev().take(1 << 16))
        .find(|id| *id != owner.gid && !owner.groups.contains(id))
        .ok_or_else(|| io::Error::other("no group is left to map"))?;
    fs::write(at.join("gid_map"), format!("{strange} {strange} 1\n"))?;
    File::open(at.join("ns/user"))
}

/// The ids that exist here (user_namespaces(7)): first and how many.
fn extents(file: &str) -> io::Result<Vec<(u32, u32)>> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (first, _, count) = (words.next()?, words.next()?, words.next()?);
        Some((first.parse().ok()?, count.parse().ok()?))
    });
    Ok(lines.collect())
}

/// The folder in which the connector's is made: the one that is wished for where its user may
/// write there, otherwise the usual one.
fn base(wish: Option<&Path>, owner: Owner<'_>) -> io::Result<PathBuf> {
    let wished = wish.and_then(|path| usable(path, owner));
    match wished {
        Some(base) => Ok(base),
        None => usable(Path::new(USUAL), owner).ok_or_else(|| {
            io::Error::other(format!("user {} may not write to {USUAL}", owner.uid))
        }),
    }
}

/// The folder without links, if the user may come there and write, and it is the kernel's nowhere.
fn usable(path: &Path, owner: Owner<'_>) -> Option<PathBuf> {
    let path = path
        .is_absolute()
        .then(|| fs::canonicalize(path).ok())
        .flatten()?;
    let special = ["/proc", "/sys", "/dev", "/run/egress-agent"];
    if path.parent().is_none() || special.iter().any(|special| path.starts_with(special)) {
        return None;
    }
    let may = |path: &Path, right: u32| {
        let found = fs::metadata(path).ok()?;
        let shift = if found.uid() == owner.uid {
            6
        } else if found.gid() == owner.gid || owner.groups.contains(&found.gid()) {
            3
        } else {
            0
        };
        let all = owner.uid == 0 || found.mode() >> shift & right == right;
        (found.is_dir() && all).then_some(())
    };
    may(&path, 0o3)?;
    for above in path.ancestors().skip(1) {
        may(above, 0o1)?;
    }
    Some(path)
}

/// A new folder of root's alone, in a folder of somebody else's.
fn new_folder(base: &Path) -> io::Result<PathBuf> {
    for _ in 0..ATTEMPTS {
        let path = base.join(format!("egress-{}", token()?));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        ErrorKind::AlreadyExists,
        format!("no name is free in {}", base.display()),
    ))
}

/// Six characters that nobody foresees.
fn token() -> io::Result<String> {
    let mut bytes = [0_u8; 6];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes
        .map(|byte| char::from(b'a' + byte % 26))
        .iter()
        .collect())
}

/// A folder, not what a link leads to.
fn folder(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
}

/// The same folder by a descriptor that its owner can be changed through.
fn readable(folder: File) -> io::Result<File> {
    File::open(through(&folder))
}

/// The path of what a descriptor stands for, whatever its name has become.
fn through(file: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

fn record(instance: &str) -> PathBuf {
    Path::new(RECORDS).join(instance)
}

fn remove(path: &Path) -> io::Result<()> {
    absent(fs::remove_file(path))
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
