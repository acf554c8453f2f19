//! One data-plane instance on this host: its lock, its cgroups, its pins, and its end.
//!
//! An instance is alive while its agent holds the lock file. Whatever a dead agent left is
//! ended by the next start: its connector is still confined, but deaf, for its resolver died
//! with the agent. The order of an end is always the same: processes, sockets, links, cgroup.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};

use super::pin::PinFolder;
use crate::host::{
    Cgroup, CgroupError, Hierarchy, boot_ns, sockets,
    switch::{self, Step},
};

/// Where running state lives.
pub const RUN_FOLDER: &str = "/run/egress-agent";
/// Lock files of the instances, one each.
const LOCKS: &str = "/run/egress-agent/instances";
/// Parent of instances' cgroups, below the hierarchy's root or, in a unit that systemd gave a
/// part of the hierarchy, below that.
const PARENT: &str = "egress-agent";
/// The cgroup of one started copy of a connector.
const COPY: &str = "1";
/// How long killed processes may take to go.
const KILL_WITHIN: Duration = Duration::from_secs(5);

/// Why an instance could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A cgroup operation failed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A folder, pin or lock could not be made or removed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A running instance. Dropping it ends nothing: what enforces stays until [`Instance::end`].
pub struct Instance {
    name: String,
    parent: Cgroup,
    connector: Cgroup,
    copy: Cgroup,
    pins: PinFolder,
    lock: Flock<File>,
}

impl Instance {
    /// Makes the cgroups and the pin folder of a new instance for one connector. Nothing is
    /// left of it after an error.
    pub fn create(connector: &str) -> Result<Self, InstanceError> {
        let hierarchy = Hierarchy::find()?;
        let _one_at_a_time = global_lock()?;
        let name = new_name(connector);
        // The name is new: whoever holds the lock only looks, for a moment, who is alive.
        let lock = lock(&lock_path(&name), FlockArg::LockExclusive)?;
        switch::reached(Step::Locked);
        match Self::build(&hierarchy, &name, connector) {
            Ok((parent, connector, copy, pins)) => Ok(Self {
                name,
                parent,
                connector,
                copy,
                pins,
                lock,
            }),
            Err(error) => {
                let undone = dismantle(&hierarchy, &name);
                remove_lock(&name)?;
                undone?;
                Err(error)
            }
        }
    }

    fn build(
        hierarchy: &Hierarchy,
        name: &str,
        connector: &str,
    ) -> Result<(Cgroup, Cgroup, Cgroup, PinFolder), InstanceError> {
        let top = place(hierarchy)?;
        top.ensure()?;
        let parent = top.child(name)?;
        parent.create()?;
        let connector = parent.child(connector)?;
        connector.create()?;
        let copy = connector.child(COPY)?;
        copy.create()?;
        switch::reached(Step::CgroupsMade);
        let pins = PinFolder::create(name)
            .map_err(|source| io_error(format!("cannot make the pin folder of {name}"), source))?;
        Ok((parent, connector, copy, pins))
    }

    /// The instance's name, unique on this host while it runs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the data plane is attached.
    pub fn parent(&self) -> &Cgroup {
        &self.parent
    }

    /// The connector's cgroup, by which the data plane knows it.
    pub fn connector(&self) -> &Cgroup {
        &self.connector
    }

    /// The cgroup that the connector's processes join.
    pub fn copy(&self) -> &Cgroup {
        &self.copy
    }

    /// Where the data plane is pinned.
    pub fn pins(&self) -> &PinFolder {
        &self.pins
    }

    /// Ends the connector's processes. Its sockets, and what confines them, stay.
    pub fn kill(&self) -> Result<(), InstanceError> {
        Ok(self.parent.kill_all(KILL_WITHIN)?)
    }

    /// Ends everything. After an error the data plane stays attached and the next start
    /// tries again.
    pub fn end(self) -> Result<(), InstanceError> {
        let hierarchy = Hierarchy::find()?;
        let _one_at_a_time = global_lock()?;
        dismantle(&hierarchy, &self.name)?;
        remove_lock(&self.name)?;
        drop(self.lock);
        Ok(())
    }
}

/// What became of that which dead agents had left.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Names of the instances that were ended.
    pub ended: Vec<String>,
    /// Those that could not be, each with why. What is left of them is refused as before.
    pub kept: Vec<(String, InstanceError)>,
}

/// Ends what dead agents left. One that cannot be ended keeps nobody else from starting.
pub fn clean_leftovers() -> Result<Leftovers, InstanceError> {
    let hierarchy = Hierarchy::find()?;
    let _one_at_a_time = global_lock()?;
    let mut leftovers = Leftovers::default();
    for name in known_instances(&hierarchy)? {
        match clean(&hierarchy, &name) {
            Ok(true) => leftovers.ended.push(name),
            Ok(false) => {}
            Err(error) => leftovers.kept.push((name, error)),
        }
    }
    Ok(leftovers)
}

/// Ends one instance, unless its agent is alive.
fn clean(hierarchy: &Hierarchy, name: &str) -> Result<bool, InstanceError> {
    let Some(_lock) = try_lock(&lock_path(name))? else {
        return Ok(false);
    };
    dismantle(hierarchy, name)?;
    remove_lock(name)?;
    Ok(true)
}

/// Below which cgroup a start of this process makes its instance.
pub fn place(hierarchy: &Hierarchy) -> Result<Cgroup, CgroupError> {
    match hierarchy.delegated()? {
        Some(given) => given.child(PARENT),
        None => hierarchy.cgroup(PARENT),
    }
}

/// Names of the instances whose agent is alive.
pub fn running() -> Result<Vec<String>, InstanceError> {
    let hierarchy = Hierarchy::find()?;
    let mut alive = Vec::new();
    for name in known_instances(&hierarchy)? {
        if lock_path(&name).exists() && try_lock(&lock_path(&name))?.is_none() {
            alive.push(name);
        }
    }
    Ok(alive)
}

/// Processes, sockets, links, cgroup: in this order nothing that was refused can leave.
fn dismantle(hierarchy: &Hierarchy, name: &str) -> Result<(), InstanceError> {
    let usual = hierarchy.cgroup(PARENT)?;
    let parents = cgroups(hierarchy, &usual, name)?;
    let pins = PinFolder::of(name);
    switch::reached(Step::EndBegun);
    for parent in &parents {
        parent.kill_all(KILL_WITHIN)?;
        switch::reached(Step::ProcessesEnded);
        let cgroups = ids_below(parent)?;
        sockets::destroy(&cgroups).map_err(|source| {
            io_error(
                format!(
                    "cannot end the sockets of {name}, so its data plane stays attached \
                     (the kernel needs CONFIG_INET_DIAG_DESTROY)"
                ),
                source,
            )
        })?;
    }
    switch::reached(Step::SocketsEnded);
    pins.remove()
        .map_err(|source| io_error(format!("cannot remove the pins of {name}"), source))?;
    switch::reached(Step::Unpinned);
    for parent in &parents {
        parent.remove()?;
        if let Some(above) = parent.path().parent()
            && above != usual.path()
        {
            // It fails where others of the same unit run.
            let _still_used = fs::remove_dir(above);
        }
    }
    switch::reached(Step::CgroupRemoved);
    Ok(())
}

/// The cgroups of an instance: one, or none where somebody has removed it. A unit's is looked
/// for, so that nothing but its name has to be known after a crash.
fn cgroups(hierarchy: &Hierarchy, usual: &Cgroup, name: &str) -> Result<Vec<Cgroup>, CgroupError> {
    let there = usual.child(name)?;
    if there.exists() {
        return Ok(vec![there]);
    }
    hierarchy.named(PARENT, name)
}

/// Ids of a cgroup and all below it.
pub fn ids_below(cgroup: &Cgroup) -> Result<HashSet<u64>, InstanceError> {
    let mut ids = HashSet::new();
    let mut folders = vec![cgroup.path().to_owned()];
    while let Some(folder) = folders.pop() {
        let listing = fs::read_dir(&folder)
            .and_then(|entries| entries.collect::<io::Result<Vec<_>>>())
            .map_err(|source| io_error(format!("cannot list {}", folder.display()), source))?;
        ids.insert(inode(&folder)?);
        for entry in listing {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    Ok(ids)
}

/// A cgroup's id is the inode of its folder (`include/linux/cgroup.h`, `cgroup_id`).
fn inode(folder: &Path) -> Result<u64, InstanceError> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(folder)
        .map(|metadata| metadata.ino())
        .map_err(|source| io_error(format!("cannot read {}", folder.display()), source))
}

/// Instances that have a cgroup, pins or a lock file.
fn known_instances(hierarchy: &Hierarchy) -> Result<HashSet<String>, InstanceError> {
    let mut names: HashSet<String> = PinFolder::instances()
        .map_err(|source| io_error("cannot list the pins".to_owned(), source))?
        .into_iter()
        .collect();
    for folder in [hierarchy.cgroup(PARENT)?.path(), Path::new(LOCKS)] {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(source) => {
                return Err(io_error(
                    format!("cannot list {}", folder.display()),
                    source,
                ));
            }
        };
        let is_cgroups = folder != Path::new(LOCKS);
        for entry in entries.flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let Ok(name) = entry.file_name().into_string()
                && is_folder == is_cgroups
            {
                names.insert(name);
            }
        }
    }
    Ok(names)
}

/// A name that no instance had since the host started: the connector's, this process's id,
/// and the boot clock in milliseconds. Without dots, for the bpf file system keeps those to
/// itself (`kernel/bpf/inode.c`, `bpf_lookup`).
fn new_name(connector: &str) -> String {
    let pid = std::process::id();
    let connector = connector.replace('.', "_");
    format!("{connector}-{pid}-{:x}", boot_ns() / 1_000_000)
}

/// Making and cleaning instances happens one at a time on a host, so that nobody cleans what
/// another is just making.
fn global_lock() -> Result<Flock<File>, InstanceError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(LOCKS)
        .map_err(|source| io_error(format!("cannot make {LOCKS}"), source))?;
    lock(&Path::new(RUN_FOLDER).join("lock"), FlockArg::LockExclusive)
}

fn lock(path: &Path, how: FlockArg) -> Result<Flock<File>, InstanceError> {
    let file = open_lock(path)?;
    Flock::lock(file, how)
        .map_err(|(_, error)| io_error(format!("cannot lock {}", path.display()), error.into()))
}

/// `None` where somebody holds the lock.
fn try_lock(path: &Path) -> Result<Option<Flock<File>>, InstanceError> {
    match Flock::lock(open_lock(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(io_error(
            format!("cannot lock {}", path.display()),
            error.into(),
        )),
    }
}

fn open_lock(path: &Path) -> Result<File, InstanceError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(|source| io_error(format!("cannot open {}", path.display()), source))
}

fn lock_path(name: &str) -> PathBuf {
    Path::new(LOCKS).join(name)
}

fn remove_lock(name: &str) -> Result<(), InstanceError> {
    let path = lock_path(name);
    fs::remove_file(&path)
        .map_err(|source| io_error(format!("cannot remove {}", path.display()), source))?;
    switch::reached(Step::Unlocked);
    Ok(())
}

fn io_error(what: String, source: io::Error) -> InstanceError {
    InstanceError::Io { what, source }
}
