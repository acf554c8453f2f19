//! The sockets of a DNS proxy: who may speak to them, and that they are the proxy's.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
    programs::SocketFilter,
};
use egress_common::abi::map;

use super::{attach, load::PlaneError};

/// Makes sockets those of a DNS proxy.
pub(super) struct Resolvers(MapData);

impl Resolvers {
    /// Takes the map out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, PlaneError> {
        match ebpf.take_map(map::RESOLVERS) {
            Some(Map::SkStorage(resolvers)) => Ok(Self(resolvers)),
            _ => Err(PlaneError::Missing(map::RESOLVERS)),
        }
    }

    /// From here on the socket takes nothing but what its connector sends, and the connector
    /// sends nothing to its address but what this socket takes. What it accepts inherits both.
    pub(super) fn enter(
        &self,
        ebpf: &mut Ebpf,
        socket: BorrowedFd<'_>,
        connector: u32,
    ) -> io::Result<()> {
        let filter: &mut SocketFilter =
            attach::program(ebpf, attach::ADMIT).map_err(io::Error::other)?;
        filter.attach(socket).map_err(io::Error::other)?;
        egress_sys::store(self.0.fd().as_fd(), socket, connector)
    }
}
