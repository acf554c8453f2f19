//! The programs that lead a connector to its forwarder, and the forwarder's place in them.

use std::{fs::File, net::TcpListener, path::Path};

use aya::{
    Ebpf,
    maps::{Map, MapData, SockMap},
    programs::{CgroupAttachMode, SkLookup, SockOps, links::FdLink},
};
use egress_common::abi::map;

use super::{
    attach::{fd_link, program},
    load::PlaneError,
    pin::PinFolder,
};

/// Writes down the connector's connections to the forwarder.
const NOTE: &str = "proxy_note";
/// Gives the forwarder those, and nobody the others.
const STEER: &str = "proxy_steer";
/// The network namespace of this thread, where the connector's is, too.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// The programs, where there is a forwarder.
pub(super) fn names(forwarder: bool) -> impl Iterator<Item = &'static str> {
    [NOTE, STEER].into_iter().filter(move |_| forwarder)
}

/// Attaches both and pins their links.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    connector: &Path,
    pins: &PinFolder,
) -> Result<(), PlaneError> {
    let open = |path: &Path| {
        File::open(path).map_err(|source| PlaneError::Cgroup {
            path: path.display().to_string(),
            source,
        })
    };
    let (cgroup, namespace) = (open(connector)?, open(Path::new(NAMESPACE))?);
    // The one that gives nobody anything first: what is noted before it is there finds nobody.
    let steer: &mut SkLookup = program(ebpf, STEER)?;
    let attached = steer
        .attach(&namespace)
        .and_then(|id| steer.take_link(id))
        .map(FdLink::from)
        .map_err(|source| PlaneError::Program {
            name: STEER,
            source: Box::new(source),
        })?;
    pin(attached, STEER, pins)?;
    let note: &mut SockOps = program(ebpf, NOTE)?;
    let attached = note
        .attach(&cgroup, CgroupAttachMode::Single)
        .and_then(|id| note.take_link(id));
    pin(fd_link(NOTE, attached)?, NOTE, pins)
}

fn pin(link: FdLink, name: &'static str, pins: &PinFolder) -> Result<(), PlaneError> {
    let path = pins.link(name);
    // The pin holds it, and the plane takes it by the pin.
    link.pin(&path).map(drop).map_err(|error| PlaneError::Pin {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// Makes a socket the one that the connector's connections are given to, until it closes. `pinned`
/// is [`PinFolder::map`] of [`map::FORWARDER`].
pub fn enter(pinned: &Path, listener: &TcpListener) -> Result<(), PlaneError> {
    let failed = |source| PlaneError::Map {
        name: map::FORWARDER,
        source: Box::new(source),
    };
    let map = MapData::from_pin(pinned).map_err(failed)?;
    let mut sockets = SockMap::try_from(Map::SockMap(map)).map_err(failed)?;
    sockets.set(0, listener, 0).map_err(failed)
}
