//! The data plane's tables, typed.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key},
};
use egress_common::{
    abi::map,
    event::{Client, ClientKey},
    grant::{Connector, Grant, PrefixRules, Rule},
    key::{Addr, GrantKey, PrefixKey},
    sni::NameKey,
    stat::{RuleStat, denial_slot},
    unix::{UnixGrant, UnixKey},
    verdict::Reason,
};

use super::{load::PlaneError, pin::PinFolder};
use crate::grant::{Table, TableError};
use crate::host::records;

/// What connectors may reach, but for the exact grants: what a policy is written into. Connectors
/// that share a data plane have a handle each.
#[derive(Clone)]
pub struct Switches {
    tables: Arc<Mutex<Tables>>,
    sockets: Arc<MapData>,
}

struct Tables {
    /// Whether the programs that check names are there. Without them a rule that asks for
    /// names would permit nothing; the operator is told, and a policy can require them.
    checks_names: bool,
    cgroups: HashMap<MapData, u64, u32>,
    connectors: Array<MapData, Connector>,
    prefixes: LpmTrie<MapData, PrefixKey, PrefixRules>,
    names: LpmTrie<MapData, NameKey, PrefixRules>,
    unix_names: HashMap<MapData, UnixKey, UnixGrant>,
    rules: Array<MapData, Rule>,
}

/// The counters of an instance, and its exact grants.
pub struct Maps {
    rule_stats: PerCpuArray<MapData, RuleStat>,
    denials: PerCpuArray<MapData, u64>,
    lost: PerCpuArray<MapData, u64>,
    clients: HashMap<MapData, ClientKey, Client>,
    grants: GrantTable,
    /// Once more, by its pin: whoever writes policies has it, too.
    sockets: Option<MapData>,
}

impl Switches {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, checks_names: bool) -> Result<Self, PlaneError> {
        let sockets = match ebpf.take_map(map::SOCKETS) {
            Some(Map::SkStorage(sockets)) => sockets,
            _ => return Err(PlaneError::Missing(map::SOCKETS)),
        };
        let tables = Tables {
            checks_names,
            cgroups: typed(ebpf, map::CGROUPS)?,
            connectors: typed(ebpf, map::CONNECTORS)?,
            prefixes: typed(ebpf, map::PREFIXES)?,
            names: typed(ebpf, map::NAMES)?,
            unix_names: typed(ebpf, map::UNIX_NAMES)?,
            rules: typed(ebpf, map::RULES)?,
        };
        Ok(Self {
            tables: Arc::new(Mutex::new(tables)),
            sockets: Arc::new(sockets),
        })
    }

    /// Each change is one call to the kernel, so no panic leaves one half done.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connector. The kernel refuses every flow of one that is not here.
    pub fn set_connector(&mut self, id: u32, connector: &Connector) -> Result<(), PlaneError> {
        self.tables()
            .connectors
            .set(id, connector, 0)
            .map_err(failed(map::CONNECTORS))
    }

    /// Says which connector a cgroup holds.
    pub fn set_cgroup(&mut self, cgroup: u64, connector: u32) -> Result<(), PlaneError> {
        self.tables()
            .cgroups
            .insert(cgroup, connector, 0)
            .map_err(failed(map::CGROUPS))
    }

    /// Says that a cgroup holds no connector any more; one that is not there is no error.
    pub fn delete_cgroup(&mut self, cgroup: u64) -> Result<(), PlaneError> {
        match self.tables().cgroups.remove(&cgroup) {
            Err(error) if !is_absent(&error) => Err(failed(map::CGROUPS)(error)),
            _ => Ok(()),
        }
    }

    /// Throws a rule's switch. `flags`: [`Rule::TLS`] and [`Rule::ECH`].
    pub fn set_rule(
        &mut self,
        slot: u32,
        connector: u32,
        active: bool,
        flags: u16,
    ) -> Result<(), PlaneError> {
        let mut tables = self.tables();
        let rule = Rule {
            active: u32::from(active),
            connector: u16::try_from(connector).unwrap_or(0),
            flags: if tables.checks_names { flags } else { 0 },
        };
        tables.rules.set(slot, rule, 0).map_err(failed(map::RULES))
    }

    /// Enters what holds for a prefix of `bits` bits, [`PrefixKey::FIXED_BITS`] included.
    pub fn set_prefix(
        &mut self,
        bits: u32,
        key: &PrefixKey,
        rules: &PrefixRules,
    ) -> Result<(), PlaneError> {
        self.tables()
            .prefixes
            .insert(&Key::new(bits, *key), rules, 0)
            .map_err(failed(map::PREFIXES))
    }

    /// Enters what holds for the name of a unix socket.
    pub fn set_unix(&mut self, key: &UnixKey, grant: &UnixGrant) -> Result<(), PlaneError> {
        self.tables()
            .unix_names
            .insert(key, grant, 0)
            .map_err(failed(map::UNIX_NAMES))
    }

    /// Deletes what holds for the name of a unix socket; one that is not there is no error.
    pub fn delete_unix(&mut self, key: &UnixKey) -> Result<(), PlaneError> {
        match self.tables().unix_names.remove(key) {
            Err(error) if !is_absent(&error) => Err(failed(map::UNIX_NAMES)(error)),
            _ => Ok(()),
        }
    }

    /// Deletes what holds for a prefix; one that is not there is no error.
    pub fn delete_prefix(&mut self, bits: u32, key: &PrefixKey) -> Result<(), PlaneError> {
        let mut tables = self.tables();
        match tables.prefixes.remove(&Key::new(bits, *key)) {
            Err(error) if !is_absent(&error) => Err(failed(map::PREFIXES)(error)),
            _ => Ok(()),
        }
    }

    /// Enters what holds for a name in TLS, or for a wildcard: length and key as
    /// [`NameKey::exact`] and [`NameKey::wildcard`] make them.
    pub fn set_name(
        &mut self,
        bits: u32,
        key: &NameKey,
        rules: &PrefixRules,
    ) -> Result<(), PlaneError> {
        self.tables()
            .names
            .insert(&Key::new(bits, *key), rules, 0)
            .map_err(failed(map::NAMES))
    }

    /// Deletes what holds for a name or a wildcard; one that is not there is no error.
    pub fn delete_name(&mut self, bits: u32, key: &NameKey) -> Result<(), PlaneError> {
        let mut tables = self.tables();
        match tables.names.remove(&Key::new(bits, *key)) {
            Err(error) if !is_absent(&error) => Err(failed(map::NAMES)(error)),
            _ => Ok(()),
        }
    }

    /// The records of sockets, for [`crate::host::records::list`].
    pub fn sockets(&self) -> BorrowedFd<'_> {
        self.sockets.fd().as_fd()
    }
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, pins: &PinFolder) -> Result<Self, PlaneError> {
        Ok(Self {
            sockets: MapData::from_pin(pins.map(map::SOCKETS)).ok(),
            rule_stats: typed(ebpf, map::RULE_STATS)?,
            denials: typed(ebpf, map::DENIALS)?,
            lost: typed(ebpf, map::LOST)?,
            clients: typed(ebpf, map::CLIENTS)?,
            grants: GrantTable(Arc::new(Mutex::new(typed(ebpf, map::GRANTS)?))),
        })
    }

    /// The exact grants, for the keeper.
    pub fn grants(&self) -> GrantTable {
        self.grants.clone()
    }

    /// What passed under a rule, over all CPUs.
    pub fn rule_stat(&self, slot: u32) -> Result<RuleStat, PlaneError> {
        let per_cpu = self
            .rule_stats
            .get(&slot, 0)
            .map_err(failed(map::RULE_STATS))?;
        Ok(per_cpu
            .iter()
            .fold(RuleStat::default(), |sum, stat| RuleStat {
                connections: sum.connections.saturating_add(stat.connections),
                packets: sum.packets.saturating_add(stat.packets),
                bytes: sum.bytes.saturating_add(stat.bytes),
            }))
    }

    /// A connector's denials for a reason, over all CPUs. Exact.
    pub fn denials(&self, connector: u32, reason: Reason) -> Result<u64, PlaneError> {
        sum(&self.denials, denial_slot(connector, reason), map::DENIALS)
    }

    /// A connector's denials whose record found no room in the ring. Exact.
    pub fn lost(&self, connector: u32) -> Result<u64, PlaneError> {
        sum(&self.lost, connector, map::LOST)
    }

    /// Destroys the sockets that were refused for their name and are still there, which is
    /// where no record told of them. Answers how many.
    pub fn end_refused(&self) -> std::io::Result<usize> {
        let Some(sockets) = &self.sockets else {
            return Ok(0);
        };
        let sockets = records::list(sockets.fd().as_fd(), &HashSet::new())?;
        let refused = sockets.iter().filter(|socket| socket.refused);
        refused
            .map(|socket| socket.destroy().map(usize::from))
            .sum()
    }

    /// The process of a connector that asks the door from an address and port, if the data
    /// plane noted it.
    pub fn client(&self, connector: u32, protocol: u8, from: SocketAddr) -> Option<Client> {
        let addr = match from.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let key = ClientKey {
            addr: Addr::from_octets(addr.octets()),
            connector,
            port: from.port(),
            protocol: u16::from(protocol),
        };
        self.clients.get(&key, 0).ok()
    }
}

/// The exact grants, shared with the keeper.
#[derive(Clone)]
pub struct GrantTable(Arc<Mutex<HashMap<MapData, GrantKey, Grant>>>);

impl Table for GrantTable {
    fn put(&self, key: &GrantKey, grant: &Grant) -> Result<(), TableError> {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grants
            .insert(key, grant, 0)
            .map_err(|error| table_error(&error))
    }

    fn delete(&self, key: &GrantKey) -> Result<(), TableError> {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match grants.remove(key) {
            Err(error) if !is_absent(&error) => Err(table_error(&error)),
            _ => Ok(()),
        }
    }
}

/// Whether a key was not there.
pub(super) fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// `E2BIG` is how a hash without eviction says that it is full (`kernel/bpf/hashtab.c`).
fn table_error(error: &MapError) -> TableError {
    match error {
        MapError::SyscallError(error)
            if error.io_error.raw_os_error() == Some(nix::errno::Errno::E2BIG as i32) =>
        {
            TableError::Full
        }
        other => TableError::Kernel(other.to_string()),
    }
}

pub(super) fn typed<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, PlaneError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(PlaneError::Missing(name))?;
    M::try_from(map).map_err(failed(name))
}

fn sum(
    counters: &PerCpuArray<MapData, u64>,
    slot: u32,
    name: &'static str,
) -> Result<u64, PlaneError> {
    let per_cpu = counters.get(&slot, 0).map_err(failed(name))?;
    Ok(per_cpu
        .iter()
        .fold(0, |sum, count| sum.saturating_add(*count)))
}

pub(super) fn failed(name: &'static str) -> impl Fn(MapError) -> PlaneError {
    move |source| PlaneError::Map {
        name,
        source: Box::new(source),
    }
}
