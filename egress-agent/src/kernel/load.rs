//! Loads one instance of the data plane.

use std::{io, net::Ipv4Addr, os::fd::BorrowedFd, path::Path};

use aya::{Ebpf, EbpfLoader, programs::links::PinnedLink};
use egress_common::{
    abi::{self, map},
    stat::REASON_SLOTS,
};

use egress_sys::Hook;

use super::{
    attach,
    btf::{self, Structures},
    called::{self, Called, SniError},
    lsm::{LsmError, LsmPrograms, Types},
    maps::{Maps, Switches},
    object,
    packet::PacketMemory,
    pin::PinFolder,
    proxy,
    resolver::Resolvers,
    ring::RingMap,
    routes::RouteTable,
    unix::{self, UnixError, UnixPrograms},
    verify,
};
use crate::host::switch::{self, Part};

/// The eBPF object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egress-ebpf"));

/// What differs between instances.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Depth of connector cgroups below the root of the hierarchy (root = 0).
    pub connector_level: u32,
    /// Connectors the instance will hold; ids run from 1 to this number.
    pub connectors: u32,
    /// Rule slots the instance needs, reserved ones included.
    pub rules: u32,
    /// Where the range of the forwarder's addresses begins; `None`: there is no forwarder.
    pub proxy_net: Option<Ipv4Addr>,
    /// Entries of the tables that policies are written into.
    pub sizes: Sizes,
}

/// Entries of the tables that policies are written into. Room costs nothing until it is used.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Address prefixes.
    pub prefixes: u32,
    /// Names in TLS.
    pub names: u32,
    /// Names of unix sockets.
    pub unix_names: u32,
    /// Ways by the host's routes.
    pub routes: u32,
}

impl Sizes {
    /// For one connector: as many as a policy may have.
    pub const ONE: Self = Self {
        prefixes: abi::MAX_PREFIXES,
        names: abi::MAX_NAMES,
        unix_names: abi::MAX_UNIX_NAMES,
        routes: abi::MAX_ROUTES,
    };
    /// For many: as many as sixteen of the largest, or a thousand of sixty-four each.
    pub const MANY: Self = Self {
        prefixes: abi::MAX_PREFIXES * 16,
        names: abi::MAX_NAMES * 16,
        unix_names: abi::MAX_UNIX_NAMES * 4,
        routes: abi::MAX_ROUTES * 16,
    };
}

/// Why an instance could not be brought up. Nothing of it is attached after an error.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The object or one of its maps was refused.
    #[error(
        "the kernel did not take the data plane: {0}; `egress-agent doctor` shows what this kernel offers"
    )]
    Load(#[source] Box<aya::EbpfError>),
    /// A program was refused by the verifier.
    #[error(
        "the kernel did not take the program {name}: {source}; this needs Linux 5.10 or newer and root with CAP_BPF and CAP_NET_ADMIN"
    )]
    Program {
        /// Name of the program in the object.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A program or map is missing in the object: the build is broken.
    #[error("the built-in data plane has no {0}; this build of egress-agent is broken")]
    Missing(&'static str),
    /// The object could not be taken apart: the build is broken.
    #[error("the built-in data plane cannot be used: {0}; this build of egress-agent is broken")]
    Object(String),
    /// A map operation failed.
    #[error("the map {name} could not be used: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A link or folder could not be pinned.
    #[error("cannot pin {path}: {reason}; is a bpf file system mounted at {mount}?", mount = super::pin::MOUNT)]
    Pin {
        /// What was to be pinned.
        path: String,
        /// What the kernel said.
        reason: String,
    },
    /// The cgroup could not be opened.
    #[error("cannot open the cgroup {path}: {source}")]
    Cgroup {
        /// Its path.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A value is beyond what the data plane holds.
    #[error("{what} is beyond the data plane's {limit}")]
    Limit {
        /// What was asked for.
        what: &'static str,
        /// The ceiling.
        limit: u32,
    },
    /// The ring could not be watched.
    #[error("cannot watch the event ring: {0}")]
    Ring(#[source] io::Error),
}

/// A loaded instance: its maps, its ring and the programs that wait to be attached.
pub struct Plane {
    ebpf: Ebpf,
    pins: PinFolder,
    unix: Result<UnixPrograms, UnixError>,
    lsm: Result<LsmPrograms, LsmError>,
    called: Called,
    held: Vec<PinnedLink>,
    switches: Option<Switches>,
    routes: Option<RouteTable>,
    resolvers: Resolvers,
    maps: Option<Maps>,
}

impl Plane {
    /// Loads the object with its maps pinned in `pins`. Nothing is attached yet.
    pub fn load(settings: &Settings, pins: PinFolder) -> Result<Self, PlaneError> {
        check(settings)?;
        let level = i32::try_from(settings.connector_level).unwrap_or(i32::MAX);
        let connectors = settings.connectors.saturating_add(1);
        let proxied = settings.proxy_net.map(|_| &map::FORWARDER);
        let pin_paths: Vec<_> = PINNED_MAPS
            .iter()
            .chain(proxied)
            .map(|name| (*name, pins.map(name)))
            .collect();
        let structures = Structures::read(Path::new(btf::FILE));
        let memory = structures.as_ref().ok().and_then(PacketMemory::find);
        let types = Types::read(structures.as_ref());
        let functions = structures.as_ref().ok().and_then(unix::functions);
        drop(structures);
        let socket_open = u32::from(switch::is_off(Part::Socket));
        let mut loader = EbpfLoader::new();
        // No program asks where structures keep their members (CO-RE) but by the constants below,
        // and reading all types once more takes a fifth of a start.
        loader.btf(None);
        for (name, place) in memory.iter().flat_map(PacketMemory::constants) {
            loader.override_global(name, place, true);
        }
        if let Ok(types) = &types {
            for (name, place) in types.offsets() {
                loader.override_global(name, place, true);
            }
        }
        loader
            .override_global(abi::global::CONNECTOR_LEVEL, &level, true)
            // In the object of test builds alone.
            .override_global("SOCKET_OPEN", &socket_open, false)
            .map_max_entries(map::CONNECTORS, connectors)
            .map_max_entries(map::LOST, connectors)
            .map_max_entries(map::DENIALS, connectors.saturating_mul(REASON_SLOTS))
            .map_max_entries(map::RULES, settings.rules)
            .map_max_entries(map::RULE_STATS, settings.rules)
            .map_max_entries(map::PREFIXES, settings.sizes.prefixes)
            .map_max_entries(map::NAMES, settings.sizes.names)
            .map_max_entries(map::UNIX_NAMES, settings.sizes.unix_names)
            .map_max_entries(map::ROUTES, settings.sizes.routes);
        let proxy_net = settings.proxy_net.map(Ipv4Addr::to_bits);
        match &proxy_net {
            Some(net) => {
                loader.override_global(abi::global::PROXY_NET, net, true);
            }
            None => {
                loader.map_max_entries(map::PROXIED, 1);
            }
        }
        for name in SIZED {
            if let Some(entries) = switch::room(name) {
                loader.map_max_entries(name, entries);
            }
        }
        for (name, path) in &pin_paths {
            loader.map_pin_path(name, path.as_path());
        }
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|error| PlaneError::Load(Box::new(error)))?;
        drop(loader);
        let wanted = unix::wanted().chain(types.iter().flat_map(Types::wanted));
        let codes = object::programs(OBJECT, &ebpf, functions.as_ref(), wanted)?;
        let (lsm, unix): (Vec<_>, _) = codes.into_iter().partition(|code| code.hook() == Hook::Lsm);
        let lsm = types.and_then(|_offsets_set| LsmPrograms::load(&lsm));
        let needed = || attach::names().chain(proxy::names(settings.proxy_net.is_some()));
        let wanted: Vec<_> = needed().chain(called::names(memory.is_some())).collect();
        let (mut refused, unix) = verify::load(&mut ebpf, &wanted, unix);
        if let Some((name, source)) = needed().find_map(|name| refused.remove_entry(name)) {
            return Err(PlaneError::Program {
                name,
                source: Box::new(source),
            });
        }
        let called = Called::enter(&mut ebpf, memory.is_some(), refused)?;
        let switches = Switches::take(&mut ebpf, called.sni.is_ok())?;
        let routes = RouteTable::take(&mut ebpf)?;
        let maps = Maps::take(&mut ebpf, &pins)?;
        let resolvers = Resolvers::take(&mut ebpf)?;
        egress_sys::trim_heap();
        Ok(Self {
            ebpf,
            pins,
            unix: UnixPrograms::take(unix, functions.is_some()),
            lsm,
            called,
            held: Vec::new(),
            switches: Some(switches),
            routes: Some(routes),
            resolvers,
            maps: Some(maps),
        })
    }

    /// Makes a socket one of a connector's DNS proxy: nobody else reaches it, and the connector
    /// reaches nobody else there.
    pub fn enter_resolver(&mut self, socket: BorrowedFd<'_>, connector: u32) -> io::Result<()> {
        self.resolvers.enter(&mut self.ebpf, socket, connector)
    }

    /// Attaches every program at `cgroup` and pins the links. After an error no program of
    /// this instance stays attached. As long as the plane lives it holds the links itself, so
    /// that somebody who removes the pins detaches nothing.
    pub fn attach(&mut self, cgroup: &Path) -> Result<(), PlaneError> {
        attach::attach_all(&mut self.ebpf, self.unix.as_ref().ok(), cgroup, &self.pins)?;
        let unpinned = |path: &Path, reason: String| PlaneError::Pin {
            path: path.display().to_string(),
            reason,
        };
        let links = self.pins.links().map_err(|error| {
            let folder = self.pins.link("");
            unpinned(&folder, error.to_string())
        })?;
        for path in links {
            let link =
                PinnedLink::from_pin(&path).map_err(|error| unpinned(&path, error.to_string()))?;
            self.held.push(link);
        }
        Ok(())
    }

    /// Attaches and pins the programs that lead the connector, whose cgroup it is, to its
    /// forwarder. To be called before [`Plane::attach`], which takes all links into its hands.
    pub fn attach_proxy(&mut self, connector: &Path) -> Result<(), PlaneError> {
        proxy::attach(&mut self.ebpf, connector, &self.pins)
    }

    /// The programs for security modules, which are attached last; they can be taken once.
    pub fn take_lsm(&mut self) -> Result<LsmPrograms, LsmError> {
        let taken = Err(LsmError::Unsupported("they were taken before".to_owned()));
        std::mem::replace(&mut self.lsm, taken)
    }

    /// Whether the data plane judges unix sockets; if not, why.
    pub fn unix(&self) -> Result<(), &UnixError> {
        self.unix.as_ref().map(drop)
    }

    /// Whether addresses of unix sockets can be led elsewhere.
    pub fn leads_unix(&self) -> bool {
        self.unix.as_ref().is_ok_and(|unix| unix.leads)
    }

    /// Whether the data plane checks names in TLS; if not, why.
    pub fn sni(&self) -> Result<(), &SniError> {
        self.called.sni.as_ref().copied()
    }

    /// The tables a policy is written into; they can be taken once, and are kept for as long
    /// as the policy may change.
    pub fn take_switches(&mut self) -> Result<Switches, PlaneError> {
        self.switches
            .take()
            .ok_or(PlaneError::Missing(map::CONNECTORS))
    }

    /// The counters, and the exact grants; they can be taken once.
    pub fn take_maps(&mut self) -> Result<Maps, PlaneError> {
        self.maps.take().ok_or(PlaneError::Missing(map::GRANTS))
    }

    /// The table of the routes; it can be taken once, and is kept for as long as they may change.
    pub fn take_routes(&mut self) -> Result<RouteTable, PlaneError> {
        self.routes.take().ok_or(PlaneError::Missing(map::ROUTES))
    }

    /// The event ring; it can be taken once.
    pub fn take_ring(&mut self) -> Result<RingMap, PlaneError> {
        let map = self
            .ebpf
            .take_map(map::EVENTS)
            .ok_or(PlaneError::Missing(map::EVENTS))?;
        Ok(RingMap(map))
    }

    /// Where this instance is pinned.
    pub fn pins(&self) -> &PinFolder {
        &self.pins
    }
}

/// Tables that tests make small, to see them full.
const SIZED: &[&str] = &[map::GRANTS, map::PREFIXES, map::ROUTES, map::UNIX_NAMES];

/// Maps that stay when the agent is gone, because programs that stay decide by them.
const PINNED_MAPS: &[&str] = &[
    map::CGROUPS,
    map::CONNECTORS,
    map::GRANTS,
    map::PREFIXES,
    map::ROUTES,
    map::NAMES,
    map::UNIX_NAMES,
    map::RULES,
    map::RULE_STATS,
    map::DENIALS,
    map::LOST,
    map::EVENTS,
    map::PROGRAMS,
    map::RESOLVERS,
    map::HELLOS,
    map::DATAGRAMS,
    map::SOCKETS,
];

fn check(settings: &Settings) -> Result<(), PlaneError> {
    if settings.connectors >= abi::MAX_CONNECTORS {
        return Err(PlaneError::Limit {
            what: "the number of connectors",
            limit: abi::MAX_CONNECTORS - 1,
        });
    }
    if settings.rules > abi::MAX_RULES {
        return Err(PlaneError::Limit {
            what: "the number of rules",
            limit: abi::MAX_RULES,
        });
    }
    Ok(())
}
