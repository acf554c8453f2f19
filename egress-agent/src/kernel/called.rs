//! The programs that the packet program calls by a table.
//!
//! The kernel empties such a table when nobody but programs refers to it
//! (`kernel/bpf/arraymap.c` `fd_array_map_clear`); while the instance lives, its pin does.

use aya::{
    Ebpf,
    maps::{MapData, ProgramArray},
    programs::{CgroupSkb, ProgramError},
};
use egress_common::abi::{map, program};

use super::{attach, load::PlaneError};

/// Without it no packet passes but on the fast path.
const STRICT: (&str, u32) = ("strict", program::STRICT);
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

impl Called {
    /// Loads the programs of `ebpf` and enters them. `types`: the constants that tell about
    /// the memory of packets are set.
    pub(super) fn load(ebpf: &mut Ebpf, types: bool) -> Result<Self, PlaneError> {
        let table = ebpf.take_map(map::PROGRAMS);
        let table = table.ok_or(PlaneError::Missing(map::PROGRAMS))?;
        let mut table = ProgramArray::try_from(table).map_err(failed)?;
        let (name, place) = STRICT;
        enter(ebpf, &mut table, name, place)?.map_err(|source| PlaneError::Program {
            name,
            source: Box::new(source),
        })?;
        let mut sni = types.then_some(()).ok_or(SniError::Types);
        for (name, place) in NAMES {
            if sni.is_ok() {
                sni = enter(ebpf, &mut table, name, *place)?.map_err(|error| SniError::Program {
                    name,
                    why: error.to_string(),
                });
            }
        }
        Ok(Self { _table: table, sni })
    }
}

/// Loads one program and enters it; the inner result is the verifier's.
fn enter(
    ebpf: &mut Ebpf,
    table: &mut ProgramArray<MapData>,
    name: &'static str,
    place: u32,
) -> Result<Result<(), ProgramError>, PlaneError> {
    let program: &mut CgroupSkb = attach::program(ebpf, name)?;
    match program.load().and_then(|()| program.fd()) {
        Ok(fd) => table.set(place, fd, 0).map_err(failed).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

fn failed(source: aya::maps::MapError) -> PlaneError {
    PlaneError::Map {
        name: map::PROGRAMS,
        source: Box::new(source),
    }
}
