//! One data plane on this host and the instances in it: locks, cgroups, pins.
//!
//! A plain run has a data plane of its own; connectors that a daemon starts share one. A home is
//! alive while its agent holds the lock on its cgroup, which every agent of this
//! host sees, whatever its own mounts and namespaces are. The lock file below `/run` says the
//! same to agents that do not know the other one.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};

use super::{
    leftovers::{dismantle, end_inside, given_back},
    lived::Lived,
    lsm,
    pin::PinFolder,
};
use crate::host::{
    Cgroup, CgroupError, Hierarchy,
    alive::{Alive, Claim},
    boot_ns, owned,
    process::Stat,
    switch::{self, Step},
};

/// Where running state lives.
pub const RUN_FOLDER: &str = "/run/egress-agent";
/// Lock files of the instances, one each.
pub(super) const LOCKS: &str = "/run/egress-agent/instances";
/// Parent of instances' cgroups, below the hierarchy's root or, in a unit that systemd gave a
/// part of the hierarchy, below that.
pub(super) const PARENT: &str = "egress-agent";
/// What the name of a home that connectors share begins with; no connector's does.
pub(super) const SHARED: &str = "_shared";
/// The cgroup of one started copy of a connector.
pub(super) const COPY: &str = "1";
/// The cgroup of a forwarder; no connector's name begins so.
const FORWARDER: &str = "_forwarder";
/// The cgroup of an envelope proxy.
const ENVELOPE: &str = "_envelope";
/// How long killed processes may take to go.
pub(super) const KILL_WITHIN: Duration = Duration::from_secs(5);

/// Why an instance could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A cgroup operation failed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Another agent took the instance while it was being made.
    #[error("another agent on this host took {0} for a dead one's while it was made; start again")]
    Contested(String),
    /// Sockets are left where nobody can end them.
    #[error(
        "sockets of its are left in a network namespace that cannot be entered from here, and \
         end by themselves within minutes"
    )]
    Unreachable,
    /// Only a part of the cgroups is to be seen.
    #[error(
        "its cgroup is not to be seen from here (a cgroup namespace, as in a container), so \
         nobody knows whether it lives"
    )]
    Unseen,
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

/// Where one data plane is: its cgroup, its pins, its locks. Dropping it ends nothing: what
/// enforces stays until [`Home::end`].
pub struct Home {
    name: String,
    parent: Cgroup,
    pins: PinFolder,
    lock: Flock<File>,
    _alive: Alive,
}

/// A running instance of a connector. Dropping it ends nothing.
pub struct Instance {
    name: String,
    parent: Cgroup,
    connector: Cgroup,
    copy: Cgroup,
    pins: PinFolder,
    /// `None`: the data plane is not its own.
    home: Option<Home>,
}

/// Cgroups and pins of a new home.
struct Built {
    parent: Cgroup,
    inside: Option<(Cgroup, Cgroup)>,
    pins: PinFolder,
    alive: Alive,
}

impl Home {
    /// Makes the home of a data plane that connectors share. Nothing is left of it after an
    /// error.
    pub fn create() -> Result<Self, InstanceError> {
        let name = new_name(SHARED);
        Self::named(&name, None).map(|(home, _)| home)
    }

    fn named(
        name: &str,
        connector: Option<&str>,
    ) -> Result<(Self, Option<(Cgroup, Cgroup)>), InstanceError> {
        let hierarchy = Hierarchy::find()?;
        let _one_at_a_time = global_lock()?;
        // The name is new: whoever holds the lock only looks, for a moment, who is alive.
        let lock = lock(&lock_path(name), FlockArg::LockExclusive)?;
        switch::reached(Step::Locked);
        match Self::build(&hierarchy, name, connector) {
            Ok(built) => {
                let home = Self {
                    name: name.to_owned(),
                    parent: built.parent,
                    pins: built.pins,
                    lock,
                    _alive: built.alive,
                };
                Ok((home, built.inside))
            }
            Err(error) => {
                let undone = dismantle(&hierarchy, name);
                remove_lock(name)?;
                undone?;
                Err(error)
            }
        }
    }

    fn build(
        hierarchy: &Hierarchy,
        name: &str,
        connector: Option<&str>,
    ) -> Result<Built, InstanceError> {
        let top = place(hierarchy)?;
        top.ensure()?;
        let parent = top.child(name)?;
        // Nobody looks into it before it is taken.
        parent.create_closed()?;
        let Claim::Taken(alive) = parent.claim()? else {
            // An agent with another /run came in between, and takes it for a dead one's.
            return Err(InstanceError::Contested(name.to_owned()));
        };
        parent.open_up()?;
        let inside = match connector {
            Some(connector) => {
                let (connector, copy) = cgroups(&parent, connector)?;
                Lived::here([&parent, &connector, &copy])?.record(&parent)?;
                Some((connector, copy))
            }
            None => {
                Lived::here([&parent])?.record(&parent)?;
                None
            }
        };
        switch::reached(Step::CgroupsMade);
        let pins = PinFolder::create(name)
            .map_err(|source| io_error(format!("cannot make the pin folder of {name}"), source))?;
        Ok(Built {
            parent,
            inside,
            pins,
            alive,
        })
    }

    /// Its name, unique on this host while it stands.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the data plane is attached.
    pub fn parent(&self) -> &Cgroup {
        &self.parent
    }

    /// Where the data plane is pinned.
    pub fn pins(&self) -> &PinFolder {
        &self.pins
    }

    /// Makes the cgroups of a new instance in it. `number`: no other one has it in this home.
    pub fn instance(&self, connector: &str, number: u64) -> Result<Instance, InstanceError> {
        let name = format!("{}-{number}", new_name(connector));
        let (connector, copy) = cgroups(&self.parent, &name)?;
        Lived::here([&connector, &copy])?.record(&connector)?;
        Ok(Instance {
            name,
            parent: self.parent.clone(),
            connector,
            copy,
            pins: self.pins.clone(),
            home: None,
        })
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

impl Instance {
    /// Makes a home for one connector, and an instance in it. Nothing is left of it after an
    /// error.
    pub fn create(connector: &str) -> Result<Self, InstanceError> {
        let name = new_name(connector);
        let (home, inside) = Home::named(&name, Some(connector))?;
        let (connector, copy) = match inside {
            Some(inside) => inside,
            // `Home::named` makes them where it is given a connector.
            None => cgroups(&home.parent, connector)?,
        };
        Ok(Self {
            name,
            parent: home.parent.clone(),
            connector,
            copy,
            pins: home.pins.clone(),
            home: Some(home),
        })
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

    /// Makes the cgroup of the connector's forwarder, beside the connector's own.
    pub fn forwarder(&self) -> Result<Cgroup, InstanceError> {
        let cgroup = self.parent.child(FORWARDER)?;
        cgroup.create()?;
        Ok(cgroup)
    }

    /// Makes the cgroup of the connector's envelope proxy, beside the connector's own.
    pub fn envelope(&self) -> Result<Cgroup, InstanceError> {
        let cgroup = self.parent.child(ENVELOPE)?;
        cgroup.create()?;
        Ok(cgroup)
    }

    /// Where the data plane is pinned.
    pub fn pins(&self) -> &PinFolder {
        &self.pins
    }

    /// Whether the data plane holds other connectors as well.
    pub fn is_shared(&self) -> bool {
        self.home.is_none()
    }

    /// Ends the connector's processes. Its sockets, and what confines them, stay.
    pub fn kill(&self) -> Result<(), InstanceError> {
        let below = match self.home {
            Some(_) => &self.parent,
            None => &self.connector,
        };
        Ok(below.kill_all(KILL_WITHIN)?)
    }

    /// Stops the connector's processes where they are; `first` is the first of them. The init of
    /// its PID namespace, its parent, goes on: it ends all of them with the agent.
    pub fn freeze(&self, first: u32) -> Result<(), InstanceError> {
        let init = Stat::read(first).map(|stat| stat.ppid);
        // The agent itself is no process of the group.
        if let Some(init) = init
            && self.copy.pids()?.contains(&init)
        {
            self.connector.take(init)?;
        }
        Ok(self.copy.freeze(true)?)
    }

    /// Whether they were stopped, and nobody has let them go on.
    pub fn is_frozen(&self) -> Result<bool, InstanceError> {
        Ok(self.copy.is_frozen()?)
    }

    /// Ends the connector's processes, and nobody else's.
    pub fn kill_connector(&self) -> Result<(), InstanceError> {
        Ok(self.connector.kill_all(KILL_WITHIN)?)
    }

    /// Ends its processes and its sockets, and gives its temporary folder back. For one in a data
    /// plane that others share, whose tables can be emptied then.
    pub fn quiet(&self) -> Result<(), InstanceError> {
        end_inside(&self.connector, &self.name)?;
        self.pins
            .remove_links(&lsm::prefix(&self.name))
            .map_err(|source| io_error(format!("cannot remove pins of {}", self.name), source))?;
        given_back(&self.name)
    }

    /// Ends everything of it. After an error the data plane stays attached and the next start
    /// tries again.
    pub fn end(self) -> Result<(), InstanceError> {
        match self.home {
            Some(home) => home.end(),
            None => Ok(self.connector.remove()?),
        }
    }
}

/// Makes the cgroups of a connector and of its processes.
fn cgroups(parent: &Cgroup, connector: &str) -> Result<(Cgroup, Cgroup), InstanceError> {
    let connector = parent.child(connector)?;
    connector.create()?;
    let copy = connector.child(COPY)?;
    copy.create()?;
    Ok((connector, copy))
}

/// Below which cgroup a start of this process makes its instance.
pub fn place(hierarchy: &Hierarchy) -> Result<Cgroup, CgroupError> {
    match hierarchy.delegated()? {
        Some(given) => given.child(PARENT),
        None => hierarchy.cgroup(PARENT),
    }
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
    fs::metadata(folder)
        .map(|metadata| metadata.ino())
        .map_err(|source| io_error(format!("cannot read {}", folder.display()), source))
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
pub(super) fn global_lock() -> Result<Flock<File>, InstanceError> {
    own_locks()?;
    lock(&Path::new(RUN_FOLDER).join("lock"), FlockArg::LockExclusive)
}

/// The folder of the locks, which is nobody else's from here on. Nothing in it is opened before.
pub(super) fn own_locks() -> Result<(), InstanceError> {
    owned::folder(Path::new("/run"), "egress-agent", 0o755)
        .and_then(|run| owned::below(&run, "instances", 0o755))
        .map(drop)
        .map_err(|source| io_error(format!("cannot make {LOCKS}"), source))
}

fn lock(path: &Path, how: FlockArg) -> Result<Flock<File>, InstanceError> {
    let file = open_lock(path)?;
    Flock::lock(file, how)
        .map_err(|(_, error)| io_error(format!("cannot lock {}", path.display()), error.into()))
}

/// `None` where somebody holds the lock.
pub(super) fn try_lock(path: &Path) -> Result<Option<Flock<File>>, InstanceError> {
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
    let open = || {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)
    };
    let checked = open().and_then(|file| {
        if file.metadata()?.uid() == 0 {
            return Ok(file);
        }
        // Made by somebody else while the folder was open to all: they can hold its lock.
        fs::remove_file(path)?;
        open()
    });
    checked.map_err(|source| io_error(format!("cannot open {}", path.display()), source))
}

pub(super) fn lock_path(name: &str) -> PathBuf {
    Path::new(LOCKS).join(name)
}

pub(super) fn remove_lock(name: &str) -> Result<(), InstanceError> {
    let path = lock_path(name);
    fs::remove_file(&path)
        .map_err(|source| io_error(format!("cannot remove {}", path.display()), source))?;
    switch::reached(Step::Unlocked);
    Ok(())
}

pub(super) fn io_error(what: String, source: io::Error) -> InstanceError {
    InstanceError::Io { what, source }
}
