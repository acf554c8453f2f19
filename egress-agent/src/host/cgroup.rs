//! The cgroup2 hierarchy: finding it, making groups in it, ending what runs in them.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt as _, MetadataExt, PermissionsExt as _},
    },
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        statfs::{CGROUP2_SUPER_MAGIC, statfs},
    },
    unistd::Pid,
};

use super::mountinfo;

/// How long a group that is being emptied may stay busy.
const REMOVE_WAIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// Where the cgroup2 hierarchy is mounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hierarchy {
    mount: PathBuf,
    /// The part of the kernel's hierarchy that the mount shows.
    root: PathBuf,
}

/// A control group, by the path of its folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cgroup {
    hierarchy: Hierarchy,
    path: PathBuf,
}

/// Why something about cgroups cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no cgroup2 mount.
    #[error(
        "no cgroup2 file system is mounted, so connectors cannot be told apart; mount it: \
         mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NotMounted,
    /// The mount shows only a part of the hierarchy whose depth is unknown.
    #[error(
        "{0} shows only a part of the cgroup hierarchy (a cgroup namespace, as in a container), \
         so the data plane could not find a connector by its depth; run the agent in the host's \
         cgroup namespace (docker run --cgroupns=host, nsenter -t 1 -C)"
    )]
    Namespace(PathBuf),
    /// Not a name that a group can have.
    #[error("{0:?} cannot be the name of a cgroup")]
    Name(String),
    /// Killing this group would kill the agent or the host.
    #[error("{0} holds the agent itself or is the root of all cgroups; it is not killed")]
    Own(PathBuf),
    /// Processes are left.
    #[error("{path} still holds processes after {waited:?}: {pids:?}")]
    Busy {
        /// The group.
        path: PathBuf,
        /// How long they were waited for.
        waited: Duration,
        /// Who is left.
        pids: Vec<u32>,
    },
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
}

impl Hierarchy {
    /// Finds the cgroup2 mount of this host in `/proc/self/mountinfo`.
    pub fn find() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read(path).map_err(|error| io_error("read", path, error))?;
        Self::candidates(&text)
            .into_iter()
            // A mount can be covered by a later one at the same or a higher place.
            .find(|found| {
                statfs(&found.mount).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
            })
            .ok_or(CgroupError::NotMounted)
    }

    /// All cgroup2 mounts, those of the whole hierarchy first.
    fn candidates(text: &[u8]) -> Vec<Self> {
        let mut found: Vec<Self> = mountinfo::parse(text)
            .filter(|mount| mount.fs_type == b"cgroup2")
            .map(|mount| Self {
                mount: mount.point,
                root: mount.root,
            })
            .collect();
        found.sort_by_key(|mount| mount.root != Path::new("/"));
        found
    }

    /// The mount point.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The group at a path relative to the mount point; a leading `/` changes nothing.
    pub fn cgroup(&self, relative: impl AsRef<Path>) -> Result<Cgroup, CgroupError> {
        let mut group = Cgroup {
            hierarchy: self.clone(),
            path: self.mount.clone(),
        };
        for part in relative.as_ref().components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => group = group.child(name)?,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(CgroupError::Name(relative.as_ref().display().to_string()));
                }
            }
        }
        Ok(group)
    }

    /// The group of this process.
    pub fn own(&self) -> Result<Cgroup, CgroupError> {
        let path = Path::new("/proc/self/cgroup");
        let text = fs::read(path).map_err(|error| io_error("read", path, error))?;
        let own = super::process::cgroup_path(&text).ok_or(CgroupError::NotMounted)?;
        let inside = own
            .strip_prefix(&self.root)
            .map_err(|_| CgroupError::Namespace(self.mount.clone()))?;
        self.cgroup(inside)
    }

    /// Depth of the mount's own root in the kernel's hierarchy.
    fn base_level(&self) -> Result<u32, CgroupError> {
        let unknown = || CgroupError::Namespace(self.mount.clone());
        // Inside a cgroup namespace the root looks like `/` or `/..`; only the true root of
        // all has no `cgroup.type` (Documentation/admin-guide/cgroup-v2.rst).
        if self
            .root
            .components()
            .any(|part| part == Component::ParentDir)
        {
            return Err(unknown());
        }
        let depth = depth(&self.root);
        if depth == 0 && self.mount.join("cgroup.type").exists() {
            return Err(unknown());
        }
        Ok(depth)
    }
}

impl Cgroup {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A group below this one. The name may not hold `/` or control characters, nor look
    /// like one of the kernel's own files.
    pub fn child(&self, name: impl AsRef<OsStr>) -> Result<Self, CgroupError> {
        let name = name.as_ref();
        let bytes = name.as_bytes();
        let plain = !bytes.is_empty()
            && bytes.len() <= 255
            && name != "."
            && name != ".."
            && !bytes.starts_with(b"cgroup.")
            && !bytes
                .iter()
                .any(|&byte| byte == b'/' || byte.is_ascii_control());
        if !plain {
            return Err(CgroupError::Name(name.to_string_lossy().into_owned()));
        }
        Ok(Self {
            hierarchy: self.hierarchy.clone(),
            path: self.path.join(name),
        })
    }

    /// The groups below this one.
    pub fn below(&self) -> Result<Vec<Self>, CgroupError> {
        let below = self.with_children()?.into_iter().skip(1);
        let group = |path| Self {
            hierarchy: self.hierarchy.clone(),
            path,
        };
        Ok(below.map(group).collect())
    }

    /// Takes a process in. `false`: it is gone.
    pub fn take(&self, pid: u32) -> Result<bool, CgroupError> {
        match self.write("cgroup.procs", &pid.to_string()) {
            Err(CgroupError::Io { error, .. })
                if error.raw_os_error() == Some(Errno::ESRCH as i32) =>
            {
                Ok(false)
            }
            taken => taken,
        }
    }

    /// Names of the cgroups directly below; none where it is gone.
    pub fn children(&self) -> Result<Vec<String>, CgroupError> {
        let failed = |error| io_error("list", &self.path, error);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if gone(&error) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Whether the folder is there.
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Makes the group, which must be new; missing parents are made too.
    pub fn create(&self) -> Result<(), CgroupError> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(|error| io_error("create", parent, error))?;
        }
        fs::create_dir(&self.path).map_err(|error| io_error("create", &self.path, error))
    }

    /// Makes the group, which must be new, so that none but root can look into it.
    pub fn create_closed(&self) -> Result<(), CgroupError> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.path)
            .map_err(|error| io_error("create", &self.path, error))
    }

    /// Lets everybody look into the group: programs read their limits there.
    pub fn open_up(&self) -> Result<(), CgroupError> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o755))
            .map_err(|error| io_error("open", &self.path, error))
    }

    /// Makes the group where it is not there yet.
    pub fn ensure(&self) -> Result<(), CgroupError> {
        fs::create_dir_all(&self.path).map_err(|error| io_error("create", &self.path, error))
    }

    /// The kernel's id of the group, as `bpf_get_current_ancestor_cgroup_id` reports it: on
    /// 64-bit machines the inode number of the folder (fs/kernfs, since 5.5).
    pub fn id(&self) -> Result<u64, CgroupError> {
        fs::metadata(&self.path)
            .map(|facts| facts.ino())
            .map_err(|error| io_error("look at", &self.path, error))
    }

    /// Depth below the root of the kernel's hierarchy, which has depth 0.
    pub fn level(&self) -> Result<u32, CgroupError> {
        let inside = self
            .path
            .strip_prefix(&self.hierarchy.mount)
            .map_err(|_| CgroupError::Namespace(self.path.clone()))?;
        Ok(self.hierarchy.base_level()? + depth(inside))
    }

    /// Processes in this group and below it, in ascending order.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        for group in self.with_children()? {
            pids.extend(own_pids(&group)?);
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Whether a process is in this group or below it. A group that is gone has none.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        let path = self.path.join("cgroup.events");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if gone(&error) => Ok(false),
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Kills every process in this group and below it, and waits until they are gone.
    pub fn kill_all(&self, within: Duration) -> Result<(), CgroupError> {
        if self.path == self.hierarchy.mount || self.pids()?.contains(&std::process::id()) {
            return Err(CgroupError::Own(self.path.clone()));
        }
        let start = Instant::now();
        let by_kernel = self.write("cgroup.kill", "1")?;
        if !by_kernel {
            // Before 5.14. A frozen group cannot fork away from the loop below, and
            // SIGKILL ends frozen processes too.
            self.write("cgroup.freeze", "1")?;
        }
        while self.is_populated()? {
            if !by_kernel {
                self.kill_each()?;
            }
            if start.elapsed() >= within {
                return Err(CgroupError::Busy {
                    path: self.path.clone(),
                    waited: within,
                    pids: self.pids()?,
                });
            }
            std::thread::sleep(PAUSE);
        }
        if !by_kernel {
            self.write("cgroup.freeze", "0")?;
        }
        Ok(())
    }

    /// Stops every process in this group and below it, or lets them go on (cgroup freezer, since
    /// 5.2). They can be killed meanwhile, and nothing else.
    pub fn freeze(&self, still: bool) -> Result<(), CgroupError> {
        if self.write("cgroup.freeze", if still { "1" } else { "0" })? {
            return Ok(());
        }
        let unknown = io::ErrorKind::Unsupported.into();
        Err(io_error("freeze", &self.path, unknown))
    }

    /// Whether the group is to stand still by its own setting. One that is gone is not.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let path = self.path.join("cgroup.freeze");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim() == "1"),
            Err(error) if gone(&error) => Ok(false),
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Removes the group and everything below it. One that is gone is no error. A group is
    /// busy for a moment after its last process has ended; that moment is waited for.
    pub fn remove(&self) -> Result<(), CgroupError> {
        remove(&self.with_children()?).map(drop)
    }

    /// Removes everything below the group. Answers whether there was anything.
    pub fn remove_below(&self) -> Result<bool, CgroupError> {
        remove(self.with_children()?.get(1..).unwrap_or_default())
    }

    /// How many groups below this one were removed and are still in use, for example by a
    /// socket (`nr_dying_descendants`, Linux 4.14).
    pub fn dying(&self) -> Result<u64, CgroupError> {
        let path = self.path.join("cgroup.stat");
        let text = fs::read_to_string(&path).map_err(|error| io_error("read", &path, error))?;
        let number = text
            .lines()
            .find_map(|line| line.strip_prefix("nr_dying_descendants "))
            .and_then(|number| number.trim().parse().ok());
        number.ok_or_else(|| io_error("understand", &path, io::ErrorKind::InvalidData.into()))
    }

    fn kill_each(&self) -> Result<(), CgroupError> {
        for pid in self.pids()? {
            let Ok(raw) = i32::try_from(pid) else {
                continue;
            };
            match kill(Pid::from_raw(raw), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(io_error("kill a process of", &self.path, error.into())),
            }
        }
        Ok(())
    }

    /// Writes one of the kernel's files. `false`: this kernel does not have it.
    fn write(&self, file: &str, text: &str) -> Result<bool, CgroupError> {
        let path = self.path.join(file);
        match fs::OpenOptions::new().write(true).open(&path) {
            Ok(mut open) => io::Write::write_all(&mut open, text.as_bytes())
                .map(|()| true)
                .map_err(|error| io_error("write", &path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("open", &path, error)),
        }
    }

    /// This folder and all below it, parents before children. Those that vanish meanwhile
    /// are left out.
    pub(super) fn with_children(&self) -> Result<Vec<PathBuf>, CgroupError> {
        let mut found = vec![self.path.clone()];
        let mut next = 0;
        while let Some(folder) = found.get(next).cloned() {
            next += 1;
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if gone(&error) => continue,
                Err(error) => return Err(io_error("list", &folder, error)),
            };
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) if gone(&error) => break,
                    Err(error) => return Err(io_error("list", &folder, error)),
                };
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    found.push(entry.path());
                }
            }
        }
        Ok(found)
    }
}

/// Removes groups, the last one first. Answers whether any was there.
fn remove(groups: &[PathBuf]) -> Result<bool, CgroupError> {
    let start = Instant::now();
    let mut any = false;
    for group in groups.iter().rev() {
        loop {
            match fs::remove_dir(group) {
                Ok(()) => {
                    any = true;
                    break;
                }
                Err(error) if gone(&error) => break,
                Err(error)
                    if error.raw_os_error() == Some(Errno::EBUSY as i32)
                        && start.elapsed() < REMOVE_WAIT =>
                {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(io_error("remove", group, error)),
            }
        }
    }
    Ok(any)
}

fn own_pids(group: &Path) -> Result<Vec<u32>, CgroupError> {
    let path = group.join("cgroup.procs");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if gone(&error) => return Ok(Vec::new()),
        // A threaded group keeps its processes at the nearest group that is not.
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(io_error("read", &path, error)),
    };
    // 0 stands for a process of a pid namespace that this one cannot see into.
    Ok(text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|&pid| pid != 0)
        .collect())
}

/// A folder that is removed answers ENOENT by path and ENODEV by an open descriptor.
pub(super) fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn depth(path: &Path) -> u32 {
    let parts = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .count();
    u32::try_from(parts).unwrap_or(u32::MAX)
}

pub(super) fn io_error(what: &'static str, path: &Path, error: io::Error) -> CgroupError {
    CgroupError::Io {
        what,
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
