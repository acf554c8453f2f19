//! One loaded data plane, and what its connectors share.

use std::{
    io,
    os::fd::BorrowedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use egress_common::abi::RULE_FIRST;

use super::room::{Full, Need, Room};
use crate::{
    event::pump::{Pump, PumpError},
    grant::{Keeper, KeeperError},
    host::{Cgroup, CgroupError},
    kernel::{
        Plane, PlaneError, Settings,
        lsm::{LsmError, LsmPrograms},
        maps::Switches,
        pin::PinFolder,
        routes::RouteTable,
    },
    policy::slots::Numbers,
};

/// Why a data plane cannot be used, or a connector not taken out of it.
#[derive(Debug, thiserror::Error)]
pub enum DataPlaneError {
    /// The kernel refused.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// Its events cannot be read.
    #[error(transparent)]
    Pump(#[from] PumpError),
    /// A grant was not deleted.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// A cgroup cannot be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// A loaded data plane.
pub struct DataPlane {
    plane: Mutex<Plane>,
    attached: Mutex<bool>,
    modules: OnceLock<Result<LsmPrograms, LsmError>>,
    switches: Switches,
    routes: RouteTable,
    numbers: Numbers,
    room: Mutex<Room>,
    keeper: Arc<Keeper>,
    pump: Pump,
}

/// One connector's place in a data plane.
pub struct Place {
    plane: Arc<DataPlane>,
    id: u32,
    beside: Option<u32>,
    cgroups: Vec<u64>,
}

impl DataPlane {
    /// Loads it with its maps pinned in `pins`; nothing is attached yet. Must be called inside a
    /// tokio runtime. `share`: exact grants that each connector may hold.
    pub fn load(
        settings: &Settings,
        pins: PinFolder,
        share: usize,
    ) -> Result<Arc<Self>, DataPlaneError> {
        let mut plane = Plane::load(settings, pins)?;
        let (switches, routes) = (plane.take_switches()?, plane.take_routes()?);
        let maps = plane.take_maps()?;
        let keeper = Arc::new(Keeper::shared(Box::new(maps.grants()), share));
        let pump = Pump::start(plane.take_ring()?, Arc::new(maps))?;
        let sizes = settings.sizes;
        let entries = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
        let total = Need {
            prefixes: entries(sizes.prefixes),
            names: entries(sizes.names),
            unix: entries(sizes.unix_names),
        };
        Ok(Arc::new(Self {
            plane: Mutex::new(plane),
            attached: Mutex::new(false),
            modules: OnceLock::new(),
            switches,
            routes,
            numbers: Numbers::new(settings.rules.max(RULE_FIRST)),
            room: Mutex::new(Room::new(total, settings.connectors)),
            keeper,
            pump,
        }))
    }

    /// Gives a connector a place. `beside`: a process beside it has one as well.
    pub fn place(self: &Arc<Self>, beside: bool) -> Result<Place, Full> {
        let mut room = self.room();
        let id = room.take_id()?;
        let beside = match beside.then(|| room.take_id()).transpose() {
            Ok(beside) => beside,
            Err(full) => {
                room.give_back(id);
                return Err(full);
            }
        };
        Ok(Place {
            plane: Arc::clone(self),
            id,
            beside,
            cgroups: Vec::new(),
        })
    }

    /// Attaches every program at a cgroup, once. See [`Plane::attach`].
    pub fn attach(&self, cgroup: &Path) -> Result<(), PlaneError> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if !*attached {
            self.plane().attach(cgroup)?;
            *attached = true;
        }
        Ok(())
    }

    /// The programs for security modules, after `prove` has shown once that they fire.
    pub fn modules(
        &self,
        prove: impl FnOnce(LsmPrograms) -> Result<LsmPrograms, LsmError>,
    ) -> &Result<LsmPrograms, LsmError> {
        self.modules
            .get_or_init(|| self.plane().take_lsm().and_then(prove))
    }

    /// The loaded programs.
    pub fn plane(&self) -> MutexGuard<'_, Plane> {
        // A panic in the midst of a call leaves at worst less attached, which refuses.
        self.plane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a socket one of a connector's DNS proxy. See [`Plane::enter_resolver`].
    pub fn enter_resolver(&self, socket: BorrowedFd<'_>, connector: u32) -> io::Result<()> {
        self.plane().enter_resolver(socket, connector)
    }

    /// What policies are written into.
    pub fn switches(&self) -> Switches {
        self.switches.clone()
    }

    /// The table of routes, for one connector.
    pub fn routes(&self) -> RouteTable {
        self.routes.for_another()
    }

    /// Who keeps the grants.
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// Who reads the events.
    pub fn pump(&self) -> &Pump {
        &self.pump
    }

    /// Each change is whole before the lock is given back.
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connector's id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The id of the process beside it.
    pub fn beside(&self) -> Option<u32> {
        self.beside
    }

    /// The data plane.
    pub fn plane(&self) -> &Arc<DataPlane> {
        &self.plane
    }

    /// Where the numbers of its rules come from.
    pub fn numbers(&self) -> Numbers {
        self.plane.numbers.clone()
    }

    /// Sets aside what its policy needs, in the place of what it held.
    pub fn hold(&self, need: Need) -> Result<(), Full> {
        self.plane.room().hold(self.id, need)
    }

    /// Lets the processes of a cgroup in as connector `id`, which is one of its own.
    pub fn enter(&mut self, cgroup: &Cgroup, id: u32) -> Result<(), DataPlaneError> {
        let cgroup = cgroup.id()?;
        self.plane.switches().set_cgroup(cgroup, id)?;
        self.cgroups.push(cgroup);
        Ok(())
    }

    /// Gives the place to whoever comes next. No process and no socket of it may be left, and
    /// `numbers`, those of its rules, may be in no table. After an error nobody gets it.
    pub fn give_back(
        mut self,
        numbers: impl IntoIterator<Item = u32>,
    ) -> Result<(), DataPlaneError> {
        let mut switches = self.plane.switches();
        for cgroup in &self.cgroups {
            switches.delete_cgroup(*cgroup)?;
        }
        for id in [Some(self.id), self.beside].into_iter().flatten() {
            self.plane.keeper.forget(id)?;
        }
        self.plane.numbers.give_back(numbers);
        // The rest is done where it is dropped.
        self.cgroups.clear();
        Ok(())
    }
}

/// An id that no cgroup has was never used, or is not any more.
impl Drop for Place {
    fn drop(&mut self) {
        if self.cgroups.is_empty() {
            let mut room = self.plane.room();
            for id in [Some(self.id), self.beside].into_iter().flatten() {
                room.give_back(id);
            }
        }
    }
}
