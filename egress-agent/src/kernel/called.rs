//! The programs that the packet program calls by a table.
//!
//! The kernel empties such a table when nobody but programs refers to it
//! (`kernel/bpf/arraymap.c` `fd_array_map_clear`); while the instance lives, its pin does.

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
    programs::CgroupSkb,
};
use egress_common::abi::{map, program};

use super::{attach, load::PlaneError, verify::Refused};

/// Without them no packet passes but on the fast path.
const NEEDED: &[(&str, u32)] = &[("resolver", program::RESOLVER), ("strict", program::STRICT)];
/// Those that check names.
const NAMES: &[(&str, u32)] = &[
    ("judge", program::JUDGE),
    ("name", program::NAME),
    ("sni", program::SNI),
];

/// Why names in TLS cannot be checked on this host.
#[derive(Debug, thiserror::Error)]
pub enum SniError {
    /// It cannot be told whether the memory of a packet can still change.
    #[error("the kernel does not show its types (CONFIG_DEBUG_INFO_BTF), or they are unknown")]
    Types,
    /// The verifier refused.
    #[error("the kernel did not take the program {name}: {why}")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// What the kernel said.
        why: String,
    },
}

/// The table, and what is in it.
pub(super) struct Called {
    /// The packet program refers to it, so it has to be there until that is loaded.
    _table: ProgramArray<MapData>,
    /// Whether names are checked; if not, why.
    pub(super) sni: Result<(), SniError>,
}

/// The programs of an instance that others call. `types`: as for [`Called::enter`].
pub(super) fn names(types: bool) -> impl Iterator<Item = &'static str> {
    let names = NAMES.iter().filter(move |_| types);
    NEEDED.iter().chain(names).map(|(name, _)| *name)
}

impl Called {
    /// Enters the loaded programs of `ebpf`. `types`: the constants that tell about the memory
    /// of packets are set. `refused`: those that could not be loaded.
    pub(super) fn enter(
        ebpf: &mut Ebpf,
        types: bool,
        mut refused: Refused,
    ) -> Result<Self, PlaneError> {
        let table = ebpf.take_map(map::PROGRAMS);
        let table = table.ok_or(PlaneError::Missing(map::PROGRAMS))?;
        let mut table = ProgramArray::try_from(table).map_err(failed)?;
        for &(name, place) in NEEDED {
            if let Some(source) = refused.remove(name) {
                return Err(PlaneError::Program {
                    name,
                    source: Box::new(source),
                });
            }
            enter(ebpf, &mut table, name, place)?;
        }
        let sni = match refused.pop_first() {
            _ if !types => Err(SniError::Types),
            Some((name, error)) => Err(SniError::Program {
                name,
                why: error.to_string(),
            }),
            None => NAMES
                .iter()
                .try_for_each(|(name, place)| enter(ebpf, &mut table, name, *place))
                .map(Ok)?,
        };
        Ok(Self { _table: table, sni })
    }
}

fn enter(
    ebpf: &mut Ebpf,
    table: &mut ProgramArray<MapData>,
    name: &'static str,
    place: u32,
) -> Result<(), PlaneError> {
    let program: &mut CgroupSkb = attach::program(ebpf, name)?;
    let fd = program.fd().map_err(|source| PlaneError::Program {
        name,
        source: Box::new(source),
    })?;
    table.set(place, fd, 0).map_err(failed)
}

fn failed(source: aya::maps::MapError) -> PlaneError {
    PlaneError::Map {
        name: map::PROGRAMS,
        source: Box::new(source),
    }
}
