//! The end of an instance: its own agent's, or that of one whose agent is dead.
//!
//! Whatever a dead agent left is ended by the next start: its connector is still confined, but
//! deaf, for its resolver died with the agent. The order of an end is always the same:
//! processes, sockets, links, cgroup.

use std::{
    collections::HashSet,
    fs,
    io::ErrorKind,
    os::fd::AsFd as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    instance::{
        COPY, InstanceError, KILL_WITHIN, LOCKS, PARENT, SHARED, global_lock, ids_below, io_error,
        lock_path, own_locks, remove_lock, try_lock,
    },
    lived::Lived,
    pin::PinFolder,
};
use crate::host::{
    Cgroup, CgroupError, Hierarchy,
    alive::Claim,
    netns, sockets,
    switch::{self, Step},
    temporary,
};

/// How long the kernel may take to forget a cgroup that nothing uses any more.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// What became of the instances of dead agents.
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
    // Before the cgroups are listed: an instance has those first, and gives its folder back before
    // they go. So one that starts or ends meanwhile is not taken for one that is forgotten.
    let recorded = temporary::recorded()
        .map_err(|source| io_error("cannot list the temporary folders".to_owned(), source))?;
    let known = known_instances(&hierarchy)?;
    let mut inside = HashSet::new();
    for home in known.iter().filter(|name| name.starts_with(SHARED)) {
        for parent in cgroups(&hierarchy, home)? {
            inside.extend(parent.children()?);
        }
    }
    // An agent that has another /run may have ended the rest of these.
    let forgotten = recorded
        .into_iter()
        .filter(|name| !known.contains(name) && !inside.contains(name));
    for name in forgotten {
        if let Err(error) = given_back(&name) {
            leftovers.kept.push((name, error));
        }
    }
    for name in known {
        match clean(&hierarchy, &name) {
            Ok(true) => leftovers.ended.push(name),
            Ok(false) => {}
            Err(error) => leftovers.kept.push((name, error)),
        }
    }
    Ok(leftovers)
}

/// The temporary folder goes to its user, with what is in it.
pub(super) fn given_back(name: &str) -> Result<(), InstanceError> {
    temporary::end(name).map_err(|source| {
        io_error(
            format!("cannot give the temporary folder of {name} to its user"),
            source,
        )
    })
}

/// Ends one instance, unless its agent is alive.
fn clean(hierarchy: &Hierarchy, name: &str) -> Result<bool, InstanceError> {
    let Some(_lock) = try_lock(&lock_path(name))? else {
        return Ok(false);
    };
    let parents = cgroups(hierarchy, name)?;
    if parents.is_empty() && !is_whole(hierarchy) {
        remove_lock(name)?;
        return Err(InstanceError::Unseen);
    }
    let mut ours = Vec::new();
    for parent in &parents {
        match parent.claim()? {
            Claim::Taken(alive) => ours.push(alive),
            Claim::Gone => {}
            Claim::Held => {
                // Its lock file is elsewhere, and the one here is nobody's.
                remove_lock(name)?;
                return Ok(false);
            }
        }
    }
    // Who started these may live on without the daemon, as long as anything of theirs runs.
    let orphaned = name.starts_with(SHARED)
        && parents
            .iter()
            .map(Cgroup::is_populated)
            .try_fold(false, |any, one| one.map(|one| any || one))?;
    if orphaned {
        return Ok(false);
    }
    dismantle(hierarchy, name)?;
    remove_lock(name)?;
    Ok(true)
}

/// An instance that runs on without its daemon.
pub struct Orphan {
    /// Its name.
    pub name: String,
    cgroup: Cgroup,
}

impl Orphan {
    /// Its processes.
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        self.cgroup.child(COPY)?.pids()
    }

    /// Ends them. The rest ends with the next look for leftovers.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.cgroup.kill_all(KILL_WITHIN)
    }
}

/// Instances that run on without their daemon.
pub fn orphans() -> Result<Vec<Orphan>, InstanceError> {
    let hierarchy = Hierarchy::find()?;
    own_locks()?;
    let mut all = Vec::new();
    for home in known_instances(&hierarchy)? {
        if !home.starts_with(SHARED) {
            continue;
        }
        for parent in cgroups(&hierarchy, &home)? {
            if parent.is_claimed()? {
                continue;
            }
            for name in parent.children()? {
                let cgroup = parent.child(&name)?;
                if cgroup.is_populated()? {
                    all.push(Orphan { name, cgroup });
                }
            }
        }
    }
    Ok(all)
}

/// Names of the instances whose agent is alive.
pub fn running() -> Result<Vec<String>, InstanceError> {
    let hierarchy = Hierarchy::find()?;
    own_locks()?;
    let mut alive = Vec::new();
    for name in known_instances(&hierarchy)? {
        let claimed = || {
            let mut parents = cgroups(&hierarchy, &name)?.into_iter();
            parents.try_fold(false, |found, parent| Ok(found || parent.is_claimed()?))
        };
        let locked = lock_path(&name).exists() && try_lock(&lock_path(&name))?.is_none();
        if locked || claimed().map_err(|error: CgroupError| InstanceError::from(error))? {
            alive.push(name);
        }
    }
    Ok(alive)
}

/// Lets the connector of an instance go on that was frozen. `false`: there is no such instance, or
/// nothing of it is frozen.
pub fn thaw(name: &str) -> Result<bool, InstanceError> {
    let hierarchy = Hierarchy::find()?;
    let _one_at_a_time = global_lock()?;
    let mut thawed = false;
    for parent in cgroups(&hierarchy, name)? {
        for cgroup in parent.below()? {
            if cgroup.is_frozen()? {
                cgroup.freeze(false)?;
                thawed = true;
            }
        }
    }
    Ok(thawed)
}

/// Processes, sockets, links, cgroup: in this order nothing that was refused can leave.
pub(super) fn dismantle(hierarchy: &Hierarchy, name: &str) -> Result<(), InstanceError> {
    let usual = hierarchy.cgroup(PARENT)?;
    let parents = cgroups(hierarchy, name)?;
    let pins = PinFolder::of(name);
    switch::reached(Step::EndBegun);
    for parent in &parents {
        end_inside(parent, name)?;
    }
    switch::reached(Step::SocketsEnded);
    given_back(name)?;
    if name.starts_with(SHARED) {
        for parent in &parents {
            parent
                .children()?
                .iter()
                .try_for_each(|name| given_back(name))?;
        }
    }
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

/// Ends the processes and the sockets of an instance. Sockets are ended where they are: a
/// network namespace can be alive through nothing but them.
pub(super) fn end_inside(parent: &Cgroup, name: &str) -> Result<(), InstanceError> {
    let lived = Lived::of(parent)?;
    // Looked for while its processes are a way into it.
    let elsewhere = match &lived {
        Some(lived) if !lived.is_here()? => lived.namespace().find(),
        _ => None,
    };
    parent.kill_all(KILL_WITHIN)?;
    switch::reached(Step::ProcessesEnded);
    let mut cgroups = ids_below(parent)?;
    cgroups.extend(lived.iter().flat_map(Lived::cgroups));
    let failed = |source| {
        io_error(
            format!(
                "cannot end the sockets of {name}, so its data plane stays attached \
                 (the kernel needs CONFIG_INET_DIAG_DESTROY)"
            ),
            source,
        )
    };
    sockets::destroy(&cgroups).map_err(failed)?;
    let reached = match (&lived, elsewhere) {
        (_, Some(namespace)) => {
            netns::within(namespace.as_fd(), || sockets::destroy(&cgroups))
                .and_then(|ended| ended)
                .map_err(failed)?;
            true
        }
        (Some(lived), None) => lived.is_here()?,
        (None, None) => false,
    };
    if reached || is_forgotten(parent)? {
        return Ok(());
    }
    Err(InstanceError::Unreachable)
}

/// Whether no socket of an instance is left in any network namespace. Each holds its cgroup, so
/// the kernel cannot forget one that was removed (`cgroup_sk_alloc()`, kernel/cgroup/cgroup.c).
/// What confines them is attached above, and stays.
fn is_forgotten(parent: &Cgroup) -> Result<bool, InstanceError> {
    let within = if parent.remove_below()? {
        FORGOTTEN_WITHIN
    } else {
        // Others looked long ago.
        Duration::ZERO
    };
    let start = Instant::now();
    loop {
        match parent.dying()? {
            0 => return Ok(true),
            _ if start.elapsed() >= within => return Ok(false),
            _ => thread::sleep(PAUSE),
        }
    }
}

/// The cgroups of an instance: one, or none where somebody has removed it. A unit's is looked
/// for, so that nothing but its name has to be known after a crash.
fn cgroups(hierarchy: &Hierarchy, name: &str) -> Result<Vec<Cgroup>, CgroupError> {
    let there = hierarchy.cgroup(PARENT)?.child(name)?;
    if there.exists() {
        return Ok(vec![there]);
    }
    hierarchy.named(PARENT, name)
}

/// Whether every cgroup of this host can be seen.
fn is_whole(hierarchy: &Hierarchy) -> bool {
    let root = hierarchy.cgroup("").and_then(|root| root.level());
    root.is_ok_and(|level| level == 0)
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
