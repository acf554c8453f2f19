//! Giving up rights, in the only order that works.

use std::{fs, io};

use caps::CapSet;
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::prctl,
    unistd::{Gid, Uid, close, setgroups, setresgid, setresuid, setsid},
};

use crate::host::switch::{self, Part};

/// A right that could not be given up. The connector is not started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {why}; the connector was not started")]
pub struct HardenError {
    what: &'static str,
    why: String,
}

/// Takes the process out of the caller's session and System V namespace.
///
/// Its own session means no controlling terminal to push input into (`TIOCSTI`), and none whose
/// keys end the init; its own IPC namespace means no message queue shared with a helper outside.
pub fn separate() -> Result<(), HardenError> {
    own_session()?;
    if switch::is_off(Part::Ipc) {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWIPC).map_err(|error| failed("leave the IPC namespace", error))
}

/// Begins a session, as programs expect of their first process.
pub fn own_session() -> Result<(), HardenError> {
    if switch::is_off(Part::Session) {
        return Ok(());
    }
    match setsid() {
        // A process that leads its group already is not in anybody's session by accident:
        // the agent starts the launcher as a plain child, so this is somebody's test.
        Ok(_) | Err(Errno::EPERM) => Ok(()),
        Err(error) => Err(failed("make an own session", error)),
    }
}

/// Becomes the user, with no way back and no capability left, root or not.
pub fn drop_rights(uid: u32, gid: u32, groups: &[u32]) -> Result<(), HardenError> {
    prctl::set_no_new_privs().map_err(|error| failed("set no_new_privs", error))?;
    if !switch::is_off(Part::Capabilities) {
        empty_bounding_set()?;
    }
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(|error| failed("set the supplementary groups", error))?;
    let gid = Gid::from_raw(gid);
    setresgid(gid, gid, gid).map_err(|error| failed("set the group", error))?;
    let uid = Uid::from_raw(uid);
    setresuid(uid, uid, uid).map_err(|error| failed("set the user", error))?;
    if switch::is_off(Part::Capabilities) {
        return Ok(());
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).map_err(|error| failed("clear the capabilities", error))?;
    }
    let left = caps::read(None, CapSet::Permitted)
        .map_err(|error| failed("read the capabilities back", error))?;
    if !left.is_empty() {
        return Err(failed("clear the capabilities", "some are left"));
    }
    Ok(())
}

/// Before the capability goes that this needs.
fn empty_bounding_set() -> Result<(), HardenError> {
    for capability in caps::all() {
        // One that the kernel does not know is not in the set either.
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(|error| failed("empty the bounding set", error))?;
        }
    }
    Ok(())
}

/// Closes every descriptor but 0, 1, 2 and those in `keep`. An inherited socket meets no
/// hook at all, so one left open would be a way out.
pub fn close_descriptors(keep: &[i32]) -> Result<(), HardenError> {
    let open = list_descriptors().map_err(|error| failed("list the descriptors", error))?;
    for fd in open {
        if fd > 2 && !keep.contains(&fd) {
            match close(fd) {
                // The listing's own descriptor is closed by now.
                Ok(()) | Err(Errno::EBADF) => {}
                Err(error) => return Err(failed("close a descriptor", error)),
            }
        }
    }
    for fd in list_descriptors().map_err(|error| failed("list the descriptors", error))? {
        let is_listing = fs::read_link(format!("/proc/self/fd/{fd}")).is_err();
        if fd > 2 && !keep.contains(&fd) && !is_listing {
            return Err(failed(
                "close the descriptors",
                format!("{fd} is still open"),
            ));
        }
    }
    Ok(())
}

fn list_descriptors() -> io::Result<Vec<i32>> {
    let mut list = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        if let Some(fd) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            list.push(fd);
        }
    }
    Ok(list)
}

fn failed(what: &'static str, why: impl ToString) -> HardenError {
    HardenError {
        what,
        why: why.to_string(),
    }
}
