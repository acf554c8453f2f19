//! Attaches the programs at the instance's parent cgroup and pins their links.

use std::{
    ffi::CString,
    fs::File,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr,
        CgroupSockopt, links::FdLink,
    },
};

use egress_sys::Hook;

use super::{load::PlaneError, pin::PinFolder, unix::UnixPrograms};
use crate::host::switch::{self, Part, Step};

/// Socket-address programs, by their name in the object.
const SOCK_ADDR: &[&str] = &[
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
];
/// The program for `socket()`.
const SOCK_CREATE: &str = "sock_create";
/// The program for `setsockopt()`.
const SETSOCKOPT: &str = "setsockopt";
/// The packet program.
const EGRESS: &str = "egress";
/// The filter of a DNS proxy's sockets.
pub(super) const ADMIT: &str = "admit";
/// The program for packets that come in.
const INGRESS: &str = "ingress";
/// Every program of an instance.
pub fn names() -> impl Iterator<Item = &'static str> {
    SOCK_ADDR
        .iter()
        .copied()
        .chain([SOCK_CREATE, SETSOCKOPT, EGRESS, INGRESS, ADMIT])
}

/// Attaches all programs. Links are dropped, and so detached, when one of them fails.
pub fn attach_all(
    ebpf: &mut Ebpf,
    unix: Option<&UnixPrograms>,
    cgroup: &Path,
    pins: &PinFolder,
) -> Result<(), PlaneError> {
    let file = File::open(cgroup).map_err(|source| PlaneError::Cgroup {
        path: cgroup.display().to_string(),
        source,
    })?;
    let mut links = Vec::new();
    // The packet program first: with it alone nothing unapproved leaves.
    if !switch::is_off(Part::Packet) {
        let link = packets(ebpf, EGRESS, CgroupSkbAttachType::Egress, &file)?;
        links.push((EGRESS, link));
    }
    if !switch::is_off(Part::Ingress) {
        let link = packets(ebpf, INGRESS, CgroupSkbAttachType::Ingress, &file)?;
        links.push((INGRESS, link));
    }
    switch::reached(Step::FirstAttached);
    for name in SOCK_ADDR.iter().filter(|name| !is_off(name)) {
        links.push((*name, sock_addr(ebpf, name, &file)?));
    }
    if !switch::is_off(Part::Sockopt) {
        setsockopt(ebpf, &file, pins)?;
    }
    links.push((SOCK_CREATE, sock_create(ebpf, &file)?));
    if let Some(unix) = unix.filter(|_| !switch::is_off(Part::Unix)) {
        unix.attach(&file, pins)?;
    }
    switch::reached(Step::LastAttached);
    let mut pinned = Vec::new();
    for (name, link) in links {
        let path = pins.link(name);
        match link.pin(&path) {
            Ok(link) => {
                pinned.push(link);
                switch::reached(Step::FirstPinned);
            }
            Err(error) => {
                for link in pinned {
                    // A pin that stays keeps refusing; the next start removes it.
                    let _stays_closed = link.unpin();
                }
                return Err(PlaneError::Pin {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Whether a test has taken the hook away.
fn is_off(name: &str) -> bool {
    match name {
        "connect4" | "connect6" => switch::is_off(Part::Connect),
        "sendmsg4" | "sendmsg6" => switch::is_off(Part::Sendmsg),
        _ => false,
    }
}

fn sock_addr(ebpf: &mut Ebpf, name: &'static str, cgroup: &File) -> Result<FdLink, PlaneError> {
    let program: &mut CgroupSockAddr = program(ebpf, name)?;
    let attached = (|| {
        let id = program.attach(cgroup, CgroupAttachMode::Single)?;
        program.take_link(id)
    })();
    fd_link(name, attached)
}

fn sock_create(ebpf: &mut Ebpf, cgroup: &File) -> Result<FdLink, PlaneError> {
    let program: &mut CgroupSock = program(ebpf, SOCK_CREATE)?;
    let attached = (|| {
        let id = program.attach(cgroup, CgroupAttachMode::Single)?;
        program.take_link(id)
    })();
    fd_link(SOCK_CREATE, attached)
}

/// aya 0.14 has no way from a link of this type to a pin.
fn setsockopt(ebpf: &mut Ebpf, cgroup: &File, pins: &PinFolder) -> Result<(), PlaneError> {
    let program: &mut CgroupSockopt = program(ebpf, SETSOCKOPT)?;
    let refused = |source| PlaneError::Program {
        name: SETSOCKOPT,
        source: Box::new(source),
    };
    let loaded = program.fd().map_err(refused)?;
    let path = pins.link(SETSOCKOPT);
    egress_sys::attach(Hook::Setsockopt, loaded.as_fd(), cgroup.as_fd())
        .and_then(|link| {
            let file = CString::new(path.as_os_str().as_bytes())?;
            egress_sys::pin(link.as_fd(), &file)
        })
        .map_err(|error| PlaneError::Pin {
            path: path.display().to_string(),
            reason: error.to_string(),
        })
}

fn packets(
    ebpf: &mut Ebpf,
    name: &'static str,
    direction: CgroupSkbAttachType,
    cgroup: &File,
) -> Result<FdLink, PlaneError> {
    let program: &mut CgroupSkb = program(ebpf, name)?;
    let attached = (|| {
        let id = program.attach(cgroup, direction, CgroupAttachMode::Single)?;
        program.take_link(id)
    })();
    fd_link(name, attached)
}

pub(super) fn program<'a, P>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut P, PlaneError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(PlaneError::Missing(name))
}

/// Kernels from 5.7 on make real links; without one nothing could be pinned.
pub(super) fn fd_link<L>(
    name: &'static str,
    attached: Result<L, aya::programs::ProgramError>,
) -> Result<FdLink, PlaneError>
where
    L: TryInto<FdLink>,
{
    attached
        .map_err(|source| PlaneError::Program {
            name,
            source: Box::new(source),
        })?
        .try_into()
        .map_err(|_| PlaneError::Missing("bpf link (Linux 5.7 or newer)"))
}
