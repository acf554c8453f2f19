//! The table of the routes: by which interfaces datagrams of a connector may leave.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::{
    Ebpf,
    maps::{LpmTrie, MapData, lpm_trie::Key},
};
use egress_common::{
    abi::map,
    key::{Addr, RouteKey},
};

use super::{
    load::PlaneError,
    maps::{failed, is_absent, typed},
};
use crate::host::ways::{Prefix, Step, Ways, steps};

/// The table, for one connector. What is not in it is no way.
pub struct RouteTable {
    table: Shared,
    installed: Ways,
}

/// The table itself, which connectors that share a data plane have in common.
type Shared = Arc<Mutex<LpmTrie<MapData, RouteKey, u32>>>;

impl RouteTable {
    /// Takes the map out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, PlaneError> {
        Ok(Self {
            table: Arc::new(Mutex::new(typed(ebpf, map::ROUTES)?)),
            installed: Ways::new(),
        })
    }

    /// The same table for another connector, of which nothing is in it.
    pub fn for_another(&self) -> Self {
        Self {
            table: Arc::clone(&self.table),
            installed: Ways::new(),
        }
    }

    /// Puts other entries in the place of those that are there, in the order of
    /// [`steps`]. After an error the connector's datagrams may leave by no interface, but for
    /// entries that could not be deleted either.
    pub fn replace(&mut self, connector: u32, ways: Ways) -> Result<(), PlaneError> {
        let steps = steps(&self.installed, &ways);
        let result = steps
            .iter()
            .try_for_each(|step| self.carry_out(connector, step));
        if result.is_err() {
            // What permits is among these, whether or not it was deleted already. Each is tried,
            // whatever became of the one before; what is left is tried again with the next table.
            let installed = std::mem::take(&mut self.installed);
            for &(index, prefix) in installed.keys().chain(ways.keys()) {
                let step = Step::Delete(index, prefix);
                if self.carry_out(connector, &step).is_err() {
                    self.installed.insert((index, prefix), true);
                }
            }
            return result;
        }
        self.installed = ways;
        Ok(())
    }

    /// Each change is one call to the kernel, so no panic leaves one half done.
    fn table(&self) -> MutexGuard<'_, LpmTrie<MapData, RouteKey, u32>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes everything that stands there for a connector, whoever wrote it.
    pub fn clear(&self, connector: u32) -> Result<(), PlaneError> {
        let mut table = self.table();
        let mut gone = Vec::new();
        for key in table.keys() {
            let key = key.map_err(failed(map::ROUTES))?;
            if key.data().connector == connector {
                gone.push(key);
            }
        }
        for key in gone {
            match table.remove(&key) {
                Err(error) if !is_absent(&error) => return Err(failed(map::ROUTES)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, connector: u32, step: &Step) -> Result<(), PlaneError> {
        match *step {
            Step::Write(index, prefix, way) => {
                let way = if way { RouteKey::LEADS } else { 0 };
                self.table()
                    .insert(&key(connector, index, prefix), way, 0)
                    .map_err(failed(map::ROUTES))
            }
            Step::Delete(index, prefix) => {
                match self.table().remove(&key(connector, index, prefix)) {
                    Err(error) if !is_absent(&error) => Err(failed(map::ROUTES)(error)),
                    _ => Ok(()),
                }
            }
        }
    }
}

fn key(connector: u32, ifindex: u32, prefix: Prefix) -> Key<RouteKey> {
    let octets = prefix.first().to_be_bytes();
    let (high, low) = octets.split_at(8);
    let half = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    let data = RouteKey {
        connector,
        ifindex,
        // As it is: no canonical form is made, for a prefix is no address.
        addr: Addr {
            halves: [half(high), half(low)],
        },
    };
    Key::new(RouteKey::FIXED_BITS + u32::from(prefix.length()), data)
}
